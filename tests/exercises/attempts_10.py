"""Attempts at the exercises of chapter 10."""

import math

import torch
from attempts import mutant, variant
from torch.nn import functional as F

MAPS, DROP, LOSS, SCORE = "10.word_maps", "10.drop_prompts", "10.text_loss", "10.classifier_score"
GUIDE, COMPOSE, RESCALE, DRAW = "10.guide", "10.compose", "10.rescale", "10.text_to_image"

# The maps of the words


def split(x, heads):
    return x.unflatten(2, (heads, -1)).transpose(1, 2)  # (batch, heads, tokens, d)


def weights(q, k, heads, over=-1):
    q, k = split(q, heads), split(k, heads)
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(over)  # (batch, heads, pixels, words)


def as_maps(mean):
    side = math.isqrt(mean.shape[1])
    return mean.mT.unflatten(2, (side, side))


@mutant(MAPS, "one wide head")
def one_wide_head(q, k, heads):
    return as_maps((q @ k.mT / math.sqrt(q.shape[2])).softmax(-1))


@mutant(MAPS, "The softmax runs over the pixels")
def softmax_over_pixels(q, k, heads):
    return as_maps(weights(q, k, heads, over=2).mean(1))


@mutant(MAPS, "Rows and columns are swapped")
def rows_for_columns(q, k, heads):
    return as_maps(weights(q, k, heads).mean(1)).mT


@mutant(MAPS, "without a transpose first")
def no_transpose(q, k, heads):
    side = math.isqrt(q.shape[1])
    return weights(q, k, heads).mean(1).reshape(len(q), k.shape[1], side, side)


@mutant(MAPS, "were added up; take their mean")
def sum_of_heads(q, k, heads):
    return as_maps(weights(q, k, heads).sum(1))


@mutant(MAPS, "the first head alone")
def first_head(q, k, heads):
    return as_maps(weights(q, k, heads)[:, 0])


@mutant(MAPS, "the root of the whole width")
def root_of_the_whole_width(q, k, heads):
    return as_maps((split(q, heads) @ split(k, heads).mT / math.sqrt(q.shape[2])).softmax(-1).mean(1))


@mutant(MAPS, "averaged before the softmax")
def softmax_last(q, k, heads):
    scores = split(q, heads) @ split(k, heads).mT * (heads / q.shape[2]) ** 0.5
    return as_maps(scores.mean(1).softmax(-1))


@mutant(MAPS, "not every h-th")
def heads_interleaved(q, k, heads):
    q, k = (x.unflatten(2, (-1, heads)).permute(0, 3, 1, 2) for x in (q, k))
    return as_maps((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1).mean(1))


@mutant(MAPS, "a map of its own: take their")
def a_map_for_each_head(q, k, heads):
    side = math.isqrt(q.shape[1])
    return weights(q, k, heads).mT.unflatten(3, (side, side))


@mutant(MAPS, "One axis of pixels is left")
def not_cut(q, k, heads):
    return weights(q, k, heads).mean(1).mT


@mutant(MAPS, "not divided by the root of a head's width")
def scores_not_divided(q, k, heads):
    return as_maps((split(q, heads) @ split(k, heads).mT).softmax(-1).mean(1))


@mutant(MAPS, "These are scores, before the softmax")
def no_softmax(q, k, heads):
    return as_maps((split(q, heads) @ split(k, heads).mT * (heads / q.shape[2]) ** 0.5).mean(1))


@variant(MAPS)
def one_head_at_a_time(q, k, heads):
    pieces = zip(q.double().chunk(heads, 2), k.double().chunk(heads, 2), strict=True)
    parts = [(a @ b.mT / a.shape[2] ** 0.5).softmax(2) for a, b in pieces]
    side = int(q.shape[1] ** 0.5)
    return torch.stack(parts).mean(0).reshape(len(q), side, side, -1).permute(0, 3, 1, 2).to(q.dtype)


