"""The exercises of chapter 07: steps back and forth, and what the network's output means."""

import math
from functools import partial

import torch

from course_utils.diffusion import objectives, steps
from course_utils.exercises.mistakes_07 import (
    Noted,
    check_variance,
    ddim_answers,
    ddpm_at,
    last_mistakes,
    line,
    mean_mistakes,
    multistep_mistakes,
    require_one_evaluation,
    require_two,
    same,
    schedule_mistakes,
    score_mistakes,
    spring,
)
from course_utils.exercises.oracles import Wrong, close, require
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import broadcasting_explained, close_in_all

TITLE = "Reverse diffusion and samplers"


def _case(case, T=40):
    """A schedule of its own, and times (t, earlier, alpha_bar at both).

    Steps that skip some times, single steps, steps from the noisiest time, to time 0 and to the clean picture, -1.
    """
    table = (1 - case.uniform(0.02, 0.12, T)).cumprod(0)
    t = int(case.whole(20, T - 1))
    pairs = [(t, int(case.whole(5, t - 6))), (t, t - 1), (T - 1, int(case.whole(5, 15))), (int(case.whole(5, 9)), 0)]
    pairs += [(int(case.whole(1, 8)), -1), (0, -1)]
    return table, [(t, e, table[t].item(), table[e].item() if e >= 0 else 1.0) for t, e in pairs]


@exercise(
    "07.posterior", steps.posterior, difficulty=2, minutes=10,
    hints=[
        "Look alpha_bar up at both times: a = alpha_bar_at(alpha_bar, t), and a_earlier in the same way.",
        "The step from `earlier` to t keeps alpha = a / a_earlier, and adds beta = 1 - alpha.",
        "The weight of x0 is sqrt(a_earlier) beta / (1 - a); that of x_t is sqrt(alpha) (1 - a_earlier) / (1 - a).",
        "Return two things: mean, variance, with variance = (1 - a_earlier) / (1 - a) * beta.",
    ],
)  # fmt: skip
def posterior(learner, case):
    """Compute mean and variance of x_{t-1}, given x_t and the clean x0."""
    table, pairs = _case(case)
    for t, earlier, a, a_earlier in pairs:
        x0, x_t = case.normal(3, 2, 4, 4), case.normal(3, 2, 4, 4)
        got = learner(x0, x_t, t, earlier, table)
        require_two(got, "mean and variance", "End with `return mean, variance`.")
        # Condition the two-dimensional Gaussian of (x_{t-1}, x_t), given x0, on x_t
        alpha = a / a_earlier
        v1, v2, c = 1 - a_earlier, 1 - a, math.sqrt(alpha) * (1 - a_earlier)
        mean = math.sqrt(a_earlier) * x0 + c / v2 * (x_t - math.sqrt(a) * x0)
        close(got[0], mean, mean_mistakes(x0, x_t, table, t, earlier, a, a_earlier, mean), tolerance=1e-3,
              what="the mean")  # fmt: skip
        variance = max(v1 - c**2 / v2, 0.0)
        check_variance(got[1], variance, a, a_earlier)


