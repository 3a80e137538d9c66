"""Legal inputs of chapter 11."""

import torch
from legal import drive, legal
from torch import nn

from course_utils.exercises.mistakes_11 import bright_autoencoder, ddim, euler, small_text_parts, small_unet


@drive("11.encode_both")
def encode_both(answer, case):
    tokenizer, encoder = small_text_parts(case)
    found = [answer(tokenizer, encoder, "a red ball")]
    for prompt, negative in (("", ""), ("a cat " * 30, "blue"), ("a corgi", "a cat " * 40)):
        found.append(answer(tokenizer, encoder, prompt, negative))
    return found


@drive("11.first_latents")
def first_latents(answer, case):
    found = []
    for scheduler in (ddim(), euler(steps=None), euler(spacing="leading", steps=None)):
        for steps, shape in ((1, (1, 4, 3, 3)), (7, (2, 8, 2, 4))):
            found.append(answer(scheduler, steps, shape, case.generator()))
            found.append(scheduler.timesteps)
    return found


@drive("11.guided_output")
def guided_output(answer, case):
    found = []
    for make, batch in ((ddim, 1), (euler, 2), (ddim, 3)):
        (unet, asked), scheduler = small_unet(case), make()
        for w in (0.0, 1.0, 7.5):
            t = scheduler.timesteps[int(case.whole(0, 4))]
            found.append(
                answer(unet, make(), case.normal(batch, 4, 4, 4).double(), t, 2 * case.normal(2, 5, 8).double(), w)
            )
        found.append(len(asked))
    return found


@drive("11.clean_guess")
def clean_guess(answer, case):
    found = []
    for kind in ("epsilon", "v_prediction", "sample"):
        for make in (ddim, euler):
            for t in make(kind).timesteps:
                found.append(answer(make(kind), case.normal(2, 4, 3, 3), t, 5 * case.normal(2, 4, 3, 3)))
    return found


@drive("11.denoise")
def denoise(answer, case):
    found = []
    for make, batch, steps in ((ddim, 1, 1), (euler, 2, 4)):
        unet, _ = small_unet(case)
        found.append(
            answer(
                unet, make(steps=steps), case.normal(batch, 4, 4, 4).double(), 2 * case.normal(2, 5, 8).double(), 3.0
            )
        )
    return found


@drive("11.to_pixels")
def to_pixels(answer, case):
    vae = bright_autoencoder(case)
    return [answer(vae, scale * case.normal(batch, 3, 3, 4)) for batch in (1, 3) for scale in (0.1, 1.0, 3.0)]


@legal("11.weight_bytes")
def weight_bytes(case):
    ids = nn.Linear(3, 2)
    ids.register_buffer("ids", torch.arange(5), persistent=False)
    for model in (nn.Linear(4, 3), nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm1d(2), ids), nn.Identity()):
        for dtype in (torch.float32, torch.float16, torch.float64, torch.bfloat16):
            yield model, dtype


@legal("11.memory_need")
def memory_need(case):
    for names in (("unet",), ("text_encoder", "unet", "vae")):
        for _ in range(8):
            weights, work, layers = ({name: int(case.whole(1, 99)) for name in names} for _ in range(3))
            for offload in ("none", "model", "sequential"):
                yield weights, work, layers, offload
