"""Attention, building blocks and the U-Net by hand: closed forms, torch's and diffusers' own, and the contract."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_utils.models import attention as attending
from course_utils.models import blocks
from course_utils.models.unet_by_hand import UNet, UNetConfig, through_the_u


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unsettled(module):
    """The module with every parameter moved, so that nothing starts at zero and hides."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize("settings", [(16, 3), (16, 3, 2, 1), (17, 4, 3, 2, 2), (9, 1, 4), (7, 7), (30, 5, 2, 0, 3)])
def test_conv_output_size_is_what_torch_leaves(settings):
    size, *rest = settings
    assert blocks.conv_output_size(*settings) == nn.Conv1d(1, 1, *rest)(torch.zeros(1, 1, size)).shape[-1]


def test_a_kernel_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="covers 9"):
        blocks.conv_output_size(8, 5, dilation=2)


@pytest.mark.parametrize("size, kernel, stride", [(5, 3, 2), (5, 4, 2), (3, 2, 4), (1, 3, 1), (9, 6, 3)])
def test_overlaps_are_those_of_the_transposed_convolution(size, kernel, stride):
    ones = F.conv_transpose1d(torch.ones(1, 1, size), torch.ones(1, 1, kernel), stride=stride)
    counts = blocks.overlap_count(size, kernel, stride)
    assert counts.dtype == torch.int64 and torch.equal(counts, ones.flatten().long())
    assert counts.sum() == size * kernel
    with pytest.raises(ValueError, match="at least 1"):
        blocks.overlap_count(size, kernel, 0)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_nearest_upsampling_is_torchs(factor):
    x = normal(2, 3, 4, 5)
    assert torch.equal(blocks.upsample_nearest(x, factor), F.interpolate(x, scale_factor=factor))


def test_attention_is_torchs_and_its_rows_are_shares():
    q, k, v = normal(2, 3, 5, 8), normal(2, 3, 7, 8, seed=1), normal(2, 3, 7, 4, seed=2)
    torch.testing.assert_close(attending.attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
    weights = attending.attention_weights(q, k)
    assert weights.shape == (2, 3, 5, 7) and weights.min() > 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5))
    with pytest.raises(ValueError, match="one width"):
        attending.attention(q, v, v)


def test_attention_with_equal_keys_is_the_mean_and_with_a_clear_match_a_look_up():
    v = normal(6, 4)
    torch.testing.assert_close(attending.attention(normal(3, 8), torch.ones(6, 8), v), v.mean(0).expand(3, -1))
    keys = 100 * torch.eye(6)
    torch.testing.assert_close(attending.attention(keys[[4, 0]], keys, v), v[[4, 0]])


def test_heads_are_slices_and_merging_undoes_splitting():
    x = normal(2, 5, 12)
    heads = attending.split_heads(x, 3)
    assert torch.equal(heads[:, 1], x[:, :, 4:8])
    assert torch.equal(attending.merge_heads(heads), x)
    with pytest.raises(ValueError, match="divide"):
        attending.split_heads(x, 5)


def test_the_attention_module_is_that_of_diffusers_and_its_maps_explain_it():
    from diffusers.models.attention_processor import Attention

    ours, library = attending.Attention(16, 4, context_width=10), Attention(16, 10, heads=4, dim_head=4)
    library.load_state_dict({name.replace("to_out", "to_out.0"): value for name, value in ours.state_dict().items()})
    x, context = normal(2, 9, 16), normal(2, 5, 10, seed=1)
    torch.testing.assert_close(ours(x, context), library(x, context), rtol=1e-4, atol=1e-5)
    blend = ours.weights(x, context) @ attending.split_heads(ours.to_v(context), 4)
    torch.testing.assert_close(ours.to_out(attending.merge_heads(blend)), ours(x, context), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="divide"):
        attending.Attention(16, 5)


def test_pixel_attention_does_nothing_at_first_and_does_not_know_places():
    x, order = normal(2, 16, 4, 6), torch.randperm(24, generator=torch.Generator().manual_seed(0))

    def shuffle(x):
        return x.flatten(2)[:, :, order].reshape(x.shape)

    layer = attending.PixelAttention(16)
    assert torch.equal(layer(x), x)
    unsettled(layer)
    torch.testing.assert_close(layer(shuffle(x)), shuffle(layer(x)), rtol=1e-4, atol=1e-5)


def test_pixel_attention_reads_words_as_a_set():
    layer = unsettled(attending.PixelAttention(16, cond_width=6))
    x, words = normal(2, 16, 4, 4), normal(2, 5, 6, seed=1)
    torch.testing.assert_close(layer(x, words.flip(1)), layer(x, words), rtol=1e-4, atol=1e-5)
    assert (layer(x, 2 * words) - layer(x, words)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="Expected words of 6 numbers, got none"):
        layer(x)
    with pytest.raises(ValueError, match="no words"):
        attending.PixelAttention(16)(x, words)