@variant(MAPS)
def by_einsum(q, k, heads):
    q, k = q.unflatten(2, (heads, -1)), k.unflatten(2, (heads, -1))
    shares = torch.einsum("bphd,bwhd->bhwp", q, k).div(q.shape[-1] ** 0.5).exp()
    shares = (shares / shares.sum(2, keepdim=True)).mean(1)
    return shares.view(len(q), -1, math.isqrt(q.shape[1]), math.isqrt(q.shape[1]))


# Dropped prompts


@mutant(DROP, "became zeros")
def zeros_for_null(cond, null, uniforms, share=0.1):
    return cond * (uniforms >= share)[:, None, None]


@mutant(DROP, "The wrong prompts were dropped")
def the_others(cond, null, uniforms, share=0.1):
    return torch.where((uniforms > share)[:, None, None], null, cond)


@mutant(DROP, "nn.Dropout's way")
def like_dropout(cond, null, uniforms, share=0.1):
    return cond * (uniforms >= share)[:, None, None] / (1 - share)


@mutant(DROP, "single elements of prompts")
def element_by_element(cond, null, uniforms, share=0.1):
    return torch.where(torch.rand(cond.shape, generator=torch.Generator().manual_seed(5)) < share, null, cond)


@mutant(DROP, "nn.Dropout drops elements")
def torch_dropout(cond, null, uniforms, share=0.1):
    return F.dropout(cond, share)


@mutant(DROP, "single words of prompts")
def word_by_word(cond, null, uniforms, share=0.1):
    return torch.where(
        torch.rand(cond.shape[:2], generator=torch.Generator().manual_seed(5))[..., None] < share, null, cond
    )


@mutant(DROP, "Did the first number decide for all")
def one_for_all(cond, null, uniforms, share=0.1):
    return null.expand_as(cond) if uniforms[0] < share else cond


@mutant(DROP, "gone from the batch")
def thrown_out(cond, null, uniforms, share=0.1):
    return cond[uniforms >= share]


@mutant(DROP, "some of null into every prompt")
def mixed_in(cond, null, uniforms, share=0.1):
    return torch.lerp(cond, null.expand_as(cond), share)


@mutant(DROP, "was changed in place")
def into_the_input(cond, null, uniforms, share=0.1):
    cond[uniforms < share] = null
    return cond


@mutant(DROP, "laid along the *words*")
def along_the_words(cond, null, uniforms, share=0.1):
    if cond.shape[1] != len(uniforms):
        return into_a_copy(cond, null, uniforms, share)
    return torch.where((uniforms < share)[:, None], null, cond)


@mutant(DROP, "only mixed with null")
def half_gone(cond, null, uniforms, share=0.1):
    return torch.where((uniforms < share)[:, None, None], (cond + null) / 2, cond)


@mutant(DROP, "Only the first word was replaced")
def first_word_only(cond, null, uniforms, share=0.1):
    cond = cond.clone()
    cond[uniforms < share, 0] = null[0, 0]
    return cond


@mutant(DROP, "No prompt was dropped")
def result_not_kept(cond, null, uniforms, share=0.1):
    torch.where((uniforms < share)[:, None, None], null, cond)
    return cond


@mutant(DROP, "The prompts that stay were divided")
def null_but_scaled(cond, null, uniforms, share=0.1):
    return torch.where((uniforms < share)[:, None, None], null, cond / (1 - share))


@mutant(DROP, "uniforms[i] == share")
def at_most_the_share(cond, null, uniforms, share=0.1):
    return torch.where((uniforms <= share)[:, None, None], null, cond)


@mutant(DROP, "`share` was not used")
def usual_share(cond, null, uniforms, share=0.1):
    return torch.where((uniforms < 0.1)[:, None, None], null, cond)


@mutant(DROP, "the parameter share has no default")
def share_must_be_given(cond, null, uniforms, share):
    return into_a_copy(cond, null, uniforms, share)


