"""CLIP by hand: its encoders are those of transformers; its losses and uses have closed forms."""

import math

import pytest
import torch
from tiny import tiny_tokenizer
from torch.nn import functional as F

from course_utils.metrics.pictures import clip_scores, recall_at_k
from course_utils.models.clip import (
    Embed,
    contrastive_loss,
    cosine_logits,
    info_nce,
    small_clip,
    without_false_negatives,
    zero_shot,
)
from course_utils.models.clip_by_hand import ClipByHand, SelfAttention, embed_patches, pool
from course_utils.text.tokens import tokenize


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def both():
    """Transformers' CLIP and ours, with the same weights, and a tokenizer."""
    tokenizer = tiny_tokenizer(16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        library = small_clip(tokenizer, width=32, layers=2, size=16, patch=4).eval()
        ours = ClipByHand(len(tokenizer), 16, tokenizer.eos_token_id, width=32, layers=2, size=16, patch=4)
    ours.load_state_dict(library.state_dict())
    return library, ours, tokenizer


def test_it_is_transformers_clip(both):
    library, ours, tokenizer = both
    pictures, tokens = numbers(3, 3, 16, 16), tokenize(tokenizer, ["a red ball", "", "a cute corgi puppy in the snow"])
    for got, expected in zip(ours(pictures, tokens), Embed(library)(pictures, tokens), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        ours.text_model(tokens), library.text_model(tokens).last_hidden_state, rtol=1e-4, atol=1e-5
    )
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in library.parameters())


def test_a_word_sees_only_what_stands_before_it(both):
    _, ours, tokenizer = both
    one, other = (ours.text_model(tokenize(tokenizer, [f"a red {word}"])) for word in ("ball", "corgi"))
    start, a, red = 0, 1, 2
    for place in (start, a, red):
        torch.testing.assert_close(one[:, place], other[:, place])
    assert not torch.allclose(one[:, 3], other[:, 3])
    with pytest.raises(ValueError, match="heads"):
        SelfAttention(10, 4)


def test_pooling_takes_the_first_end_token():
    hidden, tokens = numbers(2, 4, 3), torch.tensor([[8, 5, 9, 9], [8, 9, 9, 9]])
    torch.testing.assert_close(pool(hidden, tokens, 9), torch.stack([hidden[0, 2], hidden[1, 1]]))
    with pytest.raises(ValueError, match="end token 7"):
        pool(hidden, tokens, 7)


def test_patches_are_read_row_by_row_behind_the_first_token():
    pictures = torch.arange(8.0).reshape(1, 1, 2, 4)  # two patches of 2 x 2 pixels
    weight, first, places = torch.ones(1, 1, 2, 2), torch.tensor([100.0]), torch.tensor([[0.1], [0.2], [0.3]])
    expected = torch.tensor([[[100.1], [0 + 1 + 4 + 5 + 0.2], [2 + 3 + 6 + 7 + 0.3]]])
    torch.testing.assert_close(embed_patches(pictures, weight, first, places), expected)


def test_logits_are_cosines_times_the_scale():
    image, text = numbers(3, 5), numbers(4, 5, seed=1)
    expected = torch.stack([F.cosine_similarity(one, text) for one in image])
    torch.testing.assert_close(cosine_logits(7 * image, text / 3, 10.0), 10 * expected)


def test_the_loss_of_equal_logits_is_that_of_guessing_and_of_sure_ones_zero():
    assert info_nce(torch.full((8, 8), 3.0)).item() == pytest.approx(math.log(8))
    assert info_nce(100 * torch.eye(8)).item() == pytest.approx(0, abs=1e-6)
    logits = numbers(6, 6)
    torch.testing.assert_close(info_nce(logits), info_nce(logits.T))
    torch.testing.assert_close(info_nce(logits), info_nce(logits + 5))


def test_left_out_pairs_count_for_nothing():
    logits, same = numbers(4, 4), torch.zeros(4, 4, dtype=torch.bool)
    same[0, 2] = True
    masked = without_false_negatives(logits, same | torch.eye(4, dtype=torch.bool))
    assert masked[0, 2] == float("-inf") and masked.isinf().sum() == 1
    changed = logits.clone()
    changed[0, 2] += 9
    torch.testing.assert_close(info_nce(masked), info_nce(without_false_negatives(changed, same)))
    vectors = F.normalize(numbers(4, 4, seed=2), dim=1)
    torch.testing.assert_close(
        contrastive_loss(vectors, vectors, 5.0, same), info_nce(without_false_negatives(5 * vectors @ vectors.T, same))
    )


def test_zero_shot_averages_directions_and_not_lengths():
    text = torch.tensor([[[1.0, 0], [1, 0]], [[0, 1], [1, 1]]])  # the second class points to 67.5 degrees
    angles = torch.tensor([30.0, 36.0]).deg2rad()  # half-way: 33.75 degrees
    image = torch.stack([angles.cos(), angles.sin()], 1)
    assert zero_shot(image, text).tolist() == [0, 1]
    assert zero_shot(3 * image, text * torch.tensor([1.0, 50.0])[:, None, None]).tolist() == [0, 1]


def test_recall_counts_queries_and_not_answers():
    similarity = torch.tensor([[0.9, 0.1, 0.5], [0.8, 0.2, 0.5], [0.1, 0.7, 0.3]])
    assert recall_at_k(similarity, 1) == pytest.approx(1 / 3) and recall_at_k(similarity, 2) == pytest.approx(2 / 3)
    assert recall_at_k(similarity.T, 1) == pytest.approx(1 / 3) and recall_at_k(similarity, 3) == 1
    with pytest.raises(ValueError, match="k from 1 to n"):
        recall_at_k(similarity, 4)


def test_the_clip_score_is_the_cosine_of_a_picture_and_its_own_text(both):
    library, _, tokenizer = both
    pictures, texts = numbers(70, 3, 16, 16), ["a red ball", "a cat on the beach"] * 35  # more than one part
    scores = clip_scores(library, tokenizer, pictures, texts)
    out = library(pixel_values=pictures, input_ids=tokenize(tokenizer, texts))
    cosine = (out.image_embeds * out.text_embeds).sum(1)
    torch.testing.assert_close(scores, (100 * cosine).clamp(min=0).detach(), rtol=1e-4, atol=1e-3)
    assert scores.shape == (70,) and not scores.requires_grad and scores.min() >= 0 and scores.max() <= 100
    for pair in ((pictures[:1], texts), (pictures[:0], [])):
        with pytest.raises(ValueError, match="one text a picture"):
            clip_scores(library, tokenizer, *pair)