def test_time_embedding_is_diffusers_and_likeness_is_a_matter_of_distance():
    from diffusers.models.embeddings import get_timestep_embedding

    t = torch.tensor([0, 1, 17, 999])
    e = blocks.time_embedding(t, 32)
    torch.testing.assert_close(e, get_timestep_embedding(t, 32, downscale_freq_shift=0), rtol=0, atol=1e-4)
    swapped = get_timestep_embedding(t, 32, flip_sin_to_cos=True, downscale_freq_shift=0)  # Stable Diffusion's
    torch.testing.assert_close(e.roll(16, 1), swapped, rtol=0, atol=1e-4)
    later = blocks.time_embedding(t + 5, 32)
    torch.testing.assert_close((e * later).sum(1), (e[0] @ later[0]).expand(4), rtol=0, atol=1e-3)
    assert e[1, 0].item() == pytest.approx(math.sin(1))
    with pytest.raises(ValueError, match="even width"):
        blocks.time_embedding(t, 7)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_group_norm_is_torchs(groups):
    x = 3 * normal(2, 8, 5, 4) + 1
    torch.testing.assert_close(blocks.group_norm(x, groups), F.group_norm(x, groups), rtol=1e-4, atol=1e-5)
    rows = blocks.group_norm(x, groups).reshape(2, groups, -1)
    assert rows.mean(2).abs().max() < 1e-5 and (rows.var(2, unbiased=False) - 1).abs().max() < 1e-3


def test_group_norm_wants_groups_that_divide():
    with pytest.raises(ValueError, match="divide"):
        blocks.group_norm(normal(2, 8, 2, 2), 3)


@pytest.mark.parametrize("outside", [16, 24])
def test_the_residual_block_is_that_of_diffusers(outside):
    from diffusers.models.resnet import ResnetBlock2D

    library = ResnetBlock2D(in_channels=16, out_channels=outside, temb_channels=12, groups=8, eps=1e-5)
    ours, names = blocks.ResidualBlock(16, outside, 12), {"time": "time_emb_proj", "shortcut": "conv_shortcut"}
    state = library.state_dict()
    ours.load_state_dict(
        {name: state[".".join(names.get(part, part) for part in name.split("."))] for name in ours.state_dict()}
    )
    x, e = normal(2, 16, 6, 6), normal(2, 12, seed=1)
    torch.testing.assert_close(ours(x, e), library(x, e), rtol=1e-4, atol=1e-5)


def test_a_fresh_residual_block_passes_its_picture_on():
    x = normal(2, 8, 4, 4)
    assert torch.equal(blocks.ResidualBlock(8, 8, 12)(x, normal(2, 12)), x)


def test_through_the_u_joins_what_belongs_together():
    said = []

    def up(level):
        return lambda x: said.append((level, tuple(x.shape), x[0, -1, 0, 0].item())) or x[:, :1]

    def grow(x):
        return blocks.upsample_nearest(x)

    x = torch.zeros(1, 1, 8, 8)
    out = through_the_u(
        x,
        [lambda x: x + 1, lambda x: x + 10],
        [lambda x: x[:, :, ::2, ::2]] * 2,
        lambda x: x + 100,
        [grow, grow],
        [up("coarse"), up("fine")],
    )
    assert said == [("coarse", (1, 2, 4, 4), 11.0), ("fine", (1, 2, 8, 8), 1.0)]
    assert torch.equal(out, torch.full((1, 1, 8, 8), 111.0))
    with pytest.raises(ValueError):
        through_the_u(x, [lambda x: x], [], lambda x: x, [], [])


CONFIGS = [
    UNetConfig(),
    UNetConfig(channels=3, widths=(8, 16), attention=(True, True), heads=2),
    UNetConfig(channels=3, widths=(8, 8, 16, 16), attention=(False, False, True, True)),
    UNetConfig(cond_width=6, attention=(False, True, True)),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_unet_keeps_the_contract(config):
    model = unsettled(UNet(config))
    x, t = normal(2, config.channels, 16, 24), torch.tensor([3, 700])
    cond = normal(2, 5, 6, seed=1) if config.cond_width else None
    out = model(x, t, cond)
    assert out.shape == x.shape and out.isfinite().all()
    assert (model(x, t + 50, cond) - out).abs().max() > 1e-4  # the time is heard
    one = model(x[1:], t[1:], None if cond is None else cond[1:])
    torch.testing.assert_close(one, out[1:], rtol=1e-4, atol=1e-4)  # pictures of a batch do not meet
    if cond is not None:
        assert (model(x, t, 2 * cond) - out).abs().max() > 1e-4
        torch.testing.assert_close(model(x, t, cond.flip(1)), out, rtol=1e-4, atol=1e-4)


def test_every_parameter_of_the_unet_learns():
    model = unsettled(UNet(UNetConfig(cond_width=6)))
    model(normal(2, 1, 16, 16), torch.tensor([3, 700]), normal(2, 5, 6)).square().mean().backward()
    still = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert still == []


def test_the_unet_says_what_it_cannot_take():
    model = UNet()
    with pytest.raises(ValueError, match="halved 2 times, got"):
        model(normal(1, 1, 18, 16), torch.zeros(1))
    with pytest.raises(ValueError, match="pictures"):
        model(normal(1, 3, 16, 16), torch.zeros(1))
    with pytest.raises(ValueError, match="no attention"):
        model(normal(1, 1, 16, 16), torch.zeros(1), normal(1, 5, 6))
    with pytest.raises(ValueError, match="one entry"):
        UNet(UNetConfig(widths=(8, 16)))


def test_the_unet_learns_to_take_noise_away():
    torch.manual_seed(0)
    model, clean = UNet(UNetConfig(widths=(8, 16, 16))), normal(4, 1, 1, 1).expand(-1, -1, 8, 8).contiguous()
    optimizer, losses = torch.optim.Adam(model.parameters(), 1e-2), []
    for step in range(60):
        loss = (model(clean + 0.5 * normal(4, 1, 8, 8, seed=step), torch.zeros(4)) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
