"""Attempts at the exercises of chapter 11."""

import torch
from attempts import mutant, variant

BOTH, FIRST, GUIDED, GUESS = "11.encode_both", "11.first_latents", "11.guided_output", "11.clean_guess"
LOOP, PIXELS, BYTES, NEED = "11.denoise", "11.to_pixels", "11.weight_bytes", "11.memory_need"
FULL = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}


# Both prompts


def hidden(tokenizer, text_encoder, texts, **changes):
    ids = tokenizer(texts, **{**FULL, "max_length": tokenizer.model_max_length, **changes}).input_ids
    return text_encoder(ids).last_hidden_state


@mutant(BOTH, "The halves are swapped")
def prompt_first(tokenizer, text_encoder, prompt, negative_prompt=""):
    return hidden(tokenizer, text_encoder, [prompt, negative_prompt])


@mutant(BOTH, "one vector a prompt, the pooled output")
def pooled(tokenizer, text_encoder, prompt, negative_prompt=""):
    ids = tokenizer([negative_prompt, prompt], **FULL).input_ids
    return text_encoder(ids).pooler_output


@mutant(BOTH, "padded to the longer of the two")
def filled_to_the_longer(tokenizer, text_encoder, prompt, negative_prompt=""):
    return hidden(tokenizer, text_encoder, [negative_prompt, prompt], padding=True)


@mutant(BOTH, "Long prompts must be cut", state="error")
def never_cut(tokenizer, text_encoder, prompt, negative_prompt=""):
    return torch.cat([hidden(tokenizer, text_encoder, [text], truncation=False) for text in (negative_prompt, prompt)])


@mutant(BOTH, "do not go into one tensor", state="error")
def never_filled(tokenizer, text_encoder, prompt, negative_prompt=""):
    return hidden(tokenizer, text_encoder, [negative_prompt, prompt], padding=False)


@mutant(BOTH, "whatever `negative_prompt` is")
def empty_prompt_always(tokenizer, text_encoder, prompt, negative_prompt=""):
    return hidden(tokenizer, text_encoder, ["", prompt])


@mutant(BOTH, "Only the prompt is here")
def prompt_alone(tokenizer, text_encoder, prompt, negative_prompt=""):
    return hidden(tokenizer, text_encoder, prompt)


@mutant(BOTH, "There is an axis too many")
def stacked(tokenizer, text_encoder, prompt, negative_prompt=""):
    return torch.stack([hidden(tokenizer, text_encoder, text) for text in (negative_prompt, prompt)])


@mutant(BOTH, "joined into one long one")
def joined(tokenizer, text_encoder, prompt, negative_prompt=""):
    return torch.cat([hidden(tokenizer, text_encoder, text) for text in (negative_prompt, prompt)], 1)


@mutant(BOTH, "the parameter negative_prompt has the default None")
def none_for_nothing(tokenizer, text_encoder, prompt, negative_prompt=None):
    return hidden(tokenizer, text_encoder, [negative_prompt or "", prompt])


@mutant(BOTH, "was left in training mode")
def left_in_training(tokenizer, text_encoder, prompt, negative_prompt=""):
    return hidden(tokenizer, text_encoder.train(), [negative_prompt, prompt])


@variant(BOTH)
def one_by_one(tokenizer, text_encoder, prompt, negative_prompt=""):
    with torch.no_grad():
        return torch.cat([hidden(tokenizer, text_encoder, text) for text in (negative_prompt, prompt)])


@variant(BOTH)
def first_of_the_tuple(tokenizer, text_encoder, prompt, negative_prompt=""):
    tokens = tokenizer([negative_prompt, prompt], max_length=tokenizer.model_max_length, **FULL)
    return text_encoder(tokens["input_ids"].to(text_encoder.device))[0]


# The first latents


@mutant(FIRST, "This is plain noise")
def plain_noise(scheduler, steps, shape, generator, dtype=torch.float32):
    scheduler.set_timesteps(steps)
    return torch.randn(shape, generator=generator, dtype=dtype)


@mutant(FIRST, "was read before set_timesteps")
def read_too_early(scheduler, steps, shape, generator, dtype=torch.float32):
    noise = torch.randn(shape, generator=generator, dtype=dtype) * scheduler.init_noise_sigma
    scheduler.set_timesteps(steps)
    return noise


