"""All seven schedulers on every noise schedule and any number of steps: they draw, and end at the clean picture."""

import json

import diffusers
import numpy as np
import pytest
import tiny
import torch
from diffusers import DDPMScheduler

from course_utils.data.images import to_tensor
from course_utils.diffusion import samplers
from course_utils.pipelines.picture_book import SCHEDULERS, draw, make_scheduler, save_pipeline
from course_utils.pipelines.png_info import Settings

SCHEDULES = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "linear, weak": {"beta_schedule": "linear", "beta_start": 1e-5, "beta_end": 1e-3},
    "Stable Diffusion's": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
FEW = [1, 2, 3, 4, 5, 6, 7, 10, 13, 20, 30, 50]
CLEAN = torch.tensor([[0.7, -1.3, 0.2]], dtype=torch.float64)


def sample(scheduler, steps):
    """Sample with the exact answers for data that are one single point, CLEAN: every method must end there."""
    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(steps)
    x_t = torch.randn(CLEAN.shape, generator=generator) * scheduler.init_noise_sigma
    noisy = {"generator": generator} if isinstance(scheduler, DDPMScheduler) else {}
    sigmas = getattr(scheduler, "sigmas", None)
    for t in scheduler.timesteps:
        a = scheduler.alphas_cumprod[int(t)] if sigmas is None else 1 / (1 + sigmas[scheduler.step_index or 0] ** 2)
        a = a.double().clamp(max=1 - 1e-9)
        eps = (scheduler.scale_model_input(x_t, t).double() - a.sqrt() * CLEAN) / (1 - a).sqrt()
        v = a.sqrt() * eps - (1 - a).sqrt() * CLEAN
        answer = {"epsilon": eps, "v_prediction": v}[scheduler.config.prediction_type]
        x_t = scheduler.step(answer.float(), t, x_t, **noisy).prev_sample
    return x_t


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_every_scheduler_ends_at_the_clean_picture(sampler, schedule):
    long = [77, 334, 600] if schedule == "linear" else []
    for steps in [*FEW, *long]:
        for kind in ("epsilon", "v_prediction"):
            config = DDPMScheduler(prediction_type=kind, **SCHEDULES[schedule]).config
            x_0 = sample(make_scheduler(sampler, config), steps)
            # PLMS averages what the U-Net says at different times: exact for eps, and only where a little of the
            # picture is left at the noisy end.
            inexact = sampler == "pndm" and (kind == "v_prediction" or schedule == "cosine") and steps <= 20
            assert (x_0 - CLEAN).abs().max() < (10 if inexact else 0.01), (steps, kind)


@pytest.mark.parametrize("sampler", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 3, 77, 999, 1000])
def test_schedulers_take_any_number_of_steps_and_start_at_the_noisiest(sampler, steps):
    for schedule in SCHEDULES.values():
        scheduler = make_scheduler(sampler, DDPMScheduler(**schedule).config)
        scheduler.set_timesteps(steps)
        assert len(scheduler.timesteps) >= steps
        assert scheduler.timesteps[0] == pytest.approx(999, abs=1)  # Karras's levels lie between whole times
        assert scheduler.timesteps.min() >= 0
        assert not scheduler.config.get("clip_sample")  # the default of DDPMScheduler


def wavy_eps(x_t, t, cond=None):
    return torch.tanh(x_t) + 0.1 * torch.sin(t.reshape(-1, 1, 1, 1) / 100)


@pytest.mark.parametrize("steps", [3, 6, 7, 9, 13, 20, 30, 50, 77])
def test_ddim_is_the_courses_for_every_number_of_steps(steps):
    scheduler = make_scheduler("ddim", DDPMScheduler(**SCHEDULES["Stable Diffusion's"]).config)
    scheduler.set_timesteps(steps)
    times = samplers.trailing_times(1000, steps)
    assert scheduler.timesteps.tolist() == times
    x_t = samplers.draw_noise((2, 3, 4, 4), torch.Generator().manual_seed(0))
    ours = samplers.ddim(wavy_eps, x_t, scheduler.alphas_cumprod, times)
    for t, mine in zip(scheduler.timesteps, ours, strict=True):
        x_t = scheduler.step(wavy_eps(x_t, t.expand(len(x_t))), t, x_t).prev_sample
        torch.testing.assert_close(mine.x_t, x_t, rtol=1e-3, atol=2e-4)


