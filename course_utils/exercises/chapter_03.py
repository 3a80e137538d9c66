"""The exercises of chapter 03: two networks trained against each other."""

import math

import torch
from torch.nn.functional import softplus

from course_utils.exercises.mistakes_03 import (
    RATES,
    Bowl,
    Critic,
    Maker,
    boundary,
    crowded,
    flat,
    leave_gradients,
    mode_mistakes,
    plane,
    require_loss,
    space,
    step_mistakes,
)
from course_utils.exercises.oracles import close, require
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import close_in_all
from course_utils.models import adversarial

TITLE = "Adversarial networks"


@exercise(
    "03.optimal_discriminator", adversarial.optimal_discriminator, difficulty=1, minutes=5,
    hints=[
        "Stand at one place x. What share of all the samples that fall there is real?",
        "Real ones come at the rate p_data(x), fakes at the rate p_g(x). The share is the rate of real ones divided "
        "by the sum.",
    ],
)  # fmt: skip
def optimal_discriminator(learner, case):
    """Return the output of the best discriminator at each place."""
    for shape in ((9,), (2, 3)):
        p, q = case.uniform(0.05, 2, *shape), case.uniform(0.05, 2, *shape)
        pairs = zip(p.flatten().tolist(), q.flatten().tolist(), strict=True)
        expected = torch.tensor([a / (a + b) for a, b in pairs]).reshape(shape)
        mistakes = [
            (1 - expected, "This is the share of the fakes. D is the probability of *real*: p_data is the numerator."),
            (p / q, "This is the ratio of real to fake. A probability divides by everything that falls there: real "
             "plus fake."),
            ((p / q).log(), "This is the logit of D*, log(p_data / p_g). The probability is needed."),
            ((p - q) / (p + q), "This goes from -1 to 1. A probability has p_data alone as the numerator."),
            (p / p.sum(), "This never looks at p_g. Compare the two at the same place."),
            (p / (p + q).sum(), "This divides by the sum over all places. Each place has its own share."),
            ((p > q).float(), "This gives which is more likely, but not how certain that is. A share is "
             "needed."),
            (p / (p + q) / 2, "The factor 1/2 (half real, half fake) is in numerator and denominator, and cancels."),
            (p / p + q, "Brackets are missing: a / b + c divides by b alone."),
            ((p - q).sigmoid(), "The sigmoid turns a logit into a probability, and the logit is log(p_data / p_g), not "
             "the difference of the densities."),
        ]  # fmt: skip
        close(learner(p, q), expected, mistakes)
    got = learner(1e-12 * p, 1e-12 * q)
    close(got, expected, [(got, "Only the ratio of the densities counts. A small number that is added, or a clamp, "
          "changes the share where both are small.")], what="for densities around 1e-12, the result")  # fmt: skip
    close(learner(p.double(), q.double()), p.double() / (p.double() + q.double()), what="in float64, the result")
    some, none = case.uniform(0.1, 3, 5), torch.zeros(5)
    close(learner(some, some), torch.full((5,), 0.5), what="for equal densities, the result")
    for p, q, share, where in ((some, none, 1.0, "there are no fakes"), (none, some, 0.0, "there is nothing real")):
        got = learner(p, q)
        close(got, torch.full((5,), share), [(got, f"Where {where} the share is exactly {share:g}. Is the result "
              "clamped?")], what=f"where {where}, the result")  # fmt: skip


def _logits(case):
    return 2 * case.normal(12) + 1, 2 * case.normal(10) - 1.5


def _softplus(values):
    """mean log(1 + e^a) by Python's own arithmetic."""
    return torch.tensor(sum(max(a, 0) + math.log1p(math.exp(-abs(a))) for a in values.tolist()) / len(values))


def _require_extreme(got, expected):
    """Raise Wrong unless the loss at logits of +-200 is the correct number."""
    got = float(got)
    require(math.isfinite(got), f"at logits of 200 and -200 got {got}, expected {expected:g}.",
            "float32 rounds sigmoid(-200) to 0, and log(0) is minus infinity: compute the loss from the logit, "
            "-log sigmoid(a) = softplus(-a).")  # fmt: skip
    require(abs(got - expected) < 0.01 * expected, f"at logits of 200 and -200 got {got:.4g}, expected {expected:g}.",
            "The loss must keep growing with the logit. A clamp or a small number in the logarithm cuts it off, and "
            "its gradient with it: softplus needs neither.")  # fmt: skip


