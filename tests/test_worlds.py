"""Pictures that tile, wide ones from windows, and scenes in layers."""

import base64
import io
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from course_utils.data.images import to_tensor
from course_utils.diffusion import samplers
from course_utils.diffusion.schedules import alpha_bar_from_beta, linear_beta
from course_utils.pipelines import panorama, parallax, tiling
from course_utils.pipelines.parallax import Layer


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Tiles


def test_column_steps_of_a_known_picture():
    picture = torch.tensor([0.0, 1.0, 3.0, 2.0]).expand(1, 3, 5, 4)
    assert torch.equal(tiling.column_steps(picture), torch.tensor([[1.0, 2.0, 1.0, 2.0]]))
    assert tiling.seam_ratio(picture).item() == pytest.approx(2 / (4 / 3))
    assert torch.equal(tiling.column_steps(picture.mT), torch.zeros(1, 5))
    assert tiling.seam_ratio(picture.mT).item() == 0


def test_the_seam_of_a_ramp_and_of_a_ring():
    ramp = torch.linspace(-1, 1, 33).expand(2, 3, 8, 33)
    assert tiling.seam_ratio(ramp)[0].item() == pytest.approx(32, rel=1e-5)
    ring = torch.sin(2 * torch.pi * torch.arange(64) / 64).expand(1, 1, 4, 64)
    assert tiling.seam_ratio(ring).item() == pytest.approx(torch.pi / 2, rel=0.03)  # the steepest place of a sine
    rolled = torch.stack([tiling.column_steps(rand(1, 3, 8, 16).roll(k, 3))[0, -1] for k in range(16)])
    assert torch.allclose(rolled.mean(), tiling.column_steps(rand(1, 3, 8, 16)).mean())  # no column is special


@pytest.mark.parametrize("bad", [torch.zeros(3, 4, 4), torch.zeros(1, 3, 4, 1), torch.zeros(1, 3, 4, 4).long()])
def test_steps_want_pictures_of_two_columns(bad):
    with pytest.raises(ValueError):
        tiling.column_steps(bad)


def test_tiled_repeats_down_and_across():
    picture = rand(2, 3, 4, 5)
    sheet = tiling.tiled(picture, 2, 3)
    assert sheet.shape == (2, 3, 8, 15)
    assert torch.equal(sheet[..., 4:, 10:], picture)
    with pytest.raises(ValueError, match="at least one"):
        tiling.tiled(picture, 0)


def test_a_circular_convolution_is_a_product_of_fourier_series():
    layer, x = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False).double(), rand(1, 1, 8, 12).double()
    kernel = torch.zeros(8, 12, dtype=torch.float64)
    for row in range(3):
        for column in range(3):  # torch's convolution is a correlation: the kernel is turned round
            kernel[(1 - row) % 8, (1 - column) % 12] = layer.weight[0, 0, row, column].detach()
    expected = torch.fft.ifft2(torch.fft.fft2(x) * torch.fft.fft2(kernel)).real
    with tiling.circular(layer):
        assert torch.allclose(layer(x), expected)
    assert not torch.allclose(layer(x), expected)


def test_one_axis_alone():
    layer, x = torch.nn.Conv2d(2, 3, (3, 5), padding=(1, 2)), rand(1, 2, 8, 8)
    plain = layer(x)
    with tiling.circular(layer, down=False):
        across = layer(x)
    with tiling.circular(layer, across=False):
        down = layer(x)
    assert torch.allclose(across[..., 1:-1, 2:-2], plain[..., 1:-1, 2:-2], atol=1e-6)
    with tiling.circular(layer, down=False):
        assert torch.allclose(layer(x.roll(3, 3)), across.roll(3, 3), atol=1e-6)
        assert not torch.allclose(layer(x.roll(3, 2)), across.roll(3, 2), atol=1e-3)
    with tiling.circular(layer, across=False):
        assert torch.allclose(layer(x.roll(3, 2)), down.roll(3, 2), atol=1e-6)
    with tiling.circular(layer, across=False, down=False):
        assert torch.allclose(layer(x), plain, atol=1e-6)


def small_unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16, 16),
        norm_num_groups=4, cross_attention_dim=8, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    ).eval().requires_grad_(False)  # fmt: skip


