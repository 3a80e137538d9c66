"""Stable Diffusion 3 and Flux by the course's loop, against diffusers' pipelines with the same thin parts."""

import copy

import pytest
import torch
from thin_flow import thin_flux, thin_sd3

from course_utils.pipelines import rectified_flow

PROMPTS = ["a red ball on the beach", "a cat"]
SIDE = 64


def dice():
    return [torch.Generator().manual_seed(seed) for seed in range(2)]


@pytest.mark.parametrize(("steps", "guidance"), [(4, 7.0), (7, 2.5)])
def test_stable_diffusion_3_is_that_of_diffusers(steps, guidance):
    pipe = thin_sd3()
    how = {"num_inference_steps": steps, "guidance_scale": guidance, "height": SIDE, "width": SIDE}
    theirs = pipe(PROMPTS, negative_prompt=["snow"] * 2, generator=dice(), output_type="pt", **how).images
    x_1 = rectified_flow.first_noise(pipe, 2, dice(), SIDE)
    ours = rectified_flow.draw_sd3(pipe, PROMPTS, x_1, steps, guidance, negative="snow")
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=1e-5)
    assert ours.abs().max() < 1 or (ours.abs() < 1).float().mean() > 0.9  # little is clamped


@pytest.mark.parametrize("guided", [True, False], ids=["dev", "schnell"])
def test_flux_is_that_of_diffusers(guided):
    pipe = thin_flux(guided)
    how = {"num_inference_steps": 4, "guidance_scale": 3.0, "height": SIDE, "width": SIDE}
    length = 512 if guided else 256
    theirs = pipe(PROMPTS, max_sequence_length=length, generator=dice(), output_type="pt", **how).images
    ours = rectified_flow.draw_flux(pipe, PROMPTS, rectified_flow.first_noise(pipe, 2, dice(), SIDE), 4, 3.0)
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("draw", [rectified_flow.draw_sd3, rectified_flow.draw_flux])
def test_in_half_precision_the_loop_itself_stays_in_float32(draw):
    pipe = thin_sd3() if draw is rectified_flow.draw_sd3 else thin_flux()
    half = copy.deepcopy(pipe).to(torch.bfloat16)
    x_1 = rectified_flow.first_noise(pipe, 2, dice(), SIDE)
    ours = draw(half, PROMPTS, x_1, 4)
    assert half.transformer.dtype == torch.bfloat16 and ours.dtype == torch.float32
    assert 0 < (ours - draw(pipe, PROMPTS, x_1, 4)).abs().mean() < 0.05


def test_larger_pictures_are_shifted_more():
    pipe = thin_flux()
    small, large = (rectified_flow.flux_times(pipe, 8, tokens) for tokens in (256, 4096))
    assert (large[1:-1] > small[1:-1]).all() and large[0] == small[0] == 1 and large[-1] == small[-1] == 0
    odds = (t[4] / (1 - t[4]) for t in (small, large))  # the middle time, 1/2 before the shift
    torch.testing.assert_close(torch.stack(list(odds)).log(), torch.tensor([0.5, 1.15], dtype=torch.float64))


def test_a_side_that_cannot_be_cut_is_told():
    with pytest.raises(ValueError, match="16 divides"):
        rectified_flow.first_noise(thin_sd3(), 1, torch.Generator(), 72)


def test_words_and_guidance_change_the_picture():
    for pipe, draw in ((thin_sd3(), rectified_flow.draw_sd3), (thin_flux(), rectified_flow.draw_flux)):
        x_1 = rectified_flow.first_noise(pipe, 2, torch.Generator().manual_seed(0), SIDE)
        picture = draw(pipe, PROMPTS, x_1, 2, 3.0)
        assert not torch.allclose(draw(pipe, PROMPTS[::-1], x_1, 2, 3.0), picture, atol=1e-4)
        assert not torch.allclose(draw(pipe, PROMPTS, x_1, 2, 9.0), picture, atol=1e-4)
