"""The exercises of chapter 11: Stable Diffusion's loop on a library's components, and the memory that it needs."""

import torch
from torch import nn

from course_utils.exercises.mistakes_07 import same
from course_utils.exercises.mistakes_11 import ORDER, Decoder, Scheduler, TextEncoder, Tokenizer, UNet
from course_utils.exercises.oracles import close, require
from course_utils.exercises.registry import exercise
from course_utils.machine import memory, memory_plan
from course_utils.pipelines import denoising

TITLE = "Stable Diffusion"
WORDS = ["a", "cute", "corgi", "puppy", "sitting", "on", "the", "grass", "red", "ball", "left", "of", "cat", "snow"]


def distinct(mistakes, right):
    """Without the mistakes that do no harm on these inputs."""
    return [(value, advice) for value, advice in mistakes if not same(value, right)]


def _prompt(case, count: int) -> str:
    return " ".join(WORDS[int(case.whole(0, len(WORDS) - 1))] for _ in range(count))


@exercise(
    "11.encode_both", denoising.encode_both, difficulty=2, minutes=10,
    hints=[
        "A tokenizer takes a list of texts: [negative_prompt, prompt], in this order.",
        'It needs four keywords: padding="max_length", max_length=tokenizer.model_max_length, truncation=True, '
        'return_tensors="pt". The answer has .input_ids, (2, tokens).',
        "text_encoder(ids) has .last_hidden_state, a vector for each token; that is what the U-Net reads.",
    ],
)  # fmt: skip
def encode_both(learner, case):
    """Turn two prompts into the features that the U-Net reads, the negative one first."""
    tokenizer, encoder = Tokenizer(12), TextEncoder(case.generator())
    for count in (4, 30):
        prompt, negative = _prompt(case, count), _prompt(case, 2)
        # Each prompt by itself, cut and filled by hand
        rows = []
        for text in (negative, prompt):
            ids = tokenizer.ids(text)
            ids = ids if len(ids) <= 12 else [*ids[:11], 2]
            rows.append(torch.tensor(ids + [2] * (12 - len(ids))))
        hidden = [encoder(row[None]).last_hidden_state.detach()[0] for row in rows]
        right = torch.stack(hidden)
        longest = max(len(tokenizer.ids(text)) for text in (negative, prompt))
        null = encoder(torch.tensor([[1, *[2] * 11]])).last_hidden_state.detach()[0]
        mistakes = [
            (right.flip(0), ORDER),
            (right[:, -1], "This is one vector a prompt, the pooled output. The U-Net's cross-attention reads one for "
                           "each token: .last_hidden_state."),
            (torch.stack([null, hidden[1]]), "The first half is the empty prompt, whatever `negative_prompt` says."),
            (right[1:], "Only the prompt is here. Guidance needs both: two texts, one batch."),
            (right[:, None], "There is an axis too many: join the two with torch.cat, or give the tokenizer a list."),
            (right[:, :longest], "The prompts were filled up to the longer of the two. The encoder was trained on "
                                 'rows of full length: padding="max_length".'),
            (torch.cat([hidden[0], hidden[1]])[None], "The two prompts were joined to one long one: join along the "
                                                      "batch axis."),
        ]  # fmt: skip
        close(learner(tokenizer, encoder, prompt, negative), right, distinct(mistakes, right), tolerance=1e-3)