def small_vae():
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL(
        latent_channels=4, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval().requires_grad_(False)  # fmt: skip


def test_unet_and_decoder_commute_with_shifts_along_the_ring():
    unet, vae, x, words = small_unet(), small_vae(), rand(1, 4, 8, 16), rand(1, 5, 8, seed=1)

    def predict(x):
        return unet(x, 500, words).sample

    plain = predict(x)
    with tiling.circular(unet, vae.decoder):
        assert torch.allclose(predict(x.roll((4, 8), (2, 3))), predict(x).roll((4, 8), (2, 3)), atol=1e-5)
        assert torch.allclose(vae.decode(x.roll(3, 3)).sample, vae.decode(x).sample.roll(6, 3), atol=1e-5)
    assert not torch.allclose(predict(x.roll(8, 3)), plain.roll(8, 3), atol=1e-3)
    assert torch.equal(predict(x), plain)


def test_circular_is_undone_after_an_error_and_does_not_touch_the_weights():
    unet = small_unet()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    with pytest.raises(RuntimeError), tiling.circular(unet):
        raise RuntimeError
    assert not any("_conv_forward" in vars(part) for part in unet.modules())
    assert all(torch.equal(before[name], value) for name, value in unet.state_dict().items())


def test_circular_refuses_what_it_cannot_change():
    with pytest.raises(ValueError, match="found none"), tiling.circular(torch.nn.Conv2d(1, 1, 1)):
        pass
    with (
        pytest.raises(ValueError, match="reflect"),
        tiling.circular(torch.nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")),
    ):
        pass
    layer = torch.nn.Conv2d(1, 1, 3, padding=1)
    with tiling.circular(layer), pytest.raises(ValueError, match="leave the first"), tiling.circular(layer):
        pass
    assert "_conv_forward" not in vars(layer)


# Panoramas


@pytest.mark.parametrize(
    ("width", "window", "stride"), [(64, 16, 6), (17, 16, 16), (50, 16, 7), (16, 16, 3), (9, 1, 1)]
)
def test_windows_cover_every_column(width, window, stride):
    starts = panorama.window_starts(width, window, stride)
    covered = {k for start in starts for k in range(start, start + window)}
    assert covered == set(range(width)) and starts == sorted(set(starts))
    assert all(b - a <= stride for a, b in zip(starts, starts[1:], strict=False))


@pytest.mark.parametrize("bad", [(16, 17, 4), (16, 8, 9), (16, 8, 0)])
def test_windows_that_do_not_fit(bad):
    with pytest.raises(ValueError, match="stride <= window"):
        panorama.window_starts(*bad)


@pytest.mark.parametrize("weights", [None, "taper"])
def test_the_average_of_cut_windows_is_what_was_cut(weights):
    x = rand(2, 3, 4, 23).double()
    weights = weights and panorama.taper(8)
    starts = panorama.window_starts(23, 8, 5)
    assert torch.allclose(panorama.average_windows(panorama.cut_windows(x, starts, 8), starts, 23, weights), x)


def test_the_average_is_the_least_squares_solution():
    starts, weights, parts = [0, 2, 5], panorama.taper(4).double(), rand(3, 1, 1, 1, 4).double()
    rows, values = [], []
    for part, start in zip(parts.flatten(1), starts, strict=True):
        for k in range(4):
            row = torch.zeros(9, dtype=torch.float64)
            row[start + k] = weights[k].sqrt()
            rows.append(row)
            values.append(weights[k].sqrt() * part[k])
    expected = torch.linalg.lstsq(torch.stack(rows), torch.stack(values)[:, None]).solution[:, 0]
    assert torch.allclose(panorama.average_windows(parts, starts, 9, weights).flatten(), expected)


def test_two_windows_by_hand_and_a_step_at_their_borders():
    parts = torch.stack([torch.zeros(1, 1, 1, 4), torch.ones(1, 1, 1, 4)])
    plain = panorama.average_windows(parts, [0, 2], 6).flatten()
    assert plain.tolist() == [0, 0, 0.5, 0.5, 1, 1]
    weighted = panorama.average_windows(parts, [0, 2], 6, panorama.taper(4)).flatten()
    assert weighted.tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])  # smaller steps


def test_taper():
    assert panorama.taper(4).tolist() == [0.5, 1, 1, 0.5]
    assert panorama.taper(5).tolist() == pytest.approx([1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])
    with pytest.raises(ValueError, match="at least one column"):
        panorama.taper(0)


def test_average_refuses_what_does_not_fit():
    parts = rand(2, 1, 1, 1, 4)
    for starts, width, weights, words in [
        ([0], 4, None, "for 1 windows"),
        ([0, 5], 9, None, "column 4 has none"),
        ([0, 6], 9, None, "inside 9"),
        ([-1, 4], 8, None, "inside 8"),
        ([0, 4], 8, torch.ones(3), "4 positive weights"),
        ([0, 4], 8, torch.zeros(4), "4 positive weights"),
    ]:
        with pytest.raises(ValueError, match=words):
            panorama.average_windows(parts, starts, width, weights)


ALPHA_BAR = alpha_bar_from_beta(linear_beta(100))


