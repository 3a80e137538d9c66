"""Quantisation by hand: closed forms, independent implementations, diffusers, and the tokeniser of pictures."""

import itertools
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from course_utils.data import picture_book as book
from course_utils.diffusion.latents import encode
from course_utils.models import vq
from course_utils.pipelines.picture_tokens import PictureTokens, load_picture_tokens
from course_utils.recipes import vq as recipe
from course_utils.recipes.vae import small_vae


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- The nearest code, and gradients through the choice ------------------------------------------------------


def test_the_nearest_code_is_that_of_all_distances():
    z, codebook = normals(200, 5), normals(37, 5, seed=1)
    assert vq.nearest_code(z, codebook).equal(torch.cdist(z, codebook).argmin(1))
    assert vq.nearest_code(codebook, codebook).equal(torch.arange(37))


@pytest.mark.parametrize("shapes", [((4, 3), (7, 2)), ((4, 3, 1), (7, 3))])
def test_rows_of_two_lengths_are_refused(shapes):
    with pytest.raises(ValueError, match="rows of one length"):
        vq.nearest_code(*(torch.zeros(shape) for shape in shapes))


def test_the_gradient_goes_straight_through():
    z, slope = normals(6, 4).requires_grad_(), normals(6, 4, seed=1)
    z_q = vq.straight_through(z, z.detach().round())
    assert torch.allclose(z_q, z.detach().round(), atol=1e-6)
    (z_q * slope).sum().backward()
    assert z.grad.equal(slope)  # as of the identity
    with pytest.raises(ValueError, match="z and z_q"):
        vq.straight_through(torch.zeros(2, 3), torch.zeros(3, 2))


def test_the_commitment_reaches_the_encoder_and_not_the_codebook():
    z, z_q = (normals(3, 2, seed=seed).requires_grad_() for seed in (0, 1))
    vq.commitment_loss(z, z_q).backward()
    assert z_q.grad is None and torch.allclose(z.grad, 2 * (z - z_q).detach() / 6)
    loss = vq.vq_loss(z, z_q, beta=0.25)
    z.grad = None
    loss.backward()
    assert loss.item() == pytest.approx(1.25 * F.mse_loss(z, z_q).item())
    assert torch.allclose(z.grad, 0.25 * 2 * (z - z_q).detach() / 6)
    assert torch.allclose(z_q.grad, 2 * (z_q - z).detach() / 6)


def test_our_quantisation_is_that_of_diffusers():
    from diffusers.models.autoencoders.vae import VectorQuantizer

    theirs = VectorQuantizer(n_e=19, vq_embed_dim=4, beta=0.25, legacy=False)
    theirs.embedding.weight.data.copy_(normals(19, 4))
    z = normals(2, 4, 3, 5, seed=1).requires_grad_()
    z_q, loss, (_, _, codes) = theirs(z)
    rows = vq.as_rows(z)
    ours = vq.nearest_code(rows, theirs.embedding.weight)
    assert ours.equal(codes.flatten())
    chosen = vq.as_grid(theirs.embedding(ours), 2, 3, 5)
    assert torch.allclose(vq.straight_through(z, chosen), z_q)
    our_loss = vq.vq_loss(z, chosen, 0.25)
    assert our_loss.item() == pytest.approx(loss.item())
    gradients = [torch.autograd.grad(one, (z, theirs.embedding.weight)) for one in (our_loss, loss)]
    for mine, other in zip(*gradients, strict=True):
        assert torch.allclose(mine, other)


# --- A codebook that follows ------------------------------------------------------------------------------------


def test_moving_averages_against_a_direct_count():
    counts, sums, decay = torch.tensor([2.0, 0.5, 1.0]), normals(3, 2), 0.9
    z, codes = normals(5, 2, seed=1), torch.tensor([0, 2, 2, 0, 2])
    new_counts, new_sums, codebook = vq.update_codebook(counts, sums, z, codes, z[:3], decay, least=0.0)
    assert codebook.equal(vq.codebook_from(new_counts, new_sums))
    for k in range(3):
        mine = [row for row, code in zip(z, codes, strict=True) if code == k]
        assert new_counts[k].item() == pytest.approx(0.9 * counts[k].item() + 0.1 * len(mine))
        assert torch.allclose(new_sums[k], 0.9 * sums[k] + 0.1 * sum(mine, torch.zeros(2)))
    assert counts.tolist() == [2.0, 0.5, 1.0]  # what was given stays


