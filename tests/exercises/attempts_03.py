"""Attempts at the exercises of chapter 03."""

import torch
import torch.nn.functional as F
from attempts import mutant, variant
from torch.nn.functional import softplus

BEST, D_LOSS, G_LOSS = "03.optimal_discriminator", "03.discriminator_loss", "03.generator_loss"
D_STEP, G_STEP, R1, MODES = "03.discriminator_step", "03.generator_step", "03.r1_penalty", "03.modes_covered"


@mutant(BEST, "share of the fakes")
def share_of_fakes(p_data, p_g):
    return p_g / (p_data + p_g)


@mutant(BEST, "ratio of real to fake")
def ratio(p_data, p_g):
    return p_data / p_g


@mutant(BEST, "logit of D*")
def logit_of_the_best(p_data, p_g):
    return p_data.log() - p_g.log()


@mutant(BEST, "goes from -1 to 1")
def relative_difference(p_data, p_g):
    return (p_data - p_g) / (p_data + p_g)


@mutant(BEST, "how sure one can be")
def hard_decision(p_data, p_g):
    return (p_data > p_g).float()


@variant(BEST)
def by_the_sigmoid(p_data, p_g):
    return torch.sigmoid(p_data.double().log() - p_g.double().log())


@variant(BEST)
def by_the_odds(p_data, p_g):
    return 1 / (1 + p_g / p_data)


@mutant(D_LOSS, "sigmoid is applied twice")
def double_sigmoid(real_logits, fake_logits):
    return softplus(-torch.sigmoid(real_logits)).mean() + softplus(torch.sigmoid(fake_logits)).mean()


@mutant(D_LOSS, "labels are swapped")
def labels_swapped(real_logits, fake_logits):
    return softplus(real_logits).mean() + softplus(-fake_logits).mean()


@mutant(D_LOSS, "Both are treated as real")
def all_real(real_logits, fake_logits):
    return softplus(-real_logits).mean() + softplus(-fake_logits).mean()


@mutant(D_LOSS, "value that D wants high")
def value_instead_of_loss(real_logits, fake_logits):
    return F.logsigmoid(real_logits).mean() + F.logsigmoid(-fake_logits).mean()


@mutant(D_LOSS, "log(0) is minus infinity")
def overflow(real_logits, fake_logits):
    return -torch.sigmoid(real_logits).log().mean() - (1 - torch.sigmoid(fake_logits)).log().mean()


@mutant(D_LOSS, "A clamp or a small number")
def cut_off(real_logits, fake_logits):
    real, fake = torch.sigmoid(real_logits), torch.sigmoid(fake_logits)
    return -(real + 1e-12).log().mean() - (1 - fake + 1e-12).log().mean()


@mutant(D_LOSS, "mean of the two terms")
def halved(real_logits, fake_logits):
    return (softplus(-real_logits).mean() + softplus(fake_logits).mean()) / 2


@mutant(D_LOSS, "sums over the batch")
def summed(real_logits, fake_logits):
    return softplus(-real_logits).sum() + softplus(fake_logits).sum()


@mutant(D_LOSS, "one number for each pair")
def without_mean(real_logits, fake_logits):
    return softplus(-real_logits) + softplus(fake_logits)


@mutant(D_LOSS, "logarithm of a logit")
def logarithm_of_logits(real_logits, fake_logits):
    return -real_logits.log().mean() - (1 - fake_logits).log().mean()


@variant(D_LOSS)
def by_cross_entropy(real_logits, fake_logits):
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    return real + F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))


@variant(D_LOSS)
def by_logsigmoid(real_logits, fake_logits):
    return -F.logsigmoid(real_logits).double().mean() - F.logsigmoid(-fake_logits).double().mean()


@mutant(G_LOSS, "saturating loss")
def saturating(fake_logits):
    return -softplus(fake_logits).mean()


@mutant(G_LOSS, "*less* believed")
def sign_of_the_loss(fake_logits):
    return -softplus(-fake_logits).mean()


@mutant(G_LOSS, "D pays for believing")
def loss_of_the_other(fake_logits):
    return softplus(fake_logits).mean()


@mutant(G_LOSS, "sigmoid is applied twice")
def sigmoid_before_softplus(fake_logits):
    return softplus(-torch.sigmoid(fake_logits)).mean()