def toy(x_t, t, cond=None):
    """Depends on all columns of a window, on time and condition."""
    shift = 0 if cond is None else cond.mean((1, 2))[:, None, None, None]
    return torch.tanh(x_t - x_t.mean(3, keepdim=True)) + 0.01 * t[:, None, None, None] + shift


def test_one_window_that_covers_all_is_the_plain_model():
    x_t, t, cond = rand(3, 2, 4, 8), torch.tensor([5, 50, 90]), rand(3, 2, 2, seed=1)
    for weights in (None, panorama.taper(8)):
        assert torch.allclose(panorama.windowed(toy, 8, 3, weights)(x_t, t, cond), toy(x_t, t, cond), atol=1e-6)


def test_windows_in_one_batch_are_those_one_by_one():
    x_t, t, cond = rand(2, 2, 4, 14), torch.tensor([5, 50]), rand(3, 2, 2, 2, seed=1)
    starts = panorama.window_starts(14, 8, 3)
    one_by_one = torch.stack([toy(x_t[..., s : s + 8], t, c) for s, c in zip(starts, cond, strict=True)])
    got = panorama.windowed(toy, 8, 3)(x_t, t, cond)
    assert torch.allclose(got, panorama.average_windows(one_by_one, starts, 14), atol=1e-6)
    with pytest.raises(ValueError, match="for each of 3 windows"):
        panorama.windowed(toy, 8, 3)(x_t, t, cond[:2])


@pytest.mark.parametrize("sampler", [samplers.ddim, samplers.dpm_solver])
def test_the_mean_of_predictions_is_the_mean_of_steps(sampler):
    """The first step with averaged predictions, against the windows' own first steps, averaged."""
    x_T, starts = rand(1, 2, 4, 14), panorama.window_starts(14, 8, 3)

    def first(model, x):
        return next(iter(sampler(model, x, ALPHA_BAR, [99, 50]))).x_t

    windows = torch.stack([first(toy, x_T[..., start : start + 8]) for start in starts])
    got = first(panorama.windowed(toy, 8, 3), x_T)
    assert torch.allclose(got, panorama.average_windows(windows, starts, 14), atol=1e-5)


def test_likeness():
    pages = rand(3, 3, 8, 8)
    same = panorama.likeness(pages, 2 * pages + torch.linspace(0, 9, 8)[:, None])  # a row's level does not count
    assert torch.allclose(same.diagonal(), torch.ones(3), atol=1e-5)
    assert torch.allclose(panorama.likeness(pages, -pages).diagonal(), -torch.ones(3), atol=1e-5)
    assert same.fill_diagonal_(0).abs().max() < 0.4
    assert panorama.likeness(pages, torch.ones(1, 3, 8, 8)).tolist() == [[0], [0], [0]]
    a, b = (x - x.mean(3, keepdim=True) for x in (pages[:1], pages[1:2]))
    expected = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
    assert torch.allclose(panorama.likeness(pages[:1], pages[1:2])[0, 0], expected, atol=1e-5)
    with pytest.raises(ValueError, match="one size"):
        panorama.likeness(pages, pages[..., 1:])


# Layers


