"""Editing: closed forms for the mathematics, diffusers' own pipelines for the loops."""

import copy
import functools
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from diffusers.image_processor import VaeImageProcessor
from thin_stable_diffusion import thin_pipeline
from tiny import tiny_pipeline
from torch.nn.functional import interpolate

from course_utils.data import picture_book as book
from course_utils.diffusion import samplers
from course_utils.diffusion.editing import (
    align_tokens,
    blend_known,
    inject_maps,
    lerp,
    mask_to_latents,
    paste,
    remaining_times,
    renoise,
    repaint,
    slerp,
)
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.pipelines import editing
from course_utils.pipelines.attention_maps import injected_maps, recorded_maps
from course_utils.pipelines.picture_book import SCHEDULERS, load_picture_book, make_scheduler

ALPHA_BAR = alpha_bar_from_beta(scaled_linear_beta())


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# The mathematics


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50])
def test_the_times_that_remain_are_the_librarys(steps):
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(steps)
    pipe = SimpleNamespace(scheduler=scheduler)
    for strength in (0, 1 / steps, 1 / steps - 1e-9, 0.58, 0.99, 1, *torch.linspace(0, 1, 23).tolist()):
        theirs, count = StableDiffusionImg2ImgPipeline.get_timesteps(pipe, steps, strength, None)
        ours = remaining_times(scheduler.timesteps.tolist(), strength)
        assert ours == theirs.tolist() and len(ours) == count


def test_the_times_that_remain_at_the_edges():
    times = list(range(49, -1, -1))
    assert remaining_times(times, 1) == times
    assert remaining_times(times, 0.02) == [0]
    assert remaining_times(times, 0) == remaining_times(times, 0.0199) == []
    assert len(remaining_times(times, 0.58)) == 28
    for strength in (-0.1, 1.001, float("nan")):
        with pytest.raises(ValueError, match="strength from 0"):
            remaining_times(times, strength)


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (5, 7)])
def test_masks_become_latent_as_in_the_library(size):
    mask = torch.rand(3, 1, 32, 40, generator=torch.Generator().manual_seed(0))
    mask[0, 0, 0] = 0.5  # just painted
    processor = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True, do_resize=False)
    theirs = interpolate(processor.preprocess(mask.clone()), size=size)
    assert torch.equal(mask_to_latents(mask, size), theirs)


def test_a_thin_line_may_be_lost_in_latents():
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, :, :, 5], mask[1, :, :, 8] = 1, 1
    small = mask_to_latents(mask, (4, 4))
    assert small[0].sum() == 0 and torch.equal(small[1, 0].sum(0), torch.tensor([0.0, 0, 4, 0]))


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.ones(1, 3, 8, 8), r"\(batch, 1, height, width\), but got \(1, 3, 8, 8\)"),
        (torch.ones(8, 8), "but got"),
        (torch.full((1, 1, 8, 8), 255.0), "Divide bytes by 255"),
        (torch.full((1, 1, 8, 8), float("nan")), "from 0"),
    ],
)
def test_what_is_no_mask_is_refused(mask, words):
    with pytest.raises(ValueError, match=words):
        mask_to_latents(mask, (4, 4))


@pytest.mark.parametrize("t", [-1, 0, 400, 999])
def test_blending_is_exact_on_both_sides(t):
    x_t, x0, noise = (numbers(2, 3, 4, 6, seed=seed) for seed in range(3))
    mask = torch.zeros(1, 1, 4, 6)
    mask[..., :2] = 1
    blended = blend_known(x_t, x0, noise, mask, t, ALPHA_BAR)
    known = x0 if t == -1 else add_noise(x0, noise, torch.tensor([t, t]), ALPHA_BAR)
    assert torch.equal(blended[..., :2], x_t[..., :2])
    torch.testing.assert_close(blended[..., 2:], known[..., 2:], rtol=1e-6, atol=1e-6)


