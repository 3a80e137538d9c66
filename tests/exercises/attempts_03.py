"""Attempts at the exercises of chapter 03."""

import numpy as np
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


@mutant(BEST, "not how certain that is")
def hard_decision(p_data, p_g):
    return (p_data > p_g).float()


@mutant(BEST, "Brackets are missing")
def brackets_missing(p_data, p_g):
    return p_data / p_data + p_g


@mutant(BEST, "Where there are no fakes the share is exactly 1")
def clamped_above(p_data, p_g):
    return (p_data / (p_data + p_g)).clamp(max=0.99)


@mutant(BEST, "Where there is nothing real the share is exactly 0")
def clamped_below(p_data, p_g):
    return (p_data / (p_data + p_g)).clamp(min=1e-3)


@mutant(BEST, "never looks at p_g")
def share_of_all_real(p_data, p_g):
    return p_data / p_data.sum()


@mutant(BEST, "Each place has its own share")
def share_of_everything(p_data, p_g):
    return p_data / (p_data + p_g).sum()


@mutant(BEST, "in numerator and denominator, and cancels")
def half_above_only(p_data, p_g):
    return 0.5 * p_data / (p_data + p_g)


@mutant(BEST, "not the difference of the densities")
def sigmoid_of_the_difference(p_data, p_g):
    return torch.sigmoid(p_data - p_g)


@mutant(BEST, "Only the ratio of the densities counts")
def with_a_small_number(p_data, p_g):
    return p_data / (p_data + p_g + 1e-8)


@mutant(BEST, "torch.float64, expected torch.float32")
def best_in_float64(p_data, p_g):
    return p_data.double() / (p_data + p_g)


@mutant(BEST, "the input p_data was changed in place")
def divides_in_place(p_data, p_g):
    return p_data.div_(p_data + p_g)


@variant(BEST)
def place_by_place(p_data, p_g):
    shares = [a / (a + b) for a, b in zip(p_data.flatten().tolist(), p_g.flatten().tolist(), strict=True)]
    return torch.tensor(shares, dtype=p_data.dtype).reshape(p_data.shape)


@variant(BEST)
def by_the_softmax(p_data, p_g):
    return torch.stack([p_data.log(), p_g.log()]).softmax(0)[0]


@variant(BEST)
def by_the_sigmoid(p_data, p_g):
    return torch.sigmoid(p_data.log() - p_g.log())


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


@mutant(D_LOSS, "which D maximises")
def value_instead_of_loss(real_logits, fake_logits):
    return F.logsigmoid(real_logits).mean() + F.logsigmoid(-fake_logits).mean()


@mutant(D_LOSS, "rounds sigmoid(-200) to 0")
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


@mutant(D_LOSS, "Both are treated as fake")
def all_fake(real_logits, fake_logits):
    return softplus(real_logits).mean() + softplus(fake_logits).mean()


@mutant(D_LOSS, "One mean was taken over real and fake together")
def one_mean(real_logits, fake_logits):
    return softplus(torch.cat([-real_logits, fake_logits])).mean()


@mutant(D_LOSS, "The fakes are missing")
def real_only(real_logits, fake_logits):
    return softplus(-real_logits).mean() + 0 * fake_logits.sum()


@mutant(D_LOSS, "The real samples are missing")
def fake_only(real_logits, fake_logits):
    return softplus(fake_logits).mean() + 0 * real_logits.sum()


@mutant(D_LOSS, "a Wasserstein loss")
def wasserstein(real_logits, fake_logits):
    return fake_logits.mean() - real_logits.mean()


@mutant(D_LOSS, "divided by the number of real samples")
def divided_by_the_real(real_logits, fake_logits):
    return (softplus(-real_logits).sum() + softplus(fake_logits).sum()) / len(real_logits)


@mutant(D_LOSS, "This is the hinge loss")
def hinge(real_logits, fake_logits):
    return (1 - real_logits).relu().mean() + (1 + fake_logits).relu().mean()


@mutant(D_LOSS, "The mean came before the logarithm")
def loss_of_the_mean(real_logits, fake_logits):
    return softplus(-real_logits.mean()) + softplus(fake_logits.mean())


@mutant(D_LOSS, "is the Python number")
def a_python_number(real_logits, fake_logits):
    return (softplus(-real_logits).mean() + softplus(fake_logits).mean()).item()


@mutant(D_LOSS, "no gradient comes back to fake_logits")
def fakes_cut_off(real_logits, fake_logits):
    return softplus(-real_logits).mean() + softplus(fake_logits.detach()).mean()