@exercise(
    "07.guess", steps.guess, difficulty=2, minutes=10,
    hints=[
        "It is chapter 06's x0_from_eps with one t for the whole batch, and then a clamp.",
        "Clip only if clip is not None. The limits are -clip and clip.",
        "After clipping, solve x_t = signal x0_hat + noise eps for eps, with the clipped x0_hat.",
        "eps = (x_t - signal * x0_hat) / noise, and return x0_hat, eps.",
    ],
)  # fmt: skip
def guess(learner, case):
    """Turn the predicted noise into an estimate of the clean image, within its range."""
    table, pairs = _case(case)
    t, _, a, _ = pairs[0]
    signal, noise = math.sqrt(a), math.sqrt(1 - a)
    x_t, eps = 1.5 * case.normal(4, 3, 6, 6), case.normal(4, 3, 6, 6)
    plain = (x_t - noise * eps) / signal
    for clip in (None, round(case.uniform(0.5, 1.0).item(), 2), 2.0):
        got = learner(x_t, eps, t, table, clip)
        require_two(got, "x0_hat and eps", "End with `return x0_hat, eps`, also if nothing was clipped.")
        limit = math.inf if clip is None else clip
        # Where the guess lies inside, nothing changes; outside, x_t must still be made of the two
        x0_hat = torch.where(plain.abs() <= limit, plain, limit * plain.sign() if clip else plain)
        mistakes = [
            (plain, "The prediction x0_hat was not clipped: .clamp(-clip, clip). (Was the result of .clamp used?)"),
            (plain.clamp(-1, 1), "This clips at 1, whatever `clip` says."),
            (plain.clamp(0, limit), "This clips from 0 upwards. Pictures here lie in [-clip, clip]."),
            ((x_t - (1 - a) * eps) / a, "The roots are missing: sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t)."),
            (((x_t - (1 - a) * eps) / signal).clamp(-limit, limit),
             "This takes 1 - ᾱ of eps away where √(1 - ᾱ) is in x_t."),
            ((x_t.clamp(-limit, limit) - noise * eps) / signal, "This clips x_t. A noisy picture may leave the range; "
                                                                "clip x0_hat."),
            (eps, "The two results are in the other order: x0_hat first, then eps."),
        ]  # fmt: skip
        close(got[0], x0_hat, [m for m in mistakes if not same(m[0], x0_hat)], tolerance=1e-3, what="x0_hat")
        mended = (x_t - signal * x0_hat) / noise
        mistakes = [
            (eps, "x0_hat was clipped, but eps is the old one. Together they no longer make x_t: compute eps from x_t "
                  "and the clipped x0_hat."),
            (eps.clamp(-limit, limit), "This clips eps as well. Noise has no bounds: compute it from x_t and the "
                                       "clipped x0_hat."),
            ((x_t - a * x0_hat) / (1 - a), "The roots are missing in eps: x_t = sqrt(alpha_bar_t) x0_hat + "
                                           "sqrt(1 - alpha_bar_t) eps, solved for eps."),
        ]  # fmt: skip
        close(got[1], mended, [m for m in mistakes if not same(m[0], mended)], tolerance=1e-3, what="eps")


@exercise(
    "07.ddpm_step", steps.ddpm_step, difficulty=2, minutes=10, uses=("07.posterior", "07.guess"),
    hints=[
        "Two functions that you have written do nearly all: guess, then posterior.",
        "posterior gets x0_hat where its x0 is. It returns a mean and a *variance*.",
        "Noise of variance v is sqrt(v) times standard normal noise: mean + variance ** 0.5 * noise.",
    ],
)  # fmt: skip
def ddpm_step(learner, case):
    """Take one random step back."""
    table, pairs = _case(case)
    for t, earlier, a, a_earlier in pairs:
        for clip in (None, 0.8):
            x_t, eps, z = case.normal(3, 2, 4, 4), case.normal(3, 2, 4, 4), case.normal(3, 2, 4, 4)
            # DDPM's equation 11, with the noise that belongs to the (clipped) guess
            plain = (x_t - math.sqrt(1 - a) * eps) / math.sqrt(a)
            x0_hat = plain.clamp(-clip, clip) if clip else plain
            alpha = a / a_earlier
            beta, mended = 1 - alpha, (x_t - math.sqrt(a) * x0_hat) / math.sqrt(1 - a)
            mean = (x_t - beta / math.sqrt(1 - a) * mended) / math.sqrt(alpha)
            unclipped = (x_t - beta / math.sqrt(1 - a) * eps) / math.sqrt(alpha)
            variance = (1 - a_earlier) / (1 - a) * beta
            right = mean + math.sqrt(variance) * z
            at_end = "At the last step no noise is added: no later step would remove it."
            at_zero = ("No noise was added at earlier = 0, which is still a noisy time: only the step to the clean "
                       "picture, earlier = -1, adds none.")  # fmt: skip
            mistakes = [
                (mean + math.sqrt(beta) * z, at_end if earlier == -1 else "This adds noise of variance β. The "
                 "posterior's variance β̃ is smaller, since it also knows x0."),
                (mean + variance * z, "The noise is multiplied by the variance; it is multiplied by its square root."),
                (mean, at_zero if earlier == 0 else "No noise was added: this is the mean of the step."),
                (x_t / math.sqrt(a) - beta / math.sqrt((1 - a) * a) * mended + math.sqrt(variance) * z,
                 "This is ᾱ where α belongs: one step back divides by sqrt(alpha_t), and alpha_t is "
                 "alpha_bar_t / alpha_bar_{t-1}."),
                (mean + z, "The noise has its full strength; it is multiplied by the root of the variance."),
                (mean - math.sqrt(variance) * z, "The noise has a minus sign."),
                (unclipped + math.sqrt(variance) * z, "`clip` was not passed to guess."),
                (mean + math.sqrt(variance) * eps, "This adds the predicted eps once more. Fresh noise is passed in as "
                                                   "`noise`."),
                *schedule_mistakes(partial(ddpm_at, x_t, x0_hat, z), table, t, earlier, right),
            ]  # fmt: skip
            mistakes = [m for m in mistakes if not same(m[0], right)]
            close(learner(x_t, eps, t, earlier, table, z, clip), right, mistakes, tolerance=2e-3)


