"""What each ingredient of a training recipe is worth: prompts followed after the same processor time.

    python3 course.py benchmark recipe [NAME ...] [--seconds 180] [--seeds 1] [--json FILE]

A small task, so that a recipe is judged in minutes: 32x32 pictures of one of 3 shapes in one of 4 colours in one of
4 corners, named by three words. A recipe trains a U-Net for so many seconds of processor time on one thread and then
draws each of the 48 prompts five times with 20 evaluations of DPM-Solver++ and guidance 2. *Right* is the share of
pictures in which a reader, trained on such pictures, finds all three words; guessing gets 2%. `course` is what most
courses show: noise prediction, uniform times, batches of 64, a constant rate, 32 bits. `ours` is near the recipe of the
picture-book model (`recipe_book` has that one), and each other row is `ours` with one thing changed. NAME: only these.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from benchmarks.families import one_of
from course_utils.diffusion import samplers
from course_utils.diffusion.objectives import as_eps, logit_normal_times, noise_prediction_loss, v_from_x0_eps, v_weight
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.machine.devices import describe_machine
from course_utils.training import MovingAverage, Samples, train

SHAPES, COLOURS, CORNERS = 3, 4, 4  # circle, square, triangle; red, green, blue, yellow; top left ... bottom right
RGB = torch.tensor([[0.85, 0.15, 0.15], [0.15, 0.65, 0.2], [0.15, 0.3, 0.9], [0.95, 0.8, 0.1]])
PROMPTS = torch.cartesian_prod(torch.arange(SHAPES), torch.arange(COLOURS), torch.arange(CORNERS))  # (48, 3)
NULL = SHAPES + COLOURS + CORNERS  # the word that stands for no word
TABLE = alpha_bar_from_beta(scaled_linear_beta())
DRAWN = 5  # pictures of each prompt
FOREVER = 10**9


@dataclass(frozen=True)
class Recipe:
    """How to train: what most courses do, unless told otherwise."""

    target: str = "noise"  # or "v"; or "flow": from the noise straight to the picture
    weighted: bool = False  # the noise's loss with the weight that makes it that of v
    times: str = "uniform"  # or "middle": logit-normal
    batch: int = 64
    rate: float = 1e-3
    decay: bool = False  # warm-up and linear decay of the rate, not a constant one
    clip: bool = False
    average: bool = False
    bfloat16: bool = False
    channels_last: bool = False
    patch: int = 1  # side of the squares of pixels that the U-Net takes as one
    pooled: bool = False  # the words also come in with the time, as in SDXL (arXiv:2307.01952)


COURSE = Recipe()
OURS = Recipe(target="v", times="middle", batch=16, decay=True, clip=True, average=True, bfloat16=True, patch=2)
RECIPES = {
    "course": COURSE,
    "ours": OURS,
    "uniform times": replace(OURS, times="uniform"),
    "noise": replace(OURS, target="noise"),
    "weighted noise": replace(OURS, target="noise", weighted=True),
    "flow": replace(OURS, target="flow"),
    "batch 64": replace(OURS, batch=64),
    "batch 8": replace(OURS, batch=8),
    "constant rate": replace(OURS, decay=False),
    "rate x 2": replace(OURS, rate=2e-3),
    "no clipping": replace(OURS, clip=False),
    "no average": replace(OURS, average=False),
    "32 bits": replace(OURS, bfloat16=False),
    "channels last": replace(OURS, channels_last=True),
    "pixels": replace(OURS, patch=1),
    "words with time": replace(OURS, pooled=True),
}


def pictures(words: torch.Tensor, samples: Samples) -> torch.Tensor:
    """Draw shapes on a light page, smooth at the edges: words (batch, 3) -> (batch, 3, 32, 32) in [-1, 1]."""
    draws = samples.uniforms(5, stream=7)
    corner = torch.stack([words[:, 2] % 2, words[:, 2] // 2], 1) * 16 + 8
    centre = corner + 4 * draws[:, :2] - 2
    radius = (4 + 2 * draws[:, 2]).view(-1, 1, 1)
    axis = torch.arange(32) + 0.5
    x = (axis[None, None, :] - centre[:, 0].view(-1, 1, 1)) / radius
    y = (axis[None, :, None] - centre[:, 1].view(-1, 1, 1)) / radius
    inside = (
        torch.stack(
            [
                (x * x + y * y).sqrt() - 1,
                torch.maximum(x.abs(), y.abs()) - 0.88,
                torch.maximum(y - 0.7, (x.abs() * 1.8 - y - 1) / 2.06),
            ],
            1,
        )[torch.arange(len(words)), words[:, 0]]
        * radius
    )  # distance to the edge in pixels, negative inside
    cover = (0.5 - inside).clamp(0, 1)[:, None]
    page = 0.8 + 0.2 * draws[:, 3].view(-1, 1, 1, 1)
    ink = (RGB[words[:, 1]] * (0.85 + 0.15 * draws[:, 4:5]))[:, :, None, None]
    return 2 * (cover * ink + (1 - cover) * page) - 1


def sample_words(samples: Samples) -> torch.Tensor:
    """Three words for each sample, int64 (batch, 3): shape, colour, corner."""
    return PROMPTS[samples.integers(len(PROMPTS), stream=6)]


class Painter(nn.Module):
    """A `UNet2DConditionModel` that reads three words: model(x_t, t, tokens (batch, 3)) -> as x_t."""

    def __init__(self, patch: int, pooled: bool):
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.patch, self.pooled, channels = patch, pooled, 3 * patch**2
        self.words = nn.Embedding(NULL + 1, 64)
        self.unet = UNet2DConditionModel(
            sample_size=32 // patch,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=(32, 64, 128),
            norm_num_groups=8,
            cross_attention_dim=64,
            attention_head_dim=4,
            down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            **dict(class_embed_type="simple_projection", projection_class_embeddings_input_dim=192) if pooled else {},
        )

    def forward(self, x_t, t, tokens):
        words = self.words(tokens)
        out = self.unet(
            F.pixel_unshuffle(x_t, self.patch), t, words, class_labels=words.flatten(1) if self.pooled else None
        ).sample
        return F.pixel_shuffle(out, self.patch)


def tokens_of(words: torch.Tensor) -> torch.Tensor:
    """The words as numbers of one vocabulary."""
    return words + torch.tensor([0, SHAPES, SHAPES + COLOURS])


def shapes(samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures, and the words of each as tokens; all words are dropped in 1 of 10 samples."""
    words = sample_words(samples)
    return pictures(words, samples), torch.where(samples.uniforms(1, stream=2) < 0.1, NULL, tokens_of(words))