def test_with_decay_0_the_codebook_is_one_step_of_k_means():
    z, codebook = normals(60, 2), normals(4, 2, seed=1)
    codes = vq.nearest_code(z, codebook)
    *_, moved = vq.update_codebook(torch.ones(4), codebook, z, codes, z[:4], decay=0.0)
    means = torch.stack([z[codes == k].mean(0) for k in range(4)])
    assert torch.allclose(moved, means, atol=1e-5)
    assert (z - moved[codes]).square().sum() < (z - codebook[codes]).square().sum()


def test_laplace_smoothing_keeps_an_unused_code_finite_and_the_total():
    counts = torch.tensor([3.0, 0.0, 1.0])
    codebook = vq.codebook_from(counts, torch.ones(3, 2), epsilon=0.5)
    expected = [4 * (n + 0.5) / (4 + 3 * 0.5) for n in counts.tolist()]
    assert torch.allclose(codebook, torch.ones(3, 2) / torch.tensor(expected)[:, None])
    assert sum(expected) == pytest.approx(4)


def test_dead_codes_begin_again_where_z_is():
    z, counts, sums = normals(9, 2), torch.tensor([0.0, 5.0, 0.02]), torch.full((3, 2), 99.0)
    counts, sums, codebook = vq.update_codebook(counts, sums, z[3:4], torch.tensor([1]), z[:3], decay=0.9)
    assert torch.allclose(counts, torch.tensor([1.0, 4.6, 1.0]))
    assert sums[[0, 2]].equal(z[[0, 2]]) and torch.allclose(codebook[[0, 2]], z[[0, 2]], atol=1e-4)
    assert torch.allclose(sums[1], 0.9 * 99 + 0.1 * z[3])
    with pytest.raises(ValueError, match="rows of one length"):
        vq.update_codebook(counts, sums, normals(9, 3), torch.zeros(9).long(), z[:3])
    with pytest.raises(ValueError, match="2 fresh rows for 3"):
        vq.update_codebook(counts, sums, z, torch.zeros(9).long(), z[:2])


@pytest.mark.parametrize("least, used", [(0.03, 16), (0.0, 1)])
def test_restarts_bring_a_codebook_that_is_far_off_into_use(least, used):
    quantise = vq.VectorQuantiser(16, 2, least=least, decay=0.8)
    quantise.codebook.data.mul_(0.1)
    z = 100 + normals(8, 2, 4, 4)
    for _ in range(30):
        quantise(z)
    codes = quantise.eval()(z)[1]
    # without restarts one code takes all of z, and the others stay where nobody comes
    assert (len(codes.unique()) >= 12) if least else (len(codes.unique()) <= 3)


def test_in_evaluation_the_codebook_stays():
    quantise = vq.VectorQuantiser(8, 2).eval()
    before = quantise.codebook.clone()
    quantise(normals(2, 2, 4, 4))
    assert quantise.codebook.equal(before)
    quantise.train()(normals(2, 2, 4, 4))
    assert not quantise.codebook.equal(before)


def test_the_first_batch_places_every_code():
    quantise, z = vq.VectorQuantiser(8, 2), 0.1 * normals(4, 2, 4, 4) + 5
    before = quantise.codebook.clone()
    rows = vq.as_rows(z)
    codes = vq.nearest_code(rows, before)
    quantise(z)
    for number, code in enumerate(quantise.codebook):
        mine = rows[codes == number]
        near = [(rows - code).norm(dim=1).min().item()] + [(mine.mean(0) - code).norm().item()] * (len(mine) > 0)
        assert min(near) < 1e-3