def test_what_does_not_fit_is_not_blended():
    x = numbers(2, 3, 4, 6)
    for mask in (torch.ones(1, 1, 8, 12), torch.ones(1, 3, 4, 6), torch.ones(3, 1, 4, 6), torch.ones(4, 6)):
        with pytest.raises(ValueError, match="mask_to_latents"):
            blend_known(x, x, x, mask, 5, ALPHA_BAR)
        with pytest.raises(ValueError, match="mask of one channel"):
            paste(x, x, mask)
    with pytest.raises(ValueError, match="known_x0"):
        blend_known(x, x[:1], x, torch.ones(1, 1, 4, 6), 5, ALPHA_BAR)


def test_up_from_the_clean_picture_is_adding_noise():
    x0, noise = numbers(2, 3, 4, 4), numbers(2, 3, 4, 4, seed=1)
    up = renoise(x0, -1, 300, ALPHA_BAR, noise)
    torch.testing.assert_close(up, add_noise(x0, noise, torch.tensor([300, 300]), ALPHA_BAR))


def test_up_in_two_steps_is_up_in_one():
    """The same share of the signal is left, and the noises' variances add up to the same."""
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    signal = renoise(renoise(one, 50, 200, ALPHA_BAR, zero), 200, 700, ALPHA_BAR, zero)
    torch.testing.assert_close(signal, renoise(one, 50, 700, ALPHA_BAR, zero))
    first = renoise(renoise(zero, 50, 200, ALPHA_BAR, one), 200, 700, ALPHA_BAR, zero)
    second = renoise(zero, 200, 700, ALPHA_BAR, one)
    torch.testing.assert_close(first**2 + second**2, renoise(zero, 50, 700, ALPHA_BAR, one) ** 2)
    torch.testing.assert_close(signal**2, ALPHA_BAR[700:701, None] / ALPHA_BAR[50])
    with pytest.raises(ValueError, match="later than 700, but got 700"):
        renoise(one, 700, 700, ALPHA_BAR, one)


TWINS = torch.tensor([[1.0, 0.95], [0.95, 1.0]])  # covariance of two pixels that are nearly alike


def twins_eps(x_t, t, cond=None):
    """The exact eps of pictures (n, 1, 1, 2) whose two pixels are Gaussian with that covariance."""
    a = ALPHA_BAR[t[0]]
    inverse = torch.linalg.inv(a * TWINS + (1 - a) * torch.eye(2))
    return (1 - a).sqrt() * x_t @ inverse


def repainted_twins(back_and_forth, count=4000, steps=25):
    known = torch.full((count, 1, 1, 2), 1.5)
    mask, times = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2), samplers.trailing_times(1000, steps)
    x_T = numbers(count, 1, 1, 2)
    walk = repaint(
        twins_eps, x_T, known, x_T, mask, ALPHA_BAR, times, generators(1)[0], back_and_forth=back_and_forth
    )  # fmt: skip
    return list(walk)


def test_going_back_and_forth_brings_both_sides_of_the_edge_together():
    """Given one of the pixels, 1.5, the mean of the other is known: 0.95 * 1.5."""
    errors = [abs(repainted_twins(k)[-1].x_t[..., 0].mean().item() - 0.95 * 1.5) for k in (1, 4, 10)]
    assert errors[0] > 0.4 and errors[1] < errors[0] / 2 and errors[2] < 0.2


def test_each_step_is_taken_so_often_and_the_last_once():
    walk = repainted_twins(3, count=2, steps=4)
    assert [step.t for step in walk] == [749] * 3 + [499] * 3 + [249] * 3 + [-1]
    assert torch.equal(walk[-1].x_t[..., 1], torch.full((2, 1, 1), 1.5))
    with pytest.raises(ValueError, match="back_and_forth = 0"):
        repainted_twins(0)


