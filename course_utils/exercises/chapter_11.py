"""The exercises of chapter 11: Stable Diffusion's loop on a library's components, and the memory that it needs."""

import copy

import torch
from torch import nn

from course_utils.exercises.mistakes_07 import same
from course_utils.exercises.mistakes_11 import ORDER, bright_autoencoder, ddim, euler, small_text_parts, small_unet
from course_utils.exercises.oracles import Wrong, close, require
from course_utils.exercises.registry import exercise
from course_utils.exercises.settings import close_in_all
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
        'return_tensors="pt". The result has .input_ids, (2, tokens).',
        "text_encoder(ids) has .last_hidden_state, a vector for each token: what cross-attention needs.",
    ],
)  # fmt: skip
def encode_both(learner, case):
    """Turn two prompts into text features for the U-Net, the negative one first."""
    tokenizer, encoder = small_text_parts(case)
    length = tokenizer.model_max_length
    for count in (4, length + 8):
        prompt, negative = _prompt(case, count), _prompt(case, 2)
        # Each prompt by itself, and filled by hand
        rows = []
        for text in (negative, prompt):
            ids = tokenizer(text, truncation=True, max_length=length).input_ids
            rows.append(torch.tensor(ids + [tokenizer.pad_token_id] * (length - len(ids))))
        answers = [encoder(row[None]) for row in rows]
        hidden = [answer.last_hidden_state[0] for answer in answers]
        right = torch.stack(hidden)
        longest = max(len(tokenizer(text, truncation=True).input_ids) for text in (negative, prompt))
        null = encoder(tokenizer("", padding="max_length", return_tensors="pt").input_ids).last_hidden_state[0]
        mistakes = [
            (right.flip(0), ORDER),
            (torch.cat([answer.pooler_output for answer in answers]), "This is one vector a prompt, the pooled output. "
             "The U-Net's cross-attention reads one for each token: .last_hidden_state."),
            (torch.stack([null, hidden[1]]), "The first half is the empty prompt, whatever `negative_prompt` is."),
            (right[1:], "Only the prompt is here. Guidance needs both: two texts, one batch."),
            (right[:, None], "There is an axis too many: join the two with torch.cat, or give the tokenizer a list."),
            (right[:, :longest], "The prompts were padded to the longer of the two. The U-Net was trained with "
                                 'features of full length: padding="max_length".'),
            (torch.cat([hidden[0], hidden[1]])[None], "The two prompts were joined into one long one: join along the "
                                                      "batch axis."),
        ]  # fmt: skip
        close(learner(tokenizer, encoder, prompt, negative), right, distinct(mistakes, right), tolerance=1e-3)
    alone = learner(tokenizer, encoder, prompt)
    close(alone, torch.stack([null, hidden[1]]), tolerance=1e-3, what="without a negative prompt the result")


@exercise(
    "11.first_latents", denoising.first_latents, difficulty=2, minutes=5,
    hints=[
        "First scheduler.set_timesteps(steps): how strong the first noise is may depend on where the steps lie.",
        "torch.randn(shape, generator=generator), of `dtype`.",
        "Multiply by scheduler.init_noise_sigma. It is 1 for many schedulers, but not for Euler and Heun.",
    ],
)  # fmt: skip
def first_latents(learner, case):
    """Draw the first noise, with the standard deviation that the scheduler requires."""
    for spacing, shape in (("linspace", (2, 4, 6, 5)), ("leading", (1, 3, 4, 4))):
        scheduler, steps = euler(spacing=spacing, steps=None), int(case.whole(2, 9))
        got = learner(scheduler, steps, shape, case.generator(), torch.float32)
        require(
            scheduler.num_inference_steps == steps,
            f"the scheduler was set to {scheduler.num_inference_steps or 'no'} steps, expected {steps}.",
            "scheduler.set_timesteps(steps) belongs here, before the noise, whose strength depends on it.",
        )
        noise, early = torch.randn(shape, generator=case.generator()), euler(spacing=spacing, steps=None)
        fresh = euler(spacing=spacing, steps=steps)
        sigma = float(fresh.init_noise_sigma)
        right = noise * sigma
        mistakes = [
            (noise, "This is plain noise. Multiply by scheduler.init_noise_sigma: 1 for many schedulers, about 14.6 "
                    "for Euler and Heun."),
            (noise * float(early.init_noise_sigma), "init_noise_sigma was read before set_timesteps. It changes when "
                                                    "the steps are set."),
            (noise / sigma, "This divides by init_noise_sigma; the noise must become stronger."),
            (noise * sigma**2, "This multiplies by the variance. init_noise_sigma is a standard deviation already."),
            (noise * sigma**0.5, "init_noise_sigma is a standard deviation: no root."),
            (fresh.scale_model_input(noise, fresh.timesteps[0]), "This is scale_model_input, which scales down the "
             "U-Net's input. The start needs init_noise_sigma."),
        ]  # fmt: skip
        close(got, right, distinct(mistakes, right))
    half = learner(ddim(), 3, (1, 4, 4, 4), case.generator(), torch.float64)
    wide = torch.randn(1, 4, 4, 4, generator=case.generator(), dtype=torch.float64)
    close(half, wide, what="for torch.float64 and a scheduler that needs plain noise, the result")


