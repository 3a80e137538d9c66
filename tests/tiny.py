"""A tiny text-to-image pipeline of the picture-book model's layout, with random weights, for tests."""

import functools

CAPTIONS = [
    "a cute corgi puppy sitting on the grass",
    "a red ball left of a white cat",
    "two blue birds in the snow at night",
    "a green car on the beach, watercolour",
]


def tiny_tokenizer(length: int = 32):
    """A CLIPTokenizer that has learnt CAPTIONS."""
    from course_utils.text.tokens import train_tokenizer

    return train_tokenizer(CAPTIONS, vocabulary_size=700, length=length)


def tiny_parts(seed: int = 0) -> dict:
    """The five parts: 4x16x16 latents (f = 4), text features of 32, small widths, random weights."""
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        text_encoder.get_input_embeddings().weight *= 50  # so that other words give another picture
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=64,
            scaling_factor=1.0,
        )
        unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(16, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
            norm_num_groups=4,
        )
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    models = {"vae": vae.eval(), "text_encoder": text_encoder.eval(), "unet": unet.eval()}
    return {**models, "tokenizer": tokenizer, "scheduler": scheduler}


@functools.cache
def tiny_pipeline():
    """The parts assembled; one for all tests, which must not change it."""
    from course_utils.pipelines.picture_book import assemble

    return assemble(**tiny_parts())