@exercise(
    "07.ddim_step", steps.ddim_step, difficulty=3, minutes=15, uses=("07.guess",),
    hints=[
        "Three parts: the picture as strong as at the earlier time, the old noise, and the fresh noise.",
        "sigma is a standard deviation: eta stands *before* the root.",
        "The factor of eps is the root of what is left: (1 - a_earlier - sigma ** 2) ** 0.5.",
        "x0_hat, eps = guess(x_t, eps, t, alpha_bar, clip): use both of them.",
    ],
)  # fmt: skip
def ddim_step(learner, case):
    """Mix the estimate of the clean image with as much noise as belongs to the earlier time."""
    table, pairs = _case(case)
    for t, earlier, a, a_earlier in pairs:
        for eta, clip in ((0.0, None), (0.6, None), (0.6, 0.8), (1.0, None)):
            x_t, eps, z = case.normal(3, 2, 4, 4), case.normal(3, 2, 4, 4), case.normal(3, 2, 4, 4)
            right, mistakes = ddim_answers(x_t, eps, z, table, t, earlier, a, a_earlier, eta, clip)
            got = learner(x_t, eps, t, earlier, table, eta, None if eta == 0 else z, clip)
            if isinstance(got, torch.Tensor) and got.is_complex():
                raise Wrong(
                    "the result is complex, expected real numbers.",
                    "A root of a negative number came out complex: print what stands under it.",
                )
            close(got, right, [m for m in mistakes if not same(m[0], right)], tolerance=2e-3)


@exercise(
    "07.eps_from_v", objectives.eps_from_v, difficulty=2, minutes=5,
    hints=[
        "(x_t, v) is (x0, eps) turned by an angle. Turn it back: the sine changes its sign.",
        "eps = sine times x_t + cosine times v. The cosine is sqrt(alpha_bar_t).",
    ],
)  # fmt: skip
def eps_from_v(learner, case):
    """Find the noise in x_t from a network that predicts v."""
    table = (1 - case.uniform(0.01, 0.1, 40)).cumprod(0)
    t = torch.cat([torch.tensor([0, 39]), case.whole(1, 38, 3)])
    for shape in ((5, 3, 4, 4), (5, 2)):
        x0, eps = case.normal(*shape), case.normal(*shape)
        share = table[t].reshape(-1, *[1] * (len(shape) - 1))
        cosine, sine = share.sqrt(), (1 - share).sqrt()
        x_t, v = cosine * x0 + sine * eps, cosine * eps - sine * x0
        first = table[t[0]]
        late = table[(t + 1).clamp(max=39)].reshape(share.shape)
        mistakes = [
            (cosine * x_t - sine * v, "This is x0. The noise is the other component: sine times x_t plus cosine times "
                                      "v."),
            (cosine * v - sine * x_t, "A sign is wrong: turning back changes the sign of the sine, so x_t comes with a "
                                      "plus."),
            (cosine * x_t + sine * v, "Sine and cosine are swapped: sqrt(1 - alpha_bar_t) belongs to x_t."),
            ((1 - share) * x_t + share * v, "The roots are missing: the factors are √(1 - ᾱ) and √ᾱ."),
            ((1 - first).sqrt() * x_t + first.sqrt() * v, "All samples got the time of the first. Each has its own."),
            ((x_t - sine * v) / cosine, "This treats v as if it were the noise: x0 from eps."),
            ((1 - late).sqrt() * x_t + late.sqrt() * v, "This looks up t + 1. In code t starts at 0, and so does the "
                                                        "table alpha_bar."),
            (v, "This is v itself."),
        ]  # fmt: skip
        mistakes = [m for m in mistakes if not same(m[0], eps)]
        close(learner(x_t, v, t, table), eps, mistakes, tolerance=1e-3)


