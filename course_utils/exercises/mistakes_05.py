"""What common mistakes give in the exercises of chapter 05, each with the sentence that names it."""

import math

import torch


def add_noise_mistakes(x0, eps, t, table, share, column):
    signal, noise = share.sqrt(), (1 - share).sqrt()
    early = table[t - 1].reshape(column)
    first, for_pictures = table[t[0]], table[t].reshape(-1, 1, 1, 1)
    again, as_beta = table.cumprod(0)[t].reshape(column), (1 - table).cumprod(0)[t].reshape(column)
    step = (table / torch.cat([torch.ones(1), table[:-1]]))[t].reshape(column)  # alpha_t, of one step
    return [
        (share * x0 + noise * eps, "This is ᾱ where √ᾱ belongs: the image is multiplied by sqrt(alpha_bar_t)."),
        (signal * x0 + (1 - share) * eps, "This is 1 - ᾱ where √(1 - ᾱ) belongs: 1 - alpha_bar_t is the variance of "
                                          "the noise, and its root multiplies eps."),
        (share * x0 + (1 - share) * eps, "Both roots are missing: alpha_bar_t and 1 - alpha_bar_t are variances."),
        (signal * x0 + (1 - signal) * eps, "The noise is multiplied by 1 - √ᾱ. Variances add up to 1, their roots do "
                                           "not: it is sqrt(1 - alpha_bar_t)."),
        (noise * x0 + signal * eps, "The two factors are swapped: at t = 0 x_t is still nearly all image."),
        (x0 + noise * eps, "The image keeps its full strength; it must fade by sqrt(alpha_bar_t)."),
        (early.sqrt() * x0 + (1 - early).sqrt() * eps, "This looks up t - 1. In code t starts at 0, and so does the "
                                                       "table; index -1 would be its end."),
        (signal * x0 - noise * eps, "The noise has a minus sign; the equation adds it."),
        (signal * x0 + eps, "The noise is added at full strength; multiply it by sqrt(1 - alpha_bar_t)."),
        (again.sqrt() * x0 + (1 - again).sqrt() * eps, "The table holds alpha_bar already; here its running product "
                                                       "was taken once more."),
        (as_beta.sqrt() * x0 + (1 - as_beta).sqrt() * eps, "The table was taken for betas. It holds alpha_bar: look "
                                                           "up alpha_bar[t]."),
        (step.sqrt() * x0 + (1 - step).sqrt() * eps, "This takes one step's alpha_t out of the table. alpha_bar_t is "
                                                     "what all steps up to t leave: alpha_bar[t]."),
        (first.sqrt() * x0 + (1 - first).sqrt() * eps, "All samples got the time of the first. Each has its own."),
        (for_pictures.sqrt() * x0 + (1 - for_pictures).sqrt() * eps,
         "The factors were given four axes whatever x0 has. Here x0 is points, (batch, 2): expand_like(values, x0) "
         "gives as many axes as x0 has."),
    ]  # fmt: skip


def kl_and_mistakes(x0, share):
    """The distance of each sample to noise in bits per dimension, by torch's distributions, and wrong ones."""
    q = torch.distributions.Normal(share.sqrt().double() * x0, (1 - share.double()).sqrt())
    p = torch.distributions.Normal(torch.zeros(()).double(), torch.ones(()).double())
    nats = torch.distributions.kl_divergence(q, p).flatten(1)  # (batch, d)
    bits = nats / math.log(2)
    reverse = torch.distributions.kl_divergence(p, q).flatten(1).mean(1) / math.log(2)
    v = 1 - share

    def of_terms(*terms):
        return sum(terms).flatten(1).mean(1) / 2 / math.log(2)

    half_log = (share * (x0.square() - 1) - (1 - share).sqrt().log()).flatten(1).mean(1) / 2 / math.log(2)
    mistakes = [
        (nats.mean(1), "This is in nats. One bit is ln 2 nats: divide by math.log(2)."),
        (bits.sum(1), "This is the sum over all dimensions of an image; per dimension is their mean."),
        (nats.sum(1), "This is the sum over the dimensions, in nats; wanted are their mean, and bits."),
        (bits.mean(), "This is one number for the whole batch. Keep one for each sample: .flatten(1).mean(1)."),
        (reverse, "This is the other direction, KL( N(0, I) || q ). The KL divergence is not symmetric: q first."),
        (-bits.mean(1), "The sign is wrong: a KL divergence is never negative."),
        (2 * bits.mean(1), "The factor 1/2 is missing."),
        (half_log, "The logarithm is of the variance 1 - alpha_bar_t, not of its root."),
        (
            of_terms(share * x0**2, share - 1 - share.log()),
            "The variance of x_t is 1 - alpha_bar_t; alpha_bar_t is what multiplies the image's.",
        ),
        (
            of_terms(share * (x0**2 - 1), -v.log2()) * math.log(2),
            "Only the logarithm is in bits. The whole sum is divided by ln 2.",
        ),
        (of_terms(share * (x0**2 - 1), -torch.log1p(share)), "This is ln(1 + alpha_bar_t); σ² is 1 - alpha_bar_t."),
        (nats.mean(1) / math.log10(2), "This divides by log10(2). Bits are nats over the natural logarithm of 2."),
        (bits.mean(0), "The batch was averaged away: .flatten(1).mean(1) averages over the dimensions of each sample."),
        (of_terms(share * (x0**2 - 1)), "The logarithm is missing: σ² + μ² - 1 - ln σ² has four terms."),
        (of_terms(share * (x0**2 - 1), v.log()), "ln σ² has the wrong sign: it is σ² + μ² - 1 - ln σ²."),
        (
            of_terms(share**2 * x0**2 - share, -v.log()),
            "The mean μ is sqrt(alpha_bar_t) x0, with the root, so that μ² is alpha_bar_t x0².",
        ),
        (
            of_terms(share * (x0.flatten(1).mean(1)[:, None] ** 2 - 1), -v.log()),
            "The mean of the squares is wanted, not the square of the mean: square x0 before you average.",
        ),
        (nats.mean(1) * math.log(2), "Nats become bits by dividing by ln 2, not by multiplying."),
    ]
    return bits.mean(1), mistakes
