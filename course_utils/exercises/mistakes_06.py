"""What common mistakes in drawing times and in the training step look like, each with the sentence that names it."""

import torch
from torch import nn

from course_utils.exercises.oracles import Wrong, close, require, require_tensor


def require_times(t, count):
    require_tensor(t, torch.zeros(count))
    require(t.shape == (count,), f"the result has the shape {tuple(t.shape)}, expected ({count},).",
            "One time for each sample: `count` numbers.")  # fmt: skip
    require(t.dtype == torch.int64, f"the times have the dtype {t.dtype}, expected torch.int64.",
            "Times index the table alpha_bar, so they are whole numbers: torch.randint, or .long().")  # fmt: skip


def require_range(t, T):
    low, high = t.min().item(), t.max().item()
    found = f"the times go from {low} to {high}, expected 0 to {T - 1}."
    if low == high:
        raise Wrong(found, "All samples have the same time. Each draws its own: torch.randint(0, T, (count,), ...).")
    if (low, high) == (1, T):
        raise Wrong(found, "These are the paper's times, 1 ... T. In code they start at 0: subtract 1.")
    require(high < T, found, f"T is passed in, and here it is {T}: times run from 0 to T - 1.")
    require(high == T - 1, found, "The largest time never comes: torch.randint leaves its upper bound out, so that "
            "bound is T.")  # fmt: skip
    require(low == 0, found, "Time 0, the least noise, never comes. In code times start at 0.")


class Recorder(nn.Module):
    """A model with one parameter that remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.calls = []

    def forward(self, x_t, t, cond=None):
        self.calls.append((x_t.detach(), t))
        return self.scale * x_t


def stepped(learner, model, x0, table, generator):
    try:
        return learner(model, x0, table, generator)
    except Exception as raised:
        text = str(raised.__cause__)
        if "out of bounds" in text or text.startswith("Expected times t from 0"):
            raise Wrong(f"a time has no entry in alpha_bar, which has {len(table)} entries.", "The times go as far as "
                        "the table that was passed: there are len(alpha_bar) of them, whatever T is in the notebook."
                        ) from None  # fmt: skip
        if model.calls and model.calls[0][0].shape != x0.shape:
            require_one_call(model, x0, len(table))
        if "positional argument: 't'" in text:
            raise Wrong(f"calling the model failed: {text}", "The model sees the noisy samples *and* their times: "
                        "model(x_t, t).") from None  # fmt: skip
        raise


def require_loss(model, loss, x0, x_t, eps):
    """Raise Wrong unless the loss is the mean square error of the model's prediction, with its gradient."""
    prediction = 0.5 * x_t
    per_sample = (prediction - eps).square().flatten(1).mean(1)
    mistakes = [
        ((prediction - x0).square().mean(), "The model's output is compared with x0. It predicts the noise, eps."),
        ((prediction - x_t).square().mean(), "The model's output is compared with x_t. It predicts the noise, eps."),
        ((eps - x0).square().mean(), "The noise is compared with x0. The model's output belongs in its place."),
        (per_sample, "This is one loss for each sample. The optimizer needs one number: .mean()."),
        (per_sample.sum(), "This is the sum over the batch. The mean does not depend on the batch's size."),
        ((prediction - eps).square().sum(), "This is a sum over everything; the mean does not depend on the sizes."),
        ((prediction - eps).abs().mean(), "This is the mean absolute error; the loss is the mean *square* error."),
        (per_sample.mean().sqrt(), "This is the root of the mean square error. The loss is the mean square itself."),
    ]
    if isinstance(loss, torch.Tensor) and loss.ndim == 0 and len(x0) * x0[0].numel() > 1000:
        independent = prediction.square().mean() + 1  # what noise that has nothing to do with x_t would give
        unrelated = abs(loss - independent) < 0.1 * independent and loss > 1.2 * per_sample.mean()
        require(not unrelated, f"got a loss of {loss:.4g}, expected {per_sample.mean():.4g}.",
                "The model's output is compared with noise that is not in x_t. Draw eps once.")  # fmt: skip
    close(loss, per_sample.mean(), mistakes)
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        (slope,) = torch.autograd.grad(loss, model.scale, allow_unused=True)
        require(slope is not None, "no gradient comes back to the model, expected one: it could not learn.",
                "No .detach() and no torch.no_grad() between the model's output and the loss.")  # fmt: skip
        close(
            slope, (2 * (prediction - eps) * x_t).mean(), tolerance=1e-2, what="the gradient of the model's parameter"
        )


def require_one_call(model, x0, T):
    """Return the (x_t, t) that the model was called with, or raise Wrong."""
    require(len(model.calls) == 1, f"the model was called {len(model.calls)} times, expected once.",
            "One call for the whole batch: model(x_t, t).")  # fmt: skip
    x_t, t = model.calls[0]
    require(x_t.shape == x0.shape, f"the model got an input of shape {tuple(x_t.shape)}, expected {tuple(x0.shape)}.",
            "model(x_t, t): first the noisy samples, of the shape of x0, then their times.")  # fmt: skip
    require(not x_t.equal(x0), "the model was given x0 itself, expected x_t.",
            "A clean image has no noise to predict: call add_noise first.")  # fmt: skip
    shape = tuple(t.shape) if isinstance(t, torch.Tensor) else type(t).__name__
    require(shape == (len(x0),), f"the model got times of shape {shape}, expected ({len(x0)},).",
            "Each sample has a time of its own: one for each of the batch.")  # fmt: skip
    t = t.long() if t.equal(t.round()) else t  # 7.0 is as good as 7
    require(not t.is_floating_point() and t.min() >= 0 and t.max() < T,
            f"the model got times from {t.min().item():.4g} to {t.max().item():.4g}, expected whole numbers from 0 to "
            f"{T - 1}.",
            "The model is given the t with which x_t was made.")  # fmt: skip
    return x_t, t