@exercise(
    "11.first_latents", denoising.first_latents, difficulty=2, minutes=5,
    hints=[
        "First scheduler.set_timesteps(steps): how strong the first noise is may depend on where the steps lie.",
        "torch.randn(shape, generator=generator), of `dtype`.",
        "Multiply by scheduler.init_noise_sigma. Many schedulers say 1; those that count in sigmas do not.",
    ],
)  # fmt: skip
def first_latents(learner, case):
    """Draw the noise to start from, as strong as the scheduler wants it."""
    for peak in (9.0, 1.0 + case.uniform(1, 10).item()):
        scheduler, steps, shape = Scheduler(peak=peak), int(case.whole(2, 9)), (2, 4, 6, 6)
        got = learner(scheduler, steps, shape, case.generator(), torch.float32)
        noise = torch.randn(shape, generator=case.generator())
        fresh = Scheduler(peak=peak)
        early = noise * fresh.init_noise_sigma
        fresh.set_timesteps(steps)
        right = noise * fresh.init_noise_sigma
        require(
            scheduler.set_to == steps,
            f"the scheduler was set to {scheduler.set_to} steps, expected {steps}.",
            "scheduler.set_timesteps(steps) belongs here, before the noise, whose strength depends on it.",
        )
        mistakes = [
            (noise, "This is plain noise. Multiply by scheduler.init_noise_sigma: 1 for many schedulers, 14.6 for "
                    "Euler and Heun."),
            (early, "init_noise_sigma was read before set_timesteps. It changes when the steps are set."),
            (noise / fresh.init_noise_sigma, "This divides by init_noise_sigma; the noise must become stronger."),
            (noise * fresh.init_noise_sigma**2, "This multiplies by the variance. init_noise_sigma is a standard "
                                                "deviation already."),
            (noise * fresh.init_noise_sigma**0.5, "init_noise_sigma is a standard deviation: no root."),
            (noise * fresh.factor(fresh.timesteps[0]), "This is scale_model_input, which makes noise weaker before "
                                                       "the U-Net sees it. The start wants init_noise_sigma."),
        ]  # fmt: skip
        close(got, right, distinct(mistakes, right))


@exercise(
    "11.guided_output", denoising.guided_output, difficulty=3, minutes=15,
    hints=[
        "One batch of twice the size: torch.cat([x_t, x_t]). The first half is for the negative prompt.",
        "What the U-Net sees is scheduler.scale_model_input(that, t).",
        "Features for each latent: both.repeat_interleave(len(x_t), 0), all negative ones, then all positive ones.",
        "negative, positive = unet(...).sample.chunk(2), and then negative + guidance * (positive - negative).",
    ],
)  # fmt: skip
def guided_output(learner, case):
    """Ask the U-Net about both prompts at once, and exaggerate the difference."""
    for batch in (1, 3):
        scheduler, unet = Scheduler(), UNet()
        scheduler.set_timesteps(5)
        x, both, w = case.normal(batch, 4, 5, 5), 0.3 * case.normal(2, 6, 8), 2 + case.uniform(1, 6).item()
        both[0] += 0.5
        t = scheduler.timesteps[int(case.whole(0, 3))]
        seen = x * scheduler.factor(t)

        def ask(x, which, unet=unet, both=both, t=t):
            return unet.answer(x, t, both[which].expand(len(x), -1, -1))

        def mixed(x, w=w, ask=ask):
            return ask(x, 0) + w * (ask(x, 1) - ask(x, 0))

        got = learner(unet, scheduler, x, t, both, w)
        right, p, n = mixed(seen), ask(seen, 1), ask(seen, 0)
        mistakes = [
            (mixed(x), "The U-Net saw x_t itself. It was trained on inputs of variance 1: "
                       "scheduler.scale_model_input(x, t)."),
            (mixed(seen * scheduler.factor(t)), "The input was scaled twice."),
            (p + w * (n - p), ORDER + " The first half of the output belongs to the negative one, and "
                                "w to the second."),
            (p + w * (p - n), "This starts from the prompt's answer: it is guidance w + 1. Start from the other."),
            (n + w * p, "The difference is missing: guidance goes from the negative answer towards the other."),
            (n - w * (p - n), "The sign is wrong: this pushes away from the prompt."),
            (p, "This is the answer to the prompt alone, without guidance."),
            (n, "This is the answer to the negative prompt alone."),
        ]  # fmt: skip
        if batch > 1:
            wrong = _alternating(unet, seen, both, t, w)
            mistakes.append(
                (
                    wrong,
                    "Latents and prompts got mixed up: with cat([x, x]) the features must come as all "
                    "negative ones, then all positive ones: repeat_interleave, not repeat.",
                )
            )
        close(got, right, distinct(mistakes, right), tolerance=2e-3)
        require(len(unet.seen) <= 2, f"the U-Net was asked {len(unet.seen)} times, expected once.",
                "Keep its answer in a variable: this is where all the time goes.")  # fmt: skip


def _alternating(unet, seen, both, t, w):
    """What comes out if the features alternate while the latents are in two blocks."""
    twice = torch.cat([seen, seen])
    first, second = unet.answer(twice, t, both.repeat(len(seen), 1, 1)).chunk(2)
    return first + w * (second - first)


