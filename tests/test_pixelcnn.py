"""PixelCNN against brute force: what it can see, what it costs, what it draws."""

import itertools
import math

import pytest
import torch
from torch import nn

from course_utils.data import digits
from course_utils.models import pixelcnn
from course_utils.models.pixelcnn import MaskedConv2d, PixelCNN, StackedPixelCNN


def tiny(**settings):
    torch.manual_seed(0)
    return PixelCNN(**{"levels": 3, "hidden": 8, "blocks": 2} | settings).eval()


def random_symbols(*shape, below=3):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(1))


def before(height, width, row, column):
    return (torch.arange(height * width) < row * width + column).reshape(height, width)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("kind", ["A", "B"])
def test_the_masked_convolution_is_a_sum_over_what_came_before(size, kind):
    layer, x, half = MaskedConv2d(2, 3, size, kind), torch.randn(1, 2, 5, 6), size // 2
    expected = torch.zeros(1, 3, 5, 6)
    for r, c in itertools.product(range(5), range(6)):
        total = layer.bias.clone()
        for i, j in itertools.product(range(-half, half + 1), repeat=2):
            earlier = i < 0 or (i == 0 and (j < 0 or (j == 0 and kind == "B")))
            if earlier and 0 <= r + i < 5 and 0 <= c + j < 6:
                total = total + layer.weight[:, :, half + i, half + j] @ x[0, :, r + i, c + j]
        expected[0, :, r, c] = total
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("size, kind", [(4, "A"), (3, "C"), (0, "B")])
def test_masks_that_cannot_be(size, kind):
    with pytest.raises(ValueError, match='odd size and a kind "A" or "B"'):
        pixelcnn.causal_mask(size, kind)


@pytest.mark.parametrize("size", [3, 5])
def test_the_two_stacks_see_all_that_came_before_and_nothing_else(size):
    model = tiny(size=size, blocks=6)
    for row, column in ((0, 0), (0, 7), (3, 4), (7, 0), (7, 7)):
        field = pixelcnn.receptive_field(model.see, torch.randn(1, 3, 8, 8), row, column)
        assert torch.equal(field, before(8, 8, row, column))


def test_a_layer_of_two_stacks_sees_rows_above_and_what_is_left_and_v_knows_nothing_of_h():
    above, left = torch.nn.Conv2d(2, 3, (2, 3)).double(), torch.nn.Conv2d(2, 3, (1, 2)).double()
    both = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(0)).double()
    seen_by_v = pixelcnn.receptive_field(
        lambda x: pixelcnn.two_stack_layer(x, both[:, 2:], above, left)[0], both[:, :2], 2, 3
    )
    assert seen_by_v.nonzero().tolist() == [[1, 2], [1, 3], [1, 4], [2, 2], [2, 3], [2, 4]]
    seen_by_h = pixelcnn.receptive_field(
        lambda x: pixelcnn.two_stack_layer(both[:, :2], x, above, left)[1], both[:, 2:], 2, 3
    )
    assert seen_by_h.nonzero().tolist() == [[2, 2], [2, 3]]
    h = both[:, 2:].requires_grad_()
    assert not pixelcnn.two_stack_layer(both[:, :2].detach(), h, above, left)[0].sum().backward() and h.grad is None


def test_the_plain_stack_is_causal_and_has_a_blind_spot():
    torch.manual_seed(0)
    field = pixelcnn.receptive_field(StackedPixelCNN(blocks=12).see, torch.randn(1, 3, 8, 8), 5, 2)
    assert not (field & ~before(8, 8, 5, 2)).any()
    assert not field[4, 4:].any() and field[4, 3] and field[3, 4]  # 45 degrees to the right, whatever the depth