@mutant(FIRST, "belongs here, before the noise")
def steps_forgotten(scheduler, steps, shape, generator, dtype=torch.float32):
    return torch.randn(shape, generator=generator, dtype=dtype) * scheduler.init_noise_sigma


@mutant(FIRST, "the noise must become stronger")
def divided(scheduler, steps, shape, generator, dtype=torch.float32):
    scheduler.set_timesteps(steps)
    return torch.randn(shape, generator=generator, dtype=dtype) / scheduler.init_noise_sigma


@mutant(FIRST, "a standard deviation already")
def variance(scheduler, steps, shape, generator, dtype=torch.float32):
    scheduler.set_timesteps(steps)
    return torch.randn(shape, generator=generator, dtype=dtype) * scheduler.init_noise_sigma**2


@mutant(FIRST, "global generator")
def global_noise(scheduler, steps, shape, generator, dtype=torch.float32):
    scheduler.set_timesteps(steps)
    return torch.randn(shape, dtype=dtype) * scheduler.init_noise_sigma


@mutant(FIRST, "This is scale_model_input")
def scaled_as_input(scheduler, steps, shape, generator, dtype=torch.float32):
    scheduler.set_timesteps(steps)
    return scheduler.scale_model_input(torch.randn(shape, generator=generator), scheduler.timesteps[0])


@mutant(FIRST, "no root")
def root_of_sigma(scheduler, steps, shape, generator, dtype=torch.float32):
    scheduler.set_timesteps(steps)
    return torch.randn(shape, generator=generator, dtype=dtype) * float(scheduler.init_noise_sigma) ** 0.5


@mutant(FIRST, "has the dtype torch.float32, expected torch.float64")
def dtype_ignored(scheduler, steps, shape, generator, dtype=torch.float32):
    scheduler.set_timesteps(steps)
    return torch.randn(shape, generator=generator, dtype=dtype).float() * float(scheduler.init_noise_sigma)


@variant(FIRST)
def empty_and_filled(scheduler, steps, shape, generator, dtype=torch.float32):
    scheduler.set_timesteps(num_inference_steps=steps)
    return torch.empty(shape, dtype=dtype).normal_(generator=generator).mul(float(scheduler.init_noise_sigma))


# Guidance in one batch


def outputs(unet, scheduler, x_t, t, both, scale=True):
    x = torch.cat([x_t, x_t])
    x = scheduler.scale_model_input(x, t) if scale else x
    return unet(x, t, encoder_hidden_states=both.repeat_interleave(len(x_t), 0)).sample.chunk(2)


@mutant(GUIDED, "s input was x_t itself")
def input_not_scaled(unet, scheduler, x_t, t, both, guidance):
    n, p = outputs(unet, scheduler, x_t, t, both, scale=False)
    return n + guidance * (p - n)


@mutant(GUIDED, "The first half of the output belongs to the negative one")
def output_halves_swapped(unet, scheduler, x_t, t, both, guidance):
    p, n = outputs(unet, scheduler, x_t, t, both)
    return n + guidance * (p - n)


@mutant(GUIDED, "it is guidance w + 1")
def starts_from_the_prompt(unet, scheduler, x_t, t, both, guidance):
    n, p = outputs(unet, scheduler, x_t, t, both)
    return p + guidance * (p - n)


@mutant(GUIDED, "pushes away")
def wrong_sign(unet, scheduler, x_t, t, both, guidance):
    n, p = outputs(unet, scheduler, x_t, t, both)
    return n + guidance * (n - p)


@mutant(GUIDED, "without guidance")
def no_guidance(unet, scheduler, x_t, t, both, guidance):
    return outputs(unet, scheduler, x_t, t, both)[1]


@mutant(GUIDED, "repeat_interleave, not repeat")
def prompts_alternate(unet, scheduler, x_t, t, both, guidance):
    x = scheduler.scale_model_input(torch.cat([x_t, x_t]), t)
    n, p = unet(x, t, both.repeat(len(x_t), 1, 1)).sample.chunk(2)
    return n + guidance * (p - n)