@exercise(
    "11.guided_output", denoising.guided_output, difficulty=3, minutes=15,
    hints=[
        "One batch of twice the size: torch.cat([x_t, x_t]). The first half is for the negative prompt.",
        "The U-Net's input is scheduler.scale_model_input(that, t).",
        "Features for each latent: both.repeat_interleave(len(x_t), 0), all negative ones, then all positive ones.",
        "negative, positive = unet(...).sample.chunk(2), and then negative + guidance * (positive - negative).",
    ],
)  # fmt: skip
def guided_output(learner, case):
    """Evaluate the U-Net on both prompts in one batch, and guide its output."""
    for batch, make in ((1, euler), (3, euler), (2, ddim)):
        unet, asked = small_unet(case)
        scheduler, x, both = make(), 2 * case.normal(batch, 4, 4, 4).double(), 2 * case.normal(2, 6, 8).double()
        w, t = 2 + case.uniform(1, 6).item(), scheduler.timesteps[int(case.whole(0, 3))]
        seen = make().scale_model_input(x, t)

        def ask(x, which, unet=unet, both=both, t=t):
            return unet(x, t, both[which].expand(len(x), -1, -1)).sample

        right, p, n = _mixed(ask, seen, w), ask(seen, 1), ask(seen, 0)
        mistakes = [
            (_mixed(ask, x, w), "The U-Net's input was x_t itself. It was trained on inputs of variance 1: "
                                "scheduler.scale_model_input(x, t)."),
            (_mixed(ask, make().scale_model_input(seen, t), w), "The input was scaled twice."),
            (p + w * (n - p), ORDER + " The first half of the output belongs to the negative one, and "
                                "w to the second."),
            (p + w * (p - n), "This starts from the prompt's output: it is guidance w + 1. Start from the other."),
            (n + w * p, "The difference is missing: guidance goes from the negative output towards the other."),
            (n - w * (p - n), "The sign is wrong: this pushes away from the prompt."),
            (p, "This is the output for the prompt alone, without guidance."),
            (n, "This is the output for the negative prompt alone."),
        ]  # fmt: skip
        if batch > 1:
            mixed_up = ("Latents and prompts got mixed up: with cat([x, x]) the features must come as all negative "
                        "ones, then all positive ones: repeat_interleave, not repeat.")  # fmt: skip
            mistakes.append((_alternating(unet, seen, both, t, w), mixed_up))
        asked.clear()
        got = learner(unet, scheduler, x, t, both, w)
        close(got, right, distinct(mistakes, right), tolerance=2e-3)
        require(len(asked) <= 2, f"the U-Net was evaluated {len(asked)} times, expected once.",
                "Keep its output in a variable: evaluating it takes nearly all the time.")  # fmt: skip


def _mixed(ask, x, w):
    negative, positive = ask(x, 0), ask(x, 1)
    return negative + w * (positive - negative)


def _alternating(unet, seen, both, t, w):
    """What comes out if the features alternate while the latents are in two blocks."""
    twice = torch.cat([seen, seen])
    first, second = unet(twice, t, both.repeat(len(seen), 1, 1)).sample.chunk(2)
    return first + w * (second - first)


