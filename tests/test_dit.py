"""The diffusion transformer by hand, against diffusers' blocks and networks with the same weights."""

import pytest
import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.attention import JointTransformerBlock
from diffusers.models.embeddings import PatchEmbed, Timesteps, get_2d_sincos_pos_embed
from torch.nn import functional as F

from course_utils.models import dit
from course_utils.models.blocks import time_embedding


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def renamed(state: dict, names: dict[str, str]) -> dict:
    """The tensors whose names begin with a key of `names`, which its value takes the place of."""
    return {
        name.replace(old, new, 1): value
        for name, value in state.items()
        for old, new in names.items()
        if name.startswith(old)
    }


def attention_names(ours: str, q: str, k: str, v: str, out: str, norm_q: str, norm_k: str) -> dict[str, str]:
    parts = ("to_q", "to_k", "to_v", "to_out", "norm_q", "norm_k")
    return {f"{theirs}.": f"{ours}.{part}." for theirs, part in zip((q, k, v, out, norm_q, norm_k), parts, strict=True)}


def halved(state: dict, name: str, first: str, second: str) -> dict[str, torch.Tensor]:
    """The layer that makes six vectors for a whole block, as the two that make three for each half."""
    pairs = {kind: state[f"{name}.{kind}"].chunk(2) for kind in ("weight", "bias")}
    return {f"{half}.{kind}": pair[n] for kind, pair in pairs.items() for n, half in enumerate((first, second))}


FEED = {"net.0.proj.": "0.", "net.2.": "2."}