@mutant(GUIDED, "Each latent needs the features of its prompt")
def features_not_repeated(unet, scheduler, x_t, t, both, guidance):
    x = scheduler.scale_model_input(torch.cat([x_t, x_t]), t)
    n, p = unet(x, t, both[:1]).sample.chunk(2)
    return n + guidance * (p - n)


@mutant(GUIDED, "The input was scaled twice")
def scaled_twice(unet, scheduler, x_t, t, both, guidance):
    n, p = outputs(unet, scheduler, scheduler.scale_model_input(x_t, t), t, both)
    return n + guidance * (p - n)


@mutant(GUIDED, "The difference is missing")
def prompt_added(unet, scheduler, x_t, t, both, guidance):
    n, p = outputs(unet, scheduler, x_t, t, both)
    return n + guidance * p


@mutant(GUIDED, "the negative prompt alone")
def negative_alone(unet, scheduler, x_t, t, both, guidance):
    return outputs(unet, scheduler, x_t, t, both)[0]


@mutant(GUIDED, "expected once")
def asked_four_times(unet, scheduler, x_t, t, both, guidance):
    n, p = (outputs(unet, scheduler, x_t, t, both)[i] for i in (0, 1))
    return n + guidance * (p - outputs(unet, scheduler, x_t, t, both)[0])


@variant(GUIDED)
def two_calls(unet, scheduler, x_t, t, both, guidance):
    x = scheduler.scale_model_input(x_t, t)
    n, p = (unet(x, t, encoder_hidden_states=each.expand(len(x), -1, -1)).sample for each in both)
    return (1 - guidance) * n + guidance * p


@variant(GUIDED)
def interpolated(unet, scheduler, x_t, t, both, guidance):
    features = torch.cat([both[:1]] * len(x_t) + [both[1:]] * len(x_t))
    x = scheduler.scale_model_input(x_t.repeat(2, 1, 1, 1), t)
    halves = unet(x, t, encoder_hidden_states=features)[0]
    return torch.lerp(halves[: len(x_t)], halves[len(x_t) :], guidance)


# The clean guess


def guess_by(scheduler, output, t, x, epsilon=None, v=None, sample=None):
    """The right formulas, but for those that are given; each takes x, the output, and the two factors."""
    a = scheduler.alphas_cumprod[int(t)]
    formulas = {
        "epsilon": epsilon or (lambda x, o, signal, noise: (x - noise * o) / signal),
        "v_prediction": v or (lambda x, o, signal, noise: signal * x - noise * o),
        "sample": sample or (lambda x, o, signal, noise: o),
    }
    return formulas[scheduler.config.prediction_type](x, output, a.sqrt(), (1 - a).sqrt())


def as_epsilon(x, o, signal, noise):
    return (x - noise * o) / signal


def as_v(x, o, signal, noise):
    return signal * x - noise * o


def as_sample(x, o, signal, noise):
    return o


@mutant(GUESS, "was read as epsilon")
def always_epsilon(scheduler, output, t, x_t):
    x = scheduler.scale_model_input(x_t, t)
    return guess_by(scheduler, output, t, x, as_epsilon, as_epsilon, as_epsilon)


@mutant(GUESS, "was read as v.")
def always_v(scheduler, output, t, x_t):
    return guess_by(scheduler, output, t, scheduler.scale_model_input(x_t, t), as_v, as_v, as_v)


@mutant(GUESS, "is not the U-Net's input")
def input_of_the_step(scheduler, output, t, x_t):
    return guess_by(scheduler, output, t, x_t)


@mutant(GUESS, "the output was read as the clean latents")
def always_the_sample(scheduler, output, t, x_t):
    return output


@mutant(GUESS, "The roots are missing")
def no_roots(scheduler, output, t, x_t):
    x = scheduler.scale_model_input(x_t, t)

    def epsilon(x, o, signal, noise):
        return (x - noise**2 * o) / signal**2

    return guess_by(scheduler, output, t, x, epsilon, lambda x, o, s, n: s**2 * x - n**2 * o)


@mutant(GUESS, "A sign is wrong")
def v_with_a_plus(scheduler, output, t, x_t):
    x = scheduler.scale_model_input(x_t, t)
    return guess_by(scheduler, output, t, x, v=lambda x, o, signal, noise: signal * x + noise * o)


