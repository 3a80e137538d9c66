"""The exercises of chapter 03: two networks that play against each other."""

import math

import torch
from torch import nn

from course_utils.exercises.oracles import close, require
from course_utils.exercises.registry import exercise
from course_utils.models import adversarial

TITLE = "Adversarial networks"
RATE = 0.1  # of the plain gradient descent in the steps' checks


@exercise(
    "03.optimal_discriminator", adversarial.optimal_discriminator, difficulty=1, minutes=5,
    hints=[
        "Stand at one place x. Of all the samples that fall there, which share is real?",
        "Real ones come at the rate p_data(x), fakes at the rate p_g(x). The share of the real is real over all.",
    ],
)  # fmt: skip
def optimal_discriminator(learner, case):
    """Find the best answer that a discriminator can give at each place."""
    p, q = case.uniform(0.05, 2, 9), case.uniform(0.05, 2, 9)
    expected = torch.tensor([a / (a + b) for a, b in zip(p.tolist(), q.tolist(), strict=True)])
    mistakes = [
        (1 - expected, "This is the share of the fakes. D is the probability of *real*: p_data stands above."),
        (p / q, "This is the ratio of real to fake. A probability divides by all that falls there: real plus fake."),
        ((p / q).log(), "This is the logit of D*, log(p_data / p_g). Wanted is the probability."),
        ((p - q) / (p + q), "This goes from -1 to 1. A probability has p_data alone above the line."),
        (p / p.sum(), "This never looks at p_g. Compare the two at the same place."),
        ((p > q).float(), "This says which is more likely, and nothing about how sure one can be: a share, please."),
        (p / (p + q) / 2, "The factor 1/2 of 'half real, half fake' stands above and below, and cancels."),
    ]
    close(learner(p, q), expected, mistakes)
    same = case.uniform(0.1, 3, 5)
    close(learner(same, same), torch.full((5,), 0.5), what="for equal densities, the result")


def _logits(case):
    return 2 * case.normal(12) + 1, 2 * case.normal(10) - 1.5


def _softplus(values):
    """mean log(1 + e^a) by Python's own arithmetic."""
    return torch.tensor(sum(max(a, 0) + math.log1p(math.exp(-abs(a))) for a in values.tolist()) / len(values))


def _require_extreme(got, expected):
    """Raise Wrong unless the loss at logits of +-200 is the number it must be."""
    got = float(got)
    overflow = (
        "float32 rounds sigmoid(-200) to 0, and log(0) is minus infinity: go from the logit to the loss at "
        "once, -log sigmoid(a) = softplus(-a)."
    )
    require(math.isfinite(got), f"at logits of 200 and -200 got {got}, expected {expected:g}.", overflow)
    require(abs(got - expected) < 0.01 * expected, f"at logits of 200 and -200 got {got:.4g}, expected {expected:g}.",
            f"The loss must go on growing with the logit. A clamp or a small number in the logarithm cuts it off, and "
            f"its gradient with it. {overflow}")  # fmt: skip


