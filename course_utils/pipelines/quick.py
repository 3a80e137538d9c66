"""The shipped model without torch and diffusers, which take seconds to import: for `generate` and a plain prompt.

ONNX Runtime evaluates the same networks with the same weights, read from the model's own folder; `graphs/` has what is
computed with them, written by `web.export.write_graphs` (`python -m course_utils.web.export`, for another
architecture). Noise, schedule and sampler are those of `picture_book`, in numpy: the picture is the same, to one grey
level.
"""

import dataclasses
import importlib.util
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from course_utils.pipelines.model_folder import MODELS, read_configurations, require_as_shipped
from course_utils.pipelines.picture_book import BATCH, CHECKPOINTS, PICTURE_BOOK, made_for
from course_utils.pipelines.png_info import Settings

GRAPHS = Path(__file__).parent / "graphs"
# Network -> the part whose weights it takes, and how the names of those begin.
NETWORKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "text_encoder": ("text_encoder", ("",)),
    "unet": ("unet", ("",)),
    "decoder": ("vae", ("decoder.", "post_quant_conv.")),
}
PREFIX = "network."  # of the weights' names in the graphs
HIGHEST_GUIDANCE = 10  # from about 15 on, noise changed by a millionth can give another picture
THREADS = 4  # at most: the networks are too small for more


def can_draw(settings: Settings, count: int, folder: Path) -> bool:
    """Whether `QuickModel` draws these settings, completed by `systems.prepare`, with the model in `folder`.

    That is: the shipped model, as it was shipped; a prompt and nothing else that is given; the usual sampler and size;
    at most as many pictures as are drawn at once; and a guidance that does not let roundings grow to visible
    differences. Raises ValueError if a file of the shipped model has changed.
    """
    device = os.environ.get("COURSE_DEVICE") or "cpu"
    if folder.resolve() != PICTURE_BOOK or device.lower() != "cpu" or not importlib.util.find_spec("onnxruntime"):
        return False
    if count > BATCH["cpu"] or settings.guidance > HIGHEST_GUIDANCE:
        return False
    parts = read_configurations(folder)
    side = made_for(parts["unet"], parts["vae"])
    free = {name: getattr(settings, name) for name in ("negative_prompt", "steps", "guidance", "seed")}
    schedule = [parts["scheduler"].get(key) for key in ("beta_schedule", "prediction_type")]
    return (
        settings == Settings(settings.prompt, width=side, height=side, **free)
        and schedule == ["scaled_linear", "v_prediction"]
        and require_as_shipped(PICTURE_BOOK, CHECKPOINTS / "manifest.json")
    )


class QuickTokenizer:
    """What `text.prompts.inspect_prompt` and drawing ask of a `CLIPTokenizer`, by the package `tokenizers` alone."""

    def __init__(self, folder: Path, configuration: dict):
        from tokenizers import Tokenizer

        self.backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.backend.no_truncation()
        self.backend.no_padding()
        self.init_kwargs = configuration
        self.model_max_length = configuration["model_max_length"]

    def __call__(self, prompt: str, **_: object) -> dict:
        """Where each token stands in the prompt, start and end token included; nothing is cut off."""
        return {"offset_mapping": self.backend.encode(prompt).offsets}

    def tokens(self, prompts: Sequence[str]) -> np.ndarray:
        """Token ids, filled up or cut to the model's length, the end token kept: int32 (batch, length)."""
        length, pad = self.model_max_length, self.backend.token_to_id(self.init_kwargs["pad_token"])
        if pad is None:
            raise ValueError("The tokenizer has no token to fill prompts up with.")
        rows = [self.backend.encode(prompt).ids for prompt in prompts]
        rows = [[*row[:-1][: length - 1], row[-1]] for row in rows]
        return np.array([row + [pad] * (length - len(row)) for row in rows], dtype=np.int32)


@dataclasses.dataclass(frozen=True)
class QuickModel:
    """Networks as ONNX Runtime's sessions, by the names of `NETWORKS`, and what the configurations say of the rest."""

    tokenizer: QuickTokenizer
    networks: dict[str, Any]
    alpha_bar: np.ndarray  # (T,)
    latent_shape: tuple[int, int, int]
    scaling_factor: float

    def run(self, name: str, **inputs: np.ndarray) -> np.ndarray:
        return self.networks[name].run(None, inputs)[0]


def load_quick(folder: Path) -> QuickModel:
    """Load the folder, and draw once with it. What fails may raise any class: then the libraries are to draw."""
    parts = read_configurations(folder)
    unet, scheduler = parts["unet"], parts["scheduler"]
    first, last = math.sqrt(scheduler["beta_start"]), math.sqrt(scheduler["beta_end"])
    beta = np.linspace(first, last, scheduler["num_train_timesteps"], dtype=np.float32) ** 2
    model = QuickModel(
        QuickTokenizer(folder / "tokenizer", parts["tokenizer"]),
        {name: _session(folder, name) for name in NETWORKS},
        np.cumprod(1 - beta),
        (unet["in_channels"], unet["sample_size"], unet["sample_size"]),
        parts["vae"]["scaling_factor"],
    )
    for _ in draw_in_turn(model, Settings("a", steps=1)):
        pass
    return model


