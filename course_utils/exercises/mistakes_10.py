"""What the exercises of chapter 10 give with common mistakes, and small models that record how they are called.

Each `..._mistakes` returns pairs (value that a mistake gives, sentence that names it) for `close`.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from course_utils.exercises.oracles import Wrong


def other_than(right, mistakes):
    """The mistakes whose value is not, by chance or at a limit, the right one."""
    return [
        (value, advice)
        for value, advice in mistakes
        if value.shape != right.shape or not torch.allclose(value.nan_to_num(1e9), right, rtol=1e-3, atol=1e-5)
    ]


def map_mistakes(q, k, weights, side):
    """weights: (batch, heads, pixels, words), the right ones."""
    heads, words = weights.shape[1], weights.shape[3]
    mean = weights.mean(1)  # (batch, pixels, words)
    width = q.shape[2]

    def split(x):
        return x.unflatten(2, (heads, -1)).transpose(1, 2)

    def maps(weights):
        return weights.mT.reshape(-1, words, side, side)

    scores = split(q) @ split(k).mT / math.sqrt(width // heads)
    interleaved = [x.unflatten(2, (-1, heads)).permute(0, 3, 1, 2) for x in (q, k)]
    return [
        (maps((q @ k.mT / math.sqrt(width)).softmax(-1)), "This is one wide head. Each head compares its own piece of "
                                                          "query and key: split_heads both first."),
        (maps(scores.softmax(2).mean(1)), "The softmax runs over the pixels. Each pixel shares itself out among the "
                                          "*words*: the shares of all words at one pixel add up to 1."),
        (maps(mean).mT, "Rows and columns are swapped: pixel number = row * side + column, and rows come first."),
        (mean.reshape(-1, words, side, side), "The numbers were cut into maps without a transpose first, so that words "
                                              "and pixels are mixed up. A word's map is a column of the weights."),
        (maps(weights.sum(1)), "The heads were added up; take their mean."),
        (maps(weights[:, 0]), "This is the first head alone; take the mean over all."),
        (maps((split(q) @ split(k).mT).softmax(-1).mean(1)), "The scores were not divided by the root of a head's "
                                                             "width. attention_weights does that."),
        (maps((split(q) @ split(k).mT / math.sqrt(width)).softmax(-1).mean(1)),
         "The scores were divided by the root of the whole width; use the width of one head."),
        (maps(scores.mean(1).softmax(-1)), "The heads' scores were averaged before the softmax. Each head has its own "
                                           "softmax; average the weights."),
        (maps(scores.mean(1)), "These are scores, before the softmax."),
        (maps((interleaved[0] @ interleaved[1].mT / math.sqrt(width // heads)).softmax(-1).mean(1)),
         "Head 0 takes the *first* d numbers of a token, not every h-th: use split_heads."),
        (mean.mT, "One axis of pixels is left: cut it into rows and columns, .unflatten(2, (side, side))."),
        (maps(weights.flatten(0, 1)).unflatten(0, (-1, heads)), "Each head still has a map of its own: take their "
                                                                "mean."),
    ]  # fmt: skip


def drop_mistakes(cond, null, uniforms, share):
    goes = (uniforms < share)[:, None, None]
    words = goes.transpose(0, 1) if cond.shape[1] == len(uniforms) else torch.zeros_like(goes)
    return [
        (torch.where(goes, torch.zeros_like(cond), cond), "A dropped prompt became zeros. Nothing that the text "
                                                          "encoder outputs looks like that; use the null prompt."),
        (torch.where(goes, cond, null), "The wrong prompts were dropped: a prompt is dropped where its number is "
         "*below* share."),
        (torch.where((uniforms > share)[:, None, None], null, cond), "The wrong prompts were dropped: a prompt is "
         "dropped where "
         "its number is *below* share."),
        (torch.where(goes, torch.zeros_like(cond), cond / (1 - share)),
         "This is nn.Dropout's way: zeros, and the rest made larger. Here nothing is scaled; use null."),
        (torch.where(goes, null, cond / (1 - share)), "The prompts that stay were divided by 1 - share. They stay as "
                                                      "they are."),
        (torch.where((uniforms <= share)[:, None, None], null, cond), "The condition is uniforms[i] < share: a prompt "
         "with uniforms[i] == share stays, so that share = 0 drops none."),
        (torch.where((uniforms < 0.1)[:, None, None], null, cond), "`share` was not used."),
        (null.expand_as(cond), "All prompts were dropped. Did the first number decide for all? Each has its own."),
        (cond, "No prompt was dropped."),
        (cond[~goes[:, 0, 0]], "The dropped prompts are gone from the batch. Their images still need one: the null "
                               "prompt."),
        (torch.where(words, null, cond), "The numbers were laid along the *words*: each prompt lost the same "
                                             "words. One number is for one prompt: [:, None, None]."),
        (torch.where(goes, (cond + null) / 2, cond), "A dropped prompt was only mixed with null; replace it whole."),
        ((1 - share) * cond + share * null, "This mixes some of null into every prompt. Replace whole prompts."),
        (torch.cat([torch.where(goes, null, cond)[:, :1], cond[:, 1:]], 1),
         "Only the first word was replaced: the others still tell what the prompt was."),
    ]  # fmt: skip


def require_whole_prompts(got, cond, null, right):
    """Say so if pieces of prompts were replaced: at a different place in each prompt, so no one value shows it."""
    if not isinstance(got, torch.Tensor) or got.shape != cond.shape or torch.allclose(got.to(right), right):
        return
    gone, kept = (torch.isclose(got.to(cond), other.expand_as(cond)) for other in (null, cond))
    zeros = (got == 0) & ~kept
    if zeros.any() and not (zeros.flatten(1).all(1) == zeros.flatten(1).any(1)).all():
        raise Wrong(
            "single elements became 0, expected whole prompts to be replaced by null.",
            "nn.Dropout drops elements. A prompt with holes is not the null prompt that guidance needs.",
        )
    pieces = (gone | kept).all() and (gone.flatten(1).any(1) & kept.flatten(1).any(1)).any()
    if pieces and not (gone[:, 0].all(1) == gone[:, 0].any(1)).all():
        raise Wrong("single elements of prompts were dropped, expected each prompt to go or stay as a whole.",
                    "A prompt with holes is not the null prompt that guidance needs. One number of `uniforms` "
                    "decides for a whole prompt.")  # fmt: skip
    whole = (gone.all(2) | kept.all(2)).all()
    ways = {tuple(row) for row in gone.all(2).tolist()}
    if pieces and whole and len(ways) > 2:
        raise Wrong("single words of prompts were dropped, expected each prompt to go or stay as a whole.",
                    "The words that are left still tell what the prompt was. One number of `uniforms` decides for a "
                    "whole prompt.")  # fmt: skip


class Eye(nn.Module):
    """A small network that counts its calls; its output depends on x_t, t and cond."""

    def __init__(self, case):
        super().__init__()
        self.weight = nn.Parameter(case.uniform(1.2, 1.8))
        self.calls = 0

    def answer(self, x_t, t, cond):
        told = cond.mean((1, 2)) * 3 if cond.ndim == 3 else cond
        return self.weight * x_t + (told - t.to(x_t) / 10).view(-1, 1, 1, 1)

    def forward(self, x_t, t=None, cond=None):
        if t is None or cond is None:
            raise ValueError("the model expects noisy latents, time and prompt: model(x_t, t, cond).")
        if not isinstance(t, torch.Tensor) or t.shape != x_t.shape[:1]:
            raise ValueError(f"the model expects one time for each sample, t of shape {tuple(x_t.shape[:1])}.")
        self.calls += 1
        return self.answer(x_t, t, cond)


def loss_mistakes(eye, x0, eps, t, cond, null, told, table, answer):
    a = table[t].view(-1, 1, 1, 1)
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * eps

    def loss(x=x_t, t=t, c=told, target=eps):
        return (eye.answer(x, t, c) - target).square().mean()

    return [
        (loss(c=cond), "No prompt was dropped: the model never meets the null prompt, which guidance needs."),
        (loss(c=null.expand_as(cond)), "The model was told the null prompt always: it cannot learn what prompts mean."),
        (loss(t=torch.zeros_like(t)), "The model was not told the time (t = 0 for all)."),
        (loss(t=t[:1].expand_as(t)), "All samples were told the time of the first."),
        (loss(x=x0), "The model was shown the clean x0. It should predict the noise in x_t."),
        (loss(x=eps), "The model was shown eps itself."),
        (loss(target=x0), "The target here is x0. This network predicts the noise: eps."),
        (loss(target=x_t), "The target here is x_t. It should be eps."),
        (loss(x=a * x0 + (1 - a) * eps), "The roots are missing in x_t: add_noise has them."),
        ((answer - eps).square().sum(), "This is the sum over everything; take the mean."),
        ((answer - eps).square().flatten(1).mean(1), "One number for each sample is left: take the mean of them too."),
        ((answer - eps).square(), "Every element is left: take the mean over all of them."),
        ((answer - eps).abs().mean(), "This is the mean absolute error; the loss is the mean of the squares."),
        ((answer - eps).square().mean().sqrt(), "A root was taken: the loss is the mean square itself."),
    ]  # fmt: skip


def score_mistakes(eps_cond, eps_null, a):
    noise, difference = (1 - a).sqrt(), eps_cond - eps_null
    return [
        (difference / noise, "The sign is wrong: noise points *away* from the data, a score towards them."),
        (-difference, "The scale is missing: a score is -eps divided by sqrt(1 - alpha_bar_t)."),
        (difference, "Sign and scale are missing: a score is -eps / sqrt(1 - alpha_bar_t)."),
        (-difference / (1 - a), "The root is missing: divide by sqrt(1 - alpha_bar_t)."),
        (-difference / a.sqrt(), "This divides by the factor of the image, √ᾱ; divide by that of the noise."),
        (-difference * noise, "This multiplies where it should divide."),
        (-eps_cond / noise, "This is the score of q(x_t | c). Subtract the score of q(x_t)."),
        (-(eps_cond + eps_null) / noise, "Bayes' rule *divides* by p(x_t): the logarithms are subtracted."),
        (-difference / noise[:1], "All samples got the time of the first. Each has its own."),
    ]  # fmt: skip


def guide_mistakes(null, cond, scale):
    difference = cond - null
    return [
        (scale * cond + (scale - 1) * null, "The factor of eps_null is 1 - scale, negative beyond 1."),
        (torch.lerp(null, cond, min(scale, 1.0)), "The scale was cut at 1. Guidance goes *beyond* eps_cond."),
        (cond + scale * (null - cond), "The two are swapped: at scale 1 this gives the prediction *without* the "
         "prompt."),
        (cond + scale * difference, "This starts at eps_cond: it is the convention 1 + w of the paper. Here scale = 1 "
                                    "is eps_cond and scale = 0 is eps_null, as in diffusers."),
        (null - scale * difference, "The sign is wrong: this leads away from the prompt."),
        (scale * difference, "This is the difference alone. It is added to eps_null."),
        (scale * cond + null, "This adds eps_null and eps_cond whole; the *difference* should be "
                                "multiplied."),
        (scale * cond - null, "The factors should add up to 1: scale for eps_cond, 1 - scale for eps_null."),
        (scale * cond, "This makes the noise itself larger. Multiply the difference that the prompt makes."),
        (cond, "The scale was not used: this is the plain prediction with the prompt."),
        (null, "The prompt was not used."),
        (null + scale * difference.abs(), "The difference lost its signs."),
    ]  # fmt: skip


def compose_mistakes(null, each, weights):
    w = torch.tensor(weights).view(-1, 1, 1, 1, 1)
    differences = each - null
    found = [
        ((w * each).sum(0), "The predictions themselves were added up. Add the *differences* to eps_null."),
        (null + (w * each).sum(0), "eps_null was not taken off: what a prompt changes is eps_i - eps_null."),
        ((w * differences).sum(0), "eps_null is missing: the differences are added to it."),
        ((null + w * differences).sum(0), "eps_null was added once for each prompt; add it only once."),
        (null + (w * differences).mean(0), "The differences were averaged; add them up."),
        (null + (w / w.sum() * differences).sum(0), "The weights were divided by their sum; they need not make 1."),
        (null + (w.clamp(min=0) * differences).sum(0), "Prompts with a negative weight were left out: they say "
                                                       "what to lead away from."),
        (null + (w.abs() * differences).sum(0), "The negative weight lost its sign: it should lead away from that "
         "prompt."),
        (null + w[0, 0] * differences[0], "Only the first prompt was followed."),
        (null - (w * differences).sum(0), "The sign is wrong: a positive weight leads towards the prompt."),
    ]  # fmt: skip
    chain = null
    for weight, eps in zip(weights, each, strict=True):
        chain = chain + weight * (eps - chain)
    return [*found, (chain, "The second prompt's difference was taken from the sum so far. Take each from "
                            "eps_null.")]  # fmt: skip


def rescale_mistakes(guided, plain, share):
    def std(x):
        return x.flatten(1).std(1).view(-1, 1, 1, 1)

    def mixed(ratio):
        return share * ratio * guided + (1 - share) * guided

    ratio = std(plain) / std(guided)
    return [
        (mixed(1 / ratio), "The ratio is upside down: it is std(plain) / std(guided)."),
        (mixed(ratio.clamp(max=1)), "The ratio was held at 1 or below, as if the spread may only become smaller."),
        (mixed(ratio**2), "This is the ratio of the variances; use that of the standard deviations."),
        (mixed(plain.std() / guided.std()), "The standard deviation is of the whole batch. Each sample has its own."),
        ((1 - share) * ratio * guided + share * guided, "The shares are swapped: `share` is for the rescaled one."),
        (ratio * guided, "`share` was not used: mix the rescaled prediction with `guided`."),
        (share * ratio * guided, "The unchanged part is missing: + (1 - share) * guided."),
        (share * ratio * guided + (1 - share) * plain, "The rest of the mixture is `guided`, not `plain`."),
        (share * ratio * plain + (1 - share) * guided, "Rescale `guided`, not `plain`."),
        (mixed(std(plain)), "This multiplies by std(plain), and does not divide by std(guided)."),
        (mixed(plain.std(dim=(2, 3), keepdim=True) / guided.std(dim=(2, 3), keepdim=True)),
         "Each channel got a ratio of its own. Colours live in the ratio of the channels: one ratio for a sample."),
    ]  # fmt: skip


class Watched:
    """A world of three prompts whose model is a smooth function, with what a learner's loop may get wrong in reach."""

    def __init__(self, case):
        self.texts = {text: case.normal(5, 6) for text in ("a red ball", "a white cat", "blue", "")}
        self.mix = case.uniform(0.3, 0.8).item()

    def encode(self, prompts):
        if isinstance(prompts, str):
            raise ValueError("encode expects a list of texts, not a single one: [negative] * len(prompts).")
        if any(text not in self.texts for text in prompts):
            raise ValueError(f"encode was given {prompts}; expected the prompts, and the negative prompt for each.")
        return torch.stack([self.texts[text] for text in prompts])

    def model(self, x_t, t, cond):
        if not isinstance(t, torch.Tensor) or t.shape != x_t.shape[:1]:
            raise ValueError(
                f"the model expects t as a tensor with one time for each sample, {tuple(x_t.shape[:1])}: "
                f"torch.full((len(x_t),), t)."
            )
        if cond.shape[:1] != x_t.shape[:1]:
            raise ValueError(
                f"the model expects one prompt for each of {len(x_t)} samples, got {len(cond)}: "
                "encode([negative] * len(prompts))."
            )
        return torch.tanh(self.mix * x_t + cond.mean((1, 2)).view(-1, 1, 1, 1) * 3 - t.view(-1, 1, 1, 1) / 40)

    def decode(self, latents):
        return F.interpolate(latents, scale_factor=2) * 3 + 1