@mutant(GUESS, "This is the noise in x_t")
def the_noise(scheduler, output, t, x_t):
    x = scheduler.scale_model_input(x_t, t)
    return guess_by(
        scheduler, output, t, x, as_sample, lambda x, o, s, n: n * x + s * o, lambda x, o, s, n: (x - s * o) / n
    )


@mutant(GUESS, "there are three kinds of output")
def two_kinds(scheduler, output, t, x_t):
    return guess_by(scheduler, output, t, scheduler.scale_model_input(x_t, t), v=as_sample)


@mutant(GUESS, "Raise ValueError for an unknown word")
def sample_for_all_else(scheduler, output, t, x_t):
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        return output
    return guess_by(scheduler, output, t, scheduler.scale_model_input(x_t, t))


@mutant(GUESS, "whole numbers: t.long()", state="error")
def time_as_it_comes(scheduler, output, t, x_t):
    x, a = scheduler.scale_model_input(x_t, t), scheduler.alphas_cumprod[t]
    return (x - (1 - a).sqrt() * output) / a.sqrt()


@variant(GUESS)
def table_of_formulas(scheduler, output, t, x_t):
    x = scheduler.scale_model_input(x_t, t)
    a = scheduler.alphas_cumprod[int(t)].item()
    formulas = {"epsilon": lambda: x / a**0.5 - (1 / a - 1) ** 0.5 * output, "sample": lambda: output,
                "v_prediction": lambda: a**0.5 * x - (1 - a) ** 0.5 * output}  # fmt: skip
    kind = scheduler.config["prediction_type"]
    if kind not in formulas:
        raise ValueError(kind)
    return formulas[kind]()


@variant(GUESS)
def by_match(scheduler, output, t, x_t):
    a = scheduler.alphas_cumprod.to(x_t)[torch.as_tensor(t).long()]
    x, angle = scheduler.scale_model_input(x_t, t), torch.acos(a.sqrt())
    match scheduler.config.prediction_type:
        case "epsilon":
            return (x - angle.sin() * output) / angle.cos()
        case "v_prediction":
            return angle.cos() * x - angle.sin() * output
        case "sample":
            return output
        case kind:
            raise ValueError(kind)


# The loop


def one_step(unet, scheduler, x, t, both, guidance):
    n, p = outputs(unet, scheduler, x, t, both)
    return n + guidance * (p - n)


def stepped(unet, scheduler, x_T, both, guidance, times):
    x = x_T
    for t in times:
        x = scheduler.step(one_step(unet, scheduler, x, t, both, guidance), t, x).prev_sample
    return x


@mutant(LOOP, "The step was taken from the scaled input")
def step_from_scaled(unet, scheduler, x_T, both, guidance):
    x_t = x_T
    for t in scheduler.timesteps:
        output = guided_output(unet, scheduler, x_t, t, both, guidance)  # noqa: F821
        x_t = scheduler.step(output, t, scheduler.scale_model_input(x_t, t)).prev_sample
    return x_t


@mutant(LOOP, "The halves are swapped")
def prompts_swapped(unet, scheduler, x_T, both, guidance):
    return stepped(unet, scheduler, x_T, both.flip(0), guidance, scheduler.timesteps)


@mutant(LOOP, "was changed in place")
def into_the_start(unet, scheduler, x_T, both, guidance):
    for t in scheduler.timesteps:
        x_T.copy_(scheduler.step(one_step(unet, scheduler, x_T, t, both, guidance), t, x_T).prev_sample)
    return x_T


@mutant(LOOP, "is `return` inside the loop")
def returns_too_early(unet, scheduler, x_T, both, guidance):
    return stepped(unet, scheduler, x_T, both, guidance, scheduler.timesteps[:1])


@mutant(LOOP, "is the result of the step kept")
def result_not_kept(unet, scheduler, x_T, both, guidance):
    for t in scheduler.timesteps:
        scheduler.step(one_step(unet, scheduler, x_T, t, both, guidance), t, x_T)
    return x_T


@mutant(LOOP, "Guidance has no effect")
def guidance_not_passed_on(unet, scheduler, x_T, both, guidance):
    return stepped(unet, scheduler, x_T, both, 1.0, scheduler.timesteps)


