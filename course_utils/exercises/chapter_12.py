"""The exercises of chapter 12: from an image, in a part of it, between two; a new word, LoRA, control."""

from types import SimpleNamespace

import torch
from torch import nn

from course_utils.data import images
from course_utils.diffusion import editing
from course_utils.exercises.mistakes_12 import (
    Steered,
    as_times,
    blend_mistakes,
    control_mistakes,
    explained,
    fill,
    lora_outputs,
    maps_mistakes,
    new_tensors_advised,
    pages_with_balls,
    path_of,
    renoise_mistakes,
    require_layers_apart,
    require_learning,
    require_merged,
    require_parts,
    require_sums,
    require_ways_back,
    residual_mistakes,
    row_mistakes,
    times_mistakes,
    unset_memory_seen,
)
from course_utils.exercises.oracles import close, require, require_tensor
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import broadcasting_explained, called_as, close_in_all
from course_utils.models import control, lora
from course_utils.models.judge import read
from course_utils.recipes import control as control_recipe
from course_utils.recipes import load_judge
from course_utils.text import new_words

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


@exercise(
    "12.only_row", new_words.only_row, difficulty=1, minutes=5,
    hints=[
        "The result has the shape of the gradient, and is 0 nearly everywhere: torch.zeros_like(gradient).",
        "Then fill in one row: kept[row] = gradient[row]. Do not write into `gradient` itself.",
    ],
)  # fmt: skip
def only_row(learner, case):
    """Keep the gradient of a single word."""
    settings, first = [], []
    for tokens, width, row in ((7, 9, 3), (5, 5, 0), (4, 9, 3), (6, 6, 2), (1, 4, 0), (7, 9, 6), (3, 4, 1)):
        gradient = case.normal(tokens, width)
        if (tokens, width) == (6, 6):
            gradient[4] = gradient[row]  # two words may have the same gradient
        if (tokens, width) == (3, 4):
            gradient = gradient.double()
        right = torch.einsum("n,nd->nd", torch.eye(tokens)[row].to(gradient), gradient)
        with (
            unset_memory_seen(),
            broadcasting_explained(
                "A mask with one number for each row needs an axis more, (tokens, 1): mask[:, None]."
            ),
        ):
            got = learner(gradient, row)
        settings.append((got, right, row_mistakes(gradient, row), f"for row {row} the gradient", learner.called))
        require(getattr(got, "dtype", gradient.dtype) == gradient.dtype, f"got {getattr(got, 'dtype', '')} for a "
                f"gradient of {gradient.dtype}.", "torch.zeros(shape) is float32 on the CPU, whatever the gradient is: "
                "torch.zeros_like(gradient) follows it.")  # fmt: skip
        first = first or [got, got.clone() if isinstance(got, torch.Tensor) else got]
    with called_as(settings[0][-1]):
        require(not isinstance(first[0], torch.Tensor) or torch.equal(first[0].nan_to_num(), first[1].nan_to_num()),
                "a later call changed what the first one had returned, expected a new tensor each time.",
                "A tensor that is kept outside the function still has the rows of earlier calls: make new zeros in "
                "each.")  # fmt: skip
    close_in_all(settings)


@exercise(
    "12.lora_linear", lora.LoRALinear, difficulty=5, minutes=30, gradients=True, given="base, rank, alpha=None",
    hints=[
        "In __init__: freeze base, keep it, and make two nn.Parameter: A (rank, in) random, B (out, rank) zeros. "
        "base.in_features and base.out_features are the sizes.",
        "alpha is the rank if it is None, so that the factor alpha / rank is 1.",
        "forward: self.base(x) + alpha / rank * (x @ self.A.mT @ self.B.mT). Cheaper than making B A first.",
        "merge: self.merged = self.base.weight + self.difference(), without a gradient. As long as there is one, "
        "forward returns F.linear(x, self.merged, self.base.bias). unmerge: self.merged = None.",
    ],
)  # fmt: skip
def lora_linear(learner, case):
    """Train a difference of low rank beside a frozen linear layer."""
    for inside, outside, rank, alpha, shape, bias in (
        (8, 5, 3, 6.0, (4, 2, 8), True),
        (6, 6, 2, None, (3, 6), False),
        (4, 7, 4, 1.0, (5, 4), True),
        (5, 3, 1, 2.0, (1, 5), True),
    ):
        base, x = nn.Linear(inside, outside, bias=bias), case.normal(*shape)
        with torch.no_grad():
            for parameter in base.parameters():
                parameter.copy_(case.normal(*parameter.shape))
        with unset_memory_seen():
            layer = learner(base, rank, alpha)
        require_parts(layer, base, rank)
        other = require_layers_apart(learner, layer, base, rank, alpha)
        alpha = alpha or rank
        # not as a method: the gradients of a random start are not the reference's
        with explained("shapes cannot be multiplied", "x is (..., in), A (rank, in), B (out, rank): x @ A.mT @ B.mT "
                       "fits, however many axes x has."):  # fmt: skip
            start = learner.call(lambda x, layer=layer: layer(x), learner.reference.forward, x)
        close(start, base(x), [(x @ base.weight.mT, "The bias is missing: self.base(x) has it.")] if bias else [],
              what="at the start, the output")  # fmt: skip
        fill(layer, case)
        right, mistakes = lora_outputs(x, layer, alpha)
        close(learner.method(layer, "forward", x), right, mistakes, tolerance=1e-3, what="the output")
        low = torch.einsum("or,ri->oi", layer.B, layer.A).detach()
        both = alpha / rank * low
        close(learner.method(layer, "difference"), both, [
            (low.mT * alpha / rank, "It is transposed: like W it is (out, in), B @ A."),
            *([(low, "difference() has no factor alpha / rank: it is what is added to W.")] if alpha != rank else []),
            (both + base.weight, "W itself is in it. difference() is what is added to W."),
        ], tolerance=1e-3, what="the difference")  # fmt: skip
        require_merged(learner, layer, other, x, alpha, case)


