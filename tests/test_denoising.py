"""The loop by hand gives what diffusers' pipeline gives: any scheduler, any kind of prediction, any batch."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from thin_stable_diffusion import thin_pipeline
from tiny import tiny_pipeline

from course_utils.pipelines.denoising import clean_guess, denoise, encode_both, first_latents, to_pixels, watch
from course_utils.pipelines.picture_book import SCHEDULERS, make_scheduler

PROMPT, NEGATIVE = "a red ball left of a white cat", "two blue birds"


def by_hand(pipe, scheduler, steps, seed=3, guidance=5.0):
    both = encode_both(pipe.tokenizer, pipe.text_encoder, PROMPT, NEGATIVE)
    side = pipe.unet.config.sample_size
    shape = (1, pipe.unet.config.in_channels, side, side)
    x_T = first_latents(scheduler, steps, shape, torch.Generator().manual_seed(seed))
    return both, x_T, to_pixels(pipe.vae, denoise(pipe.unet, scheduler, x_T, both, guidance))[0].numpy()


def by_pipeline(pipe, scheduler, steps, seed=3, guidance=5.0):
    before = pipe.scheduler
    pipe.scheduler = scheduler
    pipe.set_progress_bar_config(disable=True)
    try:
        picture = pipe(PROMPT, negative_prompt=NEGATIVE, num_inference_steps=steps, guidance_scale=guidance,
                       generator=torch.Generator().manual_seed(seed)).images[0]  # fmt: skip
    finally:
        pipe.scheduler = before
    return np.asarray(picture)


@pytest.mark.parametrize("sampler", [name for name in SCHEDULERS if name != "ddpm"])  # ddpm draws noise at each step
def test_equal_to_the_pipeline(sampler):
    pipe = tiny_pipeline()
    ours = by_hand(pipe, make_scheduler(sampler, pipe.scheduler.config), 5)[2]
    theirs = by_pipeline(pipe, make_scheduler(sampler, pipe.scheduler.config), 5)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_equal_to_the_pipeline_of_stable_diffusions_layout():
    pipe = thin_pipeline()
    ours = by_hand(pipe, make_scheduler("euler", pipe.scheduler.config), 3)[2]
    assert np.abs(ours.astype(int) - by_pipeline(pipe, make_scheduler("euler", pipe.scheduler.config), 3)).max() <= 1


def test_watching_changes_nothing():
    pipe = tiny_pipeline()
    scheduler = make_scheduler("ddim", pipe.scheduler.config)
    both, x_T, _ = by_hand(pipe, scheduler, 4)
    scheduler.set_timesteps(4)
    stages = list(watch(pipe.unet, scheduler, x_T, both, 5.0))
    scheduler.set_timesteps(4)
    assert torch.equal(stages[-1].x_t, denoise(pipe.unet, scheduler, x_T, both, 5.0))
    assert [stage.t for stage in stages] == scheduler.timesteps.tolist()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_clean_guess_is_the_librarys(kind):
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(10)
    x_t, output, t = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), scheduler.timesteps[3]
    theirs = scheduler.step(output, t, x_t).pred_original_sample
    assert torch.allclose(clean_guess(scheduler, output, t, x_t), theirs, atol=1e-5)


def test_the_clean_guess_where_noise_is_added_not_mixed():
    scheduler = make_scheduler("euler", tiny_pipeline().scheduler.config)
    scheduler.set_timesteps(10)
    x_t, output, t = 10 * torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), scheduler.timesteps[3]
    guess = clean_guess(scheduler, output, t, x_t)
    assert torch.allclose(guess, scheduler.step(output, t, x_t).pred_original_sample, atol=1e-4)


def test_an_unknown_kind_of_prediction_is_refused():
    scheduler = DDIMScheduler()
    scheduler.register_to_config(prediction_type="flow")
    with pytest.raises(ValueError, match="got 'flow'"):
        clean_guess(scheduler, torch.ones(1), 5, torch.ones(1))