@exercise(
    "11.clean_guess", denoising.clean_guess, difficulty=3, minutes=10,
    hints=[
        "x is the U-Net's input: scheduler.scale_model_input(x_t, t). a is scheduler.alphas_cumprod[int(t)].",
        "scheduler.config.prediction_type is a word: epsilon, v_prediction or sample. Three cases, and an error.",
        "epsilon: (x - sqrt(1 - a) output) / sqrt(a). v_prediction: sqrt(a) x - sqrt(1 - a) output. sample: output.",
    ],
)  # fmt: skip
def clean_guess(learner, case):
    """Find the clean latents that the output implies, in any parametrisation."""
    settings = []
    for kind in ("epsilon", "v_prediction", "sample"):
        for make in (ddim, euler):
            scheduler = make(kind)
            t = scheduler.timesteps[int(case.whole(1, 3))]  # Euler's are numbers with a fraction
            x0, eps = case.normal(2, 4, 5, 5), case.normal(2, 4, 5, 5)
            a = scheduler.alphas_cumprod[int(t)]
            signal, noise = a.sqrt(), (1 - a).sqrt()
            x = signal * x0 + noise * eps  # what the U-Net sees
            x_t = x / make(kind).scale_model_input(torch.ones(()), t)
            output = {"epsilon": eps, "v_prediction": signal * eps - noise * x0, "sample": x0}[kind]
            got = learner(scheduler, output, t, x_t)
            mistakes = [(value, advice) for advice, value in _guesses(kind, x, x_t, output, a).items()]
            settings.append((got, x0, mistakes, "the clean latents", learner.called))
    close_in_all(settings, tolerance=5e-3)
    try:
        learner.candidate(ddim("flow_prediction"), output, t, x_t)
    except ValueError:
        return
    except Exception as error:
        got = type(error).__name__
    else:
        got = "a result"
    raise Wrong(
        f"prediction_type 'flow_prediction' gave {got}, expected a ValueError.",
        "Raise ValueError for an unknown word: a bare `else` would misread the output.",
    )


def _guesses(kind, x, x_t, output, a):
    """The clean latents by each wrong reading of the output, for one kind of output: {sentence: value}."""
    signal, noise = a.sqrt(), (1 - a).sqrt()
    read = {"epsilon": lambda x: (x - noise * output) / signal, "v_prediction": lambda x: signal * x - noise * output,
            "sample": lambda x: output}  # fmt: skip
    whatever = "Whatever the prediction_type, the output was read as"
    roots = {"epsilon": (x - (1 - a) * output) / a, "v_prediction": a * x - (1 - a) * output, "sample": output}[kind]
    plus = {**read, "v_prediction": lambda x: signal * x + noise * output}[kind](x)
    other = {"epsilon": output, "v_prediction": noise * x + signal * output, "sample": (x - signal * output) / noise}
    two = {**read, "v_prediction": read["sample"]}[kind](x)
    return {
        f"{whatever} epsilon.": read["epsilon"](x),
        f"{whatever} v.": read["v_prediction"](x),
        f"{whatever} the clean latents.": output,
        "x_t is not the U-Net's input: scheduler.scale_model_input(x_t, t) first.": read[kind](x_t),
        "The roots are missing: alphas_cumprod holds squares of the factors.": roots,
        "A sign is wrong: for v, x0 = sqrt(a) x - sqrt(1 - a) v.": plus,
        "This is the noise in x_t. Return the clean latents.": other[kind],
        "v_prediction was read as the clean latents: there are three kinds of output.": two,
    }


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
    for make, batch in ((euler, 2), (ddim, 1)):
        _check_loop(learner, case, make, batch)


