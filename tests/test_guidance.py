"""Guidance: against autograd on a mixture of Gaussians, against diffusers, and by its limits."""

import pytest
import torch
from tiny import tiny_parts

from course_utils.diffusion import samplers
from course_utils.diffusion.guidance import classifier_score, compose, drop_prompts, guide, rescale, text_loss
from course_utils.diffusion.objectives import mixture_eps
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.diffusion.steps import ddim_step
from course_utils.models.attention import word_maps

ALPHA_BAR = alpha_bar_from_beta(scaled_linear_beta(100))
CENTRES = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_prompts_are_dropped_as_a_whole_and_about_as_often_as_asked():
    cond, null = numbers(4000, 3, 2), numbers(1, 3, 2, seed=1)
    uniforms = torch.rand(4000, generator=torch.Generator().manual_seed(2))
    dropped = drop_prompts(cond, null, uniforms, 0.1)
    is_null = (dropped == null).all(2).all(1)
    assert torch.equal(dropped[~is_null], cond[~is_null]) and torch.equal(is_null, uniforms < 0.1)
    assert 0.08 < is_null.float().mean() < 0.12
    assert torch.equal(drop_prompts(cond, null, uniforms, 0), cond)
    with pytest.raises(ValueError, match="one number for each of 4000 prompts"):
        drop_prompts(cond, null, uniforms[:3])


def test_the_loss_of_the_exact_model_is_zero_and_it_is_told_time_and_prompt():
    x0, eps, cond = numbers(6, 4, 2, 2), numbers(6, 4, 2, 2, seed=1), numbers(6, 3, 2, seed=2)
    t, null, uniforms = torch.tensor([0, 9, 20, 50, 98, 99]), torch.zeros(1, 3, 2), torch.full((6,), 0.5)

    def knows(x_t, times, c):
        assert torch.equal(times, t) and torch.equal(c, cond)
        return (x_t - add_noise(x0, torch.zeros_like(x0), t, ALPHA_BAR)) / (1 - ALPHA_BAR[t]).sqrt().view(-1, 1, 1, 1)

    assert text_loss(knows, x0, cond, null, t, eps, uniforms, ALPHA_BAR) < 1e-8
    silent = text_loss(lambda x_t, times, c: torch.zeros_like(x_t), x0, cond, null, t, eps, uniforms, ALPHA_BAR)
    assert silent.item() == pytest.approx(eps.square().mean().item(), rel=1e-5)


def test_the_classifier_score_is_the_gradient_of_the_log_posterior():
    x_t, t = numbers(50, 2).requires_grad_(), torch.arange(0, 100, 2)
    a = ALPHA_BAR[t][:, None]
    variance = a * 0.25 + 1 - a
    logs = -(x_t[:, None] - a.sqrt()[:, None] * CENTRES).square().sum(2) / (2 * variance)
    (gradient,) = torch.autograd.grad(logs.log_softmax(1)[:, 1].sum(), x_t)
    with torch.no_grad():
        eps_cond, eps_null = (mixture_eps(x_t, t, ALPHA_BAR, c, 0.5) for c in (CENTRES[1:2], CENTRES))
        assert torch.allclose(classifier_score(eps_cond, eps_null, t, ALPHA_BAR), gradient, atol=1e-4)


def test_guidance_at_its_marked_points_and_as_one_of_many_prompts():
    null, cond, other = (numbers(3, 2, 4, 4, seed=seed) for seed in range(3))
    assert torch.equal(guide(null, cond, 0), null) and torch.allclose(guide(null, cond, 1), cond, atol=1e-6)
    assert torch.allclose(compose(null, cond[None], [4.0]), guide(null, cond, 4.0), atol=1e-5)
    negative = compose(null, torch.stack([cond, other]), [4.0, -3.0])  # w and 1 - w
    assert torch.allclose(negative, guide(other, cond, 4.0), atol=1e-5)
    with pytest.raises(ValueError, match="one weight for each prompt"):
        compose(null, torch.stack([cond, other]), [4.0])


def test_rescaling_is_that_of_diffusers():
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    eps, cond = 3 * numbers(3, 4, 8, 8), numbers(3, 4, 8, 8, seed=1)
    for share in (0.0, 0.7, 1.0):
        assert torch.allclose(rescale(eps, cond, share), rescale_noise_cfg(eps, cond, share), atol=1e-5)
    assert torch.allclose(rescale(eps, cond, 1.0).flatten(1).std(1), cond.flatten(1).std(1))


def test_word_maps_are_torchs_attention_of_values_that_say_who_they_are():
    q, k = numbers(2, 16, 8), numbers(2, 5, 8, seed=1)
    heads = [part.unflatten(2, (4, 2)).transpose(1, 2) for part in (q, k)]
    seen = torch.nn.functional.scaled_dot_product_attention(*heads, torch.eye(5).expand(2, 4, 5, 5)).mean(1)
    maps = word_maps(q, k, 4)
    assert torch.allclose(maps, seen.transpose(1, 2).reshape(2, 5, 4, 4), atol=1e-6)
    with pytest.raises(ValueError, match="square"):
        word_maps(q[:, :15], k, 4)


def test_text_to_image_is_diffusers_pipeline_picture_for_picture():
    from diffusers import DDIMScheduler

    from course_utils.pipelines.picture_book import assemble
    from course_utils.text.tokens import encode

    parts = tiny_parts()
    ddim = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        timestep_spacing="trailing",
    )
    pipe = assemble(**{**parts, "scheduler": ddim})
    pipe.set_progress_bar_config(disable=True)
    prompts, x_T = ["a red ball", "a white cat in the snow"], numbers(2, 4, 16, 16)
    theirs = pipe(
        prompts,
        negative_prompt=["a green car"] * 2,
        guidance_scale=3.0,
        num_inference_steps=5,
        latents=x_T,
        output_type="pt",
    ).images
    ours = samplers.text_to_image(
        prompts,
        lambda texts: encode(pipe.tokenizer, pipe.text_encoder, texts),
        lambda x_t, t, cond: pipe.unet(x_t, t, cond).sample,
        lambda x: pipe.vae.decode(x).sample,
        x_T,
        pipe.scheduler.alphas_cumprod,
        samplers.trailing_times(1000, 5),
        3.0,
        "a green car",
    )
    assert torch.allclose((ours / 2 + 0.5).clamp(0, 1), theirs, atol=1e-4)
    with pytest.raises(ValueError, match="one x_T for each"):
        samplers.text_to_image(prompts, None, None, None, x_T[:1], ALPHA_BAR, [9])


def test_the_loop_asks_for_both_prompts_at_each_time():
    asked = []

    def model(x_t, t, cond):
        asked.append((t.tolist(), cond.flatten().tolist()))
        return cond.expand_as(x_t)

    texts = {"a": 1.0, "": -1.0}
    drawn = samplers.text_to_image(
        ["a"],
        lambda p: torch.tensor([[[texts[x]]] for x in p]),
        model,
        lambda x: 10 * x,
        torch.ones(1, 1, 1),
        ALPHA_BAR,
        [90, 10],
        2.0,
    )
    assert asked == [([90, 90], [-1.0, 1.0]), ([10, 10], [-1.0, 1.0])]
    x = torch.ones(1, 1, 1)
    for t, earlier in ((90, 10), (10, -1)):
        x = ddim_step(x, torch.full((1, 1, 1), 3.0), t, earlier, ALPHA_BAR)
    assert torch.allclose(drawn, 10 * x, rtol=1e-5)