@mutant(LOOP, "The last step is missing")
def pairs_of_times(unet, scheduler, x_T, both, guidance):
    return stepped(
        unet,
        scheduler,
        x_T,
        both,
        guidance,
        [t for t, _ in zip(scheduler.timesteps, scheduler.timesteps[1:], strict=False)],
    )


@variant(LOOP)
def by_index(unet, scheduler, x_T, both, guidance):
    x = x_T.clone()
    for index in range(len(scheduler.timesteps)):
        t = scheduler.timesteps[index]
        x = scheduler.step(guided_output(unet, scheduler, x, t, both, guidance), t, x)["prev_sample"]  # noqa: F821
    return x


@variant(LOOP)
def by_recursion(unet, scheduler, x_T, both, guidance):
    def go(x, times):
        if not times:
            return x
        return go(scheduler.step(one_step(unet, scheduler, x, times[0], both, guidance), times[0], x)[0], times[1:])

    return go(x_T, scheduler.timesteps.tolist())


# Pixels


def decoded(vae, latents):
    return vae.decode(latents / vae.config.scaling_factor).sample


@mutant(PIXELS, "decoding divides")
def multiplied(vae, latents):
    x = vae.decode(latents * vae.config.scaling_factor).sample
    return ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


@mutant(PIXELS, "scaling_factor is missing")
def not_scaled(vae, latents):
    x = vae.decode(latents).sample
    return ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


@mutant(PIXELS, "Clamp them to [0, 1]")
def not_clamped(vae, latents):
    return ((decoded(vae, latents) / 2 + 0.5) * 255).round().long().remainder(256).to(torch.uint8).permute(0, 2, 3, 1)


@mutant(PIXELS, "Round first")
def cut_off(vae, latents):
    return ((decoded(vae, latents) / 2 + 0.5).clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1)


