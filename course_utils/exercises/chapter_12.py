"""The exercises of chapter 12: starting from an image, keeping a part of it, lying between two."""

from types import SimpleNamespace

import torch

from course_utils.data import images
from course_utils.diffusion import editing
from course_utils.exercises.mistakes_12 import (
    as_times,
    blend_mistakes,
    maps_mistakes,
    pages_with_balls,
    path_of,
    renoise_mistakes,
    times_mistakes,
)
from course_utils.exercises.oracles import require, require_tensor
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import close_in_all
from course_utils.models.judge import read
from course_utils.recipes import load_judge

TITLE = "Steering the picture"


@exercise(
    "12.remaining_times", editing.remaining_times, difficulty=1, minutes=5,
    hints=[
        "How many steps are run? int(len(times) * strength): what follows the point is cut off.",
        "The last ones are run. times[-keep:] is nearly right: what is it when keep is 0?",
        "times[len(times) - keep :] is right for 0 too.",
    ],
)  # fmt: skip
def remaining_times(learner, case):
    """Find the times that are still run when drawing starts from a noisy image."""
    from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline

    settings = []
    for steps, strength in ((10, 0.35), (7, 0.3), (50, 0.58), (20, 0.8), (8, 1.0), (1, 1.0), (10, 0.05), (3, 0.0)):
        scheduler = DDIMScheduler()
        scheduler.set_timesteps(steps)
        times = [t + int(case.whole(0, 10)) for t in scheduler.timesteps.tolist()]
        scheduler.timesteps = torch.tensor(times)
        # the arithmetic of the library's own pipeline
        right, _ = StableDiffusionImg2ImgPipeline.get_timesteps(
            SimpleNamespace(scheduler=scheduler), steps, strength, None
        )
        got = as_times(learner(times, strength))
        what = f"of {steps} steps with strength {strength:g}, what remains"
        settings.append((got, right, times_mistakes(times, strength), what, learner.called))
    close_in_all(settings)


@exercise(
    "12.blend_known", editing.blend_known, difficulty=2, minutes=10,
    hints=[
        "Outside the mask belongs what add_noise would make of the known latents: √ᾱ known_x0 + √(1 - ᾱ) noise.",
        "For t = -1 there is no noise left: alpha_bar_at gives 1 there.",
        "mask * x_t + (1 - mask) * known: where the mask is 1, x_t stays.",
    ],
)  # fmt: skip
def blend_known(learner, case):
    """Put the known latents, with the right amount of noise, around what is being drawn."""
    from diffusers import DDIMScheduler

    table = (1 - case.uniform(0.02, 0.12, 40)).cumprod(0)
    scheduler = DDIMScheduler(40)
    scheduler.alphas_cumprod = table
    settings = []
    for t, shape, masks in ((17, (3, 2, 4, 5), 3), (-1, (2, 3, 5, 4), 2), (0, (2, 2, 3, 3), 1), (39, (1, 4, 2, 6), 1)):
        x_t, x0, noise = (case.normal(*shape) for _ in range(3))
        mask = (case.uniform(0, 1, masks, 1, *shape[2:]) < 0.5).float()
        mask[:, :, 0, 0], mask[:, :, -1, -1] = 1, 0
        known = x0 if t < 0 else scheduler.add_noise(x0, noise, torch.full(shape[:1], t))
        right = torch.where(mask.bool(), x_t, known)
        mistakes = blend_mistakes(x_t, x0, noise, mask, t, table)
        got = learner(x_t, x0, noise, mask, t, table)
        settings.append((got, right, mistakes, f"at t = {t} the blend", learner.called))
    close_in_all(settings)


@exercise(
    "12.renoise", editing.renoise, difficulty=2, minutes=10,
    hints=[
        "In x at `earlier` the clean image has the factor √ᾱ_earlier; at t it must have √ᾱ_t. What factor is missing?",
        "Multiply x by √(ᾱ_t / ᾱ_earlier). The variance must be 1 afterwards, as before.",
        "ratio = alpha_bar_at(alpha_bar, t) / alpha_bar_at(alpha_bar, earlier); √ratio for x, √(1 - ratio) for noise.",
    ],
)  # fmt: skip
def renoise(learner, case):
    """Go back up to a noisier time."""
    beta = case.uniform(0.02, 0.12, 40)
    table = (1 - beta).cumprod(0)
    settings = []
    for earlier, t, shape in ((11, 17, (2, 3, 4, 4)), (-1, 39, (3, 2)), (0, 1, (1, 5)), (38, 39, (2, 2, 3, 1))):
        x, noise = case.normal(*shape), case.normal(*shape)
        signal, variance = 1.0, 0.0
        for step in beta[earlier + 1 : t + 1].tolist():  # all the small steps of the forward process, one by one
            signal, variance = signal * (1 - step) ** 0.5, (1 - step) * variance + step
        right = signal * x + variance**0.5 * noise
        got = learner(x, earlier, t, table, noise)
        mistakes = renoise_mistakes(x, earlier, t, table, noise)
        settings.append((got, right, mistakes, f"from {earlier} up to {t}, the noisy x", learner.called))
    close_in_all(settings, tolerance=1e-3)


