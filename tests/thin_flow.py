"""Thin pipelines with the component layout of Stable Diffusion 3 and of Flux: few layers, random weights."""

import functools

import torch
from tiny import tiny_tokenizer

WORDS = 77


def _texts():
    """A CLIP with projection and one without, and a T5, for the vocabulary of one small tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    tokenizer = tiny_tokenizer(length=WORDS)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=WORDS, projection_dim=16, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    t5 = T5EncoderModel(T5Config(vocab_size=len(tokenizer), d_model=40, d_kv=20, d_ff=40, num_layers=1, num_heads=2))
    return tokenizer, [CLIPTextModelWithProjection(config) for _ in range(2)], CLIPTextModel(config), t5


def _vae(channels: int = 16):
    """Sixteen latent channels, with a shift beside the scaling, and no layers around the latents."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=channels, norm_num_groups=4,
        sample_size=64, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip


@functools.cache
def thin_sd3():
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        tokenizer, clips, _, t5 = _texts()
        transformer = SD3Transformer2DModel(
            sample_size=8, num_layers=2, attention_head_dim=12, num_attention_heads=2, joint_attention_dim=40,
            caption_projection_dim=24, pooled_projection_dim=32, pos_embed_max_size=12, qk_norm="rms_norm",
        )  # fmt: skip
        pipe = StableDiffusion3Pipeline(
            transformer.eval(), FlowMatchEulerDiscreteScheduler(shift=3.0), _vae().eval(), clips[0].eval(), tokenizer,
            clips[1].eval(), tokenizer, t5.eval(), tokenizer,
        )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


@functools.cache
def thin_flux(guided: bool = True):
    """[dev] is told the guidance and shifts its times by the picture's size; [schnell] does neither."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        tokenizer, _, clip, t5 = _texts()
        transformer = FluxTransformer2DModel(
            in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=12, num_attention_heads=2,
            joint_attention_dim=40, pooled_projection_dim=16, guidance_embeds=guided, axes_dims_rope=(4, 4, 4),
        )  # fmt: skip
        scheduler = FlowMatchEulerDiscreteScheduler(
            shift=3.0 if guided else 1.0, use_dynamic_shifting=guided, base_shift=0.5, max_shift=1.15
        )
        pipe = FluxPipeline(scheduler, _vae().eval(), clip.eval(), tokenizer, t5.eval(), tokenizer, transformer.eval())
    pipe.set_progress_bar_config(disable=True)
    return pipe
