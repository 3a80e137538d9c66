"""The mathematics of variational autoencoders, on tensors: it knows no network.

z: a latent (a code); x: a picture. q(z|x) is a normal distribution that the encoder states by `mean` and `logvar`, the
logarithm of its variance, both (batch, d). The prior p(z) is N(0, I). All results are in nats.
Kingma and Welling 2013 (arXiv:1312.6114); Rezende et al. 2014 (arXiv:1401.4082).
"""

import math

import torch

from course_utils.shapes import require_same_shape


def reparametrise(mean: torch.Tensor, logvar: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return z = mean + exp(logvar / 2) eps, a sample of N(mean, exp(logvar)) through which gradients flow.

    mean, logvar: one shape, (batch, ...). eps: standard normal, new for each element, from the generator. Returns z of
    that shape. Raises ValueError for two shapes. Kingma and Welling 2013, section 2.4.
    """
    require_same_shape(mean, logvar, "mean and logvar")
    eps = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
    return mean + (logvar / 2).exp() * eps


def gaussian_kl(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Return KL( N(mean, exp(logvar)) || N(0, I) ) in nats, the sum over the dimensions of each sample.

        KL = 1/2 sum_j (mean_j^2 + exp(logvar_j) - 1 - logvar_j)

    mean, logvar: (batch, ...), reached by gradients. Returns (batch,), never negative. Raises ValueError for two
    shapes. Kingma and Welling 2013, appendix B.
    """
    require_same_shape(mean, logvar, "mean and logvar")
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1)


def negative_elbo(
    x: torch.Tensor,
    x_hat: torch.Tensor,
    sigma: torch.Tensor | float,
    mean: torch.Tensor,
    logvar: torch.Tensor,
    beta: float = 1.0,
) -> torch.Tensor:
    """Return the loss of a VAE whose decoder is p(x|z) = N(x_hat, sigma^2 I), in nats for each picture.

        L = sum_i [ (x_i - x_hat_i)^2 / (2 sigma^2) + log(sigma) + log(2 pi) / 2 ] + beta KL( q(z|x) || N(0, I) )

    x, x_hat: (batch, ...), x_hat decoded from one sample z. sigma: a positive number, or a tensor of shape (), reached
    by gradients.
    mean, logvar: (batch, d). Returns (batch,). With beta = 1 its mean over z is an upper bound of -log p(x). Raises
    ValueError for shapes that differ. beta: Higgins et al. 2017; the choice of sigma: Rybkin et al. (arXiv:2006.13202).
    """
    require_same_shape(x, x_hat, "x and x_hat")
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    miss = (x - x_hat) ** 2 / (2 * sigma**2) + sigma.log() + math.log(2 * math.pi) / 2
    return miss.flatten(1).sum(1) + beta * gaussian_kl(mean, logvar)


def score_gradient(f_z: torch.Tensor, z: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Return each sample's estimate of the gradient of E[f(z)] with respect to the mean, from the values of f alone.

        g = f(z) * d/d(mean) log N(z; mean, exp(logvar)) = f(z) (z - mean) / exp(logvar)

    f_z: (n,), values of f. z: (n, d), samples of N(mean, exp(logvar)). mean, logvar: (d,). Returns (n, d); its mean
    over the samples estimates the gradient without bias. Also called REINFORCE: Williams 1992.
    """
    return f_z[:, None] * (z - mean) / logvar.exp()


def importance_bound(log_w: torch.Tensor) -> torch.Tensor:
    """Return the importance-weighted bound of log p(x) from K samples.

        L_K = log( 1/K sum_k w_k ),  w_k = p(x, z_k) / q(z_k | x)

    log_w: (K, batch), logarithms, so that nothing overflows. Returns (batch,), of its dtype. On average it lies below
    log p(x), never below the ELBO (its value for K = 1), and rises with K. Burda et al. 2015 (arXiv:1509.00519),
    equation 8.
    """
    return torch.logsumexp(log_w, 0) - math.log(len(log_w))


def spherical_path(start: torch.Tensor, end: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` latents on the arc from start to end, both included.

        z(s) = sin((1 - s) a) / sin(a) start + sin(s a) / sin(a) end,  s = 0 ... 1

    start, end: (d,), not in line with each other. a: the angle between them. Returns (count, d). With ends of one
    length, all have that length. Shoemake 1985; White 2016 (arXiv:1609.04468) for latents. Raises ValueError for fewer
    than two latents, and for ends in line.
    """
    cosine = torch.dot(start, end) / (start.norm() * end.norm())
    if count < 2 or not cosine.abs() < 1 - 1e-6:
        raise ValueError(
            f"Expected two latents or more between ends that are not in line, got count {count} and a "
            f"cosine of {cosine:.6f}. Between ends in line a straight path will do."
        )
    angle = torch.arccos(cosine)
    s = torch.linspace(0, 1, count, dtype=start.dtype, device=start.device)[:, None]  # (count, 1)
    return (torch.sin((1 - s) * angle) * start + torch.sin(s * angle) * end) / torch.sin(angle)


def kl_by_dimension(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Return the mean KL to N(0, 1) of each dimension of the latent, in nats: (batch, d), (batch, d) -> (d,).

    A dimension with nearly 0 carries no information about the picture: it has collapsed onto the prior.
    """
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean(0)