@exercise(
    "11.clean_guess", denoising.clean_guess, difficulty=3, minutes=10,
    hints=[
        "x is what the U-Net saw: scheduler.scale_model_input(x_t, t). a is scheduler.alphas_cumprod[int(t)].",
        "scheduler.config.prediction_type is a word: epsilon, v_prediction or sample. Three cases, and an error.",
        "epsilon: (x - sqrt(1 - a) output) / sqrt(a). v_prediction: sqrt(a) x - sqrt(1 - a) output. sample: output.",
    ],
)  # fmt: skip
def clean_guess(learner, case):
    """Find the clean picture that the output implies, whatever kind of output it is."""
    for kind in ("epsilon", "v_prediction", "sample"):
        for scales in (False, True):
            scheduler, t = Scheduler(kind, scales=scales), case.whole(100, 900)
            x0, eps = case.normal(2, 4, 5, 5), case.normal(2, 4, 5, 5)
            a = scheduler.alphas_cumprod[t]
            signal, noise = a.sqrt(), (1 - a).sqrt()
            x = signal * x0 + noise * eps  # what the U-Net sees
            x_t = x / scheduler.factor(t)
            output = {"epsilon": eps, "v_prediction": signal * eps - noise * x0, "sample": x0}[kind]
            got = learner(scheduler, output, t, x_t)
            said = f"The configuration says prediction_type {kind!r}, but the output was read as"
            mistakes = [
                ((x - noise * output) / signal, f"{said} epsilon."),
                (signal * x - noise * output, f"{said} v."),
                (output, f"{said} the clean picture."),
                ((x_t - noise * output) / signal, "x_t is not what the U-Net saw: scheduler.scale_model_input(x_t, t) "
                                                  "first."),
                (signal * x_t - noise * output, "x_t is not what the U-Net saw: scale_model_input comes first, for v "
                                                "too."),
                ((x - (1 - a) * output) / a, "The roots are missing: alphas_cumprod holds squares of the factors."),
                (noise * x + signal * output, "This is the noise in x_t. Wanted is the clean picture."),
                (signal * x + noise * output, "A sign is wrong: x0 = sqrt(a) x - sqrt(1 - a) v."),
            ]  # fmt: skip
            close(got, x0, distinct(mistakes, x0), tolerance=5e-3)
    try:
        learner.candidate(Scheduler("flow_prediction"), output, t, x_t)
    except Exception:  # any error will do: it stopped
        return
    require(
        False,
        "prediction_type 'flow_prediction' gave an answer, expected an error.",
        "Stop at a word that you do not know: raise ValueError. A bare `else` would draw mud.",
    )


@exercise(
    "11.denoise", denoising.denoise, difficulty=3, minutes=10, uses=("11.guided_output",),
    hints=[
        "for t in scheduler.timesteps: three lines, two of which call something.",
        "output = guided_output(unet, scheduler, x_t, t, both, guidance)",
        "x_t = scheduler.step(output, t, x_t).prev_sample. The step gets x_t as it is, not what the U-Net saw.",
    ],
)  # fmt: skip
def denoise(learner, case):
    """Run the whole loop on a scheduler's own timesteps."""
    scheduler, unet, steps = Scheduler(), UNet(), int(case.whole(3, 6))
    scheduler.set_timesteps(steps)
    x_T, both, w = case.normal(2, 4, 5, 5), 0.3 * case.normal(2, 6, 8), 1.5 + case.uniform(0, 1).item()
    both[0] += 0.5
    times = scheduler.timesteps.tolist()

    def way(times, w=w, scaled=False, both=both):
        x = x_T
        for t in times:
            n, p = (unet.answer(x * scheduler.factor(t), t, both[i].expand(2, -1, -1)) for i in (0, 1))
            start = x * scheduler.factor(t) if scaled else x
            x = 0.9 * start - (0.1 + t / 4000) * (n + w * (p - n))
        return x

    got = learner(unet, scheduler, x_T, both, w)
    right = way(times)
    mistakes = [
        (way(times, scaled=True), "The step was taken from the scaled input. Only the U-Net sees that; the step goes "
                                  "on from x_t."),
        (way(times, w=1.0), "Guidance has no effect: this is the way with w = 1."),
        (way(times, both=both.flip(0)), ORDER),
        (way(list(range(steps))), "t must come from scheduler.timesteps; this counts 0, 1, 2, ..."),
        (way(list(reversed(range(steps)))), "t must come from scheduler.timesteps; this counts down from the number of "
                                            "steps."),
        (way(times[::-1]), "This goes from the clean end to the noisy one. scheduler.timesteps falls already."),
        (way(times[:-1]), "The last step is missing."),
        (way(times[:1]), "This returns after the first step: is `return` inside the loop?"),
        (way(times[1:]), "The first step is missing."),
        (x_T, "This is x_T: is the result of the step kept, x_t = ...?"),
    ]  # fmt: skip
    close(got, right, distinct(mistakes, right), tolerance=2e-3)


