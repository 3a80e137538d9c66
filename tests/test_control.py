"""The ControlNet by hand is diffusers' own: its start, its residuals, its loop, its file."""

import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from tiny import tiny_pipeline

from course_utils.models.control import add_residuals, small_controlnet, steered, zero_convolution
from course_utils.pipelines.control import as_drawing, load_control
from course_utils.pipelines.denoising import denoise, encode_both, first_latents
from course_utils.pipelines.picture_book import load_picture_book, make_scheduler, save_pipeline
from course_utils.recipes.control import control_loss
from course_utils.recipes.unet import small_unet

PROMPT, NEGATIVE = "a red ball left of a white cat", "two blue birds"


def disturbed(controlnet, seed=0):
    """The same, as if trained: its zero convolutions are zero no more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in controlnet.parameters():
            if not weights.any():
                weights += 0.05 * torch.randn(weights.shape, generator=generator)
    return controlnet.eval()


@pytest.fixture(scope="module")
def pair():
    """The small U-Net and a ControlNet for it, as if trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = small_unet().eval()
        return unet, disturbed(small_controlnet(unet))


def inputs(batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x_t, features = (torch.randn(batch, *shape, generator=generator) for shape in ((8, 16, 16), (32, 128)))
    return x_t, features, torch.rand(1, 3, 64, 64, generator=generator)


def test_zero_convolution():
    layer = zero_convolution(4)
    x = torch.randn(2, 4, 8, 8)
    assert not layer(x).any() and layer.kernel_size == (1, 1)
    layer(x).square().sum().backward()  # the output is at a minimum of this: no gradient
    assert not layer.weight.grad.any()
    (layer(x) - 1).square().sum().backward()
    assert layer.weight.grad.any() and layer.bias.grad.any()
    with pytest.raises(ValueError, match="at least one channel, got 0"):
        zero_convolution(0)


def test_the_copy_begins_with_the_weights_of_the_encoder_and_changes_nothing():
    unet = small_unet().eval()
    controlnet = small_controlnet(unet)
    copied = [name for name, value in controlnet.state_dict().items() if name in unet.state_dict()]
    assert len(copied) >= 100 and all(controlnet.state_dict()[n].equal(unet.state_dict()[n]) for n in copied)
    assert 2 * sum(p.numel() for p in controlnet.parameters()) < 6e6  # bytes in float16
    x_t, features, drawing = inputs()
    with torch.no_grad():
        assert steered(unet, controlnet, drawing)(x_t, 7, features).sample.equal(unet(x_t, 7, features).sample)


def test_residuals_are_added_where_the_librarys_unet_adds_them(pair):
    """The U-Net's blocks one by one, its skips and its middle through `add_residuals`."""
    unet, controlnet = pair
    x_t, features, drawing = inputs()
    with torch.no_grad():
        expected = steered(unet, controlnet, drawing, 0.7)(x_t, 300, features).sample
        down, middle = controlnet(x_t, 300, features, drawing.expand(2, -1, -1, -1), return_dict=False)
        time = unet.time_embedding(unet.time_proj(torch.full((2,), 300)))
        x = unet.conv_in(x_t)
        skips = [x]
        for block in unet.down_blocks:
            attends = getattr(block, "has_cross_attention", False)
            x, more = block(x, time, **({"encoder_hidden_states": features} if attends else {}))
            skips += more
        x = unet.mid_block(x, time, encoder_hidden_states=features)
        (x,) = add_residuals([x], [middle], 0.7)
        skips = add_residuals(skips, down, 0.7)
        for block in unet.up_blocks:
            here, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
            attends = getattr(block, "has_cross_attention", False)
            x = block(x, tuple(here), time, **({"encoder_hidden_states": features} if attends else {}))
        output = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    assert (expected - unet(x_t, 300, features).sample).abs().max() > 0.01


def test_residuals_of_another_unet_are_refused():
    skips = [torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 4, 4)]
    for residuals in (skips[:1], skips[::-1]):
        with pytest.raises(ValueError, match="one residual of its shape for each skip connection"):
            add_residuals(skips, residuals)
    (added,) = add_residuals(skips[:1], [torch.ones(1, 4, 8, 8)], 0.5)
    assert (added == 0.5).all() and not skips[0].any()


def test_a_batch_that_the_drawings_do_not_divide_is_refused(pair):
    x_t, features, drawing = inputs(3)
    with pytest.raises(ValueError, match="got 2 for a batch of 3"):
        steered(*pair, drawing.repeat(2, 1, 1, 1))(x_t, 7, features)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc"])