def noise_at(t, x0, x_t, table):
    """Return the noise that is in x_t if t are its times."""
    share = table[t.clamp(0, len(table) - 1)].reshape(-1, *[1] * (x0.ndim - 1))
    return (x_t - share.sqrt() * x0) / (1 - share).sqrt()


def require_noise(x0, x_t, t, table):
    """Return the noise that is in x_t at time t, or raise Wrong if it is not standard normal."""

    early = t < len(table) // 2  # later there is little of x0 in x_t

    def left_of_x0(t):
        eps = noise_at(t, x0, x_t, table)[early]
        return torch.corrcoef(torch.stack([eps.flatten(), x0[early].flatten()]))[0, 1].abs().item()

    if left_of_x0(t) > 0.1:
        other = min(left_of_x0(t - 1), left_of_x0(t + 1))
        raise Wrong("x_t minus sqrt(alpha_bar_t) x0 still holds some x0, expected noise only.",
                    "x_t was made with another time than the model was given: use one t for both." if other < 0.08 else
                    "Is x_t = add_noise(x0, eps, t, alpha_bar), with the t that the model is given?")  # fmt: skip
    eps = noise_at(t, x0, x_t, table)
    require((eps[0] - eps[1]).abs().max() > 1e-3, "all samples have the same noise, expected each its own.",
            "Draw noise of the shape of x0, with the batch axis.")  # fmt: skip
    mean, std = eps.mean().item(), eps.std().item()
    require(abs(mean) < 0.12 and abs(std - 1) < 0.12, f"the noise in x_t has mean {mean:.2f} and standard deviation "
            f"{std:.2f}, expected 0 and 1.", "torch.randn draws standard normal numbers; torch.rand draws uniform "
            "ones between 0 and 1.")  # fmt: skip
    return eps


def weights_and_mistakes(beta):
    """The weights of the bound by their shortest form, beta_t / (2 alpha_t (1 - alpha_bar_{t-1})), and wrong ones."""
    alpha = 1 - beta
    alpha_bar = alpha.cumprod(0)
    now, before, later, kept = alpha_bar[1:], alpha_bar[:-1], beta[1:], alpha[1:]
    tilde = (1 - before) / (1 - now) * later
    right = later / (2 * kept * (1 - before))
    mistakes = [
        (2 * right, "The factor 1/2 is missing."),
        (later**2 / (2 * later * kept * (1 - now)), "This takes beta_t for the variance. The step back has "
                                                    "beta_tilde_t."),
        (later**2 / (2 * tilde**2 * kept * (1 - now)), "beta_tilde_t is a variance already; do not square it."),
        (later / (2 * tilde * kept * (1 - now)), "beta_t is not squared: the difference of the means has the factor "
                                                 "beta_t, and its square is needed."),
        (later**2 / (2 * tilde * now * (1 - now)), "This divides by alpha_bar_t where alpha_t = 1 - beta_t belongs."),
        (later**2 / (2 * tilde * kept.sqrt() * (1 - now)), "The difference of the means has the factor 1 / √α. Its "
                                                           "square is 1 / α: no root."),
        (later**2 / (2 * tilde * kept * (1 - now).sqrt()), "The difference of the means has √(1 - ᾱ) below. Its square "
                                                           "is 1 - ᾱ: no root."),
        (later**2 / (2 * tilde * (1 - now)), "The factor alpha_t = 1 - beta_t below is missing."),
        (later**2 / (2 * tilde * kept), "The factor 1 - alpha_bar_t below is missing."),
        (later**2 / (2 * tilde * kept * now), "This divides by alpha_bar_t where 1 - alpha_bar_t belongs."),
        (later**2 / (2 * tilde * kept * (1 - before)), "This divides by 1 - alpha_bar of t - 1; the last factor "
                                                       "belongs to t."),
        (later**2 / (2 * (1 - now) / (1 - before) * later * kept * (1 - now)),
         "beta_tilde_t is upside down: it is smaller than beta_t, so 1 - alpha_bar_{t-1} stands above."),
        (later**2 / (2 * before / now * later * kept * (1 - now)),
         "In beta_tilde_t this divides alpha_bars; it is the ratio of 1 - alpha_bar at t - 1 and at t."),
        (torch.cat([torch.full_like(beta[:1], torch.inf), right]), "This has an entry for t = 0, where the variance is "
                                                                   "0. Leave it out: the result starts at t = 1."),
        (right[:-1], "The last time is missing. Leave out t = 0 and keep T - 1."),
        (right.flip(0), "The times are in the opposite order."),
        (right / right.sum(), "The weights were divided by their sum. Return them as they are."),
        (right.sum(), "This is the sum of all weights. Return one for each time."),
        (right.mean(), "This is the mean of all weights. Return one for each time."),
    ]  # fmt: skip
    return right, mistakes