def test_with_b_first_it_sees_the_answer():
    field = pixelcnn.receptive_field(StackedPixelCNN(first="B").see, torch.randn(1, 3, 8, 8), 5, 2)
    assert field[5, 2]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_drawn_row_by_row_it_is_the_same_picture(temperature):
    model, x = tiny(), random_symbols(4, 5, 6)
    for keep in (0, 9, 12, 30):
        slow, fast = (
            draw(model, x, keep, torch.Generator().manual_seed(3), temperature)
            for draw in (pixelcnn.fill_in, pixelcnn.sample_by_rows)
        )
        assert torch.equal(slow, fast)
        assert torch.equal(slow.flatten(1)[:, :keep], x.flatten(1)[:, :keep])


def test_all_probabilities_of_all_pictures_add_up_to_one():
    model = tiny(levels=2)
    pictures = torch.tensor(list(itertools.product(range(2), repeat=6))).reshape(64, 2, 3)
    with torch.no_grad():
        bits = 6 * pixelcnn.bits_per_dim(model(pictures), pictures)
    assert (2**-bits).sum().item() == pytest.approx(1, abs=1e-5)


def test_pictures_are_drawn_as_often_as_their_probability_says():
    model = tiny(levels=2)
    pictures = torch.tensor(list(itertools.product(range(2), repeat=4))).reshape(16, 2, 2)
    with torch.no_grad():
        p = 2 ** (-4 * pixelcnn.bits_per_dim(model(pictures), pictures))
    drawn = pixelcnn.fill_in(model, torch.zeros(20_000, 2, 2).long(), 0, torch.Generator().manual_seed(0))
    share = torch.bincount((drawn.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16) / 20_000
    assert ((share - p).abs() < 5 * (p * (1 - p) / 20_000).sqrt()).all()


def test_a_model_that_knows_nothing_costs_the_logarithm_of_the_levels():
    x = random_symbols(3, 4, 5, below=17)
    bits = pixelcnn.bits_per_dim(torch.zeros(3, 17, 4, 5), x)
    assert bits.tolist() == pytest.approx([math.log2(17)] * 3)


def test_the_histograms_are_those_of_the_data():
    x = random_symbols(50, 2, 2)
    p = pixelcnn.histogram_logits(x, 3).softmax(1)
    assert p[0, 2, 1, 0].item() == pytest.approx(((x[:, 1, 0] == 2).sum().item() + 1) / 53)


def test_symbols_and_pictures_are_two_forms_of_the_same():
    level = digits.levels("test")
    assert torch.equal(pixelcnn.to_symbols(digits.load(8, "test")[0], 17), level)
    assert torch.equal(pixelcnn.to_pictures(level, 17), digits.load(8, "test")[0])
    colours = torch.arange(512).reshape(1, 16, 32)
    pictures = pixelcnn.to_pictures(colours, 8, channels=3)
    assert pictures.shape == (1, 3, 16, 32) and pictures.aminmax() == (-1, 1)
    assert torch.equal(pixelcnn.to_symbols(pictures, 8), colours)


def test_it_learns_colour_too():
    torch.manual_seed(0)
    model, x = PixelCNN(levels=2, channels=3, hidden=16, blocks=1, size=5), torch.zeros(4, 6, 6).long()
    x[:, :, ::2] = 5
    assert model(x).shape == (4, 8, 6, 6)
    bits = [loss for _, loss in pixelcnn.fit(model, x, steps=60, batch=4, learning_rate=1e-2)]
    assert bits[0] > 1.5 and bits[-1] < 0.1


def test_the_same_seed_trains_the_same_model():
    runs = [
        [loss for _, loss in pixelcnn.fit(tiny().train(), random_symbols(20, 4, 4), steps=3, seed=s)] for s in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_temperature_has_limits():
    with pytest.raises(ValueError, match="above 0"):
        pixelcnn.pixel_probabilities(torch.zeros(1, 2), 0)
    assert pixelcnn.pixel_probabilities(torch.tensor([[1.0, 2.0]]), 0.01)[0, 1] == 1


def test_weights_may_change_but_hidden_pixels_stay_hidden():
    layer = MaskedConv2d(1, 1, 3, "A")
    nn.init.ones_(layer.weight)
    assert torch.equal(pixelcnn.receptive_field(layer, torch.randn(1, 1, 3, 3), 1, 1), before(3, 3, 1, 1))
