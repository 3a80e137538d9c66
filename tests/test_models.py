"""CLIP's loss, the judge and what is measured with it."""

import math

import pytest
import torch

from course_utils.data import picture_book as book
from course_utils.metrics.pictures import adherence, fault, follows, psnr
from course_utils.models.clip import contrastive_loss
from course_utils.models.judge import Finding, Judge, JudgeConfig, Verdict, detection_loss, read
from course_utils.recipes.judge import answer


def unit(rows, columns, seed):
    vectors = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_contrastive_loss_is_that_of_transformers():
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    image, text = unit(6, 8, 0), unit(6, 8, 1)
    none = torch.zeros(6, 6, dtype=torch.bool)
    torch.testing.assert_close(
        contrastive_loss(image, text, torch.tensor(5.0), none), image_text_contrastive_loss(5.0 * text @ image.T)
    )


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
    return JudgeConfig(
        tuple(book.SUBJECTS),
        (*book.COLOURS, "natural"),
        book.ALL_POSES,
        book.PLACES,
        tuple(book.STYLES),
        widths=(8, 8, 16, 16),
    )


def test_the_judge_learns_a_few_pictures_and_reads_them_back():
    torch.manual_seed(0)
    corgi, ball = book.Thing("corgi", "blue", "standing"), book.Thing("ball", "red")
    scenes = [
        book.Scene((corgi,), "night", 4),
        book.Scene((ball, corgi), "snow", 5, "pixel art", "above"),
        book.Scene((ball,) * 3, "room", 6, "watercolour"),
    ]
    judge, pictures = Judge(judge_config()), book.pictures(scenes)
    optimizer = torch.optim.Adam(judge.parameters(), 3e-3)
    things, wholes = (
        torch.stack(parts) for parts in zip(*(answer(judge.config, scene, 64) for scene in scenes), strict=True)
    )
    for _ in range(150):
        loss = detection_loss(judge(pictures), things, wholes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    captions = [book.caption(scene) for scene in scenes]
    for scene, verdict, caption in zip(scenes, read(judge, pictures), captions, strict=True):
        assert (verdict.place, verdict.style) == (scene.place, scene.style)
        found = sorted((f.x, f.y) for f in verdict.findings)
        assert len(found) == len(scene.things)
        for (x, y), spot in zip(found, sorted(book.layout(scene), key=lambda spot: spot.x), strict=True):
            assert abs(x - 64 * spot.centre[0]) <= 4 and abs(y - 64 * spot.centre[1]) <= 4
        assert follows(verdict, caption)
    assert adherence(judge, pictures, [captions[1], *captions[1:]]) == pytest.approx(2 / 3)


def test_things_without_poses_give_the_pose_head_a_gradient_of_zero():
    judge = Judge(judge_config())
    things, wholes = answer(judge.config, book.Scene((book.Thing("ball"),), "snow"), 64)
    picture = book.pictures([book.Scene((book.Thing("ball"),), "snow")])
    detection_loss(judge(picture), things[None], wholes[None]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in judge.parameters())
    assert judge.heads[2].weight.grad.abs().max() == 0


def test_only_everything_right_is_right():
    scene = book.Scene((book.Thing("cat", "red", "sitting"),), "snow")
    caption = book.caption(scene)
    found = Finding("cat", "red", "sitting", 0.9, 32, 32)
    assert follows(Verdict((found,), "snow", "pixel art"), caption)
    for verdict in (
        Verdict((), "snow", "watercolour"),
        Verdict((found, found), "snow", "watercolour"),
        Verdict((found,), "beach", "watercolour"),
        Verdict((Finding("corgi", "red", "sitting", 0.9, 32, 32),), "snow", "watercolour"),
        Verdict((Finding("cat", "blue", "sitting", 0.9, 32, 32),), "snow", "watercolour"),
        Verdict((Finding("cat", "red", "standing", 0.9, 32, 32),), "snow", "watercolour"),
    ):
        assert not follows(verdict, caption)


def test_two_things_are_told_apart_wherever_the_judge_met_them_first():
    cat, ball = Finding("cat", "red", "sitting", 0.9, 16, 40), Finding("ball", "blue", "sitting", 0.9, 48, 40)
    things = (book.Thing("cat", "red"), book.Thing("ball", "blue"))
    swapped = (book.Thing("cat", "blue"), book.Thing("ball", "red"))
    for findings in ((cat, ball), (ball, cat)):
        verdict = Verdict(findings, "snow", "watercolour")
        for relation, right in (("left of", True), ("right of", False), ("above", False), (None, True)):
            assert follows(verdict, book.Caption("", things, "snow", "watercolour", relation)) == right
        assert not follows(verdict, book.Caption("", swapped, "snow"))
        assert not follows(verdict, book.Caption("", things, "snow", "pixel art"))


def test_what_is_wrong_is_named():
    def verdict(*findings, style="watercolour", place="snow"):
        return Verdict(
            tuple(Finding(kind, colour, pose, 0.9, x, 40) for kind, colour, pose, x in findings), place, style
        )

    cat, ball = ("cat", "red", "sitting", 16), ("ball", "blue", "sitting", 48)
    caption = book.Caption(
        "", (book.Thing("cat", "red", "sitting"), book.Thing("ball", "blue")), "snow", "watercolour", "left of"
    )
    for expected, seen in (
        (None, verdict(ball, cat)),
        ("style", verdict(style="pixel art")),
        ("place", verdict(place="beach")),
        ("one thing twice", verdict(cat, cat)),
        ("one thing twice", verdict(ball, ball)),
        ("a thing missing", verdict(cat)),
        ("a thing missing", verdict()),
        ("a thing too many", verdict(cat, ball, ball)),
        ("a thing too many", verdict(cat, ball, ("tree", *cat[1:]))),
        ("another thing", verdict(cat, ("tree", *ball[1:]))),
        ("colour", verdict(("cat", "blue", "sitting", 16), ("ball", "red", "sitting", 48))),
        ("pose", verdict(("cat", "red", "standing", 16), ball)),
        ("side", verdict((*cat[:3], 48), (*ball[:3], 16))),
    ):
        assert fault(seen, caption) == expected
        assert follows(seen, caption) == (expected is None)


def test_a_natural_colour_may_be_read_by_its_name():
    orange = Verdict((Finding("corgi", "orange", "sitting", 0.9, 32, 32),), "grass", "picture book")
    assert follows(orange, book.caption(book.Scene((book.Thing("corgi", None, "sitting"),), "grass")))
    grey = Verdict((Finding("cat", "natural", "sitting", 0.9, 32, 32),), "grass", "picture book")
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


@pytest.mark.parametrize("channels, size", [(1, 16), (3, 32)])
def test_the_picture_unet_answers_in_the_shape_of_its_input_and_looks_at_the_time(channels, size):
    from course_utils.models.unet import PictureUNet

    model = PictureUNet(channels, size, widths=(16, 16, 16)).eval()
    x_t = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        early, late = (model(x_t, torch.full((2,), t)) for t in (0, 999))
    assert early.shape == x_t.shape and not early.allclose(late)
    with pytest.raises(ValueError, match="a size that 4 divides"):
        PictureUNet(size=18)