@exercise(
    "03.discriminator_loss", adversarial.discriminator_loss, difficulty=2, minutes=10, gradients=True,
    hints=[
        "Two terms: the loss of a real sample is -log D(x), the loss of a fake one is -log(1 - D(G(z))).",
        "With D = sigmoid(a): -log sigmoid(a) = softplus(-a). And 1 - sigmoid(a) = sigmoid(-a).",
        "torch.nn.functional.softplus(-real_logits).mean() + softplus(...).mean()",
    ],
)  # fmt: skip
def discriminator_loss(learner, case):
    """Compute the discriminator's loss from logits of real and of fake samples."""
    shape = getattr(learner(torch.zeros(4), torch.zeros(4)), "shape", ())
    require(shape != (4,), "for four real and four fake logits the result has the shape (4,), expected ().",
            "This is one number for each pair. The optimizer needs a single number: .mean() of each term.")  # fmt: skip
    real, fake = _logits(case)
    right, wrong = _softplus(-real), _softplus(fake)
    label = (
        "A real sample should get a high logit: softplus(-real_logits). A fake one a low one: softplus(fake_logits)."
    )
    once = "softplus takes the logit itself; the sigmoid is part of it."
    mistakes = [
        (_softplus(-real.sigmoid()) + _softplus(fake.sigmoid()), f"The sigmoid is applied twice: {once}"),
        (_softplus(real) + _softplus(-fake), f"The labels are swapped. {label}"),
        (_softplus(-real) + _softplus(-fake), f"Both are treated as real. {label}"),
        (_softplus(real) + _softplus(fake), f"Both are treated as fake. {label}"),
        (-right - wrong, "The sign is wrong: this is the value V, which D maximises; its loss is -V."),
        ((right + wrong) / 2, "This is the mean of the two terms; the equation has their sum."),
        (torch.cat([-real, fake]).double().exp().log1p().mean(), "One mean was taken over real and fake together. Each "
         "term has its own mean: the batches may differ."),
        (-real.log().mean() - (1 - fake).log().mean(), "The logarithm of a logit was taken, which may be negative. A "
         "logit becomes a probability by the sigmoid; softplus does both at once."),
        (right, "The fakes are missing: a fake with a high logit must also raise the loss."),
        (wrong, "The real samples are missing: a real sample with a low logit must also raise the loss."),
        (len(real) * right + len(fake) * wrong, "These are sums over the batch. A mean does not depend on its size."),
        ((len(real) * right + len(fake) * wrong) / len(real), "Both sums are divided by the number of real samples. "
         "The fakes may be fewer or more: each term has its own mean."),
        (fake.mean() - real.mean(), "This is the difference of the mean logits (a Wasserstein loss): the logarithms "
         "are missing."),
        ((1 - real).relu().mean() + (1 + fake).relu().mean(), "This is the hinge loss. It has a corner where softplus "
         "is smooth; here -log D and -log(1 - D) are needed."),
        (softplus(-real.mean()) + softplus(fake.mean()), "The mean came before the logarithm. Each sample has its own "
         "loss."),
    ]  # fmt: skip
    close(learner(real, fake), right + wrong, mistakes)
    close(learner(real[:1], fake[:3]), _softplus(-real[:1]) + _softplus(fake[:3]), what="for one real and three fake "
          "samples, the result")  # fmt: skip
    _require_extreme(learner(torch.tensor([-200.0, 200.0]), torch.tensor([200.0, -200.0])), 200)


@exercise(
    "03.generator_loss", adversarial.generator_loss, difficulty=1, minutes=5, gradients=True,
    hints=[
        "The generator is trained to make D output 1 for its fakes. Which term of D's loss does this for *real* "
        "samples?",
        "-log D(G(z)), averaged over the batch; from logits, with softplus.",
    ],
)  # fmt: skip
def generator_loss(learner, case):
    """Compute the generator's non-saturating loss, which is steep for each fake that D rejects."""
    _, fake = _logits(case)
    expected = _softplus(-fake)
    mistakes = [
        (-_softplus(fake), "This is the saturating loss, log(1 - D). Where D rejects a fake it is flat: no "
         "gradient. -log D is needed."),
        (-expected, "The sign is wrong: minimising this would lower D's output for the fakes."),
        (_softplus(fake), "This is D's own loss for a fake. The generator's loss is the opposite: softplus of "
         "minus the logit."),
        (_softplus(-fake.sigmoid()), "The sigmoid is applied twice: softplus takes the logit itself."),
        (len(fake) * expected, "This is the sum over the batch; the mean is needed."),
        (softplus(-fake), "This is one number for each fake. The optimizer needs a single number: .mean()."),
        (-fake.mean(), "This is minus the mean logit (a Wasserstein loss). It has no logarithm, so it has no lowest "
         "value."),
        (softplus(-fake.mean()), "The mean came before the logarithm. Each fake has its own loss."),
        (-fake.log().mean(), "The logarithm of a logit was taken, which may be negative. -log D of a logit is softplus "
         "of minus the logit."),
    ]  # fmt: skip
    close(learner(fake), expected, mistakes)
    close(learner(fake[:1]), _softplus(-fake[:1]), what="for a single fake, the result")
    _require_extreme(learner(torch.tensor([-200.0, -200.0, -200.0])), 200)