def test_the_loop_is_the_librarys(sampler, pair):
    from diffusers import StableDiffusionControlNetPipeline

    pipe = load_picture_book()
    controlnet = disturbed(small_controlnet(pipe.unet))
    drawing = inputs()[2]
    theirs = StableDiffusionControlNetPipeline(
        **{name: part for name, part in pipe.components.items() if name != "image_encoder"},
        controlnet=controlnet, requires_safety_checker=False,
    )  # fmt: skip
    theirs.scheduler = make_scheduler(sampler, pipe.scheduler.config)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        PROMPT, image=drawing, negative_prompt=NEGATIVE, num_inference_steps=6, guidance_scale=3.0,
        output_type="latent", controlnet_conditioning_scale=0.8, generator=torch.Generator().manual_seed(3),
    ).images  # fmt: skip
    scheduler = make_scheduler(sampler, pipe.scheduler.config)
    both = encode_both(pipe.tokenizer, pipe.text_encoder, PROMPT, NEGATIVE)
    x_T = first_latents(scheduler, 6, (1, 8, 16, 16), torch.Generator().manual_seed(3))
    ours = denoise(steered(pipe.unet, controlnet, drawing, 0.8), scheduler, x_T, both, 3.0)
    assert (ours - expected).abs().max() <= 1e-5
    scheduler.set_timesteps(6)
    assert (denoise(pipe.unet, scheduler, x_T, both, 3.0) - expected).abs().max() > 0.1


def test_the_loss_reaches_the_zero_convolutions_and_not_the_unet(pair):
    unet, _ = pair
    unet.requires_grad_(False)
    controlnet = small_controlnet(unet)
    x0, cond, drawing = inputs()
    eps, alpha_bar = torch.randn(x0.shape), torch.linspace(0.99, 0.01, 1000)
    t = torch.tensor([300, 700])

    def model(x_t, t, cond, drawing):
        return steered(unet, controlnet, drawing)(x_t, t, cond).sample

    loss = control_loss(model, x0, cond, drawing, t, eps, alpha_bar)
    loss.backward()
    a = alpha_bar[t].view(-1, 1, 1, 1)
    with torch.no_grad():
        v_hat = unet(a.sqrt() * x0 + (1 - a).sqrt() * eps, t, cond).sample
    assert loss.item() == pytest.approx((a.sqrt() * eps - (1 - a).sqrt() * x0 - v_hat).square().mean().item(), rel=1e-4)
    assert all(layer.weight.grad.any() for layer in controlnet.controlnet_down_blocks)
    assert not any(weights.grad.any() for weights in controlnet.down_blocks.parameters())  # behind zeros, as yet
    assert all(weights.grad is None for weights in unet.parameters())


# --- the folder and the drawing


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a picture-book pipeline of random weights and, in `control`, a ControlNet for it."""
    folder = tmp_path_factory.mktemp("control")
    pipe = load_picture_book()
    save_pipeline(pipe, folder / "picture_book")
    disturbed(small_controlnet(pipe.unet)).save_pretrained(folder / "control")
    return folder


def test_plain_diffusers_opens_the_folder_and_draws(home, tmp_path):
    script = f"""
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image
controlnet = ControlNetModel.from_pretrained({str(home / "control")!r})
pipe = StableDiffusionControlNetPipeline.from_pretrained({str(home / "picture_book")!r}, controlnet=controlnet)
pipe("a cat", image=Image.new("RGB", (64, 64)), num_inference_steps=2).images[0].save("page.png")
assert "course_utils" not in __import__("sys").modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, timeout=300)
    assert Image.open(tmp_path / "page.png").size == (64, 64)


def test_load_control(home):
    pipe = load_picture_book()
    steered_pipe = load_control(pipe, home / "control")
    assert steered_pipe.unet is pipe.unet and steered_pipe.controlnet.dtype == torch.float32
    assert not any(weights.requires_grad for weights in steered_pipe.controlnet.parameters())


def test_what_is_no_controlnet_is_refused(home, tmp_path):
    pipe = load_picture_book()
    with pytest.raises(ValueError, match="There is no ControlNet in"):
        load_control(pipe, tmp_path)
    damaged = shutil.copytree(home / "control", tmp_path / "damaged")
    weights = damaged / "diffusion_pytorch_model.safetensors"
    save_file({"other": torch.zeros(1)}, weights)
    with pytest.raises(ValueError, match="it lacks .* and .* more"):
        load_control(pipe, damaged)
    weights.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="diffusion_pytorch_model.safetensors or config.json is damaged"):
        load_control(pipe, damaged)
    with pytest.raises(ValueError, match="made for another U-Net: its in_channels is 8, the U-Net's 4"):
        load_control(tiny_pipeline(), home / "control")


def test_as_drawing():
    paper = Image.new("L", (128, 128), 255)
    ImageDraw.Draw(paper).rectangle((32, 32, 95, 95), outline=0, width=4)
    drawing = as_drawing(paper, 64, 64)
    assert drawing.shape == (1, 3, 64, 64) and drawing.min() == 0 and drawing.max() == 1
    assert drawing[0, 0, 16:18, 16:48].eq(1).all() and not drawing[0, 0, 20:44, 20:44].any()
    board = Image.eval(paper, lambda grey: 255 - grey)
    assert as_drawing(board.convert("RGB"), 64, 64).equal(drawing)
    clear = Image.new("RGBA", (128, 128), (0, 0, 0, 0))
    ImageDraw.Draw(clear).rectangle((32, 32, 95, 95), outline="black", width=4)
    assert as_drawing(clear, 64, 64).equal(drawing)
    with pytest.raises(ValueError, match="one colour only; draw something"):
        as_drawing(Image.new("RGB", (64, 64), "white"), 64, 64)