@exercise(
    "11.to_pixels", denoising.to_pixels, difficulty=2, minutes=10,
    hints=[
        "vae.decode(latents / vae.config.scaling_factor).sample gives pictures, roughly in [-1, 1].",
        "(pictures / 2 + 0.5).clamp(0, 1) lies in [0, 1]; times 255, rounded, as torch.uint8.",
        "(batch, 3, height, width) becomes (batch, height, width, 3) with .permute(0, 2, 3, 1).",
    ],
)  # fmt: skip
def to_pixels(learner, case):
    """Decode latents to whole pixels."""
    factor = case.uniform(0.15, 0.6).item()
    vae, latents = Decoder(factor), factor * case.uniform(-1.5, 1.5, 2, 4, 3, 5)
    got = learner(vae, latents)

    def whole(decoded, clamp=True, shift=0.5, scale=0.5):
        values = (decoded * scale + shift) * 255
        values = values.clamp(0, 255) if clamp else values % 256  # a uint8 that is too large starts again at 0
        return values.permute(0, 2, 3, 1)

    decoded = vae.picture(latents / factor)
    right = whole(decoded).round().to(torch.uint8)
    channels_first = right.permute(0, 3, 1, 2)
    require(isinstance(got, torch.Tensor) and got.dtype == torch.uint8,
            f"the result is {getattr(got, 'dtype', type(got).__name__)}, expected a tensor of torch.uint8.",
            "Pixels are whole numbers from 0 to 255: round, then .to(torch.uint8).")  # fmt: skip
    mistakes = [
        (whole(vae.picture(latents * factor)).round(), "The latents were multiplied by scaling_factor. Encoding "
                                                       "multiplies; decoding divides."),
        (whole(vae.picture(latents)).round(), "scaling_factor is missing: the decoder wants latents / scaling_factor."),
        (whole(decoded).floor(), "This cuts off what is behind the point, which makes pictures darker. Round first."),
        (whole(decoded, shift=0, scale=1).round(), "This maps [0, 1] to pixels, but the decoder gives [-1, 1]: "
                                                   "x / 2 + 0.5."),
        (channels_first, "The channels come first. Pictures outside of torch are (height, width, 3): permute."),
        (whole(decoded).round().transpose(1, 2), "Height and width are swapped: permute(0, 2, 3, 1)."),
        (channels_first.reshape(right.shape), "reshape only counts numbers anew and scatters the channels: permute."),
    ]  # fmt: skip
    mistakes = [(value.to(torch.uint8), advice) for value, advice in mistakes]
    mistakes = [m for m in mistakes if m[0].shape != right.shape or not torch.equal(m[0], right)]
    require(got.shape != right.shape or (got.int() - right.int()).abs().max() < 100
            or any(torch.equal(got, value) for value, _ in mistakes if value.shape == got.shape),
            "some pixels are off by more than 100: a value above 255 starts again at 0, one below 0 at 255.",
            "Hold the values in [0, 1] before they become whole: .clamp(0, 1).")  # fmt: skip
    close(got, right, mistakes, tolerance=1e-6)