@mutant(G_LOSS, "one number for each fake")
def not_averaged(fake_logits):
    return softplus(-fake_logits)


@mutant(G_LOSS, "log(0) is minus infinity")
def logarithm_of_zero(fake_logits):
    return -torch.sigmoid(fake_logits).log().mean()


@variant(G_LOSS)
def generator_by_cross_entropy(fake_logits):
    return F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


@variant(G_LOSS)
def generator_by_logaddexp(fake_logits):
    return torch.logaddexp(torch.zeros_like(fake_logits), -fake_logits).mean()


# The steps call the losses by name, as notebooks do; a check gives these names the meaning of the references.


@mutant(D_STEP, "not cut off from G")
def detach_forgotten(G, D, optimizer, x, z):
    loss = discriminator_loss(D(x), D(G(z)))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(D_STEP, "Old gradients were added")
def zero_grad_forgotten(G, D, optimizer, x, z):
    loss = discriminator_loss(D(x), D(G(z).detach()))  # noqa: F821
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(D_STEP, "labels are swapped")
def fakes_first(G, D, optimizer, x, z):
    loss = discriminator_loss(D(G(z).detach()), D(x))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(D_STEP, "did not change")
def gradients_cleared_too_late(G, D, optimizer, x, z):
    loss = discriminator_loss(D(x), D(G(z).detach()))  # noqa: F821
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.detach()


@mutant(D_STEP, "parameters of G changed")
def both_learn(G, D, optimizer, x, z):
    other = torch.optim.SGD(G.parameters(), 0.1)
    loss = discriminator_loss(D(x), D(G(z)))  # noqa: F821
    optimizer.zero_grad()
    other.zero_grad()
    loss.backward()
    optimizer.step()
    other.step()
    return loss.detach()


@mutant(D_STEP, "went uphill")
def maximises_its_loss(G, D, optimizer, x, z):
    loss = discriminator_loss(D(x), D(G(z).detach()))  # noqa: F821
    optimizer.zero_grad()
    (-loss).backward()
    optimizer.step()
    return loss.detach()


@variant(D_STEP)
def without_gradients_for_G(G, D, optimizer, x, z):
    optimizer.zero_grad(set_to_none=False)
    with torch.no_grad():
        fake = G(z)
    loss = softplus(-D(x)).mean() + softplus(D(fake)).mean()
    loss.backward()
    optimizer.step()
    return loss.item()


@variant(D_STEP)
def in_two_passes(G, D, optimizer, x, z):
    D.zero_grad()
    real = softplus(-D(x)).mean()
    real.backward()
    fake = softplus(D(G(z).detach())).mean()
    fake.backward()
    optimizer.step()
    return real.detach() + fake.detach()


@mutant(G_STEP, "Is something detached?")
def detached_and_old_gradients(G, D, optimizer, z):
    loss = generator_loss(D(G(z).detach()))  # noqa: F821
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(G_STEP, "did not change")
def detached_fakes(G, D, optimizer, z):
    loss = generator_loss(D(G(z).detach()))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(G_STEP, "parameters of D changed")
def discriminator_follows(G, D, optimizer, z):
    both = torch.optim.SGD([*G.parameters(), *D.parameters()], 0.1)
    loss = generator_loss(D(G(z)))  # noqa: F821
    both.zero_grad()
    loss.backward()
    both.step()
    return loss.detach()


@mutant(G_STEP, "follows the saturating loss")
def saturating_step(G, D, optimizer, z):
    loss = -softplus(D(G(z))).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(G_STEP, "learned to be recognised")
def helps_the_discriminator(G, D, optimizer, z):
    loss = softplus(D(G(z))).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(G_STEP, "Old gradients were added")
def old_gradients_kept(G, D, optimizer, z):
    loss = generator_loss(D(G(z)))  # noqa: F821
    loss.backward()
    optimizer.step()
    return loss.detach()


@variant(G_STEP)
def clears_everything_first(G, D, optimizer, z):
    G.zero_grad()
    D.zero_grad()
    loss = F.binary_cross_entropy_with_logits(D(G(z)), torch.ones(len(z)))
    loss.backward()
    optimizer.step()
    D.zero_grad()
    return loss.item()


