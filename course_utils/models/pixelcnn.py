"""PixelCNN: the probability of a picture, pixel by pixel, and pictures drawn from it.

A picture is a grid of symbols, x: (batch, height, width) int64, each of 0 ... symbols - 1, read in raster order: row
after row, each from left to right. A model is any callable x -> logits (batch, symbols, height, width), in which the
logits of a pixel depend on the pixels before it only. For grey pictures a symbol is a level. For colour, a symbol is
all of a pixel's channels at once (`to_symbols`), so that they are predicted jointly, by one softmax.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot, pad

KINDS = ("A", "B")


def to_symbols(pictures: torch.Tensor, levels: int) -> torch.Tensor:
    """Turn pictures (batch, channels, height, width) in [-1, 1] into symbols (batch, height, width) int64.

        symbol = sum over channels c of k_c levels^c,   k = round((x + 1) / 2 (levels - 1)), in 0 ... levels - 1

    The symbols are 0 ... levels^channels - 1: 17 for digits of 17 levels, 512 for colour with 8 levels a channel.
    """
    k = ((pictures.clamp(-1, 1) + 1) / 2 * (levels - 1)).round().long()
    return sum(k[:, c] * levels**c for c in range(k.shape[1]))


def to_pictures(x: torch.Tensor, levels: int, channels: int = 1) -> torch.Tensor:
    """Turn symbols (batch, height, width) into pictures (batch, channels, height, width) in [-1, 1]."""
    k = torch.stack([x // levels**c % levels for c in range(channels)], dim=1)
    return 2 * k.float() / (levels - 1) - 1


def causal_mask(size: int, kind: str) -> torch.Tensor:
    """Return the mask of a kernel that looks back only: (size, size) float32, 1 (seen) and 0 (hidden).

    1 for all rows above the middle one, and in the middle row for all columns left of the middle. At the middle itself
    "A" has 0 and "B" has 1. van den Oord et al. 2016 (arXiv:1601.06759), section 3.4. Raises ValueError for an even
    size and for another kind.
    """
    if size < 1 or size % 2 == 0 or kind not in KINDS:
        raise ValueError(f'expected an odd size and a kind "A" or "B", got {size} and {kind!r}')
    before = torch.arange(size * size) < size * size // 2 + (kind == "B")
    return before.float().reshape(size, size)


class MaskedConv2d(nn.Conv2d):
    """A convolution that looks back only: (batch, in_channels, h, w) -> (batch, out_channels, h, w).

        y = conv(x; weight * causal_mask(size, kind)) + bias

    The mask, a buffer, is applied at every call, so that whatever training does to `weight`, hidden pixels stay hidden.
    """

    mask: torch.Tensor

    def __init__(self, in_channels: int, out_channels: int, size: int, kind: str):
        super().__init__(in_channels, out_channels, size, padding=size // 2)
        self.register_buffer("mask", causal_mask(size, kind))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class StackedPixelCNN(nn.Module):
    """The plain stack: one masked convolution of kind `first`, then `blocks` of kind B. It has a blind spot.

    x (batch, height, width) of symbols -> logits (batch, levels, height, width).
    """

    def __init__(self, levels: int = 17, hidden: int = 48, blocks: int = 6, size: int = 3, first: str = "A"):
        super().__init__()
        self.levels = levels
        self.first = MaskedConv2d(3, hidden, size, first)
        self.blocks = nn.ModuleList(MaskedConv2d(hidden, hidden, size, "B") for _ in range(blocks))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(hidden, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, levels, 1))

    def see(self, inputs: torch.Tensor) -> torch.Tensor:
        """The network behind the first step, for pictures as numbers: (batch, 3, h, w) -> (batch, levels, h, w)."""
        h = self.first(inputs)
        for block in self.blocks:
            h = h + block(h.relu())
        return self.head(h)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.see(as_numbers(x, self.levels))


def as_numbers(x: torch.Tensor, levels: int, channels: int = 1) -> torch.Tensor:
    """Symbols (batch, h, w) as what a network reads, (batch, channels + 2, h, w): the levels in [-1, 1], and where.

    Row and column of each pixel come as two more channels; they are known in advance and give nothing away.
    """
    pictures = to_pictures(x, levels, channels)
    height, width = x.shape[1:]
    row = torch.linspace(-1, 1, height, device=x.device)[None, None, :, None].expand(len(x), 1, height, width)
    column = torch.linspace(-1, 1, width, device=x.device)[None, None, None].expand(len(x), 1, height, width)
    return torch.cat([pictures, row, column], dim=1)


def gate(y: torch.Tensor) -> torch.Tensor:
    """tanh(first half of the channels) * sigmoid(second half): (batch, 2 c, h, w) -> (batch, c, h, w)."""
    value, opening = y.chunk(2, dim=1)
    return value.tanh() * opening.sigmoid()


class TwoStackBlock(nn.Module):
    """One layer of both stacks: `above` knows the rows above a pixel, `left` also what is left of it in its row."""

    def __init__(self, hidden: int, size: int, dropout: float):
        super().__init__()
        self.side, self.up = size // 2, size // 2
        self.above = nn.Conv2d(hidden, 2 * hidden, (self.up + 1, size))
        self.left = nn.Conv2d(hidden, 2 * hidden, (1, self.side + 1))
        self.down = nn.Conv2d(2 * hidden, 2 * hidden, 1)
        self.out = nn.Conv2d(hidden, hidden, 1)
        self.dropout = nn.Dropout(dropout)

    def from_above(self, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """-> (the next v, what it tells the row), both of one height and width."""
        y = self.above(pad(v, (self.side, self.side, self.up, 0)))  # this row and `up` rows above
        return v + self.dropout(gate(y)), self.down(y)

    def along_row(self, h: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        y = self.left(pad(h, (self.side, 0, 0, 0))) + told
        return h + self.out(self.dropout(gate(y)))


class PixelCNN(nn.Module):
    """PixelCNN with two stacks and gates (arXiv:1606.05328): x (batch, h, w) -> logits (batch, symbols, h, w).

    x: symbols 0 ... levels^channels - 1, any height and width. The logits of a pixel depend on all pixels before it
    within reach: (blocks + 1) (size // 2) columns to either side, and one row more than that above. Colour:
    channels=3, levels=8, for instance, gives 512 symbols, each a whole colour.
    """

    def __init__(
        self,
        levels: int = 17,
        channels: int = 1,
        hidden: int = 48,
        blocks: int = 6,
        size: int = 3,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.levels, self.channels, self.side = levels, channels, size // 2
        self.first_above = nn.Conv2d(channels + 2, hidden, (self.side + 1, size))
        self.first_left = nn.Conv2d(channels + 2, hidden, (1, self.side + 1))
        self.first_down = nn.Conv2d(hidden, hidden, 1)
        self.blocks = nn.ModuleList(TwoStackBlock(hidden, size, dropout) for _ in range(blocks))
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(hidden, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, levels**channels, 1)
        )

    def from_above(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """The first stack: what the rows above tell each row, for each layer; (batch, ..., h, w) each."""
        moved = pad(inputs, (self.side, self.side, self.side + 1, -1))  # one row down: the own row is out of sight
        v = self.first_above(moved)
        told = [self.first_down(v)]
        for block in self.blocks:
            v, message = block.from_above(v)  # type: ignore[operator]  # a ModuleList tells no types
            told.append(message)
        return told

    def along_row(self, inputs: torch.Tensor, told: list[torch.Tensor]) -> torch.Tensor:
        """The second stack: logits, from the pixels to the left and from what the rows above told."""
        moved = pad(inputs, (self.side + 1, -1, 0, 0))  # one column to the right: the own pixel is out of sight
        h = self.first_left(moved) + told[0]
        for block, message in zip(self.blocks, told[1:], strict=True):
            h = block.along_row(h, message)  # type: ignore[operator]  # a ModuleList tells no types
        return self.head(h)

    def see(self, inputs: torch.Tensor) -> torch.Tensor:
        """The network behind the first step, for pictures as numbers: (batch, channels + 2, h, w) -> logits."""
        return self.along_row(inputs, self.from_above(inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.see(as_numbers(x, self.levels, self.channels))


def receptive_field(network: Callable, x: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """Return which pixels of x the network's output at (row, column) depends on: bool (height, width).

    True where the gradient of that output, summed over its channels, with respect to an input channel is not 0.
    network: (1, c, height, width) -> (1, any number, height, width), left as it was. x: where the gradient is taken; take random
    numbers.
    """
    x = x.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(network(x)[0, :, row, column].sum(), x)
    return (gradient[0] != 0).any(0)


def bits_per_dim(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the bits that each picture costs, per pixel: (batch,).

        -1/D sum over pixels i of log2 p(x_i | pixels before i),   p = softmax of the logits over the symbols

    logits: (batch, symbols, height, width), reached by gradients. x: (batch, height, width) int64. D = height * width.
    (With symbols of several channels this is per pixel; divide by the channels.)
    """
    return cross_entropy(logits, x, reduction="none").flatten(1).mean(1) / math.log(2)


def pixel_probabilities(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return softmax(logits / temperature) over axis 1, the symbols: (batch, symbols, ...), sums to 1 there.

    temperature > 0; below 1 likely symbols become likelier still. Raises ValueError for 0 and below.
    """
    if temperature <= 0:
        raise ValueError(f"expected a temperature above 0, got {temperature}; 0.01 hardly leaves a choice")
    return (logits / temperature).softmax(1)


@torch.no_grad()
def fill_in(
    model: Callable, x: torch.Tensor, keep: int, generator: torch.Generator, temperature: float = 1.0
) -> torch.Tensor:
    """Keep the first `keep` pixels of x in raster order, draw the others one by one: (batch, height, width) int64.

        x_i ~ p(x_i | x_1 ... x_{i-1})   for i = keep + 1 ... height * width, each with a pass of its own

    What x holds behind the kept pixels has no influence. keep = 0 draws everything (ancestral sampling).
    """
    height, width = x.shape[1:]
    x = x.clone()
    x.flatten(1)[:, keep:] = 0
    for i in range(keep, height * width):
        row, column = divmod(i, width)
        p = pixel_probabilities(model(x)[:, :, row, column], temperature)  # (batch, symbols)
        x[:, row, column] = torch.multinomial(p.to(generator.device), 1, generator=generator)[:, 0].to(x.device)
    return x


@torch.no_grad()
def sample_by_rows(
    model: PixelCNN, x: torch.Tensor, keep: int, generator: torch.Generator, temperature: float = 1.0
) -> torch.Tensor:
    """The same as `fill_in`, number for number, with less work: the first stack runs once a row, the second on one row.

    As many steps, one after the other; each is cheaper by about the height of the picture.
    """
    height, width = x.shape[1:]
    x = x.clone()
    x.flatten(1)[:, keep:] = 0
    told: list[torch.Tensor] = []
    for i in range(keep, height * width):
        row, column = divmod(i, width)
        numbers = as_numbers(x, model.levels, model.channels)
        if column == 0 or not told:
            told = [message[:, :, row : row + 1] for message in model.from_above(numbers[:, :, : row + 1])]
        logits = model.along_row(numbers[:, :, row : row + 1], told)[:, :, 0, column]
        p = pixel_probabilities(logits, temperature)
        x[:, row, column] = torch.multinomial(p.to(generator.device), 1, generator=generator)[:, 0].to(x.device)
    return x


def fit(
    model: nn.Module, x: torch.Tensor, *, steps: int, batch: int = 16, learning_rate: float = 3e-3, seed: int = 0
) -> Iterator[tuple[int, float]]:
    """Train a model on pictures x (n, height, width) of symbols; yields (update, bits per pixel of its batch).

    Adam, the learning rate falling to 0 like half a cosine. The model's device is that of x.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        chosen = x[torch.randint(len(x), (batch,), generator=generator).to(x.device)]
        loss = bits_per_dim(model(chosen), chosen).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield step, loss.item()


def histogram_logits(x: torch.Tensor, levels: int) -> torch.Tensor:
    """Return the logits of independent pixels, (1, levels, height, width): each pixel's own histogram over x.

    Every symbol counts once more than it was seen, so that none is impossible.
    """
    return (one_hot(x, levels).sum(0) + 1.0).log().permute(2, 0, 1)[None]