@mutant(PIXELS, "The channels come first")
def as_torch_likes_it(vae, latents):
    return ((decoded(vae, latents) / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


@mutant(PIXELS, "but the decoder gives [-1, 1]")
def not_shifted(vae, latents):
    return (decoded(vae, latents).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


@mutant(PIXELS, "expected a tensor of torch.uint8")
def left_as_fractions(vae, latents):
    return (decoded(vae, latents) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


@mutant(PIXELS, "scatters the channels")
def reshaped(vae, latents):
    x = as_torch_likes_it(vae, latents)
    return x.reshape(len(x), x.shape[2], x.shape[3], 3)


@mutant(PIXELS, "Height and width are swapped")
def axes_in_the_wrong_order(vae, latents):
    return as_torch_likes_it(vae, latents).permute(0, 3, 2, 1)


@mutant(PIXELS, "White would be 256")
def times_256(vae, latents):
    x = (decoded(vae, latents) / 2 + 0.5).clamp(0, 1) * 256
    return (x.round().long() % 256).to(torch.uint8).permute(0, 2, 3, 1)


@mutant(PIXELS, "Red and blue are swapped")
def blue_first(vae, latents):
    return as_torch_likes_it(vae, latents).flip(1).permute(0, 2, 3, 1)


@mutant(PIXELS, "The batch axis is gone")
def squeezed(vae, latents):
    return as_torch_likes_it(vae, latents).permute(0, 2, 3, 1).squeeze()


@mutant(PIXELS, "0.18215 is Stable Diffusion's factor")
def factor_by_heart(vae, latents):
    x = vae.decode(latents / 0.18215).sample
    return ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


@variant(PIXELS)
@torch.no_grad()
def by_numpy(vae, latents):
    x = vae.decode(latents / vae.config["scaling_factor"], return_dict=False)[0]
    array = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return torch.from_numpy((array * 255).round().astype("uint8"))


@variant(PIXELS)
def in_another_order(vae, latents):
    x = decoded(vae, latents).movedim(1, -1).clamp(-1, 1)
    return torch.round(127.5 * (x + 1)).byte()


# Bytes


@mutant(BYTES, "The buffers are missing")
def parameters_only(model, dtype):
    return sum(p.numel() * dtype.itemsize for p in model.parameters())


@mutant(BYTES, "do not become shorter")
def everything_shorter(model, dtype):
    return sum(t.numel() * dtype.itemsize for t in [*model.parameters(), *model.buffers()])


@mutant(BYTES, "counts 4 bytes a number")
def as_it_is(model, dtype):
    return sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])


@mutant(BYTES, "the number of numbers")
def numbers_counted(model, dtype):
    return sum(t.numel() for t in [*model.parameters(), *model.buffers()])


@mutant(BYTES, "These are bits")
def in_bits(model, dtype):
    return 8 * cast_first(model, dtype)


@mutant(BYTES, "state_dict() does not have it")
def what_is_saved(model, dtype):
    import copy

    return sum(t.nbytes for t in copy.deepcopy(model).to(dtype).state_dict().values())


@mutant(BYTES, "The whole numbers were left out")
def fractions_only(model, dtype):
    tensors = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * dtype.itemsize for t in tensors if t.is_floating_point())


@mutant(BYTES, "Parameters that are frozen are missing")
def learning_ones_only(model, dtype):
    learning = sum(p.numel() * dtype.itemsize for p in model.parameters() if p.requires_grad)
    return learning + sum(b.numel() * (dtype.itemsize if b.is_floating_point() else 8) for b in model.buffers())


@variant(BYTES)
def cast_first(model, dtype):
    import copy

    model = copy.deepcopy(model).to(dtype)
    return sum(t.nbytes for t in [*model.parameters(), *model.buffers()])


@variant(BYTES)
def by_the_bits(model, dtype):
    total = 0
    for t in [*model.parameters(), *model.buffers()]:
        total += t.numel() * (torch.finfo(dtype).bits / 8 if t.is_floating_point() else t.element_size())
    return total


# What is needed


@mutant(NEED, "of different parts do not add up")
def work_adds_up(weights, work, layers, offload):
    if offload == "none":
        return sum(weights.values()) + sum(work.values())
    return right_need(weights, work, layers, offload)


@mutant(NEED, "add the largest work")
def weights_alone(weights, work, layers, offload):
    return sum(weights.values()) if offload == "none" else right_need(weights, work, layers, offload)


@mutant(NEED, "Sum for each part, then take the largest sum")
def largest_of_each(weights, work, layers, offload):
    if offload == "model":
        return max(weights.values()) + max(work.values())
    return right_need(weights, work, layers, offload)


@mutant(NEED, "Sum for each part first")
def largest_layer_and_work(weights, work, layers, offload):
    if offload == "sequential":
        return max(layers.values()) + max(work.values())
    return right_need(weights, work, layers, offload)


@mutant(NEED, "room for its activations too")
def no_work_with_offload(weights, work, layers, offload):
    return max(weights.values()) if offload == "model" else right_need(weights, work, layers, offload)


@mutant(NEED, "looks at the U-Net alone")
def unet_only(weights, work, layers, offload):
    if offload == "model":
        return weights["unet"] + work["unet"]
    return right_need(weights, work, layers, offload)


@mutant(NEED, "whatever the value")
def offload_ignored(weights, work, layers, offload):
    return sum(weights.values()) + max(work.values())


@mutant(NEED, "The layer that works is not all")
def layers_alone(weights, work, layers, offload):
    return max(layers.values()) if offload == "sequential" else right_need(weights, work, layers, offload)


@mutant(NEED, "the result for offload = 'model'")
def two_ways_only(weights, work, layers, offload):
    return right_need(weights, work, layers, "none" if offload == "none" else "model")


@mutant(NEED, "This is the smallest part")
def smallest_part(weights, work, layers, offload):
    if offload == "none":
        return right_need(weights, work, layers, offload)
    there = weights if offload == "model" else layers
    return min(there[name] + work[name] for name in work)


@variant(NEED)
def part_by_part(weights, work, layers, offload):
    resident = {"none": lambda name: sum(weights.values()), "model": weights.get, "sequential": layers.get}[offload]
    return max(resident(name) + work[name] for name in weights)


@mutant(NEED, "may belong to other parts")
def by_order(weights, work, layers, offload):
    if offload == "none":
        return right_need(weights, work, layers, offload)
    there = weights if offload == "model" else layers
    return max(a + b for a, b in zip(there.values(), work.values(), strict=True))


@variant(NEED)
def right_need(weights, work, layers, offload):
    if offload == "none":
        return max(sum(weights.values()) + size for size in work.values())
    there = weights if offload == "model" else layers
    return sorted(there[name] + work[name] for name in work)[-1]
