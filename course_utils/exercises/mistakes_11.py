"""The parts of a pipeline, of the libraries' own classes and small, for the exercises of chapter 11."""

import functools

import torch

from course_utils.exercises.mistakes_09 import small_autoencoder
from course_utils.exercises.oracles import Wrong
from course_utils.pipelines.picture_book import PICTURE_BOOK

ORDER = "The halves are swapped: the negative prompt comes first, the prompt second."


def randomly(case, make):
    """Return the module that `make` makes, with weights from the case, frozen and in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        return make().requires_grad_(False).eval()


@functools.cache
def _tokenizer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(PICTURE_BOOK / "tokenizer")


def small_text_parts(case):
    """Return the picture book's tokenizer, for 32 tokens, and a text encoder of transformers with few weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = _tokenizer()
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **sizes,
    )
    encoder = randomly(case, lambda: CLIPTextModel(config))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * case.normal(*parameter.shape))
    return tokenizer, encoder


def small_unet(case):
    """Return diffusers' U-Net for text with few weights, in float64, and a list of the inputs it was evaluated on."""
    from diffusers import UNet2DConditionModel

    unet = randomly(
        case,
        lambda: UNet2DConditionModel(
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 8),
            layers_per_block=1,
            norm_num_groups=2,
            cross_attention_dim=8,
            attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
    )
    with torch.no_grad():  # an untrained one hardly depends on its prompt
        for name, parameter in unet.named_parameters():
            if "attn2" in name or "conv_out" in name:
                parameter.mul_(4)
    unet.double()  # so that one batch and two calls agree
    asked = []

    def note(module, inputs, named):
        sample = inputs[0] if inputs else named.get("sample")
        features = inputs[2] if len(inputs) > 2 else named.get("encoder_hidden_states")
        if features is None or len(features) != len(sample):
            got = "nothing" if features is None else len(features)
            raise Wrong(
                f"the U-Net was given {len(sample)} latents and the features of {got} prompts.",
                "Each latent needs the features of its prompt: repeat the negative ones and the positive ones, "
                "both.repeat_interleave(len(x_t), 0) beside torch.cat([x_t, x_t]).",
            )
        asked.append(sample)

    unet.register_forward_pre_hook(note, with_kwargs=True)
    return unet, asked


def euler(kind: str = "epsilon", spacing: str = "linspace", steps: int | None = 5):
    """Return diffusers' Euler scheduler, whose inputs are scaled and whose times have fractions."""
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(prediction_type=kind, timestep_spacing=spacing, beta_schedule="scaled_linear",
                                       beta_start=0.00085, beta_end=0.012)  # fmt: skip
    if steps:
        scheduler.set_timesteps(steps)
    return scheduler


def ddim(kind: str = "epsilon", steps: int = 5):
    """Return diffusers' DDIM scheduler, which scales nothing."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(prediction_type=kind, beta_schedule="scaled_linear", beta_start=0.00085,
                              beta_end=0.012, clip_sample=False)  # fmt: skip
    scheduler.set_timesteps(steps)
    return scheduler


def bright_autoencoder(case):
    """Return an autoencoder whose images exceed [-1, 1], as real ones do."""
    vae = small_autoencoder(case)
    with torch.no_grad():
        spread = vae.decode(case.normal(4, 3, 4, 4)).sample.std()
        for parameter in vae.decoder.conv_out.parameters():
            parameter.mul_(0.8 / spread)
    return vae