@exercise(
    "07.score", objectives.score, difficulty=2, minutes=5, gradients=True,
    hints=[
        "The score points against the noise, and is longer where there is less noise.",
        "Look alpha_bar up at each sample's t, and give it the axes of eps: expand_like(alpha_bar[t], eps).",
        "Divide by a standard deviation, not by a variance: -eps / (1 - alpha_bar_t).sqrt().",
    ],
)  # fmt: skip
def score(learner, case):
    """Turn the predicted noise into the score."""
    settings = []
    for shape, ends in (((5, 2), True), ((4, 3, 2, 4), True), ((1, 2, 3, 3), False)):
        table = (1 - case.uniform(0.01, 0.1, 40)).cumprod(0)
        inner = case.whole(2, 37, shape[0] - 2 * ends)
        t = torch.cat([torch.tensor([0, 39]), inner]) if ends else inner
        # Normal data: x_t is normal too, so the exact eps and the gradient of the log density are known
        mean, spread = case.normal(*shape), case.uniform(0.2, 1.0).item()
        share = table[t].reshape(-1, *[1] * (len(shape) - 1))
        root = (1 - share).sqrt()
        variance = share * spread**2 + 1 - share
        x_t = share.sqrt() * mean + variance.sqrt() * case.normal(*shape)
        expected = -(x_t - share.sqrt() * mean) / variance
        eps = -root * expected
        with broadcasting_explained("alpha_bar[t] has shape (batch,). It needs the axes of eps: expand_like."):
            got = learner(eps, t, table)
        settings.append((got, expected, score_mistakes(eps, t, table, share), "the score", learner.called))
    close_in_all(settings, tolerance=1e-3)


@exercise(
    "07.dpm_solver_step", steps.dpm_solver_step, difficulty=4, minutes=15,
    hints=[
        "First the exceptions: earlier = -1 gives x0_hat; if x0_hat_before is None, nothing is extrapolated.",
        "lambda at a time is math.log(a / (1 - a)) / 2, with a = alpha_bar_at(alpha_bar, time).",
        "h = lam(earlier) - lam(t) is this step; h_before = lam(t) - lam(before) the one before. Both are positive.",
        "The step is sqrt((1 - a_earlier) / (1 - a)) * x_t - sqrt(a_earlier) * (exp(-h) - 1) times the"
        " extrapolated x0_hat.",
    ],
)  # fmt: skip
def dpm_solver_step(learner, case):
    """Step with the estimate extrapolated to the middle of the step."""
    table = (1 - case.uniform(0.02, 0.12, 40)).cumprod(0)
    before, t, earlier = int(case.whole(36, 39)), int(case.whole(16, 22)), int(case.whole(6, 12))
    for times in ((before, t, earlier), (22, 12, 0)):
        _check_multistep(learner, case, table, *times)


def _check_multistep(learner, case, table, before, t, earlier):
    x_t, now, then = case.normal(3, 2, 4, 4), case.normal(3, 2, 4, 4), case.normal(3, 2, 4, 4)
    a, e = table[t].item(), table[earlier].item()

    def lam(level, half=0.5):
        return half * math.log(table[level].item() / (1 - table[level].item()))

    h, h_before = lam(earlier) - lam(t), lam(t) - lam(before)

    def step(D, h=h):
        return math.sqrt((1 - e) / (1 - a)) * x_t - math.sqrt(e) * math.expm1(-h) * D

    # The first step is DDIM: mix the guess and the noise that belongs to it for the earlier time
    noise = (x_t - math.sqrt(a) * now) / math.sqrt(1 - a)
    ddim = math.sqrt(e) * now + math.sqrt(1 - e) * noise
    close(learner(x_t, now, None, None, t, earlier, table), ddim, multistep_mistakes(step, x_t, now, now, h, h, a, e),
          tolerance=2e-3, what="at the first step, the result")  # fmt: skip
    # A guess that is linear in lambda is followed to its value in the middle of the step
    pace = case.normal(3, 2, 4, 4)
    start = now - pace * h_before
    right = ddim + math.sqrt(e) * (1 - math.exp(-h)) * (h / 2) * pace
    mistakes = multistep_mistakes(step, x_t, now, start, h, h_before, a, e)
    close(learner(x_t, now, start, before, t, earlier, table), right, mistakes, tolerance=2e-3)
    # The step to the clean picture: nothing is left of x_t, and nothing can be extrapolated
    got = learner(x_t, now, then, t, earlier, -1, table)
    mistakes = last_mistakes(x_t, now, then, table, t, earlier)
    close(got, now, mistakes, what="at the step to the clean picture, the result")