@exercise(
    "03.discriminator_loss", adversarial.discriminator_loss, difficulty=2, minutes=10,
    hints=[
        "Two terms: a real sample costs -log D(x), a fake one costs -log(1 - D(G(z))).",
        "With D = sigmoid(a): -log sigmoid(a) = softplus(-a). And 1 - sigmoid(a) = sigmoid(-a).",
        "torch.nn.functional.softplus(-real_logits).mean() + softplus(...).mean()",
    ],
)  # fmt: skip
def discriminator_loss(learner, case):
    """Punish the discriminator for what it believes wrongly, from logits."""
    shape = getattr(learner(torch.zeros(4), torch.zeros(4)), "shape", ())
    require(shape != (4,), "for four real and four fake logits the result has the shape (4,), expected ().",
            "This is one number for each pair. The optimizer needs one: .mean() of either term.")  # fmt: skip
    real, fake = _logits(case)
    right, wrong = _softplus(-real), _softplus(fake)
    label = "A real sample shall get a high logit: softplus(-real_logits). A fake one a low one: softplus(fake_logits)."
    once = "softplus wants the logit itself; it holds the sigmoid already."
    mistakes = [
        (_softplus(-real.sigmoid()) + _softplus(fake.sigmoid()), f"The sigmoid is applied twice: {once}"),
        (_softplus(real) + _softplus(-fake), f"The labels are swapped. {label}"),
        (_softplus(-real) + _softplus(-fake), f"Both are treated as real. {label}"),
        (_softplus(real) + _softplus(fake), f"Both are treated as fake. {label}"),
        (-right - wrong, "The sign is wrong: this is the value that D wants high; a loss is what it wants low."),
        ((right + wrong) / 2, "This is the mean of the two terms; the equation has their sum."),
        (
            torch.cat([-real, fake]).double().exp().log1p().mean(),
            "One mean was taken over real and fake together. Each term has its own mean: the batches may differ.",
        ),
        (
            torch.nan,
            "The logarithm of a logit was taken, which may be negative. A logit becomes a probability by the "
            "sigmoid; softplus does both at once.",
        ),
        (right, "The fakes are missing: D must also be punished for believing them."),
        (wrong, "The real samples are missing: D must also be punished for not believing them."),
        (len(real) * right + len(fake) * wrong, "These are sums over the batch. A mean does not depend on its size."),
    ]
    close(learner(real, fake), right + wrong, mistakes)
    _require_extreme(learner(torch.tensor([-200.0, 200.0]), torch.tensor([200.0, -200.0])), 200)


@exercise(
    "03.generator_loss", adversarial.generator_loss, difficulty=1, minutes=5,
    hints=[
        "The generator wants its fakes taken for real. What does D's loss charge for a *real* sample?",
        "-log D(G(z)), averaged over the batch; from logits, with softplus.",
    ],
)  # fmt: skip
def generator_loss(learner, case):
    """Punish the generator for each fake that was not believed, so that it always has a slope to follow."""
    _, fake = _logits(case)
    expected = _softplus(-fake)
    mistakes = [
        (
            -_softplus(fake),
            "This is the saturating loss, log(1 - D). Where D is sure of a fake it is flat: no gradient."
            " Wanted is -log D.",
        ),
        (-expected, "The sign is wrong: lowering this would make the fakes *less* believed."),
        (
            _softplus(fake),
            "This is what D pays for believing a fake. The generator wants the opposite: softplus of minus the logit.",
        ),
        (_softplus(-fake.sigmoid()), "The sigmoid is applied twice: softplus wants the logit itself."),
        (len(fake) * expected, "This is the sum over the batch; wanted is the mean."),
        (nn.functional.softplus(-fake), "This is one number for each fake. The optimizer needs one: .mean()."),
        (-fake.mean(), "This is minus the mean logit (a Wasserstein loss). It has no logarithm, hence no floor."),
        (nn.functional.softplus(-fake.mean()), "The mean came before the logarithm. Each fake has its own loss."),
    ]
    close(learner(fake), expected, mistakes)
    _require_extreme(learner(torch.tensor([-200.0, -200.0, -200.0])), 200)


class _Maker(nn.Module):
    """G(z) = A z + b, (batch, 2) -> (batch, 3)."""

    def __init__(self, case):
        super().__init__()
        self.latent = 2
        self.layer = nn.Linear(2, 3)
        self.layer.load_state_dict({"weight": case.normal(3, 2), "bias": case.normal(3)})

    def forward(self, z):
        return self.layer(z)


class _Critic(nn.Module):
    """D(x) = w x + c, (batch, 3) -> (batch,)."""

    def __init__(self, case):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.layer.load_state_dict({"weight": case.normal(1, 3), "bias": case.normal(1)})

    def forward(self, x):
        return self.layer(x).squeeze(1)


def _flat(model):
    return torch.cat([parameter.detach().clone().flatten() for parameter in model.parameters()])