@exercise(
    "11.weight_bytes", memory.weight_bytes, difficulty=1, minutes=5,
    hints=[
        "model.parameters() are not all: model.buffers() hold running means and position ids.",
        "tensor.numel() numbers of dtype.itemsize bytes each, if tensor.is_floating_point().",
        "Whole numbers stay what they are: tensor.numel() * tensor.element_size().",
    ],
)  # fmt: skip
def weight_bytes(learner, case):
    """Count the bytes that a model's weights take in a number format."""
    wide, deep = int(case.whole(3, 9)), int(case.whole(2, 6))
    model = nn.Sequential(nn.Linear(wide, deep), nn.BatchNorm1d(deep), nn.Conv1d(deep, 2, 3, bias=False))
    trained, means = wide * deep + deep + 2 * deep + 6 * deep, 2 * deep  # by hand; and one counter of 8 bytes
    for dtype, width in ((torch.float32, 4), (torch.float16, 2), (torch.bfloat16, 2), (torch.float64, 8)):
        got = learner(model, dtype)
        right = (trained + means) * width + 8
        mistakes = [
            (trained * width, "The buffers are missing: running means, counters and position ids take memory too."),
            ((trained + means + 1) * width, "The counter of BatchNorm is a whole number of 8 bytes; it does not become "
                                            "shorter."),
            ((trained + means) * 4 + 8, "This counts in the format that the weights have now. Count in `dtype`."),
            (trained + means + 1, "This is the number of numbers. Each takes dtype.itemsize bytes."),
            (right * 8, "These are bits; a byte has eight."),
            ((trained + means) * width, "The whole numbers were left out; they take memory too."),
        ]  # fmt: skip
        mistakes = [(value, advice) for value, advice in mistakes if value != right]
        close(got, torch.tensor(right), [(torch.tensor(v), a) for v, a in mistakes], tolerance=1e-9)


@exercise(
    "11.memory_need", memory_plan.memory_need, difficulty=2, minutes=10,
    hints=[
        "Only one part works at a time: the text encoder, then the U-Net, then the VAE. So activations never add up.",
        'offload "none": sum(weights.values()) + max(work.values()).',
        'offload "model": for each part weights[name] + work[name]; the largest of these sums.',
        'offload "sequential": the same with layers[name] in place of weights[name].',
    ],
)  # fmt: skip
def memory_need(learner, case):
    """Say how many bytes a pipeline needs on the device, with and without offload."""
    names = ("text_encoder", "unet", "vae")
    weights = dict(zip(names, (246, 1719, 167), strict=True))
    weights = {name: size + int(case.whole(0, 40)) for name, size in weights.items()}
    layers = {name: size // 10 + int(case.whole(1, 9)) for name, size in weights.items()}
    for work in ({"text_encoder": 5, "unet": 260, "vae": 402}, {"text_encoder": 5, "unet": 700, "vae": 3001}):
        work = {name: size + int(case.whole(0, 9)) for name, size in work.items()}
        total, largest = sum(weights.values()), max(weights.values())
        peaks = {name: (sum(weights.values()) + work[name], weights[name] + work[name], layers[name] + work[name])
                 for name in names}  # fmt: skip
        for place, offload in enumerate(("none", "model", "sequential")):
            right = max(peak[place] for peak in peaks.values())
            mistakes = [
                (total + sum(work.values()), "Activations of different parts do not add up: one part works at a time, "
                                             "and its activations are gone when the next begins."),
                (total, "Activations take memory too: add the largest work."),
                (largest + max(work.values()), "This adds the largest weights and the largest work, which may belong "
                                               "to different parts. Sum for each part, then take the largest sum."),
                (max(layers.values()) + max(work.values()),
                 "The largest layer and the largest work may belong to different parts. Sum for each part first."),
                (largest, "The part that works needs room for its activations too."),
                (max(layers.values()), "The layer that works is not all: the part's activations are there as well."),
                (peaks["unet"][place], "This looks at the U-Net alone. With many pictures the VAE needs more."),
                (max(peak[0] for peak in peaks.values()), "This keeps all weights on the device, whatever `offload` "
                                                          "says."),
                (max(peak[1] for peak in peaks.values()), "This is the answer for offload = 'model'."),
                (min(peak[place] for peak in peaks.values()), "This is the smallest part. What counts is the largest."),
            ]  # fmt: skip
            mistakes = [(torch.tensor(value), advice) for value, advice in mistakes if value != right]
            close(learner(weights, work, layers, offload), torch.tensor(right), mistakes, tolerance=1e-9,
                  what=f"for offload = {offload!r} the result")  # fmt: skip