@exercise(
    "12.zero_convolution", control.zero_convolution, difficulty=1, minutes=5,
    hints=[
        "A convolution with a kernel of one pixel: nn.Conv2d(channels, channels, 1). Its weights start at random.",
        "nn.init.zeros_(layer.weight) sets them to zero, in place; the same for layer.bias.",
    ],
)  # fmt: skip
def zero_convolution(learner, case):
    """Make a layer that gives zeros until it is trained."""
    for channels, shape in ((6, (2, 6, 4, 5)), (1, (1, 1, 3, 2)), (3, (2, 3, 1, 1))):
        with explained("cannot assign", "A parameter takes no plain tensor. nn.init.zeros_(layer.weight) writes into "
                       "it; or assign nn.Parameter(torch.zeros_like(layer.weight))."):  # fmt: skip
            layer = learner(channels)
        require(torch.is_grad_enabled(), "gradients are switched off for all that follows, expected them on.",
                "torch.set_grad_enabled(False) lasts. Use `with torch.no_grad():`, which ends.")  # fmt: skip
        require(isinstance(layer, nn.Conv2d), f"got {type(layer).__name__}, expected an nn.Conv2d.",
                "Return the layer: nn.Conv2d(channels, channels, 1).")  # fmt: skip
        require(layer.in_channels == layer.out_channels == channels, f"it goes from {layer.in_channels} channels to "
                f"{layer.out_channels}, expected {channels} and {channels}.",
                "A residual has the channels of the skip connection that it is added to.")  # fmt: skip
        require(layer.kernel_size == (1, 1), f"the kernel is {layer.kernel_size}, expected (1, 1).",
                "One pixel is enough: what lies before it has looked around already.")  # fmt: skip
        require(layer.groups == 1, f"it has {layer.groups} groups, expected one.",
                "Each output channel may use all input channels.")  # fmt: skip
        require(layer.bias is not None, "it has no bias, expected one.", "The bias is kept, and starts at zero, "
                "too.")  # fmt: skip
        require(not layer.weight.is_inference(), "it was made in inference mode, expected that it can be trained.",
                "Parameters made under torch.inference_mode() never have gradients: use torch.no_grad().")  # fmt: skip
        require(layer.weight.shape == (channels, channels, 1, 1), f"the weights have the shape "
                f"{tuple(layer.weight.shape)}, expected {(channels, channels, 1, 1)}.",
                "The weights of an nn.Conv2d are (out, in, height, width): torch.zeros_like keeps that.")  # fmt: skip
        require(layer.weight.dtype == torch.float32, f"the weights are {layer.weight.dtype}, expected torch.float32.",
                "Leave the dtype as it is: the U-Net's features are float32, too.")  # fmt: skip
        require(not layer.weight.any(), f"the largest weight is {layer.weight.abs().max():.2g}, expected zeros.",
                "Weights start at random: set them to zero, exactly.")  # fmt: skip
        require(not layer.bias.any(), "the bias is not zero.", "The bias starts at random, too: nn.init.zeros_ for "
                "both.")  # fmt: skip
        require(layer.weight.requires_grad and layer.bias.requires_grad, "it is frozen, expected it to be trained.",
                "Zero is only where it starts: leave requires_grad as it is.")  # fmt: skip
        x = case.normal(*shape)
        output = layer(x)
        require(output.shape == x.shape, f"for {tuple(x.shape)} the output has the shape {tuple(output.shape)}, "
                "expected the same.", "A kernel of one pixel needs neither padding nor a stride.")  # fmt: skip
        close(output, torch.zeros_like(x), what="for any input, the output")
        output.sum().backward()
        others = list(learner(channels).parameters())
        require(not any(own is other for own in layer.parameters() for other in others), "a second call returned the "
                "same weights, expected a new layer.", "Each Z_i has weights of its own: make a layer in each "
                "call.")  # fmt: skip
        close(layer.weight.grad, x.sum((0, 2, 3)).expand(channels, -1)[..., None, None], tolerance=1e-3,
              what="the gradient of the weights")  # fmt: skip


