"""Editing: diffusion that starts from a picture that is there, keeps a part of it, or lies between two of them.

Shapes throughout: x_t, x0, eps, noise (batch, ...), pictures or latents; alpha_bar (T,); t and `earlier` whole numbers,
-1 for the clean picture. Masks: (batch, 1, height, width), or one for the whole batch; 1 = paint again, 0 = keep.
Attention maps: (batch, heads, queries, tokens).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher

import torch
from torch.nn.functional import interpolate

from course_utils.diffusion import steps
from course_utils.diffusion.samplers import Step, draw_noise
from course_utils.shapes import expand_like, require_same_shape

PARALLEL = 1e-3  # below this sine of the angle between two noises the great circle is not to be told from a line


def remaining_times(times: Sequence[int], strength: float) -> Sequence[int]:
    """Return the times that are still run when a picture is noised to `strength` and drawn from there: the last k.

        k = int(N strength),   N = number of times

    times: falling, as samplers take them. Strength 1 leaves all of them, and less than 1/N none. int() drops what
    follows the point: 50 times at 0.58 leave 28, not 29, because 50 * 0.58 is 28.999999999999996 in the computer. The
    same as in diffusers. SDEdit (arXiv:2108.01073). Raises ValueError unless 0 <= strength <= 1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"Expected a strength from 0 (keep the picture) to 1 (draw it all again), but got {strength}.")
    keep = int(len(times) * strength)
    return times[len(times) - keep :]  # times[-keep:] would be all of them where keep is 0


