"""The safety checker against diffusers' own, thresholds against counting, and the list of words."""

import pytest
import torch
from thin_stable_diffusion import thin_parts
from torch.nn import functional as F

from course_utils.metrics.safety import CARE, flagged, forbidden_words, threshold_for


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def checker():
    """diffusers' checker with a thin CLIP, and pictures of which some are flagged."""
    import diffusers

    diffusers.utils.logging.get_logger("diffusers").setLevel("ERROR")
    model = thin_parts()["safety_checker"]
    with torch.no_grad():
        model.concept_embeds.copy_(numbers(17, 16, seed=1))
        model.special_care_embeds.copy_(numbers(3, 16, seed=2))
    pictures = numbers(64, 3, 32, 32, seed=3)
    with torch.no_grad():
        seen = model.visual_projection(model.vision_model(pictures)[1])
    return model, pictures, seen


@pytest.mark.parametrize(
    "threshold, special", [(0.7, 2.0), (0.62, 0.4), (0.62, -2.0), (0.55, 0.3), (2.0, -2.0), (-2.0, 2.0)]
)
def test_the_checker_is_diffusers_own(checker, threshold, special):
    model, pictures, seen = checker
    with torch.no_grad():
        model.concept_embeds_weights.copy_(threshold + 0.02 * numbers(17, seed=4))
        model.special_care_embeds_weights.fill_(special)
        _, theirs = model(pictures, torch.zeros(64, 3, 4, 4))
    ours = flagged(
        seen, model.concept_embeds, model.concept_embeds_weights, model.special_care_embeds,
        model.special_care_embeds_weights,
    )  # fmt: skip
    assert ours.dtype == torch.bool and ours.tolist() == theirs


def test_special_care_changes_what_is_flagged_by_a_hundredth(checker):
    model, pictures, seen = checker
    cosines = F.normalize(seen, dim=1) @ F.normalize(model.concept_embeds, dim=1).T
    just_above = cosines.max(0).values + CARE / 2  # no picture reaches a threshold, but all are within the care of it
    never, always = torch.full((3,), 2.0), torch.full((3,), -2.0)
    assert not flagged(seen, model.concept_embeds, just_above, model.special_care_embeds, never).any()
    assert flagged(seen, model.concept_embeds, just_above, model.special_care_embeds, always).any()
    assert not flagged(seen, model.concept_embeds, just_above).any()


def test_scores_are_rounded_to_three_decimals():
    image, concept = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0]])  # cosine 1
    assert not flagged(image, concept, torch.tensor([1 - 0.0004]))
    assert flagged(image, concept, torch.tensor([1 - 0.0006]))
    assert flagged(image, concept, torch.tensor([1.009]), concept, torch.tensor([0.9]))
    assert not flagged(image, concept, torch.tensor([1.009]), concept, torch.tensor([0.9997]))


def test_a_threshold_lets_no_more_than_its_rate_of_the_harmless_be_above():
    scores = numbers(997)
    for rate in (0.0, 0.01, 0.05, 0.5, 0.99):
        threshold = threshold_for(scores, rate)
        assert (scores > threshold).double().mean() <= rate
        lower = scores[scores < threshold]
        assert not len(lower) or (scores > lower.max()).double().mean() > rate
    assert threshold_for(torch.tensor([1.0, 1.0, 0.0]), 0.4) == 1.0  # ties


def test_the_list_finds_whole_words_in_any_letters_and_nothing_else():
    words = ["tulip", "Tulips"]
    assert forbidden_words("A TULIP, two tulips!", words) == ["tulip", "tulips"]
    for prompt in ("a flower", "a tuliptulip", "a tullip", "a tu lip", "a tul\u0456p", ""):
        assert forbidden_words(prompt, words) == []
    with pytest.raises(ValueError, match="list of words"):
        forbidden_words("a tulip", "tulip")


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: flagged(numbers(2, 3), numbers(4, 5), numbers(4)), "embeddings"),
        (lambda: flagged(numbers(3), numbers(4, 3), numbers(4)), "embeddings"),
        (lambda: flagged(numbers(2, 3), numbers(4, 3), numbers(5)), "threshold for each of 4"),
        (lambda: flagged(numbers(2, 3), numbers(4, 3), numbers(4), numbers(1, 3)), "both"),
        (lambda: threshold_for(numbers(0), 0.1), "scores"),
        (lambda: threshold_for(numbers(3), 1.0), "rate"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