def loss_of(recipe: Recipe, data=shapes):
    """loss(model, samples) of a recipe; data(samples) -> pictures and tokens."""

    def loss(model, samples):
        x0, tokens = data(samples)
        eps = samples.normals(*x0.shape[1:], stream=4)
        t = (
            logit_normal_times(samples.normals(stream=3), 1000)
            if recipe.times == "middle"
            else samples.integers(1000, stream=3)
        )
        if recipe.target == "flow":
            s = ((t + 1) / 1000).view(-1, 1, 1, 1)
            return noise_prediction_loss(model((1 - s) * x0 + s * eps, t, tokens), eps - x0).mean()
        aim = v_from_x0_eps(x0, eps, t, TABLE) if recipe.target == "v" else eps
        each = noise_prediction_loss(model(add_noise(x0, eps, t, TABLE), t, tokens), aim)
        return (each * v_weight(TABLE[t])).mean() if recipe.weighted else each.mean()

    return loss


@torch.no_grad()
def draw(model, recipe: Recipe, words: torch.Tensor, seed: int, evaluations: int = 20) -> torch.Tensor:
    """Pictures of the words with guidance 2, in [-1, 1]."""
    x_t = torch.randn(len(words), 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    tokens, null = tokens_of(words), torch.full((1, 3), NULL)
    model = samplers.guided(model, null, 2.0)
    if recipe.target != "flow":
        model = as_eps(model, "v" if recipe.target == "v" else "eps", TABLE)
        times = samplers.trailing_times(1000, evaluations)
        return samplers.finish(samplers.dpm_solver(model, x_t, TABLE, times, tokens, clip=1.0))
    for n in range(evaluations):  # Euler's method along the flow
        t = torch.full((len(words),), 1000 - 1000 * n // evaluations - 1)
        x_t = x_t - model(x_t, t, tokens) / evaluations
    return x_t


class Reader(nn.Module):
    """Pictures to scores for the three words; trained on drawn pictures with a little noise."""

    def __init__(self):
        super().__init__()
        layers = []
        for before, after in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.SiLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, SHAPES + COLOURS + CORNERS))

    def forward(self, x):
        return self.body(x).split([SHAPES, COLOURS, CORNERS], 1)