@exercise(
    "03.discriminator_step", adversarial.discriminator_step, difficulty=3, minutes=15, uses=("03.discriminator_loss",), 
    given="G, D, optimizer, x, z",
    hints=[
        "Make fakes with G, and cut them off from G: .detach(). Only D is trained here; no gradient may reach G.",
        "Call D twice, on x and on the fakes: loss = discriminator_loss(D(x), D(fake)), with the real samples first.",
        "Then the three lines of every update: optimizer.zero_grad(), loss.backward(), optimizer.step().",
    ],
)  # fmt: skip
def discriminator_step(learner, case):
    """Update the discriminator once, on one real and one fake batch, and leave the generator unchanged."""
    for size, rate in enumerate(RATES, start=1):  # D takes one sample at a time, then two
        _close_discriminator_step(learner, case, size, rate)


def _close_discriminator_step(learner, case, size, rate):
    G, D = Maker(case), Critic(case, size)
    x, z = case.normal(16, 3) + 1, case.normal(12, 2)
    with torch.no_grad():
        fake = G(z)
        real_logit, fake_logit = D(x), D(fake)

    def slope(values, logits, target):
        """The gradient of mean softplus(-+ D(values)), in closed form, towards the target 1 or 0."""
        by_logit = logits.sigmoid() - target
        return torch.cat([(by_logit[:, None] * D.together(values)).mean(0), by_logit.mean()[None]])

    of_real, of_fake = slope(x, real_logit, 1), slope(fake, fake_logit, 0)
    swapped = slope(x, real_logit, 0) + slope(fake, fake_logit, 1)
    old, before, of_G = leave_gradients(D, case), flat(D), flat(G)
    loss = learner(G, D, torch.optim.SGD(D.parameters(), rate), x, z)
    require(flat(G).equal(of_G), "the parameters of G changed, expected only those of D.",
            "This is D's update: step the optimizer that was passed, and no other.")  # fmt: skip
    left = max([0.0, *(p.grad.abs().max().item() for p in G.parameters() if p.grad is not None)])
    require(left == 0, f"G was left with gradients of up to {left:.3g}, expected none.",
            "The fakes were not cut off from G, so these gradients, which point the wrong way, would be added to its "
            "own. G(z).detach() ends the graph there.")  # fmt: skip
    mistakes = [
        *step_mistakes(before, of_real + of_fake, old, rate),
        (before - rate * swapped, "The labels are swapped: D was trained to accept the fakes. discriminator_loss takes "
                                  "D(x) first."),
        (before - rate * of_real, "D was trained on the real samples only."),
        (before - rate * of_fake, "D was trained on the fakes only."),
    ]  # fmt: skip
    close(flat(D), before - rate * (of_real + of_fake), mistakes, 1e-3, "after the step, the parameters of D")
    with torch.no_grad():
        after = _softplus(-D(x)) + _softplus(D(fake))
    require_loss(loss, _softplus(-real_logit) + _softplus(fake_logit), after)


@exercise(
    "03.generator_step", adversarial.generator_step, difficulty=3, minutes=10, uses=("03.generator_loss",),
    hints=[
        "The gradient must come back through D to G: this time nothing is detached.",
        "loss = generator_loss(D(G(z))). The optimizer that is passed holds the parameters of G, and only those move.",
        "Then optimizer.zero_grad(), loss.backward(), optimizer.step().",
    ],
)  # fmt: skip
def generator_step(learner, case):
    """Update the generator once, through the discriminator, and leave the discriminator unchanged."""
    for size, rate in enumerate(RATES, start=1):  # D takes one sample at a time, then two
        _close_generator_step(learner, case, size, rate)


def _close_generator_step(learner, case, size, rate):
    G, D = Maker(case), Critic(case, size)
    z = case.normal(16, 2)
    with torch.no_grad():
        logit = D(G(z))
    w = D.layer.weight.detach()[0]

    def slope(of_logit):
        """The gradient of a loss whose derivative with respect to each logit is given, in A and b."""
        by_output = (of_logit[:, None] * w / len(of_logit)).reshape(len(z), 3)
        return torch.cat([(by_output.T @ z).flatten(), by_output.sum(0)])

    right = slope(-torch.sigmoid(-logit))
    old, before, of_D = leave_gradients(G, case), flat(G), flat(D)
    loss = learner(G, D, torch.optim.SGD(G.parameters(), rate), z)
    require(flat(D).equal(of_D), "the parameters of D changed, expected only those of G.",
            "A gradient passes through D, but D must not be updated with it: it would be trained to accept fakes. Step "
            "only the optimizer that was passed.")  # fmt: skip
    mistakes = [
        *step_mistakes(before, right, old, rate),
        (before - rate * slope(-torch.sigmoid(logit)), "This follows the saturating loss, log(1 - D). Use "
         "generator_loss, -log D."),
        (before - rate * slope(torch.sigmoid(logit)), "This minimises D's own loss for the fakes, so G was trained "
         "to be "
         "recognised. The generator's loss falls when D accepts the fakes."),
    ]  # fmt: skip
    close(flat(G), before - rate * right, mistakes, 1e-3, "after the step, the parameters of G")
    with torch.no_grad():
        after = _softplus(-D(G(z)))
    require_loss(loss, _softplus(-logit), after)