@mutant(D_LOSS, "has no way back")
def loss_without_gradient(real_logits, fake_logits):
    with torch.no_grad():
        return softplus(-real_logits).mean() + softplus(fake_logits).mean()


@mutant(D_LOSS, "expected its own name")
def logits_renamed(real, fake):
    return softplus(-real).mean() + softplus(fake).mean()


@mutant(D_LOSS, "No gradient can flow from this number", state="error")
def goes_backward_itself(real_logits, fake_logits):
    loss = softplus(-real_logits).mean() + softplus(fake_logits).mean()
    loss.backward()
    return loss


@variant(D_LOSS)
def by_logsumexp(real_logits, fake_logits):
    def mean_cost(a):
        return torch.stack([torch.zeros_like(a), a]).logsumexp(0).sum() / len(a)

    return mean_cost(-real_logits) + mean_cost(fake_logits)


@variant(D_LOSS)
def by_cross_entropy(real_logits, fake_logits):
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    return real + F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))


@variant(D_LOSS)
def by_logsigmoid(real_logits, fake_logits):
    return -(F.logsigmoid(real_logits).double().mean() + F.logsigmoid(-fake_logits).double().mean()).float()


@mutant(G_LOSS, "saturating loss")
def saturating(fake_logits):
    return -softplus(fake_logits).mean()


@mutant(G_LOSS, "lower D's output for the fakes")
def sign_of_the_loss(fake_logits):
    return -softplus(-fake_logits).mean()


@mutant(G_LOSS, "D's own loss for a fake")
def loss_of_the_other(fake_logits):
    return softplus(fake_logits).mean()


@mutant(G_LOSS, "sigmoid is applied twice")
def sigmoid_before_softplus(fake_logits):
    return softplus(-torch.sigmoid(fake_logits)).mean()


@mutant(G_LOSS, "one number for each fake")
def not_averaged(fake_logits):
    return softplus(-fake_logits)


@mutant(G_LOSS, "rounds sigmoid(-200) to 0")
def logarithm_of_zero(fake_logits):
    return -torch.sigmoid(fake_logits).log().mean()


@mutant(G_LOSS, "The loss must keep growing")
def clamped_probability(fake_logits):
    return -torch.sigmoid(fake_logits).clamp(min=1e-12).log().mean()


@mutant(G_LOSS, "This is the sum over the batch")
def summed_over_fakes(fake_logits):
    return softplus(-fake_logits).sum()


@mutant(G_LOSS, "a Wasserstein loss")
def minus_the_mean_logit(fake_logits):
    return -fake_logits.mean()


@mutant(G_LOSS, "The mean came before the logarithm")
def generator_loss_of_the_mean(fake_logits):
    return softplus(-fake_logits.mean())


@mutant(G_LOSS, "The logarithm of a logit was taken")
def logarithm_of_fake_logits(fake_logits):
    return -fake_logits.log().mean()


@mutant(G_LOSS, "is the Python number")
def generator_loss_as_a_number(fake_logits):
    return softplus(-fake_logits).mean().item()


@mutant(G_LOSS, "has no way back")
def generator_loss_detached(fake_logits):
    return softplus(-fake_logits.detach()).mean()


@mutant(G_LOSS, "torch.float64, expected torch.float32")
def generator_loss_in_float64(fake_logits):
    return softplus(-fake_logits.double()).mean()


@variant(G_LOSS)
def generator_by_logsigmoid(fake_logits):
    return torch.stack([-F.logsigmoid(a) for a in fake_logits]).mean()


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