@mutant(DROP, "has no way back")
def prompts_detached(cond, null, uniforms, share=0.1):
    return into_a_copy(cond, null, uniforms, share).detach()


@variant(DROP)
def into_a_copy(cond, null, uniforms, share=0.1):
    cond = cond.clone()
    cond[uniforms < share] = null
    return cond


@variant(DROP)
def one_at_a_time(cond, null, uniforms, share=0.1):
    return torch.stack([null.squeeze(0) if u < share else c for c, u in zip(cond, uniforms, strict=True)])


@variant(DROP)
def by_arithmetic(cond, null, uniforms, share=0.1):
    goes = (uniforms < share).to(cond.dtype)[:, None, None]
    return goes * null + (1 - goes) * cond


# The loss


def noisy(x0, eps, t, alpha_bar):
    a = alpha_bar[t].reshape(-1, *[1] * (x0.ndim - 1))
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


def dropped(cond, null, uniforms, share):
    return torch.where((uniforms < share)[:, None, None], null, cond)


@mutant(LOSS, "No prompt was dropped")
def no_dropping(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    return (model(noisy(x0, eps, t, alpha_bar), t, cond) - eps).square().mean()


@mutant(LOSS, "was not told the time")
def no_time(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    told = dropped(cond, null, uniforms, share)
    return (model(noisy(x0, eps, t, alpha_bar), torch.zeros_like(t), told) - eps).square().mean()


@mutant(LOSS, "model(x_t, t, cond)", state="error")
def no_prompt(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    return (model(noisy(x0, eps, t, alpha_bar), t) - eps).square().mean()


@mutant(LOSS, "told the null prompt always")
def always_null(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    return (model(noisy(x0, eps, t, alpha_bar), t, null.expand_as(cond)) - eps).square().mean()


@mutant(LOSS, "shown the clean x0")
def clean_input(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    return (model(x0, t, dropped(cond, null, uniforms, share)) - eps).square().mean()


@mutant(LOSS, "The target here is x0")
def target_x0(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    return (model(noisy(x0, eps, t, alpha_bar), t, dropped(cond, null, uniforms, share)) - x0).square().mean()


@mutant(LOSS, "take the mean of them too")
def one_for_each(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    error = model(noisy(x0, eps, t, alpha_bar), t, dropped(cond, null, uniforms, share)) - eps
    return error.square().flatten(1).mean(1)


@mutant(LOSS, "has no way back")
def cut_off(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    with torch.no_grad():
        answer = model(noisy(x0, eps, t, alpha_bar), t, dropped(cond, null, uniforms, share))
    return (answer - eps).square().mean()


@mutant(LOSS, "time of the first")
def first_time_for_all(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    told = dropped(cond, null, uniforms, share)
    return (model(noisy(x0, eps, t, alpha_bar), t[:1].expand_as(t), told) - eps).square().mean()


def prediction(model, x_t, cond, null, t, uniforms, share):
    return model(x_t, t, dropped(cond, null, uniforms, share))


@mutant(LOSS, "This is the sum over everything")
def summed(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    return (prediction(model, noisy(x0, eps, t, alpha_bar), cond, null, t, uniforms, share) - eps).square().sum()


@mutant(LOSS, "Every element is left")
def all_elements(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    return (prediction(model, noisy(x0, eps, t, alpha_bar), cond, null, t, uniforms, share) - eps).square()


@mutant(LOSS, "the mean absolute error")
def absolute(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    return (prediction(model, noisy(x0, eps, t, alpha_bar), cond, null, t, uniforms, share) - eps).abs().mean()


@mutant(LOSS, "A root was taken")
def root_mean_square(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    error = prediction(model, noisy(x0, eps, t, alpha_bar), cond, null, t, uniforms, share) - eps
    return error.square().mean().sqrt()


@mutant(LOSS, "shown eps itself")
def noise_alone(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    return (prediction(model, eps, cond, null, t, uniforms, share) - eps).square().mean()


@mutant(LOSS, "The target here is x_t")
def target_x_t(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    x_t = noisy(x0, eps, t, alpha_bar)
    return (prediction(model, x_t, cond, null, t, uniforms, share) - x_t).square().mean()


@mutant(LOSS, "The roots are missing in x_t")
def noisy_without_roots(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    a = alpha_bar[t].reshape(-1, 1, 1, 1)
    x_t = a * x0 + (1 - a) * eps
    return (prediction(model, x_t, cond, null, t, uniforms, share) - eps).square().mean()


@mutant(LOSS, "was left with a gradient in weight")
def goes_backward_itself(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    loss = (prediction(model, noisy(x0, eps, t, alpha_bar), cond, null, t, uniforms, share) - eps).square().mean()
    loss.backward(retain_graph=True)
    return loss


@mutant(LOSS, "was left in evaluation mode")
def left_in_evaluation(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    model.eval()
    return (prediction(model, noisy(x0, eps, t, alpha_bar), cond, null, t, uniforms, share) - eps).square().mean()


@variant(LOSS)
def by_the_exercises(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    x_t = add_noise(x0, eps, t, alpha_bar)  # noqa: F821
    return F.mse_loss(model(x_t, t, drop_prompts(cond, null, uniforms, share)), eps)  # noqa: F821


@variant(LOSS)
def sample_by_sample(model, x0, cond, null, t, eps, uniforms, alpha_bar, share=0.1):
    told, x_t = dropped(cond, null, uniforms, share), noisy(x0, eps, t, alpha_bar)
    pieces = [model(x_t[i : i + 1], t[i : i + 1], told[i : i + 1]) - eps[i : i + 1] for i in range(len(t))]
    return torch.cat(pieces).pow(2).sum() / eps.numel()


# The implicit classifier


def level(alpha_bar, t, like):
    return alpha_bar[t].reshape(-1, *[1] * (like.ndim - 1))


@mutant(SCORE, "The sign is wrong")
def towards_the_noise(eps_cond, eps_null, t, alpha_bar):
    return (eps_cond - eps_null) / (1 - level(alpha_bar, t, eps_cond)).sqrt()


@mutant(SCORE, "The scale is missing")
def no_scale(eps_cond, eps_null, t, alpha_bar):
    return eps_null - eps_cond


@mutant(SCORE, "The root is missing")
def no_root(eps_cond, eps_null, t, alpha_bar):
    return (eps_null - eps_cond) / (1 - level(alpha_bar, t, eps_cond))


@mutant(SCORE, "the factor of the image")
def signal_for_noise(eps_cond, eps_null, t, alpha_bar):
    return (eps_null - eps_cond) / level(alpha_bar, t, eps_cond).sqrt()


@mutant(SCORE, "Subtract the score of q(x_t)")
def score_with_the_prompt(eps_cond, eps_null, t, alpha_bar):
    return -eps_cond / (1 - level(alpha_bar, t, eps_cond)).sqrt()


@mutant(SCORE, "the logarithms are subtracted")
def scores_added(eps_cond, eps_null, t, alpha_bar):
    return -(eps_cond + eps_null) / (1 - level(alpha_bar, t, eps_cond)).sqrt()


@mutant(SCORE, "Each has its own")
def time_of_the_first(eps_cond, eps_null, t, alpha_bar):
    return (eps_null - eps_cond) / (1 - alpha_bar[t[0]]).sqrt()


@mutant(SCORE, "Sign and scale are missing")
def the_plain_difference(eps_cond, eps_null, t, alpha_bar):
    return eps_cond - eps_null


@mutant(SCORE, "multiplies where it should divide")
def multiplied(eps_cond, eps_null, t, alpha_bar):
    return (eps_null - eps_cond) * (1 - level(alpha_bar, t, eps_cond)).sqrt()


@variant(SCORE)
def two_scores(eps_cond, eps_null, t, alpha_bar):
    noise = (1 - level(alpha_bar.double(), t, eps_cond)) ** 0.5
    return (-eps_cond / noise + eps_null / noise).to(eps_cond)


@variant(SCORE)
def sample_after_sample(eps_cond, eps_null, t, alpha_bar):
    return torch.stack(
        [(n - c) / math.sqrt(1 - alpha_bar[i].item()) for c, n, i in zip(eps_cond, eps_null, t.tolist(), strict=True)]
    )


# Guidance


@mutant(GUIDE, "The two are swapped")
def swapped(eps_null, eps_cond, scale):
    return eps_cond + scale * (eps_null - eps_cond)


@mutant(GUIDE, "the convention 1 + w")
def from_the_paper(eps_null, eps_cond, scale):
    return (1 + scale) * eps_cond - scale * eps_null


@mutant(GUIDE, "leads away from the prompt")
def wrong_side(eps_null, eps_cond, scale):
    return eps_null + scale * (eps_null - eps_cond)


@mutant(GUIDE, "the difference alone")
def no_start(eps_null, eps_cond, scale):
    return scale * (eps_cond - eps_null)


@mutant(GUIDE, "adds eps_null and eps_cond whole")
def prompt_on_top(eps_null, eps_cond, scale):
    return eps_null + scale * eps_cond


@mutant(GUIDE, "The factor of eps_null is 1 - scale")
def factor_with_the_wrong_sign(eps_null, eps_cond, scale):
    return scale * eps_cond + (scale - 1) * eps_null


@mutant(GUIDE, "Guidance goes *beyond* eps_cond")
def cut_at_one(eps_null, eps_cond, scale):
    return torch.lerp(eps_null, eps_cond, min(scale, 1.0))


@mutant(GUIDE, "lost its signs")
def distance(eps_null, eps_cond, scale):
    return eps_null + scale * (eps_cond - eps_null).abs()


@mutant(GUIDE, "The factors should add up to 1")
def one_taken_off(eps_null, eps_cond, scale):
    return scale * eps_cond - eps_null


@mutant(GUIDE, "The prompt was not used")
def no_prompt_at_all(eps_null, eps_cond, scale):
    return eps_null.clone()


@mutant(GUIDE, "The scale was not used")
def plain_guess(eps_null, eps_cond, scale):
    return eps_cond.clone()


@mutant(GUIDE, "makes the noise itself larger")
def louder_noise(eps_null, eps_cond, scale):
    return scale * eps_cond


@variant(GUIDE)
def two_factors(eps_null, eps_cond, scale):
    return torch.add(scale * eps_cond, eps_null, alpha=1 - scale)


@variant(GUIDE)
def beyond_the_prompt(eps_null, eps_cond, scale):
    return eps_cond + (scale - 1) * (eps_cond - eps_null)


# Several prompts


def factors(weights, each):
    return torch.tensor(weights).reshape(-1, *[1] * (each.ndim - 1))


@mutant(COMPOSE, "Add the *differences* to eps_null")
def weighted_sum(eps_null, eps_each, weights):
    return (factors(weights, eps_each) * eps_each).sum(0)


@mutant(COMPOSE, "eps_null was not taken off")
def not_taken_off(eps_null, eps_each, weights):
    return eps_null + (factors(weights, eps_each) * eps_each).sum(0)


@mutant(COMPOSE, "once for each prompt")
def guided_and_added(eps_null, eps_each, weights):
    return sum(guide(eps_null, eps, weight) for eps, weight in zip(eps_each, weights, strict=True))  # noqa: F821


@mutant(COMPOSE, "The differences were averaged")
def averaged(eps_null, eps_each, weights):
    return eps_null + (factors(weights, eps_each) * (eps_each - eps_null)).mean(0)


@mutant(COMPOSE, "they need not make 1")
def normalised(eps_null, eps_each, weights):
    w = factors(weights, eps_each)
    return eps_null + (w / w.sum() * (eps_each - eps_null)).sum(0)


@mutant(COMPOSE, "were left out")
def only_wishes(eps_null, eps_each, weights):
    total = eps_null
    for weight, eps in zip(weights, eps_each, strict=True):
        if weight > 0:
            total = total + weight * (eps - eps_null)
    return total


@mutant(COMPOSE, "taken from the sum so far")
def one_after_the_other(eps_null, eps_each, weights):
    for weight, eps in zip(weights, eps_each, strict=True):
        eps_null = eps_null + weight * (eps - eps_null)
    return eps_null


@mutant(COMPOSE, "lost its sign")
def without_sign(eps_null, eps_each, weights):
    return eps_null + (factors(weights, eps_each).abs() * (eps_each - eps_null)).sum(0)


@mutant(COMPOSE, "eps_null is missing")
def differences_alone(eps_null, eps_each, weights):
    return (factors(weights, eps_each) * (eps_each - eps_null)).sum(0)


@mutant(COMPOSE, "Only the first prompt was followed")
def first_prompt(eps_null, eps_each, weights):
    return eps_null + weights[0] * (eps_each[0] - eps_null)


@mutant(COMPOSE, "a positive weight leads towards")
def led_away(eps_null, eps_each, weights):
    return eps_null - (factors(weights, eps_each) * (eps_each - eps_null)).sum(0)


@mutant(COMPOSE, "the input weights was changed in place")
def empties_the_weights(eps_null, eps_each, weights):
    eps = eps_null
    for eps_i in eps_each:
        eps = eps + weights.pop(0) * (eps_i - eps_null)
    return eps


@variant(COMPOSE)
def by_tensordot(eps_null, eps_each, weights):
    return eps_null + torch.tensordot(torch.tensor(weights), eps_each - eps_null, 1)


@variant(COMPOSE)
def the_rest_for_null(eps_null, eps_each, weights):
    return (1 - sum(weights)) * eps_null + sum(w * eps for w, eps in zip(weights, eps_each, strict=True))


@variant(COMPOSE)
def guided_one_by_one(eps_null, eps_each, weights):
    total = sum(guide(eps_null, e, w) for e, w in zip(eps_each, weights, strict=True))  # noqa: F821
    return total - (len(weights) - 1) * eps_null


# Rescaling


def spread(x):
    return x.flatten(1).std(1).view(-1, *[1] * (x.ndim - 1))


@mutant(RESCALE, "The ratio is upside down")
def upside_down(guided, plain, share=0.7):
    return share * guided * spread(guided) / spread(plain) + (1 - share) * guided


@mutant(RESCALE, "ratio of the variances")
def variances(guided, plain, share=0.7):
    return share * guided * (spread(plain) / spread(guided)) ** 2 + (1 - share) * guided


@mutant(RESCALE, "of the whole batch")
def of_the_batch(guided, plain, share=0.7):
    return share * guided * plain.std() / guided.std() + (1 - share) * guided


@mutant(RESCALE, "The shares are swapped")
def shares_swapped(guided, plain, share=0.7):
    return (1 - share) * guided * spread(plain) / spread(guided) + share * guided


@mutant(RESCALE, "`share` was not used")
def all_of_it(guided, plain, share=0.7):
    return guided * spread(plain) / spread(guided)


@mutant(RESCALE, "Each channel got a ratio of its own")
def channel_by_channel(guided, plain, share=0.7):
    ratio = plain.std((2, 3), keepdim=True) / guided.std((2, 3), keepdim=True)
    return share * guided * ratio + (1 - share) * guided


@mutant(RESCALE, "The rest of the mixture is `guided`")
def mixed_with_the_prompt(guided, plain, share=0.7):
    return share * guided * spread(plain) / spread(guided) + (1 - share) * plain


@mutant(RESCALE, "Rescale `guided`, not `plain`")
def plain_rescaled(guided, plain, share=0.7):
    return share * plain * spread(plain) / spread(guided) + (1 - share) * guided


@mutant(RESCALE, "The unchanged part is missing")
def rest_forgotten(guided, plain, share=0.7):
    return share * guided * spread(plain) / spread(guided)


@mutant(RESCALE, "does not divide by std(guided)")
def multiplied_only(guided, plain, share=0.7):
    return share * guided * spread(plain) + (1 - share) * guided


@mutant(RESCALE, "the parameter share has the default 0.5")
def other_default(guided, plain, share=0.5):
    return interpolated(guided, plain, share)


@mutant(RESCALE, "may only become smaller")
def only_smaller(guided, plain, share=0.7):
    ratio = (spread(plain) / spread(guided)).clamp(max=1)
    return share * guided * ratio + (1 - share) * guided


@mutant(RESCALE, "Dimension out of range", state="error")
def for_pictures_only(guided, plain, share=0.7):
    ratio = plain.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True)
    return share * guided * ratio + (1 - share) * guided


@variant(RESCALE)
def population_deviation(guided, plain, share=0.7):
    ratio = (plain.flatten(1).var(1, correction=0) / guided.flatten(1).var(1, correction=0)).sqrt()
    return guided * (1 + share * (ratio - 1)).view(-1, *[1] * (guided.ndim - 1))


@variant(RESCALE)
def interpolated(guided, plain, share=0.7):
    return torch.lerp(guided, guided * spread(plain) / spread(guided), share)


# The whole loop


def answers(model, x_t, t, null, cond):
    at = torch.full((len(x_t),), t)
    return model(x_t, at, null), model(x_t, at, cond)


def step(x_t, eps, t, earlier, alpha_bar):
    a, e = alpha_bar[t].item(), 1.0 if earlier < 0 else alpha_bar[earlier].item()
    x0_hat = (x_t - math.sqrt(1 - a) * eps) / math.sqrt(a)
    return math.sqrt(e) * x0_hat + math.sqrt(1 - e) * eps


def walk(encode, model, x_T, alpha_bar, times, prompts, negative, guess, ends=-1):
    cond, null = encode(prompts), encode([negative] * len(prompts))
    x_t = x_T
    for t, earlier in zip(times, [*times[1:], ends], strict=True):
        x_t = step(x_t, guess(*answers(model, x_t, t, null, cond)), t, earlier, alpha_bar)
    return x_t


@mutant(DRAW, "end with decode(x_t)")
def latents(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    return walk(encode, model, x_T, alpha_bar, times, prompts, negative, lambda n, c: n + scale * (c - n))


@mutant(DRAW, "The negative prompt was not used")
def no_negative(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    return decode(walk(encode, model, x_T, alpha_bar, times, prompts, "", lambda n, c: n + scale * (c - n)))


@mutant(DRAW, "There is no guidance")
def no_guidance(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    return decode(walk(encode, model, x_T, alpha_bar, times, prompts, negative, lambda n, c: c))


@mutant(DRAW, "guide takes eps_null first")
def guesses_swapped(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    return decode(walk(encode, model, x_T, alpha_bar, times, prompts, negative, lambda n, c: c + scale * (n - c)))


@mutant(DRAW, "The last step goes to t = 0")
def not_to_the_end(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    return decode(walk(encode, model, x_T, alpha_bar, times, prompts, negative, lambda n, c: n + scale * (c - n), 0))


@mutant(DRAW, "The last step is missing")
def one_step_short(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    cond, null, x_t = encode(prompts), encode([negative] * len(prompts)), x_T
    for t, earlier in zip(times, times[1:], strict=False):
        n, c = answers(model, x_t, t, null, cond)
        x_t = step(x_t, n + scale * (c - n), t, earlier, alpha_bar)
    return decode(x_t)


@mutant(DRAW, "told the time that the step goes to")
def told_the_next_time(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    cond, null, x_t = encode(prompts), encode([negative] * len(prompts)), x_T
    for t, earlier in zip(times, [*times[1:], -1], strict=True):
        n, c = answers(model, x_t, max(earlier, 0), null, cond)
        x_t = step(x_t, n + scale * (c - n), t, earlier, alpha_bar)
    return decode(x_t)


@mutant(DRAW, "This decodes the noise x_T")
def decodes_the_start(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    walk(encode, model, x_T, alpha_bar, times, prompts, negative, lambda n, c: n + scale * (c - n))
    return decode(x_T)


@mutant(DRAW, "The prompt was added to x_T")
def prompt_in_the_start(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    x_T = x_T + encode(prompts).mean((1, 2)).view(-1, 1, 1, 1)
    return decode(walk(encode, model, x_T, alpha_bar, times, prompts, negative, lambda n, c: n + scale * (c - n)))


@mutant(DRAW, "Start from the x_T that is passed in")
def fresh_noise(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    start = torch.randn_like(x_T)
    return decode(walk(encode, model, start, alpha_bar, times, prompts, negative, lambda n, c: n + scale * (c - n)))


@mutant(DRAW, "encode expects a list of texts", state="error")
def a_single_text(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    encode(negative)


@mutant(DRAW, "the convention 1 + w")
def scale_of_the_paper(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    return decode(walk(encode, model, x_T, alpha_bar, times, prompts, negative, lambda n, c: c + scale * (c - n)))


@mutant(DRAW, "only the prediction without it")
def without_the_prompt(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    return decode(walk(encode, model, x_T, alpha_bar, times, prompts, negative, lambda n, c: n))


@mutant(DRAW, "The two predictions were added up")
def guesses_added(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    return decode(walk(encode, model, x_T, alpha_bar, times, prompts, negative, lambda n, c: n + c))


@mutant(DRAW, "told the first time at every step")
def told_the_first_time(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    cond, null, x_t = encode(prompts), encode([negative] * len(prompts)), x_T
    for t, earlier in zip(times, [*times[1:], -1], strict=True):
        n, c = answers(model, x_t, times[0], null, cond)
        x_t = step(x_t, n + scale * (c - n), t, earlier, alpha_bar)
    return decode(x_t)


@mutant(DRAW, "the input times was changed in place")
def empties_the_times(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    cond, null, x_t = encode(prompts), encode([negative] * len(prompts)), x_T
    while times:
        t = times.pop(0)
        n, c = answers(model, x_t, t, null, cond)
        x_t = step(x_t, n + scale * (c - n), t, times[0] if times else -1, alpha_bar)
    return decode(x_t)


@mutant(DRAW, "in reverse, from the clean end")
def from_the_clean_end(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    cond, null, x_t = encode(prompts), encode([negative] * len(prompts)), x_T
    for t, earlier in list(zip(times, [*times[1:], -1], strict=True))[::-1]:
        n, c = answers(model, x_t, t, null, cond)
        x_t = step(x_t, n + scale * (c - n), t, earlier, alpha_bar)
    return decode(x_t)


@variant(DRAW)
def both_in_one_batch(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    both = encode([negative] * len(prompts) + list(prompts))
    x_t = x_T
    for i, t in enumerate(times):
        n, c = model(torch.cat([x_t, x_t]), torch.full((2 * len(x_t),), t), both).chunk(2)
        eps = guide(n, c, scale)  # noqa: F821
        x_t = ddim_step(x_t, eps, t, times[i + 1] if i + 1 < len(times) else -1, alpha_bar)  # noqa: F821
    return decode(x_t)


@variant(DRAW)
def without_gradients(prompts, encode, model, decode, x_T, alpha_bar, times, scale=4.0, negative=""):
    with torch.no_grad():
        return decode(
            walk(encode, model, x_T, alpha_bar, times, prompts, negative, lambda n, c: scale * c + (1 - scale) * n)
        )