def diffusers_loop(world, prompts, negative, x_T, table, times, scale, library=True):
    """x_0 by diffusers' DDIM scheduler, set to these times."""
    from diffusers import DDIMScheduler

    ddim = DDIMScheduler(num_train_timesteps=len(table), clip_sample=False)
    ddim.alphas_cumprod, x_t = table, x_T
    cond, null = world.encode(prompts), world.encode([negative] * len(prompts))
    for t, earlier in zip(times, [*times[1:], -1], strict=True):
        at = torch.full((len(x_t),), t)
        eps = torch.lerp(world.model(x_t, at, null), world.model(x_t, at, cond), scale)
        # the library goes len(table) / num_inference_steps back: a whole number only if that divides
        ddim.config.num_train_timesteps, ddim.num_inference_steps = t - earlier, 1
        x_t = ddim.step(eps, t, x_t).prev_sample
    return x_t


def loop_mistakes(world, prompts, negative, x_T, table, times, scale):
    cond, null, empty = (world.encode(p) for p in (prompts, [negative] * len(prompts), [""] * len(prompts)))
    pairs = list(zip(times, [*times[1:], -1], strict=True))

    def level(t, last=1.0):
        return table[t].item() if t >= 0 else last

    def loop(guess=None, c=cond, n=null, pairs=pairs, w=scale, last=1.0, start=x_T, told=None, decode=True):
        x_t = start
        for t, earlier in pairs:
            at = torch.full((len(x_t),), max(t if told is None else told(t, earlier), 0))
            e_n, e_c = world.model(x_t, at, n), world.model(x_t, at, c)
            eps = e_n + w * (e_c - e_n) if guess is None else guess(e_n, e_c)
            a, e = level(t), level(earlier, last)
            x_t = math.sqrt(e) * (x_t - math.sqrt(1 - a) * eps) / math.sqrt(a) + math.sqrt(1 - e) * eps
        return world.decode(x_t) if decode else x_t

    return [
        (loop(decode=False), "These are latents: end with decode(x_t)."),
        (world.decode(x_T), "This decodes the noise x_T. Was x_t changed in the loop?"),
        (loop(n=empty), "The negative prompt was not used: encode it, and let it stand where the null prompt stood."),
        (loop(guess=lambda n, c: c), "There is no guidance: only the prediction with the prompt was used."),
        (loop(guess=lambda n, c: n), "The prompt was not used: only the prediction without it."),
        (loop(guess=lambda n, c: c + scale * (n - c)), "The two predictions are swapped: guide takes eps_null first."),
        (loop(guess=lambda n, c: n + c), "The two predictions were added up; use guide."),
        (loop(c=null, n=cond), "The two predictions are swapped: guide takes eps_null first."),
        (loop(pairs=pairs[:-1]), "The last step is missing: from the last of `times` it continues to -1, the clean "
         "end."),
        (loop(last=table[0].item()), "The last step goes to t = 0, where some noise is left. It goes to -1."),
        (loop(told=lambda t, earlier: earlier), "The model was told the time that the step goes to. x_t is at t."),
        (loop(told=lambda t, earlier: times[0]), "The model was told the first time at every step."),
        (loop(w=scale + 1), "The scale is 1 too large: this is the convention 1 + w."),
        (loop(start=x_T + cond.mean((1, 2)).view(-1, 1, 1, 1)), "The prompt was added to x_T. The start is noise, "
                                                                "whatever the prompt says."),
        (world.decode(loop(pairs=pairs[::-1], decode=False)), "The times were used in reverse, from the clean end."),
    ]  # fmt: skip