def _check_loop(learner, case, make, batch):
    (unet, _), steps, x_T = small_unet(case), int(case.whole(3, 6)), 5 * case.normal(batch, 4, 4, 4).double()
    both, w = 2 * case.normal(2, 6, 8).double(), 1.5 + case.uniform(0, 1).item()
    scheduler = make(steps=steps)
    times = scheduler.timesteps.tolist()

    def way(times, w=w, scaled=False, both=both):
        x, walker = x_T, make(steps=steps)
        for t in times:
            seen = copy.deepcopy(walker).scale_model_input(x, t)
            n, p = (unet(seen, t, both[i].expand(batch, -1, -1)).sample for i in (0, 1))
            walker.scale_model_input(x, t)
            x = walker.step(n + w * (p - n), t, seen if scaled else x).prev_sample
        return x

    right = way(times)
    mistakes = [
        (way(times, scaled=True), "The step was taken from the scaled input. That is only the U-Net's input; the "
                                  "step starts from x_t."),
        (way(times, w=1.0), "Guidance has no effect: this is the result for w = 1."),
        (way(times, both=both.flip(0)), ORDER),
        (way(times[:-1]), "The last step is missing."),
        (way(times[:1]), "This returns after the first step: is `return` inside the loop?"),
        (x_T, "This is x_T: is the result of the step kept, x_t = ...?"),
    ]  # fmt: skip
    close(learner(unet, scheduler, x_T, both, w), right, distinct(mistakes, right), tolerance=2e-3)


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
    vae = bright_autoencoder(case)
    factor = vae.config.scaling_factor
    for batch, height, width in ((2, 3, 5), (1, 4, 2)):
        latents = factor * case.normal(batch, 3, height, width)
        decoded, fewer = vae.decode(latents / factor).sample, vae.decode(latents).sample
        right = _whole(decoded).permute(0, 2, 3, 1)
        got = learner(vae, latents)
        require(isinstance(got, torch.Tensor) and got.dtype == torch.uint8,
                f"the result is {getattr(got, 'dtype', type(got).__name__)}, expected a tensor of torch.uint8.",
                "Pixels are whole numbers from 0 to 255: round, then .to(torch.uint8).")  # fmt: skip
        first = _whole(decoded)
        mistakes = [
            (_whole(vae.decode(latents * factor).sample), "The latents were multiplied by scaling_factor. Encoding "
                                                          "multiplies; decoding divides."),
            (_whole(fewer), "scaling_factor is missing: the decoder wants latents / scaling_factor."),
            (_whole(vae.decode(latents / 0.18215).sample), "0.18215 is Stable Diffusion's factor. Each autoencoder has "
                                                           "its own, in vae.config.scaling_factor."),
            (_whole(decoded, after=torch.floor), "This truncates the decimals, which makes images darker. "
                                                 "Round first."),
            (_whole(decoded, scale=1, shift=0), "This maps [0, 1] to pixels, but the decoder gives [-1, 1]: "
                                                "x / 2 + 0.5."),
            (_whole(decoded, top=256), "White would be 256, which a uint8 does not have: it wraps to 0. "
                                       "Multiply by 255."),
            (_whole(decoded, clamp=False), "Values above 255 wrap to 0, and those below 0 to 255. Clamp them to "
                                           "[0, 1] before the conversion: .clamp(0, 1)."),
            (first.flip(1), "Red and blue are swapped. The channels are in the right order already."),
        ]  # fmt: skip
        mistakes = [(value.permute(0, 2, 3, 1), advice) for value, advice in mistakes]
        mistakes += [
            (first, "The channels come first. Images outside torch are (height, width, 3): permute."),
            (right.transpose(1, 2), "Height and width are swapped: permute(0, 2, 3, 1)."),
            (first.reshape(right.shape), "reshape keeps the order of the numbers and scatters the channels: permute."),
            (right[0], "The batch axis is gone. It stays, even for a single picture: later cells take pixels[0]."),
        ]
        mistakes = [m for m in mistakes if m[0].shape != right.shape or not torch.equal(m[0], right)]
        close(got, right, mistakes, tolerance=1e-6)


def _whole(pictures, scale=0.5, shift=0.5, top=255, clamp=True, after=torch.round):
    """Pictures as whole pixels, as a uint8 holds them: what is too large starts again at 0."""
    values = pictures * scale + shift
    return (after((values.clamp(0, 1) if clamp else values) * top).long() % 256).to(torch.uint8)