@exercise(
    "12.add_residuals", control.add_residuals, difficulty=2, minutes=5, gradients=True,
    hints=[
        "The two lists have the same length: zip(skips, residuals, strict=True) goes through both.",
        "For each pair: skip + weight * residual, a new tensor, in a list.",
    ],
)  # fmt: skip
def add_residuals(learner, case):
    """Add what a ControlNet gives to the U-Net's skip connections."""
    settings = []
    for count, weight in ((3, 1.0), (3, 0.0), (2, round(case.uniform(0.3, 0.8).item(), 2)), (1, 2.0), (2, 1.5)):
        shapes, dtype = (
            [(2, 3, 8, 4), (2, 5, 4, 2), (2, 5, 4, 2)][:count],
            [torch.float32, torch.float64][weight == 1.5],
        )
        skips, residuals = (
            [case.normal(*shape).to(dtype).requires_grad_() for shape in shapes] for _ in range(2)
        )  # fmt: skip
        with (
            new_tensors_advised(),
            broadcasting_explained("Each residual goes to the skip connection of the same place in the list: "
                                   "zip(skips, residuals) goes through both."),
            explained("multiply sequence", "These are lists, and no tensors: go through both, pair by pair."),
            explained("stack expects", "They are of different sizes, so no tensor holds all of them: return a list."),
        ):  # fmt: skip
            got = learner(skips, residuals, weight)
        require_sums(got, skips, residuals, sum(len(shapes) for *_, shapes in settings))
        right, mistakes = residual_mistakes(skips, residuals, weight)
        flat = torch.cat([one.detach().flatten() for one in got])
        what = f"with weight {weight:g} the sums"
        settings.append((flat, right.detach(), mistakes, what, learner.called, got, skips, residuals, weight, shapes))
    close_in_all(setting[:5] for setting in settings)
    for *_, called, got, skips, residuals, weight, _ in settings:
        with called_as(called):
            require_ways_back(got, skips, residuals, weight)
    for weight in (0.0, 1.0):
        skips, residuals = ([case.normal(2, 3, 4, 4) for _ in range(2)] for _ in range(2))
        got = learner.call(lambda inputs=(skips, residuals, weight): learner.candidate(*inputs), alone)
        with called_as(f"add_residuals(skips, residuals, weight = {weight:g})"):
            same = any(one.data_ptr() == other.data_ptr() for one in got for other in (*skips, *residuals))
            require(not same, "the tensors that were passed came back, expected new ones.",
                    "With weight 0, too, the results are tensors of their own: what is written into them later must "
                    "not change the skip connections.")  # fmt: skip


def alone():
    """Stand for a call on the oracle's own tensors, not on copies."""


@exercise(
    "12.control_loss", control_recipe.control_loss, difficulty=4, minutes=15, uses=("05.add_noise",),
    hints=[
        "It is the loss of chapter 10 with one input more: model(x_t, t, cond, drawing).",
        "The U-Net of this course predicts v = √ᾱ eps - √(1 - ᾱ) x0 (chapter 07), so that is the target. "
        "objectives.v_from_x0_eps(x0, eps, t, alpha_bar) computes it.",
        "x_t = add_noise(x0, eps, t, alpha_bar); then the mean of the squares of model(...) - v, over everything.",
    ],
)  # fmt: skip
def control_loss(learner, case):
    """Measure how well v is predicted by a U-Net that sees a drawing."""
    table = (1 - case.uniform(0.02, 0.12, 40)).cumprod(0)
    for shape, ends in (((5, 3, 4, 4), [7, 0, 39]), ((4, 3, 4, 2), [20, 5]), ((1, 2, 2, 3), [])):
        batch = shape[0]
        x0, eps, cond = case.normal(*shape), case.normal(*shape), case.normal(batch, 4, 6)
        drawing = case.uniform(0, 1, batch, 3, 4 * shape[2], 4 * shape[3])
        t = torch.cat([torch.tensor(ends, dtype=torch.int64), case.whole(1, 38, batch - len(ends))])
        model = Steered(case)
        with explained("has no attribute 'sample'", "This model returns v itself, not an object that holds it in "
                       ".sample."):  # fmt: skip
            got = learner(model, x0, cond, drawing, t, eps, table)
        require(model.calls > 0, "the model was never called.", "Call it: model(x_t, t, cond, drawing).")
        right, mistakes = control_mistakes(model, x0, cond, drawing, t, eps, table)
        close(got, right, mistakes, tolerance=1e-4, what="the loss")
        require_learning(got, model, x0, cond, drawing, t, eps, table)