def test_pasting_leaves_the_outside_as_it_was_to_the_bit():
    new, old = numbers(2, 3, 8, 8), numbers(2, 3, 8, 8, seed=1)
    mask = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    pasted = paste(new, old, mask)
    inside = (mask >= 0.5).expand_as(new)
    assert torch.equal(pasted[inside], new[inside]) and torch.equal(pasted[~inside], old[~inside])


def test_the_straight_middle_of_two_noises_is_grey_and_the_round_one_is_not():
    a, b = numbers(8, 4, 32, 32), numbers(8, 4, 32, 32, seed=1)
    size = (4 * 32 * 32) ** 0.5
    assert lerp(a, b, 0.5).flatten(1).norm(dim=1) / size == pytest.approx(0.5**0.5, abs=0.03)
    for share in (0.1, 0.5, 0.8):
        assert slerp(a, b, share).flatten(1).norm(dim=1) / size == pytest.approx(1, abs=0.03)


def test_the_great_circle_is_walked_at_one_speed_each_sample_its_own():
    a, b = numbers(3, 4, 6), numbers(3, 4, 6, seed=1)
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1))[:, None, None]
    share = torch.tensor([0.0, 0.3, 1.0])
    point = slerp(a, b, share)
    angle, part = (
        torch.nn.functional.cosine_similarity(a.flatten(1), other.flatten(1)).clamp(-1, 1).acos()
        for other in (b, point)
    )
    torch.testing.assert_close(part, share * angle, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(point.flatten(1).norm(dim=1), a.flatten(1).norm(dim=1))
    assert torch.equal(point[0], a[0]) and torch.equal(point[2], b[2])
    torch.testing.assert_close(slerp(a[1:2], b[1:2], 0.3), point[1:2])


def test_where_there_is_no_great_circle_the_line_is_straight():
    a, zero = numbers(2, 3, 4), torch.zeros(2, 3, 4)
    for b in (a, 2 * a, -a, -3 * a, zero):
        torch.testing.assert_close(slerp(a, b, 0.3), 0.7 * a + 0.3 * b)
        torch.testing.assert_close(slerp(b, a, 0.3), 0.7 * b + 0.3 * a)
    assert torch.equal(slerp(zero, zero, 0.5), zero)
    with pytest.raises(ValueError, match="a and b of one shape"):
        slerp(a, a[:1], 0.5)


def test_tokens_find_their_partners():
    assert align_tokens([0, 1, 2, 3, 9, 9], [0, 1, 7, 3, 9, 9]) == [0, 1, 2, 3, 4, 5]
    assert align_tokens([0, 1, 3, 9, 9, 9], [0, 1, 7, 3, 9, 9]) == [0, 1, None, 2, 3, 4]
    assert align_tokens([0, 1, 7, 3, 9, 9], [0, 1, 3, 9, 9, 9]) == [0, 1, 3, 4, 5, None]
    assert align_tokens([0, 4, 9], [0, 5, 6, 9]) == [0, None, None, 3 - 1]


def test_maps_of_partners_are_put_in_and_others_stay():
    own, kept = numbers(2, 3, 16, 4).softmax(-1), numbers(2, 3, 16, 5, seed=1).softmax(-1)
    before = own.clone()
    mixed = inject_maps(own, kept, [0, None, 4, 2])
    expected = torch.stack([kept[..., 0], own[..., 1], kept[..., 4], kept[..., 2]], -1)
    assert torch.equal(mixed, expected) and torch.equal(own, before)
    assert torch.equal(inject_maps(own, kept[..., :4]), kept[..., :4])
    for partners, words in (([0, 1], "2 partners"), ([0, 1, 2, 5], "0 to 4, but got 0 to 5"), ([-1] * 4, "got -1")):
        with pytest.raises(ValueError, match=words):
            inject_maps(own, kept, partners)
    with pytest.raises(ValueError, match="own and kept maps"):
        inject_maps(own, kept)


# The loops


@functools.cache
def shipped():
    """The picture-book pipeline; one for all tests, which must not change it."""
    return load_picture_book()


@functools.cache
def pages():
    return book.pictures([book.sample_scene(number) for number in range(2)]).contiguous()


PROMPTS, NEGATIVE = ["a blue car in the snow", "a red ball on the beach"], "a cat"
STEPS = 5
STRENGTHS = {"ddim": [0.2, 0.3999, 0.6, 0.99, 1.0], "dpm++": [0.2, 0.6, 0.99, 1.0], "unipc": [0.2, 0.6, 0.99, 1.0]}
FEW = [0.59, 1.0]  # of the other schedulers
OWN = ("ddim", "dpm++", "unipc", "euler", "heun", "ddpm")
LIBRARYS = {"DDIMScheduler": DDIMScheduler, "DPMSolverMultistepScheduler": DPMSolverMultistepScheduler}


def scheduler_named(name, pipe):
    if name in LIBRARYS:
        return LIBRARYS[name].from_config(pipe.scheduler.config, clip_sample=False)
    return make_scheduler(name, pipe.scheduler.config)


def by_library(kind, pipe, scheduler, **options):
    """The latents of one of diffusers' pipelines of the same parts."""
    parts = {**pipe.components, "scheduler": copy.deepcopy(scheduler)}
    if kind is StableDiffusionInpaintPipeline:
        # It blends where the U-Net has four channels, which it reads in the configuration alone.
        parts["unet"] = copy.deepcopy(pipe.unet)
        parts["unet"].register_to_config(in_channels=4)
        options |= {"height": 64, "width": 64}
    library = kind(**parts, requires_safety_checker=False)
    library.set_progress_bar_config(disable=True)
    return library(
        PROMPTS[0], negative_prompt=NEGATIVE, image=pages()[:1] / 2 + 0.5, num_inference_steps=STEPS,
        guidance_scale=3.0, generator=generators(5), output_type="latent", **options,
    ).images  # fmt: skip


def how(scheduler):
    return {"negative_prompt": NEGATIVE, "guidance": 3.0, "steps": STEPS, "scheduler": scheduler}


@pytest.mark.parametrize("name", [*OWN, *LIBRARYS])
def test_picture_to_picture_is_the_librarys(name):
    scheduler = scheduler_named(name, shipped())
    for strength in STRENGTHS.get(name, FEW):
        drawn = generators(5)
        x0 = editing.encode_pictures(shipped(), pages()[:1], drawn)
        ours = editing.redraw(shipped(), x0, PROMPTS[0], strength, drawn, **how(scheduler))
        theirs = by_library(StableDiffusionImg2ImgPipeline, shipped(), scheduler, strength=strength)
        assert (ours - theirs).abs().max() <= 1e-5


def a_mask():
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, :, 10:50, 20:60], mask[1, :, 30:, :31] = 1, 0.5
    return mask