def feed_names(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{old}": f"{ours}.{new}" for old, new in FEED.items()}


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """A network with random weights everywhere, also where training begins at zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(
                0.3 * torch.randn(parameter.shape, generator=generator) / max(1, parameter.shape[-1]) ** 0.5
            )
    return network.eval()


def test_patches_there_and_back():
    x = noise(2, 3, 8, 8)
    tokens = dit.patchify(x, 2)
    assert tokens.shape == (2, 16, 12)
    torch.testing.assert_close(tokens[1, 5], x[1, :, 2:4, 2:4].flatten())  # row 1, column 1
    assert torch.equal(dit.unpatchify(tokens, 2), x)
    torch.testing.assert_close(tokens, F.unfold(x, 2, stride=2).transpose(1, 2))


def test_positions_are_those_of_diffusers():
    theirs = get_2d_sincos_pos_embed(48, 8, base_size=8, output_type="pt")
    torch.testing.assert_close(dit.sincos_positions(8, 48), theirs.float(), rtol=0, atol=1e-6)


def test_times_are_those_of_diffusers():
    t = torch.tensor([0.0, 1.0, 250.0, 999.0])
    theirs = Timesteps(32, flip_sin_to_cos=True, downscale_freq_shift=0)(t)  # the cosines first
    torch.testing.assert_close(time_embedding(t, 32).roll(16, dims=1), theirs, rtol=0, atol=1e-4)


def test_the_linear_map_of_patches_is_the_convolution_of_diffusers():
    theirs = shaken(PatchEmbed(8, 8, 2, 3, 16))
    x = noise(2, 3, 8, 8)
    ours = dit.patchify(x, 2) @ theirs.proj.weight.flatten(1).T + theirs.proj.bias + dit.sincos_positions(4, 16)
    torch.testing.assert_close(ours, theirs(x))


@torch.no_grad()
def test_a_whole_dit_is_that_of_diffusers():
    theirs = shaken(DiTTransformer2DModel(2, 12, 4, num_layers=3, sample_size=8, num_embeds_ada_norm=10))
    x, t, label = noise(2, 4, 8, 8), torch.tensor([3, 700]), torch.tensor([1, 7])
    c = theirs.transformer_blocks[0].norm1.emb(t, label, hidden_dtype=torch.float32)
    tokens = theirs.pos_embed(x)
    for block in theirs.transformer_blocks:
        ours = dit.DiTBlock(24, 2)
        attention = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "-", "-")
        names = {**feed_names("ff", "feed"), **attention_names("attend", *attention)}
        steering = halved(block.state_dict(), "norm1.linear", "ada_attend", "ada_feed")
        ours.load_state_dict(renamed(block.state_dict(), names) | steering)
        own = block.norm1.emb(t, label, hidden_dtype=torch.float32)  # each block has an embedding of its own
        tokens = ours(tokens, own)
    shift, scale = theirs.proj_out_1(F.silu(c)).chunk(2, dim=1)
    out = theirs.proj_out_2(dit.modulate(tokens, shift, scale))  # in each vector, the channels are innermost
    out = out.unflatten(2, (2, 2, 4)).permute(0, 1, 4, 2, 3).flatten(2)
    torch.testing.assert_close(dit.unpatchify(out, 2), theirs(x, t, label).sample, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_joint_block_is_that_of_diffusers(last, qk_norm):
    theirs = shaken(JointTransformerBlock(24, 2, 12, context_pre_only=last, qk_norm="rms_norm" if qk_norm else None))
    ours = dit.JointBlock(24, 2, qk_norm, last)
    image = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.norm_q", "attn.norm_k")
    text = [f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")]
    names = {
        **attention_names("attend", *image),
        **attention_names("attend_words", *text, "attn.norm_added_q", "attn.norm_added_k"),
        **feed_names("ff", "feed"),
        **feed_names("ff_context", "feed_words"),
    }
    state = theirs.state_dict()
    steering = halved(state, "norm1.linear", "ada_attend", "ada_feed")
    if last:  # diffusers' continuous norm gives the scale first
        for kind in ("weight", "bias"):
            scale, shift = state[f"norm1_context.linear.{kind}"].chunk(2)
            steering[f"ada_attend_words.{kind}"] = torch.cat([shift, scale])
    else:
        steering |= halved(state, "norm1_context.linear", "ada_attend_words", "ada_feed_words")
    ours.load_state_dict(renamed(state, names) | steering)
    x, words, c = noise(2, 16, 24), noise(2, 5, 24, seed=1), noise(2, 24, seed=2)
    their_words, their_x = theirs(x, words, c)
    our_x, our_words = ours(x, words, c)
    torch.testing.assert_close(our_x, their_x, rtol=0, atol=1e-5)
    assert our_words is None if last else torch.allclose(our_words, their_words, atol=1e-5)


def test_a_half_block_is_written_out():
    x, c, linear, f = noise(2, 7, 6), noise(2, 6, seed=1), torch.nn.Linear(6, 18), torch.nn.Linear(6, 6)
    for sample in range(2):
        shift, scale, gate = linear(c[sample] / (1 + (-c[sample]).exp())).split(6)
        for token in range(7):
            one = x[sample, token]
            norm = (one - one.mean()) / (one.var(correction=0) + 1e-6).sqrt()
            expected = one + gate * f(norm * (1 + scale) + shift)
            torch.testing.assert_close(dit.half_block(x, c, linear, f)[sample, token], expected)


def test_joint_attention_is_one_softmax_over_both_streams():
    image, words = [noise(2, 3, 4, 5, seed=n) for n in range(3)], [noise(2, 3, 7, 5, seed=n) for n in (3, 4, 5)]
    seen, read = dit.joint_attention(image, words)
    assert seen.shape == (2, 3, 4, 5) and read.shape == (2, 3, 7, 5)
    for out, (q, _, _) in ((seen, image), (read, words)):
        near = [(q @ k.mT / 5**0.5).exp() for _, k, _ in (image, words)]
        total = near[0].sum(-1, keepdim=True) + near[1].sum(-1, keepdim=True)
        torch.testing.assert_close(out, (near[0] @ image[2] + near[1] @ words[2]) / total)


def test_a_block_begins_as_the_identity_and_learns():
    x, words, c = noise(2, 16, 24), noise(2, 5, 24, seed=1), noise(2, 24, seed=2)
    assert torch.equal(dit.DiTBlock(24, 2)(x, c), x)
    block = dit.JointBlock(24, 2)
    out = block(x, words, c)
    assert torch.equal(out[0], x) and torch.equal(out[1], words)
    (out[0].square().sum() + out[1].square().sum()).backward()
    assert block.ada_attend.weight.grad.abs().sum() > 0 and block.ada_feed_words.weight.grad.abs().sum() > 0


def test_words_reach_the_picture_and_the_order_of_patches_matters():
    network = shaken(dit.MMDiT(4, 8, 2, width=24, depth=2, heads=2, cond_width=12))
    x, t, cond = noise(2, 4, 8, 8), torch.tensor([0.1, 0.9]), noise(2, 5, 12, seed=1)
    with torch.no_grad():
        out = network(x, t, cond)
        assert out.shape == x.shape
        assert not torch.allclose(network(x, t, cond + noise(2, 5, 12, seed=2)), out, atol=1e-4)
        assert not torch.allclose(network(x, t.flip(0), cond), out, atol=1e-4)
        moved = network(x.roll(2, dims=3), t, cond).roll(-2, dims=3)  # by one patch: positions tell
        assert not torch.allclose(moved, out, atol=1e-4)
    fresh = dit.MMDiT(4, 8, 2, width=24, depth=2, heads=2, cond_width=12)
    assert fresh(x, t, cond).abs().max() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dit.patchify(noise(1, 3, 7, 8), 2), "2 divides"),
        (lambda: dit.unpatchify(noise(1, 15, 12), 2), "square number"),
        (lambda: dit.unpatchify(noise(1, 16, 13), 2), "multiple of 4"),
        (lambda: time_embedding(torch.arange(3), 7), "even width"),
        (lambda: dit.sincos_positions(4, 10), "4 divides"),
        (lambda: dit.MMDiT(width=24, depth=1)(noise(1, 4, 16, 16), torch.zeros(1), noise(1, 5, 128)), "latents"),
    ],
)
def test_bad_input_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