def _session(folder: Path, name: str):
    """A session of one network: its graph, with the weights put in by name."""
    import onnxruntime
    from safetensors.numpy import load_file

    part, beginnings = NETWORKS[name]
    weights = {PREFIX + key: value for key, value in load_file(folder / MODELS[part][2]).items()
               if key.startswith(beginnings)}  # fmt: skip
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(value.astype(np.float32)) for value in weights.values()]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns of what it cannot compute beforehand
    options.intra_op_num_threads = min(THREADS, os.cpu_count() or 1)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # for other programs, as torch's threads
    options.add_external_initializers(list(weights), values)
    graph = (GRAPHS / f"{name}.onnx").read_bytes()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def draw_in_turn(model: QuickModel, settings: Settings, count: int = 1, on_step=None) -> Iterator[tuple]:
    """Yield (PIL picture, Settings) for each of `count` pictures, drawn at once; see `picture_book.draw_in_turn`."""
    from PIL import Image

    texts = [settings.negative_prompt, settings.prompt]
    if settings.guidance in (0, 1):  # only one of them is left
        texts = [texts[int(settings.guidance)]]
    cond = model.run("text_encoder", tokens=model.tokenizer.tokens(texts)).repeat(count, axis=0)

    def predict(x_t, t):
        both = model.run("unet", x_t=np.concatenate([x_t] * len(texts)), t=np.array(t, dtype=np.float32), cond=cond)
        negative, positive = both[:count], both[-count:]
        return negative + float(settings.guidance) * (positive - negative)  # the first, if there is but one

    made = [dataclasses.replace(settings, seed=settings.seed + i) for i in range(count)]
    x = x_T = np.stack([randn(one.seed, model.latent_shape) for one in made])  # (count, c, h, w)
    for step, x in enumerate(unipc(predict, x_T, model.alpha_bar, settings.steps)):  # noqa: B007  (the last is used)
        if on_step is not None:
            on_step(step + 1, settings.steps)
    pictures = model.run("decoder", z=x / model.scaling_factor)  # (count, 3, height, width)
    pixels = ((pictures / 2 + 0.5).clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    yield from zip(map(Image.fromarray, pixels), made, strict=True)


def randn(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of torch.randn(shape, generator=torch.Generator().manual_seed(seed)), but for rounding: float32.

        r cos(2 pi v), r sin(2 pi v),   r = sqrt(-2 log(1 - u))

    Box and Muller's method on blocks of 16 uniform numbers of 24 bits, eight u before eight v, from a Mersenne Twister.
    Raises ValueError unless 16 divides how many numbers there are.
    """
    blocks, rest = divmod(math.prod(shape), 16)
    if rest:
        raise ValueError(f"Expected a shape of a multiple of 16 numbers, but got {shape}.")
    bits = np.random.RandomState(seed).randint(1 << 24, size=(blocks, 2, 8), dtype=np.uint32)
    u, v = (bits.astype(np.float32) / 2**24).swapaxes(0, 1)  # (blocks, 8) each
    r = np.sqrt(-2 * np.log(1 - u))
    return np.stack([r * np.cos(2 * np.pi * v), r * np.sin(2 * np.pi * v)], axis=1).reshape(shape)


def unipc(predict: Callable, x: np.ndarray, alpha_bar: np.ndarray, steps: int) -> Iterator[np.ndarray]:
    """Yield x after each step from the noise x; the last is clean. predict(x, t) -> v, at falling, trailing times t.

        h = lambda_t - lambda_s,   phi = exp(-h) - 1,   D = (x0_before - x0_s) / r,   r = (lambda_before - lambda_s) / h
        predictor  x_t = sigma_t / sigma_s x_s - alpha_t phi (x0_s + D / 2)
        corrector  x_t = sigma_t / sigma_s x_s - alpha_t phi (x0_s + c_1 D + c_2 (x0_t - x0_s))

    where s is the time before t, and lambda = log(alpha / sigma). The corrector takes each step again once x0_t is
    known. The first step has no D, nor has the last. diffusers' UniPCMultistepScheduler of order 2, "bh2" (which
    `picture_book.make_scheduler` sets up as "unipc"); UniPC (arXiv:2302.04867), algorithms 1 and 2.
    """
    times = np.arange(len(alpha_bar), 0, -len(alpha_bar) / steps).round().astype(int) - 1
    alpha = [*np.sqrt(alpha_bar[times]).tolist(), 1.0]
    sigma = [*np.sqrt(1 - alpha_bar[times]).tolist(), 0.0]
    lambdas = [math.log(a / s) if s else math.inf for a, s in zip(alpha, sigma, strict=True)]

    def take(i, x, x0, before, ahead=None):
        h = lambdas[i + 1] - lambdas[i]
        phi = math.expm1(-h)
        c1 = c2 = 0.5
        guess = x0
        if before is not None:
            r = (lambdas[i - 1] - lambdas[i]) / h
            if ahead is not None:  # c_1 + c_2 = b_1,  r c_1 + c_2 = b_2
                once = -phi / h - 1
                b1, b2 = once / phi, 2 * (-once / h - 1 / 2) / phi
                c1 = (b1 - b2) / (1 - r)
                c2 = b1 - c1
            guess = guess + c1 / r * (before - x0)
        if ahead is not None:
            guess = guess + c2 * (ahead - x0)
        return sigma[i + 1] / sigma[i] * x - alpha[i + 1] * phi * guess

    start = x0 = before = None
    for i, t in enumerate(times.tolist()):
        ahead = alpha[i] * x - sigma[i] * predict(x, t)  # x0, of v
        if i:
            x = take(i - 1, start, x0, before, ahead)
        start, x0, before = x, ahead, x0 if i < steps - 1 else None
        x = take(i, start, x0, before)
        yield x