def test_a_finished_codebook_is_gone_on_from():
    quantise, codebook = vq.VectorQuantiser(8, 2), normals(8, 2, seed=3)
    quantise.start_from(codebook)
    z = vq.as_grid(codebook.repeat(2, 1), 1, 4, 4)
    codes = quantise(z)[1]
    assert codes.flatten().equal(torch.arange(8).repeat(2))
    assert torch.allclose(quantise.codebook, codebook, atol=1e-4)  # each row is the mean of its z already


def test_two_processes_move_the_codebook_as_one():
    z = normals(4, 2, 3, 3)
    alone, shared = (vq.VectorQuantiser(8, 2) for _ in range(2))
    shared.load_state_dict(alone.state_dict())
    codes = vq.nearest_code(vq.as_rows(z), alone.codebook)
    alone(z)
    shared.gather = lambda rows: vq.as_rows(z) if rows.ndim == 2 else codes  # as if from all processes
    shared(z[:2])
    assert shared.codebook.equal(alone.codebook)


def test_perplexity():
    assert vq.perplexity(torch.arange(12).view(3, 4), 12) == pytest.approx(12)
    assert vq.perplexity(torch.zeros(5, dtype=torch.long), 12) == pytest.approx(1)
    assert vq.perplexity(torch.tensor([0, 0, 1, 1]), 12) == pytest.approx(2)
    p = torch.tensor([3, 1]) / 4
    assert vq.perplexity(torch.tensor([0, 0, 0, 1]), 2) == pytest.approx(math.exp(-(p * p.log()).sum()))
    with pytest.raises(ValueError, match="codes from 0 to 3, got 1 to 4"):
        vq.perplexity(torch.tensor([1, 4]), 4)


# --- Gumbel ----------------------------------------------------------------------------------------------------


def test_gumbel_softmax_is_that_of_torch_with_the_same_noise():
    logits = normals(2, 7, 3, 3)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        theirs = F.gumbel_softmax(logits, tau=0.7, dim=1)
        torch.manual_seed(5)
        noise = -torch.empty_like(logits).exponential_().log()
    assert torch.allclose(vq.gumbel_softmax(logits, noise, 0.7), theirs)
    ours = vq.gumbel_noise(logits.shape, torch.Generator().manual_seed(5))
    assert torch.allclose(vq.gumbel_softmax(logits, ours, 0.7), theirs)


def test_the_largest_with_gumbel_noise_is_a_sample_of_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0])
    noise = vq.gumbel_noise((40_000, 3), torch.Generator().manual_seed(0))
    shares = torch.bincount((logits + noise).argmax(1), minlength=3) / 40_000
    assert torch.allclose(shares, logits.softmax(0), atol=0.01)
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)  # Euler's constant


def test_temperature():
    logits, noise = normals(1, 5, 2, 2), normals(1, 5, 2, 2, seed=1)
    cold = vq.gumbel_softmax(logits, noise, 1e-3)
    assert torch.allclose(cold, F.one_hot((logits + noise).argmax(1), 5).movedim(-1, 1).float(), atol=1e-4)
    assert vq.temperature_at(0, 10) == 1 and vq.temperature_at(10, 10) == pytest.approx(1 / 16)
    assert vq.temperature_at(5, 10, 1.0, 0.5) == pytest.approx(0.75) and vq.temperature_at(99, 10) == 1 / 16
    with pytest.raises(ValueError, match="temperature above 0, got 0"):
        vq.gumbel_softmax(logits, noise, 0)
    with pytest.raises(ValueError, match="at least one step"):
        vq.temperature_at(0, 0)