def train_reader() -> Reader:
    """A reader, after a thousand batches of 32."""
    torch.manual_seed(0)
    reader = Reader()

    def loss(model, samples):
        words = sample_words(samples)
        x = pictures(words, samples) + 0.1 * samples.uniforms(1, 1, 1, stream=8) * samples.normals(3, 32, 32, stream=9)
        return sum(F.cross_entropy(scores, words[:, i]) for i, scores in enumerate(model(x)))

    for _ in train(reader, loss, steps=1000, batch=32, learning_rate=2e-3):
        pass
    return reader.eval()


@torch.no_grad()
def right(reader: Reader, drawn: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Which words the reader finds in each picture, bool (pictures, 3)."""
    return torch.stack([scores.argmax(1) for scores in reader(drawn)], 1) == words


def fit(recipe: Recipe, build, data, seconds: float, seed: int) -> tuple[nn.Module, int, float]:
    """Train build() for so many seconds of processor time: (the model to draw with, updates, seconds taken)."""
    memory_format = torch.channels_last if recipe.channels_last else torch.preserve_format

    def records(steps, model, average):
        return train(
            model,
            loss_of(recipe, data),
            steps=steps,
            batch=recipe.batch,
            seed=seed,
            learning_rate=recipe.rate,
            warmup=100 if recipe.decay else 0,
            clip=1.0 if recipe.clip else math.inf,
            average=average,
            precision=torch.bfloat16 if recipe.bfloat16 else torch.float32,
        )

    # how many updates fit is tried on another model
    pace = [time.process_time() for _ in records(12, build().to(memory_format=memory_format), None)]
    steps = max(1, round(seconds / ((pace[-1] - pace[3]) / 8)))
    torch.manual_seed(seed)
    model = build().to(memory_format=memory_format)
    average = MovingAverage(model, 0.995) if recipe.average else None
    start = time.process_time()
    for record in tqdm(records(steps if recipe.decay else FOREVER, model, average), total=steps, leave=False):
        if record.step == steps or (not recipe.decay and time.process_time() - start >= seconds):
            break
    taken = time.process_time() - start
    return (average.model if average else model).eval(), record.step, taken


def measure(name: str, reader: Reader, seconds: float, seed: int) -> dict:
    """A row of the table."""
    recipe = RECIPES[name]
    model, steps, taken = fit(recipe, lambda: Painter(recipe.patch, recipe.pooled), shapes, seconds, seed)
    words = PROMPTS.repeat(DRAWN, 1)
    start = time.process_time()
    drawn = torch.cat([draw(model, recipe, part, seed + i) for i, part in enumerate(words.split(48))])
    found = right(reader, drawn, words)
    shape, colour, corner = found.float().mean(0).tolist()
    joint = found.all(1).float().mean().item()
    return {
        "recipe": name,
        "seed": seed,
        "updates": steps,
        "seconds": round(taken, 1),
        "shape": round(shape, 3),
        "colour": round(colour, 3),
        "corner": round(corner, 3),
        "right": round(joint, 3),
        "a picture, ms": round(1000 * (time.process_time() - start) / len(words), 1),
        **asdict(recipe),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", type=one_of(RECIPES), help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seeds", type=int, default=1, help="how often, from seed 0")
    parser.add_argument("--json", type=Path, help="a file for the rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reader, fresh = train_reader(), Samples(torch.arange(FOREVER, FOREVER + 480).numpy(), 1)
    words = sample_words(fresh)
    sure = right(reader, pictures(words, fresh), words).all(1).float().mean()
    print(
        f"{describe_machine()}\nthe reader is right in {sure:.1%} of fresh pictures; "
        f"{sum(p.numel() for p in Painter(1, False).parameters()):,} parameters"
    )
    print("| recipe | seed | updates | seconds | shape | colour | corner | right | a picture |")
    print("|:--|--:|--:|--:|--:|--:|--:|--:|--:|")
    rows = []
    for seed in range(options.seeds):
        for name in options.names or RECIPES:
            row = measure(name, reader, options.seconds, seed)
            rows.append(row)
            print(
                f"| {name} | {seed} | {row['updates']} | {row['seconds']:.0f} | {row['shape']:.0%} | "
                f"{row['colour']:.0%} | {row['corner']:.0%} | {row['right']:.1%} | {row['a picture, ms']:.0f} ms |",
                flush=True,
            )
            if options.json:
                options.json.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