@exercise(
    "07.heun_step", steps.heun_step, difficulty=3, minutes=10, uses=("07.ddim_step",),
    given="model, x_t, t, earlier, alpha_bar",
    hints=[
        "Evaluate the model at (x_t, t) and take a trial DDIM step: ahead.",
        "Evaluate it again at (ahead, earlier): the new place, and the new time.",
        "The real step starts from x_t again, with (eps + eps_ahead) / 2.",
        "At earlier = -1 return the trial step before the model is evaluated a second time.",
    ],
)  # fmt: skip
def heun_step(learner, case):
    """Look ahead, then step with the mean of both slopes."""
    table, pairs = _case(case)
    for t, earlier, a, e in pairs:
        x = case.normal(3, 2, 4, 4)
        at, later = torch.full((3,), t), torch.full((3,), max(earlier, 0))
        model = Noted()
        eps = spring(x, at)
        ahead = line(x, eps, a, e)
        if earlier == -1:
            require_one_evaluation(learner(model, x, t, earlier, table), ahead, model)
            continue
        second = spring(ahead, later)
        right = line(x, (eps + second) / 2, a, e)
        mistakes = [
            (ahead, "This is the trial step, a DDIM step. Evaluate the model there, and step with the mean."),
            (line(x, second, a, e), "This steps with the slope ahead alone; take the mean of both."),
            (line(x, eps + second, a, e), "This steps with the sum of both slopes: divide by 2."),
            (line(ahead, (eps + second) / 2, a, e), "The real step starts from x_t again, not from the place ahead."),
            (
                line(x, (eps + spring(ahead, at)) / 2, a, e),
                "At the place ahead the model was given the old time; there it is `earlier`.",
            ),
            (
                line(x, (eps + spring(x, later)) / 2, a, e),
                "The second evaluation was at x_t. Evaluate at the place ahead.",
            ),
            ((x + ahead) / 2, "This is the mean of two places; wanted is the mean of two slopes."),
            (
                (ahead + line(ahead, second, a, e)) / 2,
                "The second half starts from the place ahead; both start from x_t.",
            ),
        ]
        mistakes = [m for m in mistakes if not same(m[0], right)]
        got = learner(model, x, t, earlier, table)
        require(earlier > 0 or len(model.calls) == 2, "the model was evaluated once at earlier = 0, expected twice.",
                "earlier = 0 is still a noisy time, at which the model can be evaluated. Only at earlier = -1, the "
                "clean image, it cannot.")  # fmt: skip
        close(got, right, mistakes, tolerance=2e-3)
        require(len(model.calls) == 2, f"the model was evaluated {len(model.calls)} times, expected twice.",
                "Evaluations are expensive: keep the predictions in variables.")  # fmt: skip


@exercise(
    "07.inversion_step", steps.inversion_step, difficulty=3, minutes=10, given="model, x_t, t, later, alpha_bar",
    hints=[
        "It is DDIM without fresh noise, and the two times have changed places.",
        "Evaluate the model at x_t, with the time of x_t. Only if t is -1, pass `later`.",
        "x0_hat uses alpha_bar at t, where you are; the mixture uses alpha_bar at `later`, where you go.",
    ],
)  # fmt: skip
def inversion_step(learner, case):
    """Go from a picture towards the noise that it would be drawn from."""
    table, pairs = _case(case)
    for later, t, a_later, a in pairs:
        x, model = case.normal(3, 2, 4, 4), Noted()
        told = torch.full((3,), later if t == -1 else t)
        eps = spring(x, told)
        right = line(x, eps, a, a_later)
        other = spring(x, torch.full((3,), later))
        mistakes = [
            (line(x, other, a, a_later), "The model was given `later`. x_t lies at t: pass t, unless t is -1."),
            (line(x, eps, a_later, a), "The two times are swapped: this steps towards the picture. x0_hat uses "
                                       "alpha_bar at t, the mixture that at `later`."),
            (math.sqrt(a_later) * x + math.sqrt(1 - a_later) * eps,
             "x_t was taken for the clean picture. First find x0_hat in it, then mix again."),
            (x, "This mixes x0_hat and eps for the time where x_t is, so nothing moves. x0_hat uses alpha_bar at t, "
                "the mixture alpha_bar at `later`."),
            (line(x, -eps, a, a_later), "eps comes with the wrong sign."),
            (a_later * (x - math.sqrt(1 - a) * eps) / math.sqrt(a) + (1 - a_later) * eps,
             "The roots are missing where x0_hat and eps are mixed."),
        ]  # fmt: skip
        if t == -1:
            mistakes.append((line(x, eps, table[-1].item(), a_later),
                             "For the clean picture, t = -1, alpha_bar is 1. alpha_bar[-1] is the table's last entry; "
                             "alpha_bar_at(alpha_bar, t) knows better."))  # fmt: skip
        if t == 0:
            noisy = "t = 0 is still a noisy time, with alpha_bar[0]. Only t = -1 is the clean picture."
            mistakes.append((math.sqrt(a_later) * x + math.sqrt(1 - a_later) * other, noisy))
        mistakes = [m for m in mistakes if not same(m[0], right)]
        close(learner(model, x, t, later, table), right, mistakes, tolerance=2e-3)
