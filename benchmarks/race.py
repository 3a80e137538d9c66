"""Unconditional diffusion beside two well-known packages: FID after the same processor time, on the same pictures.

    pip install --no-deps denoising-diffusion-pytorch einops ema-pytorch
    python3 course.py benchmark race [NAME ...] [--minutes 2 10] [--data digits pages] [--json FILE]

Each trains a network from nothing for so many minutes of processor time on one thread, with the settings that its own
documentation recommends, as far as they fit small pictures: denoising-diffusion-pytorch (lucidrains) predicts v with
its `Unet(dim=64)`, Adam at 8e-5 and an average; diffusers' tutorial has a `UNet2DModel` of two layers a block, batches
of 16, AdamW at 1e-4 with warm-up and cosine decay. Since they were made for days on a GPU, each peer runs once more
with a network of our size and our learning rate. `chapter 06` is the course's training as the chapter has it;
`chapter 06, v` is the same network by what `recipe` found to pay. All draw 357 pictures in 20 steps of DDIM; FID as in
`families`.
"""

import argparse
import copy
import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path
from unittest.mock import MagicMock

import torch
from torch import nn

from benchmarks import families
from benchmarks.families import DATA, Model, one_of
from course_utils.diffusion.objectives import as_eps, logit_normal_times, noise_prediction_loss, v_from_x0_eps
from course_utils.diffusion.samplers import ddim, finish, trailing_times
from course_utils.diffusion.schedules import add_noise, alpha_bar_from_beta, scaled_linear_beta
from course_utils.machine.devices import describe_machine
from course_utils.models.unet import PictureUNet
from course_utils.training import MovingAverage, train

STEPS = 20  # of DDIM


def chapter_06(data: torch.Tensor, steps: int, target: str = "eps", batch: int = 32) -> Model:
    """The course's own: noise prediction with uniform times, batches of 32, warm-up and decay, an average."""
    alpha_bar, shape = alpha_bar_from_beta(scaled_linear_beta()), data.shape[1:]
    network = PictureUNet(channels=shape[0], size=shape[1])
    average = MovingAverage(network, 0.995)

    def loss(model, samples):
        t = (
            samples.integers(len(alpha_bar), stream=1)
            if target == "eps"
            else logit_normal_times(samples.normals(stream=1), len(alpha_bar))
        )
        x0, eps = data[samples.integers(len(data))], samples.normals(*shape, stream=2)
        aim = eps if target == "eps" else v_from_x0_eps(x0, eps, t, alpha_bar)
        return noise_prediction_loss(model(add_noise(x0, eps, t, alpha_bar), t), aim).mean()

    def draw(count, generator):
        x_T = torch.randn(count, *shape, generator=generator)
        model = as_eps(average.model, target, alpha_bar)
        return finish(ddim(model, x_T, alpha_bar, trailing_times(1000, STEPS), clip=1))

    return Model(network, train(network, loss, steps=steps, batch=batch, average=average), draw)


def says_v(data: torch.Tensor, steps: int) -> Model:
    """The same network, but it says v; times in the middle, batches of 16."""
    return chapter_06(data, steps, "v", 16)


def diffusers_tutorial(data: torch.Tensor, steps: int, widths=(64, 128, 128, 256), layers=2, rate=1e-4) -> Model:
    """The loop of diffusers' tutorial on unconditional training, with narrower levels for small pictures."""
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_cosine_schedule_with_warmup

    network = UNet2DModel(
        sample_size=data.shape[-1],
        in_channels=data.shape[1],
        out_channels=data.shape[1],
        layers_per_block=layers,
        block_out_channels=widths,
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * (len(widths) - 2) + ("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * (len(widths) - 2),
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000)

    def updates():
        optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
        schedule = get_cosine_schedule_with_warmup(optimizer, min(500, steps // 10), steps)
        for _ in range(steps):
            clean = data[torch.randint(len(data), (16,))]
            noise, t = torch.randn(clean.shape), torch.randint(1000, (16,))
            loss = nn.functional.mse_loss(network(scheduler.add_noise(clean, noise, t), t, return_dict=False)[0], noise)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            yield loss.item()

    def draw(count, generator):
        sampler = DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing", clip_sample=True)
        sampler.set_timesteps(STEPS)
        x_t = torch.randn(count, *data.shape[1:], generator=generator)
        for t in sampler.timesteps:
            x_t = sampler.step(network(x_t, t, return_dict=False)[0], t, x_t, return_dict=False)[0]
        return x_t

    return Model(network, updates(), draw)


def diffusers_small(data: torch.Tensor, steps: int) -> Model:
    """The same loop at our size and rate."""
    return diffusers_tutorial(data, steps, (16, 32, 64), 1, 1e-3)


def lucidrains(data: torch.Tensor, steps: int, dim: int = 64, rate: float = 8e-5) -> Model:
    """denoising-diffusion-pytorch, with the optimizer and the average of its Trainer."""
    for name in ("torchvision", "pytorch_fid"):  # only its Trainer uses these, which reads pictures from a folder
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules |= {part: MagicMock() for part in (name, f"{name}.fid_score", f"{name}.inception")}
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    network = Unet(dim=dim, dim_mults=(1, 2, 4), channels=data.shape[1])
    diffusion = GaussianDiffusion(network, image_size=data.shape[-1], timesteps=1000, sampling_timesteps=STEPS)
    average = copy.deepcopy(diffusion).eval().requires_grad_(False)

    def updates():
        optimizer = torch.optim.Adam(diffusion.parameters(), lr=rate, betas=(0.9, 0.99))
        for step in range(steps):
            loss = diffusion((data[torch.randint(len(data), (32,))] + 1) / 2)
            loss.backward()
            nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            decay = min(0.995, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(diffusion.parameters()), 1 - decay)
            yield loss.item()

    def draw(count, generator):
        with torch.random.fork_rng():
            torch.manual_seed(torch.randint(2**31, (), generator=generator))
            return 2 * average.sample(batch_size=count) - 1

    return Model(network, updates(), draw)


def lucidrains_small(data: torch.Tensor, steps: int) -> Model:
    """The same at our size and rate."""
    return lucidrains(data, steps, 16, 1e-3)


RACERS = {
    "chapter 06": chapter_06,
    "chapter 06, v": says_v,
    "diffusers": diffusers_tutorial,
    "diffusers, our size": diffusers_small,
    "lucidrains": lucidrains,
    "lucidrains, our size": lucidrains_small,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", type=one_of(RACERS), help=f"out of: {', '.join(RACERS)}; none: all"
    )
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 10], help="of processor time, from nothing")
    parser.add_argument("--data", nargs="+", choices=("digits", "pages"), default=["digits", "pages"])
    parser.add_argument("--json", type=Path, help="a file for the rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{describe_machine()}\n| data | model | parameters | processor time | a picture | FID |")
    print("|:--|:--|--:|--:|--:|--:|")
    rows = []
    for name in (DATA[("digits", "pages").index(kind)] for kind in options.data):
        data = families.load(name)
        print(f"| {name} | real | – | – | – | {families.quality(name, families.real(name))[0]:.3g} |", flush=True)
        for minutes in options.minutes:
            for racer in options.names or RACERS:
                row = families.measure(racer, name, *families.train(RACERS[racer], data, 60 * minutes))
                rows.append(asdict(row))
                print(
                    f"| {name} | {racer} | {row.parameters:,} | {row.training_seconds:.0f} s | "
                    f"{1000 * row.seconds_per_picture:.3g} ms | {row.fid:.3g} |",
                    flush=True,
                )
                if options.json:
                    options.json.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
