"""A thin pipeline with the component layout of Stable Diffusion v1.5, random weights, and its single-file form."""

import functools
import re

import torch
from tiny import tiny_tokenizer

SIDE = 16  # latents of 16x16: pictures of 128x128


def thin_parts(never_flag: bool = True) -> dict:
    """All seven parts: blocks, layers and layout as in v1.5, channels and features few."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel

    from course_utils.pipelines.stable_diffusion import FACTS

    tokenizer = tiny_tokenizer(length=77)
    few = {"block_out_channels": (32, 32, 64, 64)}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 16, "projection_dim": 16}  # fmt: skip
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        text_encoder = CLIPTextModel(CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        ))  # fmt: skip
        text_encoder.get_input_embeddings().weight *= 50  # so that other words give another picture
        unet = UNet2DConditionModel(**{**FACTS["unet"], **few, "sample_size": SIDE, "cross_attention_dim": 32})
        vae = AutoencoderKL(**{**FACTS["vae"], **few, "sample_size": 8 * SIDE, "block_out_channels": (32, 32, 32, 32)})
        checker = StableDiffusionSafetyChecker(CLIPConfig(projection_dim=16, vision_config=vision))
        checker.concept_embeds_weights.fill_(2 if never_flag else -2)  # no cosine is above 2, every one above -2
        checker.special_care_embeds_weights.fill_(2)
    return {
        "tokenizer": tokenizer, "text_encoder": text_encoder.eval(), "unet": unet.eval(), "vae": vae.eval(),
        "scheduler": PNDMScheduler(**FACTS["scheduler"]), "safety_checker": checker.eval(),
        "feature_extractor": CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    }  # fmt: skip


@functools.cache
def thin_pipeline():
    """The parts put together; one for all tests, which must not change it."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(**thin_parts())


def save_single_file(pipe, path) -> None:
    """Write U-Net, VAE and text encoder under the names of the original checkpoint."""
    from safetensors.torch import save_file

    named = {f"model.diffusion_model.{unet_name(key)}": value for key, value in pipe.unet.state_dict().items()}
    for key, value in pipe.vae.state_dict().items():
        is_attention = ".attentions.0.to_" in key and key.endswith("weight")
        named[f"first_stage_model.{vae_name(key)}"] = value[:, :, None, None] if is_attention else value
    for key, value in pipe.text_encoder.state_dict().items():
        named[f"cond_stage_model.transformer.text_model.{key}"] = value
    save_file({key: value.contiguous() for key, value in named.items()}, path)


RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
          "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}  # fmt: skip
ENDS = {"conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "conv_out": "out.2",
        "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0"}  # fmt: skip


def unet_name(key: str) -> str:
    """A U-Net parameter's name in diffusers -> in the original checkpoint (v1: two layers a block going down)."""
    for ours, theirs in ENDS.items():
        if key.startswith(f"{ours}."):
            return key.replace(ours, theirs, 1)
    for ours, theirs in RESNET.items():
        key = re.sub(rf"(resnets\.\d+)\.{ours}\.", rf"\1.{theirs}.", key)
    found = re.match(r"(down|mid|up)_block(?:s\.(\d))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", key)
    side, block, kind, layer, rest = found.groups()
    layer = int(layer)
    if side == "mid":
        return f"middle_block.{1 if kind == 'attentions' else 2 * layer}.{rest}"
    number = 3 * int(block) + layer
    if kind == "downsamplers":
        return f"input_blocks.{3 * int(block) + 3}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":  # it comes after an attention, where the block has one
        return f"output_blocks.{3 * int(block) + 2}.{1 if block == '0' else 2}.{rest}"
    number += side == "down"
    return f"{'input' if side == 'down' else 'output'}_blocks.{number}.{0 if kind == 'resnets' else 1}.{rest}"


def vae_name(key: str) -> str:
    """An autoencoder parameter's name in diffusers -> in the original checkpoint (four blocks)."""
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    for ours, theirs in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
        key = key.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
    key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block", key)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", key)