@variant(G_STEP)
def only_the_gradients_of_G(G, D, optimizer, z):
    loss = generator_loss(D(G(z)))  # noqa: F821
    for parameter, gradient in zip(G.parameters(), torch.autograd.grad(loss, list(G.parameters())), strict=True):
        parameter.grad = gradient
    optimizer.step()
    return loss.detach()


def gradient_of(D, x, create_graph=True, mean=False):
    x = x.detach().requires_grad_()
    logits = D(x)
    return torch.autograd.grad(logits.mean() if mean else logits.sum(), x, create_graph=create_graph)[0]


@mutant(R1, "penalty has its square")
def length_not_squared(D, x):
    return gradient_of(D, x).flatten(1).norm(dim=1).mean()


@mutant(R1, "create_graph=True")
def no_graph(D, x):
    return gradient_of(D, x, create_graph=False).square().flatten(1).sum(1).mean()


@mutant(R1, "gradient by D's parameters")
def by_parameters(D, x):
    gradients = torch.autograd.grad(D(x).sum(), list(D.parameters()), create_graph=True)
    return sum(gradient.square().sum() for gradient in gradients)


@mutant(R1, "must want one before it is used", state="error")
def without_requires_grad(D, x):
    (gradient,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


@mutant(R1, "mean over the pixels")
def mean_over_pixels(D, x):
    return gradient_of(D, x).square().mean()


@mutant(R1, "*mean* logit")
def of_the_mean_logit(D, x):
    return gradient_of(D, x, mean=True).square().flatten(1).sum(1).mean()


@mutant(R1, "WGAN-GP")
def slopes_of_one(D, x):
    return (gradient_of(D, x).flatten(1).norm(dim=1) - 1).square().mean()


@mutant(R1, "outside this function")
def half_included(D, x):
    return gradient_of(D, x).square().flatten(1).sum(1).mean() / 2


@variant(R1)
def sample_by_sample(D, x):
    total = 0
    for each in x:
        each = each[None].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(D(each)[0], each, create_graph=True)
        total = total + (gradient**2).sum()
    return total / len(x)


@variant(R1)
def by_functional_gradient(D, x):
    gradient = torch.func.grad(lambda x: D(x).sum())(x)
    return torch.einsum("b...,b...->b", gradient, gradient).mean()


def counts(samples, centres, keep):
    distance, nearest = torch.cdist(samples, centres).min(1)
    return torch.bincount(nearest[keep(distance)], minlength=len(centres))


@mutant(MODES, "stray hit")
def one_is_enough(samples, centres, radius, least):
    return int((counts(samples, centres, lambda d: d <= radius) > 0).sum())


@mutant(MODES, "radius was not used")
def without_radius(samples, centres, radius, least):
    return int((counts(samples, centres, lambda d: d >= 0) >= least).sum())


@mutant(MODES, "several centres at once")
def for_all_near_centres(samples, centres, radius, least):
    return int(((torch.cdist(samples, centres) <= radius).sum(0) >= least).sum())


@mutant(MODES, "exactly `least`")
def strictly_more(samples, centres, radius, least):
    return int((counts(samples, centres, lambda d: d <= radius) > least).sum())


@mutant(MODES, "This counts samples")
def counts_samples(samples, centres, radius, least):
    return int((torch.cdist(samples, centres).min(1).values <= radius).sum())


@mutant(MODES, "squared distance")
def squared_distance(samples, centres, radius, least):
    return int((counts(samples, centres, lambda d: d**2 <= radius) >= least).sum())


@mutant(MODES, ".min(1)")
def nearest_sample_of_each_centre(samples, centres, radius, least):
    return int((torch.cdist(samples, centres).min(0).values <= radius).sum())


@variant(MODES)
def modes_in_a_loop(samples, centres, radius, least):
    found = [0] * len(centres)
    for sample in samples:
        lengths = (centres - sample).norm(dim=1)
        if lengths.min() < radius:
            found[int(lengths.argmin())] += 1
    return sum(number >= least for number in found)


@variant(MODES)
def modes_as_a_tensor(samples, centres, radius, least):
    return (counts(samples, centres, lambda d: d < radius) >= least).sum()
