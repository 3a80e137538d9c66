"""CLIP's loss, the judge and what is measured with it."""

import math

import pytest
import torch

from course_utils.data import picture_book as book
from course_utils.metrics import adherence, follows, psnr
from course_utils.models.clip import contrastive_loss
from course_utils.models.judge import Finding, Judge, JudgeConfig, Verdict, detection_loss, read
from course_utils.recipes import COLOURS, KINDS, POSES


def unit(rows, columns, seed):
    vectors = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_contrastive_loss_is_that_of_transformers():
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    image, text = unit(6, 8, 0), unit(6, 8, 1)
    none = torch.zeros(6, 6, dtype=torch.bool)
    torch.testing.assert_close(contrastive_loss(image, text, torch.tensor(5.0), none),
                               image_text_contrastive_loss(5.0 * text @ image.T))


def test_contrastive_loss_of_unrelated_pairs_is_that_of_guessing():
    image = torch.zeros(8, 4)
    image[:, 0] = 1
    assert contrastive_loss(image, image, 1.0, torch.zeros(8, 8, dtype=torch.bool)).item() == pytest.approx(math.log(8))


def test_a_caption_that_is_true_of_another_picture_is_no_negative():
    image = unit(4, 8, 0)
    text = image.clone()
    text[1] = image[0]  # captions 0 and 1 say the same, and both are true of picture 0
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    with_mask = contrastive_loss(image, text, 20.0, same)
    without = contrastive_loss(image, text, 20.0, torch.zeros(4, 4, dtype=torch.bool))
    assert with_mask < without


def judge_config():
    return JudgeConfig(KINDS, COLOURS, POSES, book.PLACES, widths=(8, 8, 16, 16))


def test_the_judge_learns_one_picture_and_reads_it_back():
    torch.manual_seed(0)
    judge = Judge(judge_config())
    scene = book.Scene((book.Thing("corgi", "blue", "standing"),), "night", 4)
    picture = book.pictures([scene])
    optimizer = torch.optim.Adam(judge.parameters(), 3e-3)
    label = [torch.tensor([i]) for i in (KINDS.index("corgi"), COLOURS.index("blue"), POSES.index("standing"), 9, 5,
                                         book.PLACES.index("night"))]
    for _ in range(60):
        loss = detection_loss(judge(picture), *label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (verdict,) = read(judge, picture)
    (found,) = verdict.findings
    assert (found.kind, found.colour, found.pose, verdict.place) == ("corgi", "blue", "standing", "night")
    assert (found.x, found.y) == (5.5 * 4, 9.5 * 4)
    assert follows(verdict, book.caption(scene))
    assert adherence(judge, picture.repeat(2, 1, 1, 1),
                     [book.caption(scene), book.caption(book.Scene(scene.things, "snow"))]) == 0.5


def test_only_everything_right_is_right():
    scene = book.Scene((book.Thing("cat", "red", "sitting"),), "snow")
    caption = book.caption(scene)
    found = Finding("cat", "red", "sitting", 0.9, 32, 32)
    assert follows(Verdict((found,), "snow"), caption)
    for verdict in (Verdict((), "snow"), Verdict((found, found), "snow"), Verdict((found,), "beach"),
                    Verdict((Finding("corgi", "red", "sitting", 0.9, 32, 32),), "snow"),
                    Verdict((Finding("cat", "blue", "sitting", 0.9, 32, 32),), "snow"),
                    Verdict((Finding("cat", "red", "standing", 0.9, 32, 32),), "snow")):
        assert not follows(verdict, caption)


def test_a_natural_colour_may_be_read_by_its_name():
    orange = Verdict((Finding("corgi", "orange", "sitting", 0.9, 32, 32),), "grass")
    assert follows(orange, book.caption(book.Scene((book.Thing("corgi", None, "sitting"),), "grass")))
    grey = Verdict((Finding("cat", "natural", "sitting", 0.9, 32, 32),), "grass")
    assert follows(grey, book.caption(book.Scene((book.Thing("cat", None, "sitting"),), "grass")))


def test_psnr_is_that_of_scikit_image():
    from skimage.metrics import peak_signal_noise_ratio

    first = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    second = (first + 0.1).clamp(-1, 1)
    for a, b, value in zip(first, second, psnr(first, second), strict=True):
        assert value.item() == pytest.approx(peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=2), rel=1e-5)
    with pytest.raises(ValueError, match="one shape"):
        psnr(first, second[:1])
    with pytest.raises(ValueError, match="one caption a picture"):
        adherence(Judge(judge_config()), first, [])