@exercise(
    "11.weight_bytes", memory.weight_bytes, difficulty=1, minutes=5,
    hints=[
        "model.parameters() is not everything: model.buffers() holds running means and position ids.",
        "tensor.numel() numbers of dtype.itemsize bytes each, if tensor.is_floating_point().",
        "Whole numbers stay what they are: tensor.numel() * tensor.element_size().",
    ],
)  # fmt: skip
def weight_bytes(learner, case):
    """Count the bytes that a model's weights take in a number format."""
    wide, deep = int(case.whole(3, 9)), int(case.whole(2, 6))
    model = nn.Sequential(nn.Linear(wide, deep), nn.BatchNorm1d(deep), nn.Conv1d(deep, 2, 3, bias=False))
    model[2].requires_grad_(False)  # frozen, and there all the same
    model.register_buffer("position_ids", torch.arange(wide), persistent=False)  # as in CLIP: not saved
    trained, means = wide * deep + deep + 2 * deep + 6 * deep, 2 * deep  # by hand; and whole numbers of 8 bytes
    whole = 1 + wide
    for dtype, width in ((torch.float32, 4), (torch.float16, 2), (torch.bfloat16, 2), (torch.float64, 8)):
        got = learner(model, dtype)
        right = (trained + means) * width + 8 * whole
        mistakes = [
            ((trained - 6 * deep + means) * width + 8 * whole, "Parameters that are frozen are missing; they take "
                                                               "memory too."),
            (trained * width, "The buffers are missing: running means, counters and position ids take memory too."),
            ((trained + means + whole) * width, "Counters and position ids are whole numbers of 8 bytes; they do not "
                                                "become shorter."),
            ((trained + means) * 4 + 8 * whole, "This counts 4 bytes a number, as in float32. Each takes "
                                                "dtype.itemsize bytes."),
            (trained + means + whole, "This is the number of numbers. Each takes dtype.itemsize bytes."),
            (right * 8, "These are bits; a byte has eight."),
            ((trained + means) * width, "The whole numbers were left out; they take memory too."),
            ((trained + means) * width + 8, "A buffer that is not saved with the model is missing: state_dict() does "
                                            "not have it, model.buffers() has."),
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
    """Compute how many bytes a pipeline needs on the device, with and without offload."""
    names = ("text_encoder", "unet", "vae")
    weights = dict(zip(names, (246, 1719, 167), strict=True))
    weights = {name: size + int(case.whole(0, 40)) for name, size in weights.items()}
    layers = {name: size // 10 + int(case.whole(1, 9)) for name, size in weights.items()}
    for work in ({"text_encoder": 5, "unet": 260, "vae": 402}, {"text_encoder": 5, "unet": 700, "vae": 3001}):
        work = {name: size + int(case.whole(0, 9)) for name, size in reversed(work.items())}  # in any order
        total, largest = sum(weights.values()), max(weights.values())
        peaks = {name: (sum(weights.values()) + work[name], weights[name] + work[name], layers[name] + work[name])
                 for name in names}  # fmt: skip
        for place, offload in enumerate(("none", "model", "sequential")):
            right = max(peak[place] for peak in peaks.values())
            there = {"model": weights, "sequential": layers}.get(offload, {})
            by_order = max((a + b for a, b in zip(there.values(), work.values(), strict=False)), default=0)
            mistakes = [
                (total + sum(work.values()), "Activations of different parts do not add up: one part works at a time, "
                                             "and its activations are gone when the next begins."),
                (total, "Activations take memory too: add the largest work."),
                (largest + max(work.values()), "This adds the largest weights and the largest work, which may belong "
                                               "to different parts. Sum for each part, then take the largest sum."),
                (max(layers.values()) + max(work.values()),
                 "The largest layer and the largest work may belong to different parts. Sum for each part first."),
                (by_order, "Two numbers were added that may belong to other parts: look each part up by its name."),
                (largest, "The part that works needs room for its activations too."),
                (max(layers.values()), "The layer that works is not all: the part's activations are there as well."),
                (peaks["unet"][place], "This looks at the U-Net alone. With many pictures the VAE needs more."),
                (max(peak[0] for peak in peaks.values()), "This keeps all weights on the device, whatever the value "
                                                          "of `offload`."),
                (max(peak[1] for peak in peaks.values()), "This is the result for offload = 'model'."),
                (min(peak[place] for peak in peaks.values()), "This is the smallest part. What counts is the largest."),
            ]  # fmt: skip
            mistakes = [(torch.tensor(value), advice) for value, advice in mistakes if value != right]
            close(learner(weights, work, layers, offload), torch.tensor(right), mistakes, tolerance=1e-9,
                  what=f"for offload = {offload!r} the result")  # fmt: skip
