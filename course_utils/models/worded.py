"""A transformer that denoises any sequence of tokens, told in words what they show: words and tokens in one sequence.

Words are a learned vector each, read by a few layers of their own; then they stand behind the tokens and all attend to
each other. What the prompt says as a whole, and the time, steer each layer as in a DiT (`models.dit`).
"""

import math
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
    """Return x0_hat = guess + f([guess, x_t, features], c): three 3 x 3 convolutions over the page, blind to patches.

    A transformer predicts each patch by itself, so that lines break where two meet, and 192 numbers do not pass
    unharmed through a token. Here both sides of a seam are seen, and x_t in full. features: some channels of the
    tokens, spread over their patches. c, (batch, width), shifts and scales the channels in between; f begins as 0.
    """

    def __init__(self, width: int, patch: int, channels: int, features: int = 8):
        super().__init__()
        self.patch = patch
        self.features = nn.Linear(width, features * patch**2)
        self.steer = nn.Linear(width, 4 * channels)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)
        self.first = nn.Conv2d(3 + 3 + features, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, guess: torch.Tensor, x_t: torch.Tensor, tokens: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """guess, x_t: patches (batch, patches, 3 * patch * patch); tokens: (batch, patches, width)."""
        features = self.features(tokens)
        seen = torch.cat([unpatchify(part.to(features), self.patch) for part in (guess, x_t, features)], dim=1)
        shift_1, scale_1, shift_2, scale_2 = self.steer(c)[..., None, None].chunk(4, dim=1)  # (batch, channels, 1, 1)
        h = self.first(seen.contiguous(memory_format=torch.channels_last))  # (batch, channels, height, width)
        h = self.second(F.relu(torch.addcmul(shift_1, h, 1 + scale_1)))
        h = self.last(F.relu(torch.addcmul(shift_2, h, 1 + scale_2)))
        return guess + patchify(h, self.patch).float()


class WordedTransformer(ModelMixin, ConfigMixin):
    """model(x_t, t, words, given) -> x0_hat, of tokens (batch, tokens, numbers).

        tokens = x_t W + positions (+ given V);   c = silu(mlp(time_embedding(1000 t)) + mlp(mean of the words))

    t: (batch,) in [0, 1]. words: int64 (batch, n), behind the last one PAD. given: (batch, tokens, given) numbers that
    are known. It knows the list of its `words` and keeps, as the buffer `scale`, the deviations of the given numbers,
    or, if there are none, of its own: whoever calls it divides by them.

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
        x = torch.cat([x, read], dim=1).to(mask)  # (batch, tokens + words, width)
        mask = F.pad(mask, (tokens, 0))
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