def test_drawing_with_ddim_is_the_courses_text_to_image():
    pipe, prompt = tiny.tiny_pipeline(), "a cute corgi puppy on the grass"
    ((picture, _),) = draw(pipe, Settings(prompt, steps=7, sampler="ddim", guidance=4.0, seed=3))
    encode = lambda texts: pipe.text_encoder(pipe.tokenizer(  # noqa: E731
        texts, padding="max_length", return_tensors="pt").input_ids).last_hidden_state  # fmt: skip
    ours = samplers.text_to_image(
        [prompt],
        encode,
        lambda x_t, t, cond: pipe.unet(x_t, t, encoder_hidden_states=cond).sample,
        lambda x_0: pipe.vae.decode(x_0 / pipe.vae.config.scaling_factor).sample,
        torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(3)),
        pipe.scheduler.alphas_cumprod,
        samplers.trailing_times(1000, 7),
    )
    assert ((ours.clamp(-1, 1) - to_tensor([picture])).abs() * 127.5).max() <= 1


def test_the_name_alone_decides_not_the_scheduler_that_was_there_before():
    def walk(scheduler):
        scheduler.set_timesteps(5)
        x_t = torch.linspace(-2, 2, 5)[None] * scheduler.init_noise_sigma
        noisy = {"generator": torch.Generator().manual_seed(0)} if isinstance(scheduler, DDPMScheduler) else {}
        for t in scheduler.timesteps:
            x_t = scheduler.step(scheduler.scale_model_input(x_t, t).tanh(), t, x_t, **noisy).prev_sample
        return x_t

    config = DDPMScheduler(**SCHEDULES["linear"]).config
    for sampler in SCHEDULERS:
        expected = walk(make_scheduler(sampler, config))
        for before in SCHEDULERS:
            found = walk(make_scheduler(sampler, make_scheduler(before, config).config))
            assert torch.equal(found, expected), (before, sampler)


@pytest.mark.parametrize("sampler", SCHEDULERS)
@pytest.mark.parametrize(
    "change, words",
    [
        ({"beta_start": 0.01, "beta_end": 0.5}, "alpha_bar, must stay between 0 and 1"),
        ({"beta_start": 0.0, "beta_end": 0.0}, "alpha_bar, must stay between 0 and 1"),
        ({"beta_schedule": "zigzag"}, "zigzag"),
    ],
)
def test_a_noise_schedule_that_cannot_be_drawn_with_is_refused(sampler, change, words):
    config = {**DDPMScheduler().config, **change}
    del config["_use_default_values"]  # diffusers leaves out what is listed here
    with pytest.raises(ValueError, match=f"'{sampler.replace('+', '.')}' cannot use this noise schedule.*{words}"):
        make_scheduler(sampler, config)


def test_more_steps_than_the_model_has_times_are_refused():
    pipe = tiny.tiny_pipeline()
    before, pipe.scheduler = pipe.scheduler, DDPMScheduler(num_train_timesteps=10)
    try:
        for sampler in SCHEDULERS:
            with pytest.raises(ValueError, match="steps must be a whole number from 1 to 10, but is 20"):
                draw(pipe, Settings("a corgi", sampler=sampler))
            ((picture, _),) = draw(pipe, Settings("a corgi", steps=10, sampler=sampler))
            assert np.asarray(picture).std() > 0
    finally:
        pipe.scheduler = before


@pytest.mark.parametrize("sampler", ["dpm++", "pndm"])
def test_a_pipeline_is_saved_with_a_scheduler_of_the_library(tmp_path, sampler):
    pipe = tiny.tiny_pipeline()
    before, pipe.scheduler = pipe.scheduler, make_scheduler(sampler, pipe.scheduler.config)
    try:
        mine = pipe.scheduler
        save_pipeline(pipe, tmp_path / "model")
        assert pipe.scheduler is mine
    finally:
        pipe.scheduler = before
    library, name = json.loads((tmp_path / "model/model_index.json").read_text())["scheduler"]
    assert library == "diffusers"
    saved = getattr(diffusers, name).from_pretrained(tmp_path / "model/scheduler")
    assert saved.config.beta_end == 0.012