def inside(mask):
    return mask_to_latents(mask, (16, 16))


@pytest.mark.parametrize("name", [*(name for name in OWN if name != "ddpm"), *LIBRARYS])
def test_inpainting_is_the_librarys(name):
    scheduler = scheduler_named(name, shipped())
    for strength in STRENGTHS.get(name, FEW):
        drawn = generators(5)
        x0 = editing.encode_pictures(shipped(), pages()[:1], drawn)
        ours = editing.redraw_inside(shipped(), x0, inside(a_mask()[:1]), PROMPTS[0], drawn, strength, **how(scheduler))
        theirs = by_library(
            StableDiffusionInpaintPipeline, shipped(), scheduler, strength=strength, mask_image=a_mask()[:1]
        )
        assert (ours - theirs).abs().max() <= 1e-5


def test_inpainting_with_four_channels_and_one_generator_is_the_librarys_as_it_is():
    pipe = tiny_pipeline()
    scheduler = make_scheduler("dpm++", pipe.scheduler.config)
    library = StableDiffusionInpaintPipeline(
        **{**pipe.components, "scheduler": copy.deepcopy(scheduler)}, requires_safety_checker=False
    )
    library.set_progress_bar_config(disable=True)
    theirs = library(
        PROMPTS, image=pages() / 2 + 0.5, mask_image=a_mask(), strength=0.7, num_inference_steps=STEPS, height=64,
        width=64, guidance_scale=1.0, generator=generators(3)[0], output_type="latent",
    ).images  # fmt: skip
    drawn = generators(3)[0]
    x0 = editing.encode_pictures(pipe, pages(), drawn)
    ours = editing.redraw_inside(
        pipe, x0, inside(a_mask()), PROMPTS, drawn, 0.7, guidance=1.0, steps=STEPS, scheduler=scheduler
    )
    assert (ours - theirs).abs().max() <= 1e-5