def _leave_gradients(model, case):
    """Put old gradients into a model, as another step would have left them; return them, flat."""
    for parameter in model.parameters():
        parameter.grad = case.normal(*parameter.shape)
    return torch.cat([parameter.grad.flatten().clone() for parameter in model.parameters()])


def _step_mistakes(before, slope, old):
    """What goes wrong in any step: the value, and its name."""
    return [
        (
            before,
            "The parameters did not change. In this order: optimizer.zero_grad(), loss.backward(), "
            "optimizer.step(); and nothing between the loss and this network may be detached.",
        ),
        (
            before - RATE * (slope + old),
            "Old gradients were added: backward() adds to what is there. Call optimizer.zero_grad() before it.",
        ),
        (before + RATE * slope, "It went uphill: the sign of the loss is wrong. An optimizer lowers what it is given."),
    ]


@exercise(
    "03.discriminator_step", adversarial.discriminator_step, difficulty=3, minutes=15, uses=("03.discriminator_loss",), 
    given="G, D, optimizer, x, z",
    hints=[
        "Make fakes with G, and cut them off from G: .detach(). D shall learn here, G shall not notice.",
        "loss = discriminator_loss(D(x), D(fake)), with the real samples first.",
        "Then the three lines of every update: optimizer.zero_grad(), loss.backward(), optimizer.step().",
    ],
)  # fmt: skip
def discriminator_step(learner, case):
    """Let the discriminator learn from one batch, and leave the generator alone."""
    G, D = _Maker(case), _Critic(case)
    x, z = case.normal(16, 3) + 1, case.normal(16, 2)
    with torch.no_grad():
        fake = G(z)
        real_logit, fake_logit = D(x), D(fake)

    def slope(plus, minus, plus_logit, minus_logit):
        """The gradient of mean softplus(-D(plus)) + mean softplus(D(minus)), in closed form."""
        up, down = -torch.sigmoid(-plus_logit), torch.sigmoid(minus_logit)
        of_real, of_fake = [
            torch.cat([(s[:, None] * v).mean(0), s.mean()[None]]) for s, v in ((up, plus), (down, minus))
        ]
        return of_real, of_fake

    of_real, of_fake = slope(x, fake, real_logit, fake_logit)
    swapped = sum(slope(fake, x, fake_logit, real_logit))
    old, before, of_G = _leave_gradients(D, case), _flat(D), _flat(G)
    loss = learner(G, D, torch.optim.SGD(D.parameters(), RATE), x, z)
    require(_flat(G).equal(of_G), "the parameters of G changed, expected only those of D.",
            "This is D's turn: step the optimizer that was passed, and no other.")  # fmt: skip
    left = max([0.0, *(p.grad.abs().max().item() for p in G.parameters() if p.grad is not None)])
    require(left == 0, f"G was left with gradients of up to {left:.3g}, expected none.",
            "The fakes were not cut off from G, and G would take these gradients, which point the wrong way, for its "
            "own. G(z).detach() ends the graph there, and saves the work.")  # fmt: skip
    mistakes = [
        *_step_mistakes(before, of_real + of_fake, old),
        (before - RATE * swapped, "The labels are swapped: D learned to believe the fakes. discriminator_loss takes "
                                  "D(x) first."),
        (before - RATE * of_real, "D learned from the real samples only."),
        (before - RATE * of_fake, "D learned from the fakes only."),
    ]  # fmt: skip
    close(_flat(D), before - RATE * (of_real + of_fake), mistakes, 1e-3, "after the step, the parameters of D")
    close(loss, _softplus(-real_logit) + _softplus(fake_logit), what="the loss that is returned")


