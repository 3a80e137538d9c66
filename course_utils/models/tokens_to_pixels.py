"""DALL·E in miniature: a transformer that reads a text and goes on with the codes of a picture, one after another.

text: int64 (batch, length), the tokens of prompts, each padded to `length` with the end token. codes: int64 (batch,
places), what a tokeniser of pictures (`vq`) makes of a picture, row after row; places = side * side. The model is one
sequence, text first: p(text, codes) = product over all tokens of p(token | those before it). arXiv:2102.12092.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from course_utils.models.attention import merge_heads, split_heads

Past = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values of each block, (batch, heads, tokens, d) each
TEXT_SHARE = 1 / 8  # of the text in the loss, as in the paper


@dataclass(frozen=True)
class DalleConfig:
    """Sizes of a `Dalle`: tokens that the text may have and how many it has, codes, the grid's side, the network."""

    words: int = 848
    length: int = 24  # the longest of 80,000 captions has 24 tokens, start and end among them
    codes: int = 2048
    side: int = 8
    width: int = 160
    layers: int = 5
    heads: int = 5

    @property
    def places(self) -> int:
        """How many codes a picture has."""
        return self.side**2


def causal_mask(queries: int, keys: int | None = None, device: torch.device | None = None) -> torch.Tensor:
    """Return who may look at whom, bool (queries, keys) on the device: True where the key is not later than the query.

    keys: None for as many as there are queries. If there are more, the queries are the last ones of the sequence, as
    when the keys of earlier tokens are kept. Raises ValueError if there are fewer.
    """
    keys = queries if keys is None else keys
    if keys < queries:
        raise ValueError(f"Expected at least as many keys as queries, got {keys} keys and {queries} queries.")
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def cached_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cache: tuple[torch.Tensor, torch.Tensor] | None = None
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Return what causal attention gives for the new tokens, and the keys and values of all tokens so far.

        out = softmax( q [cache_k, k]^T / sqrt(d) + mask ) [cache_v, v],   mask: -inf where a key is later than a query

    q, k, v: (batch, heads, new tokens, d). cache: None, or keys and values of all tokens before, (batch, heads, past
    tokens, d) each; it is left as it was. Returns out (batch, heads, new tokens, d) and ([cache_k, k], [cache_v, v]):
    the cache of the next call. Causal attention over the whole sequence gives the same out for these tokens.
    """
    if cache is not None:
        k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)  # (batch, heads, all tokens, d)
    mask = causal_mask(q.shape[2], k.shape[2], q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), (k, v)


class Block(nn.Module):
    """One layer: tokens look at themselves and at those before, then each is worked on alone; both add to what was.

        x <- x + attend(norm_1(x)),   x <- x + W_2 gelu(W_1 norm_2(x)),   W_1: width -> 4 width

    That of GPT-2 (arXiv:1706.03762 with the layer norms first). gelu: its tanh form, as there.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(
        self, x: torch.Tensor, past: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Return x after this layer, and the keys and values of all tokens so far, past ones first.

        x: (batch, tokens, width). past: what the call for the tokens before returned. See `cached_attention`.
        """
        q, k, v = (split_heads(part, self.heads) for part in self.to_qkv(self.norm_1(x)).chunk(3, dim=-1))
        attended, present = cached_attention(q, k, v, past)
        x = x + self.to_out(merge_heads(attended))
        x = x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))
        return x, present


class Dalle(nn.Module):
    """The transformer: model(text, codes) -> (text_logits, code_logits).

    A token enters as its embedding plus one for where it is: for text, its place in the line; for a code, its row and
    its column. Text and codes have heads of their own, so that a place for text can only give text. Padding is not
    hidden: the end token, with the embedding of each place, is a padding of its own there, as the paper has it.
    Raises ValueError if heads do not divide the width.
    """

    def __init__(self, config: DalleConfig):
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"Expected a width that {config.heads} heads divide, got {config.width}.")
        self.config, width = config, config.width
        self.words, self.text_places = nn.Embedding(config.words, width), nn.Embedding(config.length, width)
        self.codes = nn.Embedding(config.codes, width)
        self.rows, self.columns = nn.Embedding(config.side, width), nn.Embedding(config.side, width)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.text_head, self.code_head = nn.Linear(width, config.words), nn.Linear(width, config.codes)
        start(self)

    def embed_text(self, text: torch.Tensor) -> torch.Tensor:
        """Text (batch, length) -> (batch, length, width). Raises ValueError for another length."""
        if text.ndim != 2 or text.shape[1] != self.config.length:
            raise ValueError(
                f"Expected text of {self.config.length} tokens, (batch, {self.config.length}), got "
                f"{tuple(text.shape)}; pad it or cut it."
            )
        return self.words(text) + self.text_places.weight

    def embed_codes(self, codes: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Codes (batch, n) of the places first ... first + n - 1 -> (batch, n, width).

        Raises ValueError if they are more than the places.
        """
        if codes.ndim != 2 or first + codes.shape[1] > self.config.places:
            raise ValueError(
                f"Expected codes (batch, n) for at most {self.config.places} places, got {tuple(codes.shape)} from "
                f"place {first} on; a picture is drawn when it has {self.config.places}."
            )
        place = torch.arange(first, first + codes.shape[1], device=codes.device)
        return self.codes(codes) + self.rows(place // self.config.side) + self.columns(place % self.config.side)

    def run(self, x: torch.Tensor, past: Past | None = None) -> tuple[torch.Tensor, Past]:
        """Embedded tokens (batch, tokens, width) through all blocks: what leaves them, and the keys and values so far.

        past: the keys and values of the tokens before, as an earlier call returned them; it is left as it was.
        """
        present = []
        for number, block in enumerate(self.blocks):
            x, kept = block(x, past[number] if past else None)
            present.append(kept)
        return self.norm(x), present

    def forward(self, text: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of the tokens, each from those before it: (text_logits, code_logits).

        text: (batch, length); codes: (batch, n), the first n of a picture, 0 <= n <= places.
        text_logits: (batch, length - 1, words), of text[:, 1:]; code_logits: (batch, n or n + 1, codes), of codes[:, 0]
        on, and if the picture is not yet complete also of the next one.
        """
        length = self.config.length
        seen = codes[:, : self.config.places - 1]  # behind the last code there is nothing to predict
        h, _ = self.run(torch.cat([self.embed_text(text), self.embed_codes(seen)], dim=1))
        return self.text_head(h[:, : length - 1]), self.code_head(h[:, length - 1 :])

    def read(self, text: torch.Tensor) -> tuple[torch.Tensor, Past]:
        """Return the logits of the first code, (batch, codes), and the keys and values of the text (batch, length)."""
        h, past = self.run(self.embed_text(text))
        return self.code_head(h[:, -1]), past

    def step(self, code: torch.Tensor, past: Past) -> tuple[torch.Tensor, Past]:
        """Return the logits of the code after `code`, int64 (batch,), and the keys and values with its own.

        past: from `read` or the step before. One token passes the blocks, whatever came before: the same logits as
        those of a whole `forward`.
        """
        place = past[0][0].shape[2] - self.config.length
        h, past = self.run(self.embed_codes(code[:, None], place), past)
        return self.code_head(h[:, -1]), past


def start(model: Dalle, std: float = 0.02) -> None:
    """Draw new weights: normal with this deviation, biases 0, and what adds to the residual stream smaller.

    Each block adds twice, so to_out and down get std / sqrt(2 layers): the sum then stays as large for any depth.
    GPT-2's start (Radford et al. 2019, section 2.3). All logits begin near 0, the loss near the log of the choices.
    """
    for name, weights in model.named_parameters():
        if weights.ndim == 1:
            nn.init.constant_(weights, 1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            adds = name.endswith(("to_out.weight", "down.weight"))
            nn.init.normal_(weights, std=std / math.sqrt(2 * model.config.layers) if adds else std)


def dalle_loss(
    text_logits: torch.Tensor,
    code_logits: torch.Tensor,
    text: torch.Tensor,
    codes: torch.Tensor,
    share: float = TEXT_SHARE,
) -> torch.Tensor:
    """Return the loss of a `Dalle`, in nats, shape ():

        L = share mean over text (-log p(token))  +  (1 - share) mean over the picture (-log p(code))

    text_logits (batch, length - 1, words), code_logits (batch, places, codes): of text[:, 1:] and of all codes.
    share: 1/8; the picture counts most. The padding counts as text. arXiv:2102.12092, section 2.2.
    Raises ValueError if there are not as many logits as tokens.
    """
    if text_logits.shape[:2] != text[:, 1:].shape or code_logits.shape[:2] != codes.shape:
        raise ValueError(
            f"Expected logits for {tuple(text[:, 1:].shape)} tokens of text and {tuple(codes.shape)} codes, got "
            f"{tuple(text_logits.shape[:2])} and {tuple(code_logits.shape[:2])}; call the model with whole pictures."
        )
    of_text = F.cross_entropy(text_logits.float().flatten(0, 1), text[:, 1:].flatten())
    of_codes = F.cross_entropy(code_logits.float().flatten(0, 1), codes.flatten())
    return share * of_text + (1 - share) * of_codes


def guided_logits(cond: torch.Tensor, null: torch.Tensor, guidance: float) -> torch.Tensor:
    """Return logits that heed the text more: null + guidance (cond - null), any shape.

    cond, null: the logits after the text and after the empty one. guidance 1: cond itself; above it, what the text
    makes likelier becomes likelier still. Make-A-Scene (arXiv:2203.13131), section 3.4; Parti (arXiv:2206.10789).
    """
    return null + guidance * (cond - null)


def filter_logits(logits: torch.Tensor, top_k: int | None = None, top_p: float | None = None) -> torch.Tensor:
    """Return the logits (..., codes) with all but the likeliest at -inf.

    top_k: that many of the largest stay (and what equals the last of them). top_p: of what is left, the fewest stay
    that have at least this probability together (the nucleus, arXiv:1904.09751). None: no such limit.
    Raises ValueError unless top_k >= 1 and 0 < top_p <= 1.
    """
    if top_k is not None and top_k < 1 or top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"Expected top_k of 1 or more and top_p above 0, up to 1, got {top_k} and {top_p}.")
    if top_k is not None and top_k < logits.shape[-1]:
        last = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < last, -math.inf)
    if top_p is not None and top_p < 1:
        ordered, places = logits.sort(dim=-1, descending=True)
        p = ordered.softmax(-1)
        enough = p.cumsum(-1) - p >= top_p  # those before it have the probability already
        logits = logits.masked_fill(enough.scatter(-1, places, enough), -math.inf)
    return logits


@torch.no_grad()
def sample(
    model: Dalle,
    text: torch.Tensor,
    generators: Sequence[torch.Generator],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float = 1.0,
    null: torch.Tensor | None = None,
    cache: bool = True,
) -> torch.Tensor:
    """Draw pictures, code by code: int64 (batch, places).

        code_i ~ softmax( filter_logits( guided_logits(...) / temperature ) )   given the text and codes 0 ... i - 1

    text: (batch, length). generators: one on the CPU for each picture, so that a picture does not depend on which
    others are drawn with it. null: (1, length), the tokens of the empty prompt, needed for a guidance other than 1.
    cache: keep keys and values, so that each code passes alone; without, the whole sequence passes for each code.
    Raises ValueError for a temperature of 0 or below, a missing null, or another number of generators.
    """
    if not temperature > 0:
        raise ValueError(f"Expected a temperature above 0, got {temperature}; top_k=1 takes the likeliest code.")
    if len(generators) != len(text):
        raise ValueError(f"Expected a generator for each of {len(text)} pictures, got {len(generators)}.")
    if guidance != 1:
        if null is None:
            raise ValueError(f"Expected null, the tokens of the empty prompt, for a guidance of {guidance}, got none.")
        text = torch.cat([text, null.expand(len(text), -1)])  # both halves of the batch get the same codes
    codes = text.new_zeros(len(generators), 0)
    past: Past = []
    for place in range(model.config.places):
        drawn = codes.repeat(len(text) // len(codes), 1)
        if not cache:
            logits = model(text, drawn)[1][:, -1]
        elif place == 0:
            logits, past = model.read(text)
        else:
            logits, past = model.step(drawn[:, -1], past)
        if guidance != 1:
            cond, free = logits.chunk(2)
            logits = guided_logits(cond, free, guidance)
        p = filter_logits(logits.float() / temperature, top_k, top_p).softmax(-1).cpu()  # (batch, codes)
        code = torch.cat([torch.multinomial(one, 1, generator=g) for one, g in zip(p, generators, strict=True)])
        codes = torch.cat([codes, code.to(codes.device)[:, None]], dim=1)
    return codes