def test_outside_the_mask_nothing_changes():
    pipe, mask = tiny_pipeline(), a_mask()
    painted = editing.inpaint(pipe, pages(), mask, "a corgi", generators(1, 2), steps=3)
    outside = (mask < 0.5).expand_as(painted)
    assert torch.equal(painted[outside], pages()[outside])
    assert (painted[~outside] - pages()[~outside]).abs().mean() > 0.1
    x0 = editing.encode_pictures(pipe, pages())
    latents = editing.redraw_inside(pipe, x0, inside(mask), "a corgi", generators(1, 2), steps=3, back_and_forth=2)
    assert torch.equal(torch.where(inside(mask) == 1, x0, latents), x0)


def test_repaint_once_is_inpainting_with_ddim():
    """The same by the course's own sampler, its network and its times."""
    pipe = shipped()
    x0 = editing.encode_pictures(pipe, pages())
    ours = editing.redraw_inside(pipe, x0, inside(a_mask()), PROMPTS, generators(1, 2), 0.8, steps=STEPS)

    def unet(x_t, t, cond):
        a = alpha_bar[t][:, None, None, None]
        v = pipe.unet(x_t, t, encoder_hidden_states=cond).sample
        return (1 - a).sqrt() * x_t + a.sqrt() * v

    alpha_bar = pipe.scheduler.alphas_cumprod
    noise = samplers.draw_noise(x0.shape, generators(1, 2))
    times = remaining_times(samplers.trailing_times(1000, STEPS), 0.8)
    x_t = add_noise(x0, noise, torch.tensor([times[0]] * 2), alpha_bar)
    cond, null = (editing.hidden_states(pipe, words, 2) for words in (PROMPTS, ""))
    model = samplers.guided(unet, null, 4.0)
    walk = repaint(model, x_t, x0, noise, inside(a_mask()), alpha_bar, times, generators(3)[0], cond)
    torch.testing.assert_close(samplers.finish(walk), ours, rtol=1e-3, atol=1e-4)


def test_pndm_is_nowhere_a_step_behind():
    """Nearly what DDIM draws in many steps; the library's loop, which leaves out the second evaluation, is not."""
    pipe = tiny_pipeline()
    x0 = editing.encode_pictures(pipe, pages())
    scheduler, times = editing.begin(pipe, make_scheduler("pndm", pipe.scheduler.config), 10, 0.4)
    assert times.tolist() == [399, 299, 299, 199, 99]

    def drawn(steps, **options):
        return editing.redraw(pipe, x0, "a corgi", 0.4, generators(1, 2), guidance=2.0, steps=steps, **options)

    ours, exact = drawn(20, scheduler=scheduler), drawn(160)
    assert (ours - exact).std() < 0.05 * (exact - x0).std()


def test_picture_i_does_not_depend_on_what_else_is_in_the_batch():
    pipe = tiny_pipeline()
    both = editing.picture_to_picture(pipe, pages(), PROMPTS, 0.5, generators(1, 2), steps=4)
    alone = editing.picture_to_picture(pipe, pages()[1:], PROMPTS[1], 0.5, generators(2), steps=4)
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-3)
    assert both.dtype == torch.float32 and both.shape == pages().shape and both.abs().max() <= 1