@exercise(
    "03.generator_step", adversarial.generator_step, difficulty=3, minutes=10, uses=("03.generator_loss",),
    hints=[
        "The gradient must come back through D to G: this time nothing is detached.",
        "loss = generator_loss(D(G(z))). The optimizer that is passed holds the parameters of G, and only those move.",
        "Then optimizer.zero_grad(), loss.backward(), optimizer.step().",
    ],
)  # fmt: skip
def generator_step(learner, case):
    """Let the generator learn what the discriminator would believe, and leave the discriminator as it is."""
    G, D = _Maker(case), _Critic(case)
    z = case.normal(16, 2)
    with torch.no_grad():
        logit = D(G(z))
    w = D.layer.weight.detach()[0]

    def slope(of_logit):
        """The gradient of a loss whose derivative by each logit is given, by A and b."""
        by_output = of_logit[:, None] * w / len(z)  # (batch, 3)
        return torch.cat([(by_output.T @ z).flatten(), by_output.sum(0)])

    right = slope(-torch.sigmoid(-logit))
    old, before, of_D = _leave_gradients(G, case), _flat(G), _flat(D)
    loss = learner(G, D, torch.optim.SGD(G.parameters(), RATE), z)
    require(_flat(D).equal(of_D), "the parameters of D changed, expected only those of G.",
            "A gradient passes through D, but D must not follow it: it would learn to believe fakes. Step only the "
            "optimizer that was passed.")  # fmt: skip
    mistakes = [
        *_step_mistakes(before, right, old),
        (before - RATE * old, "G moved by old gradients only: none of its own came through. Is something detached?"),
        (
            before - RATE * slope(-torch.sigmoid(logit)),
            "This follows the saturating loss, log(1 - D). Use generator_loss, -log D.",
        ),
        (
            before - RATE * slope(torch.sigmoid(logit)),
            "This lowers what D pays for the fakes, so G learned to be recognised. G wants to be believed.",
        ),
    ]
    close(_flat(G), before - RATE * right, mistakes, 1e-3, "after the step, the parameters of G")
    close(loss, _softplus(-logit), what="the loss that is returned")


@exercise(
    "03.r1_penalty", adversarial.r1_penalty, difficulty=4, minutes=20,
    hints=[
        "Make x a leaf that wants gradients: x = x.detach().requires_grad_().",
        "Each D(x_i) depends on its own x_i only, so the gradient of the *sum* of all logits holds each one's own.",
        "torch.autograd.grad(D(x).sum(), x, create_graph=True) returns a tuple with one tensor, of the shape of x.",
        "The squared length is a sum over all numbers of a sample: .square().flatten(1).sum(1); then the batch's mean.",
    ],
)  # fmt: skip
def r1_penalty(learner, case):
    """Measure how steep the discriminator is at the real samples."""
    weight = nn.Parameter(case.normal(2, 4, 4))

    class Bowl(nn.Module):
        """D(x) = sum of w x^2: its gradient is 2 w x."""

        def __init__(self):
            super().__init__()
            self.weight = weight

        def forward(self, x):
            return (self.weight * x.square()).flatten(1).sum(1)

    x = case.normal(6, 2, 4, 4)
    gradient = 2 * weight.detach() * x
    lengths = gradient.flatten(1).square().sum(1)  # of each sample, squared
    expected = lengths.mean()
    by_weight = x.square().sum(0)
    mistakes = [
        (lengths.sqrt().mean(), "This is the mean length. The penalty has its square."),
        (
            gradient.square().mean(),
            "This is the mean over the pixels. A squared length is their sum; only over the batch is the mean taken.",
        ),
        (lengths.sum(), "This is the sum over the batch; wanted is the mean."),
        (lengths, "This is one number for each sample; the mean over the batch is missing."),
        (
            expected / len(x) ** 2,
            "The gradient is that of the *mean* logit, so each is 1/batch of its size. Sum the logits: D(x).sum().",
        ),
        (
            by_weight.square().sum(),
            "This is the gradient by D's parameters. Wanted is the gradient by the pictures x: "
            "how does the answer change when the *picture* changes?",
        ),
        (expected / 2, "The factor 1/2 belongs to gamma / 2, outside this function."),
        (gradient.flatten(1).sum(1).square().mean(), "The sum came before the square, so slopes of both signs cancel."),
        (gradient.mean(0).square().sum(), "The batch was averaged before the square, so slopes cancel. Square first."),
        ((lengths.sqrt() - 1).square().mean(), "This is WGAN-GP, which wants slopes of 1. R1 wants slopes of 0."),
    ]
    got = learner(Bowl(), x)
    close(got, expected, mistakes, tolerance=1e-3)
    require(isinstance(got, torch.Tensor) and got.requires_grad, "the penalty has no gradient, expected one that leads "
            "back to D's parameters.", "D must learn from it, so the gradient itself must be differentiable: "
            "create_graph=True, and no .item() or .detach() after it.")  # fmt: skip
    slope = torch.autograd.grad(got, weight, allow_unused=True)[0]
    require(slope is not None, "the penalty does not depend on D's parameters, expected that it does.",
            "create_graph=True keeps the way back to them.")  # fmt: skip
    close(slope, 8 * weight.detach() * x.square().mean(0), tolerance=1e-3, what="the gradient of the penalty by D's "
          "weights")  # fmt: skip


