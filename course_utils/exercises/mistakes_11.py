"""Stand-ins for a pipeline's parts, small enough to say what they must give, for the exercises of chapter 11."""

import math
from types import SimpleNamespace

import torch

from course_utils.exercises.oracles import Wrong

ORDER = "The halves are swapped: the negative prompt comes first, the prompt second."


class Answer(dict):
    """What libraries return: fields by name, by key, and (after .to) itself."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no '{name}' in what was returned; there are {', '.join(self)}") from None

    def __getitem__(self, key):
        return list(self.values())[key] if isinstance(key, int | slice) else super().__getitem__(key)

    def to(self, device):
        return self


class Tokenizer:
    """Words to numbers, with the keywords of transformers' tokenizers; begins with 1, ends with 2, fills with 2."""

    pad_token_id = 2

    def __init__(self, length: int):
        self.model_max_length = length

    def __call__(self, text, padding=False, truncation=False, max_length=None, return_tensors=None, **others):
        rows = [self.ids(each) for each in ([text] if isinstance(text, str) else text)]
        limit = max_length or self.model_max_length
        if truncation:
            rows = [row if len(row) <= limit else [*row[: limit - 1], 2] for row in rows]
        width = {True: max(map(len, rows)), "longest": max(map(len, rows)), "max_length": limit}.get(padding, 0)
        rows = [row + [2] * (width - len(row)) for row in rows]
        if return_tensors and len({len(row) for row in rows}) > 1:
            raise Wrong(
                "two prompts of different lengths do not go into one tensor of tokens.",
                'Fill both up to the same length, padding="max_length", and cut the longer, truncation=True.',
            )
        ids = torch.tensor(rows) if return_tensors else (rows[0] if isinstance(text, str) else rows)
        mask = (ids != 2).long() if return_tensors else [[1] * len(row) for row in rows]
        return Answer(input_ids=ids, attention_mask=mask)

    @staticmethod
    def ids(text: str) -> list[int]:
        return [1, *(3 + sum(map(ord, word)) % 90 for word in text.split()), 2]


class TextEncoder(torch.nn.Module):
    """Tokens to features; each vector depends on the token, its place, and those before it. Holds 12 tokens at most."""

    def __init__(self, generator: torch.Generator, longest: int = 12):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(100, 6, generator=generator))
        self.places = torch.nn.Parameter(torch.randn(longest, 6, generator=generator))
        self.longest = longest

    device, dtype = torch.device("cpu"), torch.float32

    def forward(self, input_ids, attention_mask=None, **others):
        if input_ids.shape[-1] > self.longest:
            raise Wrong(
                f"the text encoder was given {input_ids.shape[-1]} tokens, but has room for {self.longest}.",
                "Long prompts must be cut: truncation=True, max_length=tokenizer.model_max_length.",
            )
        features = self.table[input_ids] + self.places[: input_ids.shape[-1]]
        hidden = features.cumsum(-2) / math.sqrt(6)
        return Answer(last_hidden_state=hidden, pooler_output=hidden[:, -1])


class Scheduler:
    """A scheduler in miniature: sigmas that depend on the number of steps, an Euler step, and diffusers' names."""

    def __init__(self, prediction_type: str = "epsilon", peak: float = 9.0, scales: bool = True):
        self.config = SimpleNamespace(prediction_type=prediction_type, num_train_timesteps=1000)
        self.alphas_cumprod = torch.linspace(0.999, 0.01, 1000)
        self.peak, self.scales, self.timesteps, self.set_to = peak, scales, None, None

    def set_timesteps(self, num_inference_steps, device=None):
        self.set_to = num_inference_steps
        self.timesteps = torch.linspace(999, 0, num_inference_steps + 1).long()[:-1]

    @property
    def init_noise_sigma(self):
        return self.peak * (1 - 0.3 / self.set_to) if self.set_to else self.peak

    def factor(self, t) -> float:
        return 1 / (1 + float(t) / 500) if self.scales else 1.0

    def scale_model_input(self, sample, timestep=None):
        return sample * self.factor(timestep)

    def step(self, model_output, timestep, sample, **others):
        stays, moves = 0.9, 0.1 + float(timestep) / 4000
        return Answer(prev_sample=stays * sample - moves * model_output)


class UNet:
    """A U-Net in miniature: an answer that depends on the input, the time and the mean feature of its prompt."""

    def __init__(self):
        self.seen = []

    def answer(self, x, t, features):
        place = features.mean((1, 2)).reshape(-1, 1, 1, 1)
        return torch.tanh(x) * (0.3 + float(t) / 2000) + place * (1 + 0.2 * x)

    def __call__(self, sample, timestep, encoder_hidden_states=None, **others):
        if encoder_hidden_states is None or len(encoder_hidden_states) != len(sample):
            got = "nothing" if encoder_hidden_states is None else len(encoder_hidden_states)
            raise Wrong(f"the U-Net was given {len(sample)} latents and the features of {got} prompts.",
                        "Each latent needs the features of its prompt: repeat the negative ones and the positive ones, "
                        "both.repeat_interleave(len(x_t), 0) beside torch.cat([x_t, x_t]).")  # fmt: skip
        self.seen.append((sample, timestep))
        return Answer(sample=self.answer(sample, timestep, encoder_hidden_states))


class Decoder:
    """A VAE that enlarges two-fold and answers beyond [-1, 1], as real ones do."""

    def __init__(self, factor: float):
        self.config = SimpleNamespace(scaling_factor=factor)

    def picture(self, latents):
        return latents[:, :3].repeat_interleave(2, 2).repeat_interleave(2, 3) * 1.3

    def decode(self, z, **others):
        return Answer(sample=self.picture(z))