def test_a_low_strength_stays_near_and_progress_is_told():
    pipe, told = shipped(), []
    scheduler = make_scheduler("unipc", pipe.scheduler.config)

    def distance(strength):
        drawn = editing.picture_to_picture(
            pipe, pages(), PROMPTS, strength, generators(1, 2), steps=10, scheduler=scheduler,
            on_step=lambda *numbers: told.append(numbers),
        )  # fmt: skip
        return (drawn - pages()).square().mean().item()

    assert distance(0.2) < 0.3 * distance(0.9)
    assert told == [(1, 2), (2, 2)] + [(number, 9) for number in range(1, 10)]
    assert scheduler.num_inference_steps is None  # what was passed in is left as it was
    told.clear()
    x0 = editing.encode_pictures(pipe, pages()[:1])
    editing.redraw_inside(
        pipe, x0, torch.ones(1, 1, 16, 16), "a cat", generators(1), steps=3, back_and_forth=2,
        on_step=lambda *numbers: told.append(numbers),
    )  # fmt: skip
    assert told == [(number, 5) for number in range(1, 6)]


def wrong(**changes):
    """Call `inpaint` with something that does not fit."""
    options = {
        "pipe": tiny_pipeline(), "pictures": pages(), "mask": a_mask(), "prompt": "a corgi",
        "generator": generators(1, 2), "steps": 4, **changes,
    }  # fmt: skip
    return editing.inpaint(**options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strength": 1.2}, "strength from 0"),
        ({"strength": 0.24}, "at least one of 4 steps, but got 0.24"),
        ({"strength": 0.0}, "at least one of 4 steps"),
        ({"mask": torch.zeros(2, 1, 64, 64)}, "something to paint"),
        ({"mask": torch.cat([torch.ones(1, 1, 64, 64), torch.full((1, 1, 64, 64), 0.4)])}, "something to paint"),
        ({"mask": torch.ones(1, 1, 32, 32)}, r"\(2 or 1, 1, 64, 64\), as the pictures, but got \(1, 1, 32, 32\)"),
        ({"mask": torch.ones(3, 1, 64, 64)}, "Resize the mask"),
        ({"mask": torch.full((1, 1, 64, 64), 255.0)}, "Divide bytes"),
        ({"pictures": torch.zeros(3, 64, 64)}, "needs a batch axis"),
        ({"pictures": torch.zeros(2, 1, 64, 64)}, "3 channels"),
        ({"pictures": torch.zeros(2, 3, 60, 64)}, "multiple of 8"),
        ({"pictures": torch.full((2, 3, 64, 64), 1.5)}, r"in \[-1, 1\], but got 1.5"),
        ({"prompt": ["a", "b", "c"]}, "each of 2 pictures, but got 3"),
        ({"generator": generators(1)}, "one generator for each of 2 pictures, but got 1"),
        ({"back_and_forth": 0}, "at least once"),
        ({"back_and_forth": 2, "scheduler": DDIMScheduler()}, "leave it out"),
    ],
)
def test_what_cannot_be_painted_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        wrong(**changes)


def test_a_line_too_thin_for_latents_is_nothing_to_paint():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 5] = 1
    with pytest.raises(ValueError, match="at least 4 x 4 pixels"):
        wrong(mask=mask)


def test_hidden_states_serve_as_a_prompt():
    pipe = tiny_pipeline()
    x_T = numbers(2, 4, 16, 16)
    states = editing.hidden_states(pipe, "a corgi", 2)
    by_states = editing.draw_from(pipe, x_T, states, guidance=3.0, steps=2)
    assert torch.equal(by_states, editing.draw_from(pipe, x_T, "a corgi", guidance=3.0, steps=2))
    torch.testing.assert_close(by_states, editing.draw_from(pipe, x_T, states[:1], guidance=3.0, steps=2))


