"""Pictures after a drawing: the picture-book model with its ControlNet, and drawings as that wants them."""

from pathlib import Path

import torch
from PIL import Image, ImageOps

from course_utils.data.images import as_rgb
from course_utils.pipelines.model_folder import REMEDY, load_network, quiet
from course_utils.pipelines.picture_book import CHECKPOINTS

CONTROL = CHECKPOINTS / "control"


def load_control(pipe, folder: Path | str = CONTROL):
    """Return a `StableDiffusionControlNetPipeline` of the parts of `pipe` and the ControlNet in `folder`.

    The parts are shared, not copied. The ControlNet is in float32 on the pipeline's device.
    Raises ValueError, in one sentence, if there is none that can be read, or it does not fit the U-Net.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"There is no ControlNet in {folder}: {REMEDY}.")
    with quiet():
        from diffusers import StableDiffusionControlNetPipeline

        controlnet = load_network(folder, "diffusers", "ControlNetModel", "diffusion_pytorch_model.safetensors")
        for name in ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim"):
            mine, theirs = controlnet.config[name], pipe.unet.config[name]
            if mine != theirs:
                raise ValueError(
                    f"The ControlNet in {folder} was made for another U-Net: its {name} is {mine}, the U-Net's "
                    f"{theirs}; take one that was trained with this model."
                )
        steered = StableDiffusionControlNetPipeline(
            **{name: part for name, part in pipe.components.items() if name != "image_encoder"},
            controlnet=controlnet.requires_grad_(False).to(pipe.device),
            requires_safety_checker=False,
        )
    steered.set_progress_bar_config(disable=True)
    return steered


def as_drawing(picture: Image.Image, width: int, height: int) -> torch.Tensor:
    """Return a line drawing as the ControlNet was trained on it: white lines on black, (1, 3, height, width) in [0, 1].

    picture: of any size and mode; it is scaled. Dark lines on light paper are turned around; transparent is paper.
    Raises ValueError if nothing is drawn on it.
    """
    grey = as_rgb(picture).convert("L")
    if grey.getextrema()[0] == grey.getextrema()[1]:
        raise ValueError("Expected a picture with lines on it, but it has one colour only; draw something.")
    histogram = grey.histogram()
    if sum(histogram[128:]) > sum(histogram[:128]):  # most of it is light: paper
        grey = ImageOps.invert(grey)
    grey = grey.resize((width, height), Image.Resampling.BOX if grey.width > width else Image.Resampling.BILINEAR)
    values = torch.tensor(list(grey.tobytes()), dtype=torch.float32).view(1, 1, height, width) / 255
    return values.repeat(1, 3, 1, 1)
