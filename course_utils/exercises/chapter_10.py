"""The exercises of chapter 10: prompts, guidance and the sampling loop."""

import torch

from course_utils.diffusion import guidance, samplers
from course_utils.exercises.mistakes_10 import (
    Eye,
    Watched,
    compose_mistakes,
    diffusers_loop,
    drop_mistakes,
    guide_mistakes,
    loop_mistakes,
    loss_mistakes,
    map_mistakes,
    other_than,
    require_whole_prompts,
    rescale_mistakes,
    score_mistakes,
)
from course_utils.exercises.oracles import close, require
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import close_in_all
from course_utils.models import attention

TITLE = "Text to image"


@exercise(
    "10.word_maps", attention.word_maps, difficulty=3, minutes=15, uses=("04.split_heads", "04.attention"),
    hints=[
        "split_heads makes (batch, heads, tokens, d) of q and of k; attention_weights takes them as they come.",
        "The weights have the shape (batch, heads, pixels, words): average over axis 1.",
        "A word's map is a *column* of the weights: transpose(1, 2) gives (batch, words, pixels).",
        "Split the last axis into rows and columns: .unflatten(2, (side, side)), with side = math.isqrt(pixels).",
    ],
)  # fmt: skip
def word_maps(learner, case):
    """Show for each word which pixels attend to it."""
    for batch, side, words, heads in ((2, 4, 5, 4), (2, 3, 7, 2), (2, 4, 16, 4), (1, 5, 3, 1)):
        q, k = case.normal(batch, side * side, 16), case.normal(batch, words, 16)
        # torch's own attention, with values that say which word they belong to
        q_heads, k_heads = (x.reshape(batch, -1, heads, 16 // heads).transpose(1, 2) for x in (q, k))
        values = torch.eye(words).expand(batch, heads, words, words)
        weights = torch.nn.functional.scaled_dot_product_attention(q_heads, k_heads, values)
        right = weights.mean(1).mT.reshape(batch, words, side, side)
        close(learner(q, k, heads), right, other_than(right, map_mistakes(q, k, weights, side)), tolerance=1e-3,
              what="the maps")  # fmt: skip


@exercise(
    "10.drop_prompts", guidance.drop_prompts, difficulty=2, minutes=10, gradients=True,
    hints=[
        "uniforms < share is True for each prompt that is dropped: (batch,).",
        "It needs two more axes to broadcast with cond: [:, None, None].",
        "torch.where(condition, null, cond) takes from null where the condition holds.",
    ],
)  # fmt: skip
def drop_prompts(learner, case):
    """Replace some of the prompts, each as a whole, by the empty prompt."""
    for batch, words, width in ((8, 5, 6), (6, 6, 6)):
        cond, null = case.normal(batch, words, width), case.normal(1, words, width)
        share = case.uniform(0.3, 0.6).item()
        uniforms = case.uniform(0, 1, batch)
        # two go, two stay: one of these has just the share
        uniforms[:4] = torch.tensor([0.05, (0.1 + share) / 2, (1 + share) / 2, share])
        share = uniforms[3].item()
        right = torch.stack([null[0] if u < share else c for u, c in zip(uniforms.tolist(), cond, strict=True)])
        got = learner(cond, null, uniforms, share)
        require_whole_prompts(got, cond, null, right)
        close(got, right, other_than(right, drop_mistakes(cond, null, uniforms, share)), what="the prompts")
    uniforms = torch.cat([torch.zeros(1), uniforms[1:]])
    close(learner(cond, null, uniforms, 0.0), cond, what="with share = 0 the result")
    close(learner(cond[:1], null, uniforms[1:2], 1.0), null, what="with share = 1 and a batch of one, the result")


@exercise(
    "10.text_loss", guidance.text_loss, difficulty=3, minutes=10, uses=("05.add_noise", "10.drop_prompts"),
    gradients=True,
    hints=[
        "Four lines: x_t by add_noise; the prompts, some of them dropped; the model's prediction; the mean squared "
         "error.",
        "The model is called as model(x_t, t, cond): noisy latents, time, prompt.",
        "The target is eps, the noise that you added. .square().mean() averages over everything.",
    ],
)  # fmt: skip
def text_loss(learner, case):
    """Measure how well the noise is predicted, given time and prompt."""
    table = (1 - case.uniform(0.02, 0.12, 40)).cumprod(0)
    for shape in ((5, 3, 4, 4), (4, 3, 4, 2)):
        batch = shape[0]
        x0, eps, cond, null = case.normal(*shape), case.normal(*shape), case.normal(batch, 4, 6), case.normal(1, 4, 6)
        t, share = case.whole(1, 38, batch), 0.4
        uniforms = torch.cat([torch.tensor([0.1, 0.9]), case.uniform(0.45, 1, batch - 2)])
        eye = Eye(case)
        got = learner(eye, x0, cond, null, t, eps, uniforms, table, share)
        require(eye.calls > 0, "the model was never called.", "Call it: model(x_t, t, cond).")
        signal, noise = table[t].sqrt().view(-1, 1, 1, 1), (1 - table[t]).sqrt().view(-1, 1, 1, 1)
        told = torch.cat([null, cond[1:]])
        answer = eye.answer(signal * x0 + noise * eps, t, told)
        right = torch.nn.functional.mse_loss(answer, eps)
        mistakes = loss_mistakes(eye, x0, eps, t, cond, null, told, table, answer)
        close(got, right, other_than(right, mistakes), tolerance=1e-4, what="the loss")
        for whole, all_told in ((0.0, cond), (1.0, null.expand_as(cond))):
            right = torch.nn.functional.mse_loss(eye.answer(signal * x0 + noise * eps, t, all_told), eps)
            got = learner(eye, x0, cond, null, t, eps, uniforms, table, whole)
            close(got, right, tolerance=1e-4, what=f"with share = {whole:g} the loss")


@exercise(
    "10.classifier_score", guidance.classifier_score, difficulty=3, minutes=10,
    hints=[
        "Each noise prediction gives a score: grad log p(x_t) = -eps / sqrt(1 - alpha_bar_t).",
        "By Bayes' rule the result is the difference of two scores: with the prompt minus without.",
        "alpha_bar[t] has one number for each sample: expand_like(alpha_bar[t], eps_cond).",
    ],
)  # fmt: skip
def classifier_score(learner, case):
    """Compute the gradient of log p(c | x_t) from two noise predictions."""
    table = (1 - case.uniform(0.02, 0.12, 40)).cumprod(0)
    centres, t = case.normal(4, 2), torch.cat([torch.tensor([0, 39]), case.whole(1, 38, 4)])
    x_t = case.normal(6, 2).double().requires_grad_()
    a = table[t].double()[:, None]
    variance = a * 0.5**2 + 1 - a
    # four equally likely clouds; the prompt names the first: its log-probability, differentiated by torch
    logs = -(x_t[:, None] - a.sqrt()[:, None] * centres).square().sum(2) / (2 * variance)
    (right,) = torch.autograd.grad(logs.log_softmax(1)[:, 0].sum(), x_t, retain_graph=True)
    (score_cond,) = torch.autograd.grad(logs[:, 0].sum(), x_t, retain_graph=True)
    (score_null,) = torch.autograd.grad(logs.logsumexp(1).sum(), x_t)
    noise = (1 - a).sqrt()
    eps_cond, eps_null = (-noise * score_cond).float(), (-noise * score_null).float()
    mistakes = score_mistakes(eps_cond, eps_null, table[t][:, None])
    close(learner(eps_cond, eps_null, t, table), right.float(), mistakes, tolerance=3e-3, what="the direction")
    flat = learner(eps_cond.repeat(1, 6).reshape(6, 3, 2, 2), eps_null.repeat(1, 6).reshape(6, 3, 2, 2), t, table)
    close(flat, right.float().repeat(1, 6).reshape(6, 3, 2, 2), tolerance=3e-3, what="for images the direction")
    close(learner(eps_cond[:1], eps_null[:1], t[:1], table), right[:1].float(), tolerance=3e-3,
          what="for a batch of one, the direction")  # fmt: skip


@exercise(
    "10.guide", guidance.guide, difficulty=2, minutes=5,
    hints=[
        "The difference that the prompt makes is eps_cond - eps_null.",
        "Start at eps_null and go `scale` times that difference. At scale = 1 you are at eps_cond.",
    ],
)  # fmt: skip
def guide(learner, case):
    """Combine the predictions with and without the prompt."""
    null, cond = case.normal(3, 4, 5, 5), case.normal(3, 4, 5, 5)
    scales = (round(case.uniform(2, 9).item(), 2), 1.0, 0.0)
    settings = []
    for scale in scales:
        right = torch.lerp(null, cond, scale)  # a straight line through the two predictions
        got = learner(null, cond, scale)
        settings.append(
            (got, right, guide_mistakes(null, cond, scale), f"at scale {scale:g} the prediction", learner.called)
        )
    close_in_all(settings, tolerance=1e-3)
    close(learner(null[:1, 0, 0], cond[:1, 0, 0], 3.0), torch.lerp(null, cond, 3.0)[:1, 0, 0], tolerance=1e-3,
          what="for a batch of one point, the prediction")  # fmt: skip


@exercise(
    "10.compose", guidance.compose, difficulty=2, minutes=10, uses=("10.guide",),
    hints=[
        "Each prompt makes its own difference to eps_null: eps_i - eps_null.",
        "Start at eps_null, and add each difference, times its weight. Loop over zip(weights, eps_each).",
        "eps_null itself is added once, whatever the weights are.",
    ],
)  # fmt: skip
def compose(learner, case):
    """Combine several prompts, some with negative weights."""
    for count in (3, 2, 1):
        null, each = case.normal(3, 2, 4, 4), case.normal(count, 3, 2, 4, 4)
        weights = [round(w, 2) for w in case.uniform(1.5, 5, count).tolist()]
        weights[1:2] = [-w for w in weights[1:2]]
        right = null + torch.einsum("n,nbchw->bchw", torch.tensor(weights), each - null)
        mistakes = compose_mistakes(null, each, weights)
        close(learner(null, each, weights), right, other_than(right, mistakes), tolerance=1e-3,
              what=f"with weights {weights} the prediction")  # fmt: skip


@exercise(
    "10.rescale", guidance.rescale, difficulty=2, minutes=10,
    hints=[
        "x.flatten(1).std(1) is the standard deviation of each sample. Give the ratio more axes: expand_like(ratio, "
         "guided).",
        "Multiply by std(plain) / std(guided): then the result has the standard deviation of `plain`.",
        "Then mix: share * rescaled + (1 - share) * guided.",
    ],
)  # fmt: skip
def rescale(learner, case):
    """Give the guided prediction the standard deviation of the plain one."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    for share, batch in ((1.0, 3), (round(case.uniform(0.2, 0.45).item(), 2), 3), (0.7, 1), (0.0, 2)):
        each = torch.tensor([0.3, 3.0, 5.0])[:batch, None, None, None]
        eps, cond = each * case.normal(batch, 4, 6, 6) + 1, case.normal(batch, 4, 6, 6)
        cond = cond * torch.tensor([1.0, 0.6, 1.5])[:batch, None, None, None]
        right = rescale_noise_cfg(eps, cond, share)
        mistakes = rescale_mistakes(eps, cond, share)
        close(learner(eps, cond, share), right, other_than(right, mistakes), tolerance=2e-3,
              what=f"with share = {share} the prediction")  # fmt: skip
    points, plain = 3 * case.normal(4, 9), case.normal(4, 9)
    close(learner(points, plain, 1.0), rescale_noise_cfg(points[:, None], plain[:, None], 1.0)[:, 0], tolerance=2e-3,
          what="for samples of one axis, the prediction")  # fmt: skip


@exercise(
    "10.text_to_image", samplers.text_to_image, difficulty=4, minutes=20, uses=("10.guide", "07.ddim_step"),
    hints=[
        "Before the loop: cond = encode(prompts), null = encode([negative] * len(prompts)).",
        "The pairs of times are zip(times, [*times[1:], -1]), as in chapter 07: the last step goes to -1, clean.",
        "Evaluate the model twice at the same x_t and t, with null and with cond; then guide, then ddim_step.",
        "The model wants t as a tensor: torch.full((len(x_t),), t). At the end return decode(x_t).",
    ],
)  # fmt: skip
def text_to_image(learner, case):
    """Generate an image from a prompt with the parts."""
    table = (1 - case.uniform(0.02, 0.12, 40)).cumprod(0)
    t = int(case.whole(30, 38))
    times = [t, int(case.whole(15, 25)), int(case.whole(3, 9))]
    for negative, count in (("", 2), ("blue", 2), ("blue", 1)):
        scale = round(case.uniform(2, 4).item(), 2)
        world, x_T = Watched(case), case.normal(count, 3, 4, 2)
        prompts, times = ["a red ball", "a white cat"][:count], times[: count + 1]
        got = learner(prompts, world.encode, world.model, world.decode, x_T, table, times, scale, negative)
        right = world.decode(diffusers_loop(world, prompts, negative, x_T, table, times, scale))
        twice = learner(prompts, world.encode, world.model, world.decode, x_T, table, times, scale, negative)
        require(
            not isinstance(got, torch.Tensor) or torch.equal(got, twice),
            "two calls with the same x_T gave two different images.",
            "Start from the x_T that is passed in, and add no noise between the steps: this DDIM is deterministic.",
        )
        mistakes = loop_mistakes(world, prompts, negative, x_T, table, times, scale)
        close(got, right, other_than(right, mistakes), tolerance=5e-3, what="the image")