@exercise(
    "12.between", editing.between, difficulty=3, minutes=15,
    hints=[
        "Look at the norms of the straight line first: (1 - share) * a + share * b. What is wrong with the middle?",
        "Each sample is one vector of all its numbers. x.flatten(1).norm(dim=1) is one norm for each sample.",
        "One way: each point of the straight line, divided by its norm and multiplied by the norm that it should have. "
        "Another: weights whose squares add up to 1, since a and b are nearly at right angles.",
        "torch.stack([...]) makes (count, batch, ...) of a list of `count` noises.",
    ],
)  # fmt: skip
def between(learner, case):
    """Find a path from one noise to another on which every point is as probable as noise."""
    for count, shape in ((9, (3, 8, 16, 16)), (5, (1, 2048)), (2, (2, 8, 16, 16)), (3, (2, 16, 8, 16))):
        a, b = case.normal(*shape), case.normal(*shape)
        got = learner(a, b, count)
        expected = torch.stack([a] * count)
        require_tensor(got, expected, "the path")
        swapped = got.shape == (shape[0], count, *shape[1:]) != expected.shape
        require(
            got.shape == expected.shape,
            f"the path has the shape {tuple(got.shape)}, expected (count, batch, ...) = {tuple(expected.shape)}.",
            "The batch comes first here; the first axis counts the points of the path."
            if swapped
            else "torch.stack over a list of `count` noises, each of the shape of a, gives it.",
        )
        require(bool(got.isfinite().all()), "some numbers of the path are NaN or infinite, expected finite ones.",
                "Look for a division by zero, at the ends for example.")  # fmt: skip
        path_of(got.detach(), a, b, count)


@exercise(
    "12.inject_maps", editing.inject_maps, difficulty=3, minutes=10,
    hints=[
        "Without partners, the kept maps take the place of all: that is kept itself (a copy of it).",
        "Otherwise start with a copy, own.clone(), and go through enumerate(partners).",
        "Token j of the new prompt: maps[..., j] = kept[..., partners[j]], unless partners[j] is None.",
    ],
)  # fmt: skip
def inject_maps(learner, case):
    """Put the attention maps of the old prompt into those of the new one."""
    settings = []
    for batch, tokens, before, partners in (
        (2, 6, 5, [0, None, 1, 3, 2, 4]),
        (1, 4, 6, [5, 0, None, 3]),
        (2, 5, 5, [0, 1, 2, 3, 4]),
        (3, 4, 4, [None, 2, 1, None]),
        (2, 5, 5, None),
    ):
        own = case.normal(batch, 2, 7, tokens).softmax(-1)
        kept = case.normal(batch, 2, 7, before).softmax(-1)
        if partners is None:
            right = kept
        else:
            chosen = torch.zeros(before, tokens)
            for token, partner in enumerate(partners):
                if partner is not None:
                    chosen[partner, token] = 1
            stays = torch.tensor([partner is None for partner in partners]).float()
            right = kept @ chosen + own * stays
        got = learner(own, kept, partners)
        mistakes = maps_mistakes(own, kept, partners)
        settings.append((got, right, mistakes, f"with partners {partners}, the maps", learner.called))
    close_in_all(settings)


@exercise(
    "12.recolour", images.recolour, difficulty=3, minutes=20,
    hints=[
        "Outside the mask, nothing needs to happen: torch.where(mask > 0.5, edited, pictures).",
        "The ball has light and shade. What keeps them? Move each pixel's colour instead of setting it.",
        "Red is a large first channel and small others. In blue the large one is the last.",
        "pictures[:, [2, 1, 0]] exchanges the first channel and the last.",
    ],
)  # fmt: skip
def recolour(learner, case):
    """Turn the ball blue, and leave the rest of the image as it was."""
    pictures, masks, scenes = pages_with_balls(case)
    for some in (slice(0, 1), slice(None)):
        x, mask = pictures[some], masks[some]
        got = learner(x, mask)
        require_tensor(got, x, "the result")
        require(got.shape == x.shape, f"got the shape {tuple(got.shape)}, expected {tuple(x.shape)}.",
                "One image comes back for each that goes in, of the same size.")  # fmt: skip
        got = got.detach().float()
        require(bool(got.isfinite().all()) and got.abs().max().item() <= 1 + 1e-4,
                f"the largest value is {got.abs().max():.2f}, expected numbers from -1 to 1.",
                "An image is in [-1, 1]: end with .clamp(-1, 1).")  # fmt: skip
        moved = (got - x).abs().amax(1, keepdim=True) * 127.5  # in grey levels of 255
        changed = ((moved > 8) & (mask < 0.5)).float().sum() / (mask < 0.5).sum()
        inside = (moved * mask).sum() / mask.sum()
        require(
            changed.item() <= 0.01,
            f"{100 * changed:.0f}% of the pixels outside the mask changed by over 8 grey levels, expected at most 1%.",
            "The mask is the wrong way round: 1 is the ball."
            if inside < 8
            else "The whole image was edited. Take the edited pixels inside the mask and the given ones outside.",
        )
        require(inside.item() > 8, "the ball is as it was, expected it blue.", "Nothing changed inside the mask.")
        verdicts = read(load_judge(), got)
        seen = [{(f.kind, f.colour) for f in verdict.findings} for verdict in verdicts]
        right = sum(
            found == {("ball", "blue")} and verdict.place == scene.place
            for found, verdict, scene in zip(seen, verdicts, scenes, strict=False)
        )
        kinds = {kind for found in seen for kind, _ in found}
        words = ", ".join(sorted({f"{colour} {kind}" for found in seen for kind, colour in found})) or "nothing"
        require(
            right >= len(x) - (len(x) > 1),  # the judge itself misreads a page now and then
            f"the judge finds a blue ball in {right} of {len(x)} images, expected it in all but one; it sees: {words}.",
            "It is a ball, but of another colour. Which channel is large in blue?"
            if kinds == {"ball"}
            else "It no longer looks like a ball: keep its light and shade, and the lines inside it.",
        )