def test_kl_to_uniform():
    assert vq.kl_to_uniform(torch.zeros(2, 8, 3, 3)).item() == pytest.approx(0, abs=1e-6)
    sure = torch.zeros(1, 8, 1, 1)
    sure[0, 3] = 50
    assert vq.kl_to_uniform(sure).item() == pytest.approx(math.log(8))
    logits = normals(2, 8, 3, 3)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=logits.movedim(1, -1)),
        torch.distributions.Categorical(logits=torch.zeros(2, 3, 3, 8)),
    ).mean()
    assert vq.kl_to_uniform(logits).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gumbel_quantiser_is_soft_in_training_and_hard_after():
    quantise = vq.GumbelQuantiser(6, 3, torch.Generator().manual_seed(0))
    logits = normals(2, 6, 4, 4).requires_grad_()
    z_q, codes, loss = quantise(logits)
    (z_q.square().sum() + loss).backward()
    assert logits.grad.abs().sum() > 0 and quantise.codebook.grad.abs().sum() > 0
    hard, same, _ = quantise.eval()(logits)
    assert hard.equal(quantise.lookup(codes)) and same.equal(codes) and codes.equal(logits.argmax(1))
    assert not torch.allclose(hard, z_q)


# --- Finite scalar quantisation ------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(3,), (8, 5, 5, 5), (4, 3), (7, 6, 5)])
def test_fsq_codes_count_all_combinations(levels):
    sizes = torch.tensor(levels)
    codes = torch.arange(math.prod(levels))
    numbers = vq.codes_to_levels(codes, sizes)
    found, again = vq.fsq(10 * normals(20_000, len(levels)), sizes)
    assert torch.allclose(vq.codes_to_levels(again, sizes), found, atol=1e-5)
    grids = itertools.product(*(range(-(size // 2), (size + 1) // 2) for size in reversed(levels)))
    assert numbers.flip(1).tolist() == [list(row) for row in grids]  # the first number runs fastest


@pytest.mark.parametrize("size", [3, 4, 5, 8])
def test_fsq_reaches_each_level_and_no_other(size):
    z = torch.linspace(-6, 6, 2001)[:, None]
    numbers, _ = vq.fsq(z, torch.tensor([size]))
    assert numbers.round().unique().tolist() == list(range(-(size // 2), (size + 1) // 2))
    assert vq.fsq_bound(torch.zeros(1, 1), torch.tensor([size])).item() == pytest.approx(0, abs=1e-6)


def test_fsq_gradient_is_that_of_the_bound():
    z, sizes = normals(20, 2).requires_grad_(), torch.tensor([8, 5])
    rounded = torch.autograd.grad(vq.fsq(z, sizes)[0].sum(), z)[0]
    assert torch.allclose(rounded, torch.autograd.grad(vq.fsq_bound(z, sizes).sum(), z)[0])


def test_fsq_errors():
    with pytest.raises(ValueError, match="3 levels or more"):
        vq.fsq_bound(torch.zeros(4, 2), torch.tensor([8, 2]))
    with pytest.raises(ValueError, match="3 levels or more for each of 2"):
        vq.fsq_bound(torch.zeros(4, 2), torch.tensor([8, 5, 5]))


def three():
    return vq.VectorQuantiser(40, 4), vq.FiniteScalarQuantiser((4, 5, 3, 3)), vq.GumbelQuantiser(
        40, 4, torch.Generator()
    )  # fmt: skip


def test_all_three_have_one_interface():
    for quantise in three():
        z = normals(2, quantise.inputs, 3, 5)
        z_q, codes, loss = quantise.eval()(z)
        assert z_q.shape == (2, quantise.width, 3, 5) and z_q.dtype == torch.float32
        assert codes.shape == (2, 3, 5) and codes.dtype == torch.int64 and codes.max() < quantise.count
        assert torch.allclose(quantise.lookup(codes), z_q, atol=1e-6) and loss.shape == ()
        assert quantise.train()(z.bfloat16())[0].dtype == torch.float32


# --- The tokeniser of pictures -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokens():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PictureTokens(small_vae(), recipe.small_vq(16, count=32, width=4))


def test_pictures_to_tokens_and_back(tokens):
    pictures = normals(3, 3, 64, 64).clamp(-1, 1)
    codes = tokens.to_tokens(pictures, batch=2)
    assert codes.shape == (3, tokens.side**2) == (3, 64) and codes.dtype == torch.int64
    assert tokens.count == 32 and 0 <= codes.min() <= codes.max() < 32
    back = tokens.to_pictures(codes, batch=2)
    assert back.shape == (3, 3, 64, 64) and back.abs().max() <= 1
    latents = tokens.vae.encode(pictures).latent_dist.mean * tokens.vae.config.scaling_factor
    whole = F.pixel_shuffle(tokens.vq(F.pixel_unshuffle(latents, 2)).sample, 2)  # as diffusers does it by itself
    assert torch.allclose(tokens.tokens_to_latents(codes), whole, atol=1e-4)


def test_tokens_that_are_no_pictures(tokens):
    with pytest.raises(ValueError, match="64 tokens a picture"):
        tokens.to_pictures(torch.zeros(2, 63, dtype=torch.long))
    with pytest.raises(ValueError, match="tokens from 0 to 31, got 0 to 32"):
        tokens.to_pictures(torch.arange(64)[None].clamp(max=32))
    with pytest.raises(ValueError, match="batch, channels"):
        tokens.to_tokens(torch.zeros(3, 64, 64))


def test_no_tokeniser_there(tmp_path):
    with pytest.raises(ValueError, match="There is no tokeniser of pictures in"):
        load_picture_tokens(tmp_path)


def test_the_network_trains_with_each_quantiser():
    x = normals(8, 8, 16, 16)
    for quantise in three():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = recipe.Tokenise(recipe.small_vq(16, count=40, width=4), quantise)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, 3e-3)
        losses = []
        for _ in range(30):
            x_hat, _, loss = model(x)
            loss = loss + (x - x_hat).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]


def test_patches():
    latents = normals(2, 3, 4, 6)
    patches = vq.in_patches(latents, 2)
    assert patches.shape == (2, 12, 2, 3) and vq.from_patches(patches, 2).equal(latents)
    assert set(patches[1, :, 1, 2].tolist()) == set(latents[1, :, 2:4, 4:6].flatten().tolist())


def test_things_weigh_more():
    scenes = [book.sample_scene(number) for number in range(20)]
    weights, (scene, spot) = recipe.where_things_are(scenes), (scenes[0], book.layout(scenes[0])[0])
    assert weights.shape == (20, 1, 16, 16) and set(weights.unique().tolist()) == {1.0, recipe.THINGS_COUNT}
    x, y = (int(16 * at) for at in spot.centre)
    assert len(scene.things) and weights[0, 0, y, x] == recipe.THINGS_COUNT and 0.1 < (weights > 1).float().mean() < 0.7
    x, x_hat = normals(1, 8, 16, 16), normals(1, 8, 16, 16, seed=1)
    ones = torch.ones(1, 1, 16, 16)
    assert recipe.weighted_error(x, x_hat, ones).item() == pytest.approx(F.mse_loss(x, x_hat).item())


def test_the_shipped_folder_opens_with_plain_diffusers(tmp_path):
    ours = load_picture_tokens()
    latents = encode(ours.vae, book.pictures([book.sample_scene(n, seed=7) for n in range(4)]))
    codes = ours.latents_to_tokens(latents)
    save_file({"x": F.pixel_unshuffle(latents, 2).contiguous()}, tmp_path / "x.safetensors")
    script = f"""
import torch
from diffusers import VQModel
from safetensors.torch import load_file, save_file
vq = VQModel.from_pretrained({str(recipe.VQ)!r}, torch_dtype=torch.float32)
x = load_file({str(tmp_path / "x.safetensors")!r})["x"]
with torch.no_grad():
    h = vq.encode(x).latents
    z_q, _, (_, _, codes) = vq.quantize(h)
    save_file(dict(codes=codes.view(4, -1), y=vq.decode(h).sample.contiguous()), {str(tmp_path / "y.safetensors")!r})
assert "course_utils" not in __import__("sys").modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, timeout=300)
    saved = load_file(tmp_path / "y.safetensors")
    theirs, decoded = saved["codes"], F.pixel_shuffle(saved["y"], 2)
    assert (theirs == codes).float().mean() > 0.99  # two codes may be equally near, up to rounding
    assert torch.allclose(ours.tokens_to_latents(theirs), decoded, atol=1e-3)