def three():
    """A black page, a grey bar in the middle at depth 0.5, and a white one at the same place at depth 1."""
    bar = torch.zeros(1, 1, 4, 12)
    bar[..., 5:7] = 1
    whole = torch.ones(1, 3, 4, 12)
    return [Layer(-whole, whole[:, :1], 0.0), Layer(0 * whole, bar, 0.5), Layer(whole, bar, 1.0)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_near_hides_the_far_and_moves_more(order):
    layers = [three()[k] for k in order]
    rest = parallax.shift_layers(layers, 0)[0, 0, 0]
    assert rest.tolist() == [-1] * 5 + [1, 1] + [-1] * 5  # the grey bar is hidden
    right = parallax.shift_layers(layers, 4)[0, 0, 0]
    assert right.tolist() == [-1] * 7 + [0, 0, 1, 1, -1]  # by 2 and by 4
    left = parallax.shift_layers(layers, -4)[0, 0, 0]
    assert left.tolist() == right.flip(0).tolist()


def test_a_layers_picture_moves_with_its_cover():
    back, texture = three()[0], rand(1, 3, 4, 12)
    cover = torch.zeros(1, 1, 4, 12)
    cover[..., 2:6] = 1
    got = parallax.shift_layers([back, Layer(texture, cover, 1.0)], 3)
    assert torch.equal(got[..., 5:9], texture[..., 2:6]) and torch.equal(got[..., :5], back.picture[..., :5])


def test_moved():
    x = rand(1, 2, 3, 6)
    for pixels in (-7, -6, -2, 0, 1, 6, 9):
        expected = torch.zeros_like(x)
        for k in range(6):
            if 0 <= k - pixels < 6:
                expected[..., k] = x[..., k - pixels]
        assert torch.equal(parallax.moved(x, pixels), expected)


def test_layers_that_make_no_scene():
    back, middle, front = three()
    for bad, words in [([], "farthest"), ([middle, front], "farthest"), ([back._replace(depth=0.1)], "farthest")]:
        with pytest.raises(ValueError, match=words):
            parallax.shift_layers(bad, 0)
    with pytest.raises(ValueError, match="one size"):
        parallax.shift_layers([back, Layer(*(part[..., 1:] for part in front[:2]), 1.0)], 0)


def test_cut_layers_puts_what_stands_lower_nearer():
    page, behind = rand(1, 3, 8, 8), rand(1, 3, 8, 8, seed=1)
    things, foot = torch.zeros(8, 8, dtype=torch.int64), torch.zeros(8, 8)
    things[1:4, 1:4], foot[1:4, 1:4] = 1, 0.9
    things[1:4, 4:7], foot[1:4, 4:7] = 2, 0.5
    layers = parallax.cut_layers(page, behind, things, foot)
    assert [layer.depth for layer in layers] == [0, 0.5, 1]
    assert layers[2].cover[0, 0, 2, 2] == 1 and layers[1].cover[0, 0, 2, 5] == 1  # thing 1 is the nearer
    assert (layers[1].cover * layers[2].cover * (things > 0)).sum() == 0  # no thing in another's layer
    rest = parallax.shift_layers(layers, 0)
    inside = parallax.grow((things > 0).float()[None, None], 1).bool()
    assert torch.equal(rest, torch.where(inside, page, behind))
    with pytest.raises(ValueError, match="0 everywhere"):
        parallax.cut_layers(page, behind, 0 * things, foot)
    with pytest.raises(ValueError, match="8 x 8"):
        parallax.cut_layers(page, behind, things[1:], foot)


def test_grow_and_enlarged():
    mask = torch.zeros(1, 1, 7, 7)
    mask[..., 3, 3] = 1
    assert parallax.grow(mask, 2).sum() == 25 and torch.equal(parallax.grow(mask, 0), mask)
    with pytest.raises(ValueError, match="pixels >= 0"):
        parallax.grow(mask, -1)
    small, large = three(), parallax.enlarged(three(), 3)
    assert torch.equal(parallax.shift_layers(large, 12)[..., ::3, ::3], parallax.shift_layers(small, 4))
    with pytest.raises(ValueError, match="factor"):
        parallax.enlarged(small, 0)


class Sheets(HTMLParser):
    """Collects the pictures of a page, and whatever would be fetched from elsewhere."""

    def __init__(self):
        super().__init__()
        self.sheets, self.fetched, self.scene = [], [], {}

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if named.get("id") == "scene":
            self.scene = named
        if tag == "img":
            self.sheets.append((float(named["data-depth"]), named["src"]))
        elif "src" in named or "href" in named or tag in ("link", "iframe", "object"):
            self.fetched.append(tag)


def test_the_page_has_its_layers_from_far_to_near_and_fetches_nothing():
    page = parallax.parallax_page(three()[::-1], 'A "cat" & a <ball>', "Two bars <b>.")
    parser = Sheets()
    parser.feed(page)
    assert not parser.fetched and "http" not in page and "url(" not in page and "import" not in page
    assert [depth for depth, _ in parser.sheets] == [0, 0.5, 1]  # later in the file: above
    assert all(source.startswith("data:image/png;base64,") for _, source in parser.sheets)
    assert parser.scene["aria-label"] == "Two bars <b>." and parser.scene["tabindex"] == "0"
    assert "<title>A &quot;cat&quot; &amp; a &lt;ball&gt;</title>" in page
    images = [Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) for _, source in parser.sheets]
    alphas = [torch.tensor(list(image.getchannel("A").tobytes())).view(4, 12) / 255 for image in images]
    assert all(torch.equal(alpha, layer.cover[0, 0]) for alpha, layer in zip(alphas, three(), strict=True))
    bottom = images[0]
    for image in images[1:]:  # laid one on the other by PIL: the scene at rest
        bottom.alpha_composite(image)
    assert torch.allclose(to_tensor(bottom.convert("RGB")), parallax.shift_layers(three(), 0), atol=1 / 127)


def test_the_page_wants_words():
    with pytest.raises(ValueError, match="empty"):
        parallax.parallax_page(three(), "A cat", " ")
    with pytest.raises(ValueError, match="farthest"):
        parallax.parallax_page(three()[1:], "A cat", "A cat.")