@mutant(D_STEP, "D was trained on the real samples only")
def real_samples_only(G, D, optimizer, x, z):
    loss = softplus(-D(x)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(D_STEP, "D was trained on the fakes only")
def fakes_only(G, D, optimizer, x, z):
    loss = softplus(D(G(z).detach())).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(D_STEP, "followed old gradients only")
def old_gradients_only(G, D, optimizer, x, z):
    with torch.no_grad():
        loss = discriminator_loss(D(x), D(G(z)))  # noqa: F821
    optimizer.step()
    return loss


@mutant(D_STEP, "No gradient can flow from this number", state="error")
def all_under_no_grad(G, D, optimizer, x, z):
    with torch.no_grad():
        loss = discriminator_loss(D(x), D(G(z)))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(D_STEP, "The step always has the same rate")
def d_step_by_hand(G, D, optimizer, x, z):
    loss = discriminator_loss(D(x), D(G(z).detach()))  # noqa: F821
    gradients = torch.autograd.grad(loss, list(D.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(D.parameters(), gradients, strict=True):
            parameter -= 0.1 * gradient
    return loss.detach()


@mutant(D_STEP, "twice as long as it should be")
def d_step_backward_twice(G, D, optimizer, x, z):
    loss = discriminator_loss(D(x), D(G(z).detach()))  # noqa: F821
    optimizer.zero_grad()
    loss.backward(retain_graph=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(D_STEP, "the loss that is returned is a Python number")
def d_step_returns_a_number(G, D, optimizer, x, z):
    loss = discriminator_loss(D(x), D(G(z).detach()))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@mutant(D_STEP, "still records gradients")
def d_step_returns_the_graph(G, D, optimizer, x, z):
    loss = discriminator_loss(D(x), D(G(z).detach()))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@mutant(D_STEP, "the loss that is returned is None")
def d_step_returns_nothing(G, D, optimizer, x, z):
    loss = discriminator_loss(D(x), D(G(z).detach()))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@mutant(D_STEP, "the network G was left in evaluation mode")
def d_step_leaves_evaluation_mode(G, D, optimizer, x, z):
    G.eval()
    loss = discriminator_loss(D(x), D(G(z).detach()))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(D_STEP, "the network G was left with its parameter")
def d_step_freezes_the_other(G, D, optimizer, x, z):
    G.requires_grad_(False)
    loss = discriminator_loss(D(x), D(G(z).detach()))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(D_STEP, "the parameter z is called noise here")
def d_step_renamed(G, D, optimizer, x, noise):
    loss = discriminator_loss(D(x), D(G(noise).detach()))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(D_STEP, "must be the same as input size", state="error")
def one_label_for_each_sample(G, D, optimizer, x, z):
    real = F.binary_cross_entropy_with_logits(D(x), torch.ones(len(x)))
    loss = real + F.binary_cross_entropy_with_logits(D(G(z).detach()), torch.zeros(len(z)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@variant(D_STEP)
def by_closure(G, D, optimizer, x, z):
    with torch.no_grad():
        fake = G(z)

    def closure():
        optimizer.zero_grad()
        loss = discriminator_loss(D(x), D(fake))  # noqa: F821
        loss.backward()
        return loss

    return optimizer.step(closure).detach()


@mutant(D_STEP, "the loss after the update")
def d_step_returns_the_new_loss(G, D, optimizer, x, z):
    loss = discriminator_loss(D(x), D(G(z).detach()))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return discriminator_loss(D(x), D(G(z).detach())).detach()  # noqa: F821


@variant(D_STEP)
def without_gradients_for_G(G, D, optimizer, x, z):
    optimizer.zero_grad(set_to_none=False)
    with torch.no_grad():
        fake = G(z)
    loss = softplus(-D(x)).mean() + softplus(D(fake)).mean()
    loss.backward()
    optimizer.step()
    return torch.tensor(loss.item())


@variant(D_STEP)
def in_two_passes(G, D, optimizer, x, z):
    D.zero_grad()
    real = softplus(-D(x)).mean()
    real.backward()
    fake = softplus(D(G(z).detach())).mean()
    fake.backward()
    optimizer.step()
    return real.detach() + fake.detach()


@mutant(G_STEP, "followed old gradients only")
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


@mutant(G_STEP, "trained to be recognised")
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


@mutant(G_STEP, "went uphill")
def g_step_uphill(G, D, optimizer, z):
    loss = generator_loss(D(G(z)))  # noqa: F821
    optimizer.zero_grad()
    (-loss).backward()
    optimizer.step()
    return loss.detach()


@mutant(G_STEP, "The step always has the same rate")
def g_step_by_hand(G, D, optimizer, z):
    loss = generator_loss(D(G(z)))  # noqa: F821
    gradients = torch.autograd.grad(loss, list(G.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(G.parameters(), gradients, strict=True):
            parameter -= 0.1 * gradient
    return loss.detach()


@mutant(G_STEP, "twice as long as it should be")
def g_step_backward_twice(G, D, optimizer, z):
    loss = generator_loss(D(G(z)))  # noqa: F821
    optimizer.zero_grad()
    loss.backward(retain_graph=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(G_STEP, "the loss that is returned is a Python number")
def g_step_returns_a_number(G, D, optimizer, z):
    loss = generator_loss(D(G(z)))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@mutant(G_STEP, "still records gradients")
def g_step_returns_the_graph(G, D, optimizer, z):
    loss = generator_loss(D(G(z)))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@mutant(G_STEP, "the loss that is returned is None")
def g_step_returns_nothing(G, D, optimizer, z):
    loss = generator_loss(D(G(z)))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@mutant(G_STEP, "the network D was left in evaluation mode")
def g_step_leaves_evaluation_mode(G, D, optimizer, z):
    D.eval()
    loss = generator_loss(D(G(z)))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(G_STEP, "the network D was left with its parameter")
def g_step_freezes_the_other(G, D, optimizer, z):
    D.requires_grad_(False)
    loss = generator_loss(D(G(z)))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@variant(G_STEP)
def frozen_for_a_while(G, D, optimizer, z):
    D.requires_grad_(False)
    loss = generator_loss(D(G(z)))  # noqa: F821
    D.requires_grad_(True)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@mutant(G_STEP, "the loss after the update")
def g_step_returns_the_new_loss(G, D, optimizer, z):
    loss = generator_loss(D(G(z)))  # noqa: F821
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return generator_loss(D(G(z))).detach()  # noqa: F821


@variant(G_STEP)
def clears_everything_first(G, D, optimizer, z):
    G.zero_grad()
    D.zero_grad()
    logits = D(G(z))
    loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    loss.backward()
    optimizer.step()
    D.zero_grad()
    return loss.detach()


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


@mutant(R1, "mean of its square")
def length_not_squared(D, x):
    return gradient_of(D, x).flatten(1).norm(dim=1).mean()


@mutant(R1, "the gradient itself must be differentiable")
def no_graph(D, x):
    return gradient_of(D, x, create_graph=False).square().flatten(1).sum(1).mean()


@mutant(R1, "gradient with respect to D's parameters")
def by_parameters(D, x):
    gradients = torch.autograd.grad(D(x).sum(), list(D.parameters()), create_graph=True)
    return sum(gradient.square().sum() for gradient in gradients)


@mutant(R1, "needs requires_grad before it is used", state="error")
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


@mutant(R1, "This is the sum over the batch")
def summed_over_the_batch(D, x):
    return gradient_of(D, x).square().sum()


@mutant(R1, "This is one number for each sample")
def not_averaged_over_the_batch(D, x):
    return gradient_of(D, x).square().flatten(1).sum(1)


@mutant(R1, "slopes of both signs cancel")
def sum_before_the_square(D, x):
    return gradient_of(D, x).flatten(1).sum(1).square().mean()


@mutant(R1, "The batch was averaged before the square")
def batch_averaged_first(D, x):
    return gradient_of(D, x).mean(0).square().sum()


@mutant(R1, "the square is missing")
def slopes_added_up(D, x):
    return gradient_of(D, x).flatten(1).sum(1).mean()


@mutant(R1, "Take the tensor out", state="error")
def tuple_not_unpacked(D, x):
    x = x.detach().requires_grad_()
    gradient = torch.autograd.grad(D(x).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


@mutant(R1, "makes one of them", state="error")
def pictures_only(D, x):
    return gradient_of(D, x).square().sum((1, 2, 3)).mean()


@mutant(R1, "This adds up absolute values")
def absolute_slopes(D, x):
    return gradient_of(D, x).abs().flatten(1).sum(1).mean()


@mutant(R1, "the input x was left with requires_grad=True")
def marks_the_callers_pictures(D, x):
    (gradient,) = torch.autograd.grad(D(x.requires_grad_()).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


@mutant(R1, "the network D was left with a gradient in weight")
def with_backward(D, x):
    x = x.detach().requires_grad_()
    D(x).sum().backward(create_graph=True)
    return x.grad.square().flatten(1).sum(1).mean()


@mutant(R1, "the network D was left with its parameter weight set to be frozen")
def freezes_the_discriminator(D, x):
    penalty = gradient_of(D, x).square().flatten(1).sum(1).mean()
    D.requires_grad_(False)
    return penalty


@mutant(R1, "was not used in the computation", state="error")
def gradient_by_a_copy(D, x):
    copy = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(D(x).sum(), copy, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


@mutant(R1, "taken of a single number", state="error")
def gradient_of_many_logits(D, x):
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(x), x, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


@mutant(R1, "is the Python number")
def penalty_as_a_number(D, x):
    return gradient_of(D, x).square().flatten(1).sum(1).mean().item()


@variant(R1)
def by_einsum_over_the_batch(D, x):
    x = x.clone().detach().requires_grad_(True)
    logits = D(x)
    (gradient,) = torch.autograd.grad(logits, x, torch.ones_like(logits), create_graph=True)
    return torch.linalg.vector_norm(gradient) ** 2 / len(x)


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


@mutant(MODES, "single stray sample")
def one_is_enough(samples, centres, radius, least=20):
    return int((counts(samples, centres, lambda d: d <= radius) > 0).sum())


@mutant(MODES, "radius was not used")
def without_radius(samples, centres, radius, least=20):
    return int((counts(samples, centres, lambda d: d >= 0) >= least).sum())


@mutant(MODES, "several centres at once")
def for_all_near_centres(samples, centres, radius, least=20):
    return int(((torch.cdist(samples, centres) <= radius).sum(0) >= least).sum())


@mutant(MODES, "exactly `least`")
def strictly_more(samples, centres, radius, least=20):
    return int((counts(samples, centres, lambda d: d <= radius) > least).sum())


@mutant(MODES, "This counts samples")
def counts_samples(samples, centres, radius, least=20):
    return int((torch.cdist(samples, centres).min(1).values <= radius).sum())


@mutant(MODES, "squared distance")
def squared_distance(samples, centres, radius, least=20):
    return int((counts(samples, centres, lambda d: d**2 <= radius) >= least).sum())


@mutant(MODES, ".min(1)")
def nearest_sample_of_each_centre(samples, centres, radius, least=20):
    return int((torch.cdist(samples, centres).min(0).values <= radius).sum())


@mutant(MODES, "Only the first eight centres")
def eight_modes(samples, centres, radius, least=20):
    distance, nearest = torch.cdist(samples, centres).min(1)
    return sum(int((nearest[distance <= radius] == k).sum() >= least) for k in range(8))


@mutant(MODES, "Modes are counted, so the number is whole")
def share_of_modes(samples, centres, radius, least=20):
    return (counts(samples, centres, lambda d: d <= radius) >= least).float().mean().item()


@mutant(MODES, "least is not used")
def always_twenty(samples, centres, radius, least=20):
    return int((counts(samples, centres, lambda d: d <= radius) >= 20).sum())


@mutant(MODES, "exactly at the radius")
def strictly_within(samples, centres, radius, least=20):
    return int((counts(samples, centres, lambda d: d < radius) >= least).sum())


@mutant(MODES, "near samples count, not far ones")
def far_ones(samples, centres, radius, least=20):
    return int((counts(samples, centres, lambda d: d > radius) >= least).sum())


@mutant(MODES, "the centres that have too few samples")
def too_few(samples, centres, radius, least=20):
    return int((counts(samples, centres, lambda d: d <= radius) < least).sum())


@mutant(MODES, "The comparison with `least` is reversed")
def at_most(samples, centres, radius, least=20):
    return int((counts(samples, centres, lambda d: d <= radius) <= least).sum())


@mutant(MODES, "the sum of the absolute differences")
def city_block(samples, centres, radius, least=20):
    distance, nearest = torch.cdist(samples, centres, p=1).min(1)
    return int((torch.bincount(nearest[distance <= radius], minlength=len(centres)) >= least).sum())


@mutant(MODES, "the largest difference of a coordinate")
def chessboard(samples, centres, radius, least=20):
    distance, nearest = torch.cdist(samples, centres, p=torch.inf).min(1)
    return int((torch.bincount(nearest[distance <= radius], minlength=len(centres)) >= least).sum())


@mutant(MODES, "is a tensor with one number")
def modes_as_a_tensor(samples, centres, radius, least=20):
    return (counts(samples, centres, lambda d: d <= radius) >= least).sum()


@mutant(MODES, "cannot be called as modes_covered(samples, centres, radius)")
def without_default(samples, centres, radius, least):
    return int((counts(samples, centres, lambda d: d <= radius) >= least).sum())


@mutant(MODES, "the default 10, expected least=20")
def default_of_ten(samples, centres, radius, least=10):
    return int((counts(samples, centres, lambda d: d <= radius) >= least).sum())


@mutant(MODES, "for the first centre within the radius")
def first_centre_within(samples, centres, radius, least=20):
    within = torch.cdist(samples, centres) <= radius
    first = within.int().argmax(1)[within.any(1)]
    return int((torch.bincount(first, minlength=len(centres)) >= least).sum())


@variant(MODES)
def modes_by_numpy(samples, centres, radius, least=20):
    distance = ((samples[:, None] - centres) ** 2).sum(-1).sqrt().numpy()
    own = distance.argmin(1)[distance.min(1) <= radius]
    return (np.bincount(own, minlength=len(centres)) >= least).sum()


@variant(MODES)
def modes_by_one_hot(samples, centres, radius, least=20):
    distance = torch.cdist(samples, centres)
    own = F.one_hot(distance.argmin(1), len(centres)) * (distance <= radius)
    return (own.sum(0) >= least).sum().item()


@variant(MODES)
def modes_in_a_loop(samples, centres, radius, least=20):
    found = [0] * len(centres)
    for sample in samples:
        lengths = (centres - sample).norm(dim=1)
        if lengths.min() <= radius:
            found[int(lengths.argmin())] += 1
    return sum(number >= least for number in found)