def test_drawing_from_noise_is_the_librarys():
    pipe, scheduler = shipped(), make_scheduler("euler", shipped().scheduler.config)
    library = type(pipe)(**{**pipe.components, "scheduler": copy.deepcopy(scheduler)}, requires_safety_checker=False)
    library.set_progress_bar_config(disable=True)
    x_T = numbers(1, 8, 16, 16)
    theirs = library("a cat", latents=x_T, num_inference_steps=4, guidance_scale=4.0, output_type="latent").images
    ours = editing.draw_latents(pipe, x_T, "a cat", steps=4, scheduler=scheduler)
    assert (ours - theirs).abs().max() <= 1e-5


def test_inversion_leads_back_the_nearer_the_finer_it_is_and_guidance_drifts():
    pipe = shipped()
    caption = book.caption(book.sample_scene(0)).text
    known = editing.decode_latents(pipe, editing.encode_pictures(pipe, pages()[:1]))

    def drift(steps, guidance):
        x_T = editing.invert(pipe, pages()[:1], caption, steps=steps, guidance=guidance)
        again = editing.draw_from(pipe, x_T, caption, steps=steps, guidance=guidance)
        return (again - known).square().mean().sqrt().item()

    coarse, fine, guided = drift(3, 1.0), drift(12, 1.0), drift(12, 4.0)
    print(f"drift: {coarse:.3f} in 3 steps, {fine:.3f} in 12, {guided:.3f} with guidance")
    assert fine < coarse / 2 and fine < guided / 2


# Attention maps


def test_recorded_maps_are_shares_and_looking_changes_nothing():
    pipe, x_T = shipped(), numbers(2, 8, 16, 16)
    plain = editing.draw_latents(pipe, x_T, PROMPTS, steps=3)
    before = dict(pipe.unet.attn_processors)
    with recorded_maps(pipe.unet, 2, of_pixels=True) as maps:
        looked = editing.draw_latents(pipe, x_T, PROMPTS, steps=3)
    assert pipe.unet.attn_processors == before
    torch.testing.assert_close(looked, plain, rtol=1e-3, atol=1e-3)
    assert {name.removesuffix(".processor") for name in before} == set(maps)
    for layer, each in maps.items():
        assert len(each) == 3
        for own in each:
            assert own.shape[:2] == (2, 4) and own.shape[3] == (32 if layer.endswith("attn2") else own.shape[2])
            torch.testing.assert_close(own.sum(-1), torch.ones_like(own[..., 0]))


def test_the_maps_are_those_of_the_prompt_not_of_the_negative_one():
    pipe, x_T = shipped(), numbers(1, 8, 16, 16)
    maps = []
    for negative, guidance in (("", 1.0), ("a house at night", 4.0)):
        with recorded_maps(pipe.unet, 1) as kept:
            editing.draw_latents(pipe, x_T, "a red ball", negative, guidance, steps=1)
        maps.append(kept)
    for layer, (own,) in maps[0].items():
        torch.testing.assert_close(maps[1][layer][0], own, rtol=1e-3, atol=1e-4)


def test_injecting_a_runs_own_maps_changes_nothing_and_anothers_does():
    pipe, x_T = shipped(), numbers(1, 8, 16, 16)
    with recorded_maps(pipe.unet, 1, of_pixels=True) as kept:
        first = editing.draw_latents(pipe, x_T, "a red ball", steps=3)
    with injected_maps(pipe.unet, kept, range(32), 1.0, 1.0):
        assert torch.equal(editing.draw_latents(pipe, x_T, "a red ball", steps=3), first)
        other = editing.draw_latents(pipe, x_T, "a blue ball", steps=3)
    assert not torch.allclose(other, editing.draw_latents(pipe, x_T, "a blue ball", steps=3), atol=0.1)