def mask_to_latents(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return a mask of pixels at the size (height, width) of latents, all numbers 0 or 1.

        mask[row, column] = 1  where the pixel at (floor(row f_h), floor(column f_w)) is at least 0.5

    f_h, f_w: pixels to a latent, down and across. One pixel decides for all, so that a line thinner than a latent may
    be lost. mask: (batch, 1, height, width) in [0, 1]. Returns (batch, 1, *size). The same as in diffusers' pipelines
    for inpainting. Raises ValueError for other shapes and values.
    """
    require_mask(mask)
    return interpolate((mask >= 0.5).float(), size=tuple(size), mode="nearest")


def require_mask(mask: torch.Tensor) -> None:
    """Raise ValueError unless `mask` has the shape (batch, 1, height, width) and numbers in [0, 1]."""
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(f"Expected a mask of shape (batch, 1, height, width), but got {tuple(mask.shape)}.")
    lowest, highest = mask.min(), mask.max()
    if not (lowest >= 0 and highest <= 1):
        raise ValueError(
            f"Expected a mask with numbers from 0 (keep) to 1 (paint again), but got {lowest:.3g} to {highest:.3g}. "
            "Divide bytes by 255."
        )


def blend_known(
    x_t: torch.Tensor, known_x0: torch.Tensor, noise: torch.Tensor, mask: torch.Tensor, t: int, alpha_bar: torch.Tensor
) -> torch.Tensor:
    """Return x_t inside the mask and, outside it, the known picture with as much noise as belongs to time t.

        m x_t + (1 - m) ( sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise )

    t: the time that x_t has reached; at -1 the known picture is clean. mask: of the height and width of x_t. Blended
    diffusion (arXiv:2111.14818), algorithm 2. Raises ValueError for shapes that differ.
    """
    require_same_shape(x_t, known_x0, "x_t and known_x0")
    require_same_shape(x_t, noise, "x_t and noise")
    _require_fit(mask, x_t)
    a = steps.alpha_bar_at(alpha_bar, t)
    known = math.sqrt(a) * known_x0 + math.sqrt(1 - a) * noise
    return mask * x_t + (1 - mask) * known


def _require_fit(mask: torch.Tensor, x: torch.Tensor) -> None:
    fits = x.ndim == 4 and mask.ndim == 4 and mask.shape[0] in (1, x.shape[0]) and mask.shape[1:2] == (1,)
    if not fits or mask.shape[2:] != x.shape[2:]:
        raise ValueError(
            f"Expected a mask of one channel, of the height and width of {tuple(x.shape)}, but got "
            f"{tuple(mask.shape)}. For latents make it with mask_to_latents."
        )


def renoise(
    x_earlier: torch.Tensor, earlier: int, t: int, alpha_bar: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Go from x at time `earlier` back up to the noisier time t, all steps between them in one.

        x_t = sqrt(alpha_t) x_earlier + sqrt(1 - alpha_t) noise,   alpha_t = alpha_bar_t / alpha_bar_earlier

    noise: standard normal; then x_t is a sample of q(x_t | x_earlier). RePaint (arXiv:2201.09865), algorithm 1.
    Raises ValueError unless t > earlier, and for shapes that differ.
    """
    require_same_shape(x_earlier, noise, "x_earlier and noise")
    if t <= earlier:
        raise ValueError(f"Expected a time t later than {earlier}, but got {t}. Noise grows with t.")
    alpha = steps.alpha_bar_at(alpha_bar, t) / steps.alpha_bar_at(alpha_bar, earlier)
    return math.sqrt(alpha) * x_earlier + math.sqrt(1 - alpha) * noise


@torch.no_grad()
def repaint(
    model: Callable,
    x_t: torch.Tensor,
    known_x0: torch.Tensor,
    noise: torch.Tensor,
    mask: torch.Tensor,
    alpha_bar: torch.Tensor,
    times: Sequence[int],
    generator: torch.Generator | list[torch.Generator],
    cond: torch.Tensor | None = None,
    back_and_forth: int = 1,
) -> Iterator[Step]:
    """Draw inside the mask, by DDIM, taking each step `back_and_forth` times with a way back up in between.

        x_{t-1} = blend_known(ddim_step(x_t), x0, noise, m, t-1),   then again from x_t = renoise(x_{t-1})

    x_t: noisy, at times[0]. Once: the two sides of the mask's edge first meet in x_{t-1}, too late for the step that
    made it. Each time more, the model sees both and can make them agree. The last step, to the clean picture, is taken
    once. One evaluation each; see the samplers for the rest. RePaint (arXiv:2201.09865), algorithm 1, whose jumps are
    of ten of its 250 steps: about one step here, if there are 25. Raises ValueError if back_and_forth is below 1.
    """
    if back_and_forth < 1:
        raise ValueError(f"Expected each step to be taken at least once, but got back_and_forth = {back_and_forth}.")
    for t, earlier in zip(times, [*times[1:], -1], strict=True):
        for again in reversed(range(back_and_forth if earlier >= 0 else 1)):
            x0_hat, eps = steps.guess(x_t, steps.ask(model, x_t, t, cond), t, alpha_bar)
            x_earlier = steps.ddim_step(x_t, eps, t, earlier, alpha_bar)
            x_earlier = blend_known(x_earlier, known_x0, noise, mask, earlier, alpha_bar)
            yield Step(earlier, x_earlier, x0_hat)
            if again:
                x_t = renoise(x_earlier, earlier, t, alpha_bar, draw_noise(x_t.shape, generator).to(x_t))
        x_t = x_earlier


def paste(pictures: torch.Tensor, originals: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the originals where the mask is below 0.5, to the bit, and `pictures` elsewhere.

    Needed even after blending: outside the mask the latents are the original's, but the autoencoder does not give its
    pixels back exactly. pictures, originals: (batch, 3, height, width). Raises ValueError for shapes that differ.
    """
    require_same_shape(pictures, originals, "pictures and originals")
    _require_fit(mask, pictures)
    return torch.where(mask >= 0.5, pictures, originals)


def lerp(a: torch.Tensor, b: torch.Tensor, share: torch.Tensor | float) -> torch.Tensor:
    """Return the point on the straight line from a to b: (1 - s) a + s b.

    share s: a number, or one for each sample, (batch,). Of two independent standard normal noises the result has the
    variance (1 - s)^2 + s^2, at the middle 1/2: no noise that the model has seen. Raises ValueError if shapes differ.
    """
    require_same_shape(a, b, "a and b")
    share = expand_like(share, a)
    return (1 - share) * a + share * b


def slerp(a: torch.Tensor, b: torch.Tensor, share: torch.Tensor | float) -> torch.Tensor:
    """Return the point on the great circle from a to b, each sample being one vector of all its numbers.

        ( sin((1 - s) w) a + sin(s w) b ) / sin(w),   w = the angle between them: cos(w) = <a, b> / (|a| |b|)

    share s: a number, or one for each sample, (batch,). If a and b have one norm, so has the result. Where a and b are
    parallel (sin w < 0.001) it is `lerp`, which is the limit; where they are opposite there is no one shortest way
    round, and where one is 0 there is no angle: both `lerp` too. Shoemake 1985. Raises ValueError if shapes differ.
    """
    straight = lerp(a, b, share)
    first, second = a.flatten(1), b.flatten(1)  # (batch, numbers of a sample)
    norms = first.norm(dim=1) * second.norm(dim=1)
    cosine = (first * second).sum(1) / norms.clamp(min=torch.finfo(a.dtype).tiny)  # 0 / tiny: 0 where one is 0
    angle = cosine.clamp(-1, 1).acos()  # (batch,)
    share, angle = expand_like(share, a), expand_like(angle, a)
    circle = ((1 - share) * angle).sin() / angle.sin() * a + (share * angle).sin() / angle.sin() * b
    on_a_line = expand_like(norms == 0, a).bool() | (angle.sin() < PARALLEL)
    return torch.where(on_a_line, straight, circle)


def align_tokens(before: Sequence[int], after: Sequence[int]) -> list[int | None]:
    """For each token of the new prompt, return the place of its partner in the old prompt, or None for a new one.

    Partners are equal tokens in one order, and exchanged ones where as many came as went: "a red ball" and "a blue
    ball" are partners word by word. Of "a cat" and "a white cat" the word *white* has none.
    """
    partners: list[int | None] = [None] * len(after)
    matcher = SequenceMatcher(None, list(before), list(after), autojunk=False)
    for kind, start, end, new_start, new_end in matcher.get_opcodes():
        if kind == "equal" or end - start == new_end - new_start:
            partners[new_start:new_end] = range(start, end)
    return partners


def inject_maps(own: torch.Tensor, kept: torch.Tensor, partners: Sequence[int | None] | None = None) -> torch.Tensor:
    """Return the attention maps of a new prompt with those of the old one put in, for all tokens that have a partner.

        maps[..., j] = kept[..., partners[j]],   own[..., j] where partners[j] is None

    own: (batch, heads, queries, tokens) of the new prompt. kept: the same of the old one, whose number of tokens may
    differ. partners: see `align_tokens`; None for "all maps as they were kept". *Where* something is drawn is then the
    old picture's affair, *what* is drawn that of the new values. Prompt-to-prompt (arXiv:2208.01626), section 3.2.
    Raises ValueError for other shapes, and for partners that are no tokens.
    """
    if partners is None:
        require_same_shape(own, kept, "own and kept maps")
        return kept.clone()
    known = [partner for partner in partners if partner is not None]
    if own.shape[:-1] != kept.shape[:-1] or len(partners) != own.shape[-1]:
        raise ValueError(
            f"Expected a partner or None for each token, and maps that differ in their tokens only, but got "
            f"{len(partners)} partners and maps of shapes {tuple(own.shape)} and {tuple(kept.shape)}."
        )
    if known and not 0 <= min(known) <= max(known) < kept.shape[-1]:
        raise ValueError(f"Expected partners from 0 to {kept.shape[-1] - 1}, but got {min(known)} to {max(known)}.")
    maps = own.clone()
    for token, partner in enumerate(partners):
        if partner is not None:
            maps[..., token] = kept[..., partner]
    return maps
