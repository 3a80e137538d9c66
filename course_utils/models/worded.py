"""A transformer that denoises any sequence of tokens, told in words what they show: words and tokens in one sequence.

Words are a learned vector each, read by a few layers of their own; then they stand behind the tokens and all attend to
each other. What the prompt says as a whole, and the time, steer each layer as in a DiT (`models.dit`). A network that
need know the prompt as a whole only has no such layers, and the tokens attend to each other alone.
"""

import math
import re
from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

from course_utils.models.blocks import time_embedding
from course_utils.models.dit import AdaLNZero, patchify, sincos_positions, unpatchify

PAD, NOTHING, UNKNOWN = 0, 1, 2  # words that stand for no word, for the empty prompt, for a word never met
LONGEST = 32  # words
WORD = re.compile(r"[\w'-]+|,")


def split(text: str) -> list[str]:
    """The words of a text, commas among them."""
    return WORD.findall(text.lower())


def as_numbers(texts: Sequence[str], words: Sequence[str]) -> torch.Tensor:
    """The words of the texts as numbers, int64 (batch, longest), behind the last word of each PAD."""
    number = {word: n for n, word in enumerate(words)}
    rows = [[number.get(word, UNKNOWN) for word in split(text)][:LONGEST] or [NOTHING] for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


class Layer(nn.Module):
    """Attention, then relu(x)^2 feed-forward; if `steered`, by a vector c as in `dit.half_block`.

    Queries and keys are normalised in each head. relu^2 is several times cheaper than gelu on a CPU.
    """

    def __init__(self, width: int, heads: int, steered: bool):
        super().__init__()
        self.heads = heads
        self.qkv, self.back = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.ada = AdaLNZero(width, count=6) if steered else None

    def forward(self, x: torch.Tensor, mask: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        """x: (batch, n, width), c: (batch, width), mask: added to the attention's logits, (batch, 1, 1, n)."""
        if self.ada is None or c is None:
            x = x + self._attend(_norm(x), mask)
            return x + self._feed(_norm(x))
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.ada(c)[:, None].chunk(6, dim=-1)
        x = torch.addcmul(x, gate_1, self._attend(torch.addcmul(shift_1, _norm(x), 1 + scale_1), mask))
        return torch.addcmul(x, gate_2, self._feed(torch.addcmul(shift_2, _norm(x), 1 + scale_2)))

    def _attend(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, n, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (batch, heads, n, d) each
        logits = _norm(q) @ _norm(k).transpose(-1, -2) * (width // self.heads) ** -0.5 + mask
        # the plain formula: for some 80 tokens five times as fast backward on a CPU as torch's fused attention
        return self.back((logits.softmax(-1) @ v).transpose(1, 2).reshape(batch, n, width))

    def _feed(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.up(x))
        return self.down(h * h)


class Finish(nn.Module):
    """Return x0_hat = guess + f([guess, x_t], features, c): a small U-Net over the whole page, blind to patches.

    A transformer predicts each patch from a vector of its own: lines break where two patches meet, and the details of
    x_t do not pass through it unharmed. Here both sides of a seam are seen, and x_t in full. At a quarter of the
    resolution `features` of the tokens join, some for each of the (patch / 4)^2 places of a patch. c, (batch, width),
    shifts and scales the last layer of each level; f begins as 0.
    """

    def __init__(self, width: int, patch: int, channels: int, features: int = 64):
        super().__init__()
        self.patch = patch
        fine, middle, coarse = channels, 2 * channels, 4 * channels
        self.features = nn.Linear(width, features * (patch // 4) ** 2)
        self.down = nn.ModuleList([_conv(6, fine), _conv(fine, middle, stride=2), _conv(middle, coarse, stride=2)])
        self.join = _conv(coarse + features, coarse)
        self.at_level = nn.ModuleList([_conv(coarse, coarse), _conv(middle, middle), _conv(fine, fine)])
        self.up = nn.ModuleList([nn.Conv2d(coarse, middle, 1), nn.Conv2d(middle, fine, 1)])
        self.steer = nn.ModuleList([nn.Linear(width, 2 * size) for size in (coarse, middle, fine)])
        self.last = _conv(fine, 3)
        for layer in (*self.steer, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, guess: torch.Tensor, x_t: torch.Tensor, tokens: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """guess, x_t: patches (batch, patches, 3 * patch * patch); tokens: (batch, patches, width)."""
        features = self.features(tokens)
        pages = [unpatchify(part.to(features), self.patch) for part in (guess, x_t)]  # (batch, 3, height, width) each
        h, skips = torch.cat(pages, dim=1).contiguous(memory_format=torch.channels_last), []
        for layer in self.down:
            h = F.relu(layer(h))
            skips.append(h)
        spread = unpatchify(features, self.patch // 4)  # (batch, features, height / 4, width / 4)
        h = F.relu(self.join(torch.cat([h, spread], dim=1).contiguous(memory_format=torch.channels_last)))
        for level, (layer, steer) in enumerate(zip(self.at_level, self.steer, strict=True)):
            if level:
                h = F.interpolate(self.up[level - 1](h), scale_factor=2) + skips[-1 - level]
            shift, scale = steer(c)[..., None, None].chunk(2, dim=1)  # (batch, channels of the level, 1, 1)
            h = h + F.relu(torch.addcmul(shift, layer(h), 1 + scale))
        return guess + patchify(self.last(h), self.patch).float()


def _conv(channels: int, wanted: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, wanted, 3, stride=stride, padding=1)


class WordedTransformer(ModelMixin, ConfigMixin):
    """model(x_t, t, words, given) -> x0_hat, of tokens (batch, tokens, numbers).

        tokens = x_t W + positions (+ given V);   c = silu(mlp(time_embedding(1000 t)) + mlp(mean of the words))

    t: (batch,) in [0, 1]. words: int64 (batch, n), behind the last one PAD. given: (batch, tokens, given) numbers that
    are known. It knows the list of its `words` and keeps, as the buffer `scale`, the deviations of the given numbers,
    or, if there are none, of its own: the numbers that it is called with are divided by them.

    Tokens of nearly as many numbers as the network is wide: it must predict the clean ones alone, since noise has more
    directions than the width can carry ("Back to basics: let denoising generative models denoise", arXiv:2511.13720).
    Tokens of a few numbers are learned faster if x_t is part of the prediction: `mixes`, see `mixed`. finish: channels
    of a `Finish` for tokens that are patches of a page, none if 0.
    """

    @register_to_config
    def __init__(
        self,
        words: Sequence[str],
        numbers: int,
        given: int = 0,
        mixes: bool = False,
        finish: int = 0,
        tokens: int = 64,
        width: int = 192,
        depth: int = 6,
        heads: int = 4,
        readers: int = 2,
    ):
        super().__init__()
        self.embed = nn.Linear(numbers, width)
        self.embed_given = nn.Linear(given, width) if given else None
        self.register_buffer("scale", torch.ones(given or numbers))
        self.positions = nn.Parameter(sincos_positions(math.isqrt(tokens - 1) + 1, width)[:tokens])
        self.word = nn.Embedding(len(words), width)
        nn.init.normal_(self.word.weight, std=0.5)
        self.word_positions = nn.Parameter(0.5 * time_embedding(torch.arange(LONGEST), width))
        self.neighbours = nn.Linear(2 * width, width)
        self.reading = nn.ModuleList(Layer(width, heads, steered=False) for _ in range(readers))
        self.of_time, self.of_prompt = (
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(2)
        )
        self.layers = nn.ModuleList(Layer(width, heads, steered=True) for _ in range(depth))
        self.ada, self.out = AdaLNZero(width, count=2), nn.Linear(width, numbers)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.finishing = Finish(width, math.isqrt(numbers // 3), finish) if finish else None

    def forward(
        self, x_t: torch.Tensor, t: torch.Tensor, words: torch.Tensor, given: torch.Tensor | None = None
    ) -> torch.Tensor:
        read, mask = self.read(words)
        known = (words != PAD)[..., None].float()
        prompt = (read * known).sum(1) / known.sum(1)  # (batch, width)
        c = F.silu(self.of_time(time_embedding(1000 * t, self.config.width)) + self.of_prompt(prompt)).to(read)
        x = self.embed(x_t) + self.positions
        if self.embed_given is not None:
            x = x + self.embed_given(given)
        tokens = x.shape[1]
        if self.reading:
            x = torch.cat([x, read], dim=1)  # (batch, tokens + words, width)
        x, mask = x.to(mask), F.pad(mask, (tokens, 0))[..., : x.shape[1]]
        for layer in self.layers:
            x = layer(x, mask, c)
        shift, scale = self.ada(c)[:, None].chunk(2, dim=-1)
        x = torch.addcmul(shift, _norm(x[:, :tokens]), 1 + scale)  # (batch, tokens, width)
        out = self.out(x).float()
        if self.finishing is not None:
            out = self.finishing(out, x_t, x, c)
        return mixed(x_t, out, t) if self.config.mixes else out

    def read(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The words as vectors, (batch, n, width), and the mask that hides PAD, (batch, 1, 1, n).

        Each word begins with its neighbours, so that "red" and "car" meet before any attention is learned.
        """
        x = self.word(words)
        sides = torch.cat([F.pad(x, (0, 0, 1, -1)), F.pad(x, (0, 0, -1, 1))], dim=-1)  # (batch, n, 2 width)
        x = x + self.neighbours(sides) + self.word_positions[: words.shape[1]]
        number_format = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        mask = ((words == PAD) * -1e4)[:, None, None].to(number_format)
        for layer in self.reading:
            x = layer(x.to(number_format), mask)
        return _norm(x), mask

    def matrices_and_others(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The weights inside the layers, and all other parameters, for `optimizers.Muon`."""
        inside = [
            parameter
            for layers in (self.reading, self.layers)
            for name, parameter in layers.named_parameters()
            if parameter.ndim == 2 and "ada" not in name
        ]
        known = {id(parameter) for parameter in inside}
        return inside, [parameter for parameter in self.parameters() if id(parameter) not in known]


def mixed(x_t: torch.Tensor, out: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return x0_hat = ((1 - t) x_t + t sqrt(p) out) / p,   p = (1 - t)^2 + t^2: the network adds what x_t lacks.

    For data of variance 1 the first term is the best guess from x_t alone, and `out` has variance 1 at all times:
    EDM's preconditioning (arXiv:2206.00364, section 5) on the line x_t = (1 - t) x0 + t eps.
    """
    t = t[:, None, None]
    p = (1 - t).square() + t.square()
    return ((1 - t) * x_t + t * p.sqrt() * out) / p


def _norm(x: torch.Tensor) -> torch.Tensor:
    """Each vector to mean 0 and variance 1."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)