def test_the_share_says_in_how_many_steps():
    pipe, x_T, used = tiny_pipeline(), numbers(1, 4, 16, 16), []
    with recorded_maps(pipe.unet, 1) as kept:
        editing.draw_latents(pipe, x_T, "a red ball", steps=4)
    last = list(kept)[-1]
    for share in (0.25, 0.3, 1.0):
        with injected_maps(pipe.unet, kept, range(32), share), recorded_through(pipe.unet, last) as seen:
            editing.draw_latents(pipe, x_T, "two blue birds", steps=4)
        used.append([torch.equal(mine[-1:], theirs) for mine, theirs in zip(seen, kept[last], strict=True)])
    assert used == [[True, False, False, False], [True, True, False, False], [True] * 4]


class recorded_through:
    """Note the maps that a layer really uses: what its processor's `edit` returns."""

    def __init__(self, unet, layer):
        self.processor, self.seen = unet.attn_processors[f"{layer}.processor"], []

    def __enter__(self):
        edit = self.processor.edit

        def noted(layer, own):
            self.seen.append(edit(layer, own))
            return self.seen[-1]

        self.processor.edit = noted
        return self.seen

    def __exit__(self, *_):
        pass


def test_what_cannot_be_injected_is_refused_and_the_network_is_left_as_it_was():
    pipe, x_T = tiny_pipeline(), numbers(1, 4, 16, 16)
    before = dict(pipe.unet.attn_processors)
    for shares in ((1.1, 0), (0.5, -0.1)):
        with pytest.raises(ValueError, match="from 0 to 1"):
            editing.change_words(pipe, x_T, "a cat", "a dog", *shares, steps=1)
    with pytest.raises(ValueError, match="recorded maps, but got none"), injected_maps(pipe.unet, {}, range(32)):
        pass
    with pytest.raises(KeyError), recorded_maps(pipe.unet, 1):
        raise KeyError
    assert pipe.unet.attn_processors == before


def test_with_no_share_only_the_prompt_changes():
    pipe, x_T = tiny_pipeline(), numbers(2, 4, 16, 16)
    before, after = editing.change_words(pipe, x_T, "a red ball", "a blue bird", 0, 0, steps=2)
    for drawn, prompt in ((before, "a red ball"), (after, "a blue bird")):
        torch.testing.assert_close(drawn, editing.draw_from(pipe, x_T, prompt, steps=2), rtol=1e-3, atol=1e-3)


def test_kept_maps_keep_what_the_new_word_does_not_name():
    """The cat on the right stays more nearly what it was than with the same noise and the new prompt alone."""
    pipe, x_T = shipped(), numbers(4, 8, 16, 16, seed=3)
    texts = "a red ball left of a white cat", "a blue ball left of a white cat"
    before, after = editing.change_words(pipe, x_T, *texts, steps=8)
    plain = editing.draw_from(pipe, x_T, texts[1], steps=8)
    kept, lost = ((drawn - before)[..., 32:].abs().mean().item() for drawn in (after, plain))
    print(f"change of the right half: {kept:.3f} with kept maps, {lost:.3f} without")
    blue, red = after[..., :32].mean((0, 2, 3))[2], before[..., :32].mean((0, 2, 3))[2]
    assert kept < 0.8 * lost and blue > red + 0.05


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_each_solver_takes_its_own_steps_for_a_model_that_was_saved_with_pndm(sampler):
    """As Stable Diffusion v1.5 is: a scheduler that is made of PNDM's settings keeps those it does not know."""
    pipe = thin_pipeline()
    scheduler = make_scheduler(sampler, pipe.scheduler.config)
    _, times = editing.begin(pipe, scheduler, 5, 1.0)
    scheduler.set_timesteps(5)
    assert times.tolist() == scheduler.timesteps.tolist()
    x_T = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = editing.draw_from(pipe, x_T, "a red ball", steps=5, scheduler=scheduler, generator=[torch.Generator()])
    assert drawn.isfinite().all()