@exercise(
    "03.modes_covered", adversarial.modes_covered, difficulty=2, minutes=10,
    hints=[
        "torch.cdist(samples, centres) gives all distances, (number, modes). A sample belongs to its nearest centre.",
        "distance, nearest = torch.cdist(samples, centres).min(1). Keep the nearest[...] of those near enough.",
        "torch.bincount(..., minlength=len(centres)) counts them for each centre. How many counts are >= least?",
    ],
)  # fmt: skip
def modes_covered(learner, case):
    """Count the places where a generator draws often enough."""
    angle = case.uniform(0, 6.28).item()
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    grid = torch.tensor([[4.0 * i, 4.0 * j] for i in range(3) for j in range(3)])
    centres = torch.cat([grid, grid[:1] + torch.tensor([[0.5, 0.0], [-0.5, 0.0]])])  # two stand near the first
    radius, least = 0.6, 20
    # (centre, number of samples, least and largest distance)
    groups = [(0, 25, 0, 0.2), (1, 20, 0, 0.5), (2, 19, 0, 0.5), (2, 3, 0.9, 1.2), (3, 30, 0.65, 0.75),
              (4, 25, 0.9, 1.2), (5, 3, 0, 0.5), (6, 1, 0, 0.5), (7, 2, 0, 0.5)]  # fmt: skip
    samples = torch.cat([_around(case, centres[i], n, low, high) for i, n, low, high in groups])
    samples, centres = samples[torch.randperm(len(samples), generator=case.generator())] @ turn, centres @ turn
    distance = (samples[:, None] - centres).square().sum(2).sqrt()
    nearest, near = distance.argmin(1), distance.min(1).values

    def at_least(keep, number=least):
        return int((torch.bincount(nearest[keep], minlength=len(centres)) >= number).sum())

    inside = near <= radius
    mistakes = [
        (at_least(inside, 1), "One sample was enough for a mode. A stray hit is no mode: at least `least` of them."),
        (at_least(near >= 0), "The radius was not used: samples from nowhere were counted for the nearest centre."),
        (at_least(near**2 <= radius), "The squared distance was compared with the radius."),
        (at_least(inside, least + 1), "A centre with exactly `least` samples counts too: >=."),
        (
            int(((distance <= radius).sum(0) >= least).sum()),
            "Samples were counted for several centres at once. Each belongs to its nearest one.",
        ),
        (
            int((distance.min(0).values <= radius).sum()),
            ".min(0) finds for each centre its nearest sample. Wanted is for each sample its nearest centre: .min(1).",
        ),
        (int(inside.sum()), "This counts samples. Wanted are the centres that have enough of them."),
    ]
    close(learner(samples, centres, radius, least), 2, mistakes)


def _around(case, centre, number, low, high):
    """Points at distances between low and high from the centre: (number, 2)."""
    angle, distance = case.uniform(0, 6.28, number), case.uniform(low, high, number)
    return centre + distance[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