@exercise(
    "03.r1_penalty", adversarial.r1_penalty, difficulty=4, minutes=20, gradients=True,
    hints=[
        "Make x a leaf that requires gradients: x = x.detach().requires_grad_().",
        "Each D(x_i) depends on its own x_i only, so the gradient of the *sum* of all logits holds the gradient of "
        "each.",
        "torch.autograd.grad(D(x).sum(), x, create_graph=True) returns a tuple with one tensor, of the shape of x.",
        "The squared length is a sum over all numbers of a sample: .square().flatten(1).sum(1); then the batch's mean.",
    ],
)  # fmt: skip
def r1_penalty(learner, case):
    """Measure how steep the discriminator is at the real samples."""
    for shape in ((6, 2, 4, 4), (5, 3), (1, 7)):
        weight, x = case.normal(*shape[1:]), case.normal(*shape)
        gradient = 2 * weight * x
        lengths = gradient.flatten(1).square().sum(1)  # of each sample, squared
        expected = lengths.mean()
        mistakes = [
            (lengths.sqrt().mean(), "This is the mean length. The penalty is the mean of its square."),
            (gradient.square().mean(), "This is the mean over the pixels. A squared length is their sum; the mean is "
             "taken over the batch only."),
            (lengths.sum(), "This is the sum over the batch; the mean is needed."),
            (lengths, "This is one number for each sample; the mean over the batch is missing."),
            (expected / len(x) ** 2, "This is the gradient of the *mean* logit, so each is 1/batch of its size. Sum "
             "the logits: D(x).sum()."),
            (x.square().sum(0).square().sum(), "This is the gradient with respect to D's parameters. R1 needs the "
             "gradient with "
             "respect to x: how does the logit change when the *sample* changes?"),
            (expected / 2, "The factor 1/2 belongs to gamma / 2, outside this function."),
            (gradient.flatten(1).sum(1).mean(), "The slopes are added up with their signs: the square is missing."),
            (gradient.flatten(1).sum(1).square().mean(), "The sum came before the square, so slopes of both signs "
             "cancel."),
            (gradient.mean(0).square().sum(), "The batch was averaged before the square, so slopes cancel. Square "
             "first."),
            ((lengths.sqrt() - 1).square().mean(), "This is the penalty of WGAN-GP, which pulls slopes to 1. R1 "
             "pulls them to 0."),
            (gradient.abs().flatten(1).sum(1).mean(), "This adds up absolute values. A squared length is the sum of "
             "the squares."),
        ]  # fmt: skip
        got = learner(Bowl(weight), x)
        close(got, expected, mistakes, tolerance=1e-3)
        kept = learner.gradients or not isinstance(got, torch.Tensor) or got.requires_grad
        require(kept, "the penalty has no gradient, expected one that leads back to "
                "D's parameters.", "D must learn from it, so the gradient itself must be differentiable: "
                "create_graph=True, and no .item() or .detach() after it.")  # fmt: skip


@exercise(
    "03.modes_covered", adversarial.modes_covered, difficulty=2, minutes=10,
    hints=[
        "torch.cdist(samples, centres) gives all distances, (number, modes). A sample belongs to its nearest centre.",
        "distance, nearest = torch.cdist(samples, centres).min(1). Keep the nearest[...] of those near enough.",
        "torch.bincount(..., minlength=len(centres)) counts them for each centre. How many counts are >= least?",
    ],
)  # fmt: skip
def modes_covered(learner, case):
    """Count the centres that have enough samples near them."""
    settings = []
    for samples, centres, radius, least, expected in (plane(case), space(case), crowded(), boundary()):
        mistakes = mode_mistakes(samples, centres, radius, least)
        name = f"the number of modes with least = {least}"
        got = learner(samples, centres, radius, least)
        require(not isinstance(got, float), f"{name}: got the float {got:g}, expected an int.",
                "Modes are counted, so the number is whole: int(...), or .sum().item() of truth values.")  # fmt: skip
        settings.append((got, expected, mistakes, name, learner.called))
    close_in_all(settings)
    close(learner(samples, centres, radius), 1, what="with least = 20, the default, the number of modes")
