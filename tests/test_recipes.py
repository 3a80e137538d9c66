"""The parts of the model, trained for a few steps from nothing, put together, and drawing."""

import json
import subprocess
import sys

import numpy
import pytest
import torch
from safetensors.torch import load_file

from course_utils import recipes
from course_utils.data import picture_book as book
from course_utils.pipelines import unclip
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.recipes import clip as clip_recipe
from course_utils.recipes.pictures import PictureSet
from course_utils.recipes.record import facts_of
from course_utils.recipes.vae import LATENT_CHANNELS, _crops
from course_utils.training import Samples

ORDER = (
    "vae",
    "decoder",
    "clip",
    "unet",
    "control",
    "vq",
    "dalle",
    "embedder",
    "prior",
    "unclip",
    "few_steps",
    "judge",
    "reader",
    "digits_unet",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with all parts trained by the smoke profile, and the losses of each."""
    folder = tmp_path_factory.mktemp("runs")
    losses = {part: [record.loss for record in recipes.train_part(part, folder)] for part in ORDER}
    return folder, losses


@pytest.mark.parametrize("part", ORDER)
def test_training_lowers_the_loss(trained, part):
    _, losses = trained
    assert len(losses[part]) == 12
    if part not in (
        "control",
        "unclip",
        "few_steps",
    ):  # their loss starts at the U-Net's, and varies more from batch to batch than 12 updates change
        assert sum(losses[part][-4:]) < sum(losses[part][:4])


@pytest.mark.parametrize("part", ["control", "vq", "embedder", "prior", "unclip", "few_steps"])
def test_it_lowers_the_loss_on_a_fixed_batch(trained, part):
    folder, _ = trained
    task = recipes.PARTS[part].build(folder, torch.device("cpu"))
    batch = Samples(numpy.arange(64), seed=0)
    with torch.no_grad():
        before = task.loss(task.model, batch)
        task.begin()
        assert task.loss(task.model, batch) < before


def test_the_embedders_blocks_look_alike(monkeypatch, tmp_path):
    scenes, chosen = [book.sample_scene(n) for n in range(2000)], []
    monkeypatch.setattr(clip_recipe, "training_set", lambda: PictureSet(scenes, torch.empty(0)))
    monkeypatch.setattr(clip_recipe, "_contrast", lambda model, tokenizer, data, index, samples: chosen.append(index))
    task = clip_recipe.build_embedder(tmp_path, torch.device("cpu"))
    task.loss(task.model, Samples(numpy.arange(4 * clip_recipe.BLOCK), seed=0))
    blocks = [{(scenes[i].place, scenes[i].style) for i in part} for part in chosen[0].split(clip_recipe.BLOCK)]
    assert all(len(block) == 1 for block in blocks) and len(set.union(*blocks)) > 1
    assert all(len(part.unique()) > clip_recipe.BLOCK / 2 for part in chosen[0].split(clip_recipe.BLOCK))


def test_the_parts_of_unclip_make_a_system(trained):
    folder, _ = trained
    system = recipes.load_unclip(folder / "unclip")
    assert unclip.draw(system, ["a cat"], torch.Generator(), steps=2).shape == (1, 3, 64, 64)
    embeddings = load_file(next((folder / "prior").glob("embeddings-*.safetensors")))["embeddings"]
    pictures = book.pictures([book.sample_scene(n) for n in range(len(embeddings))])
    torch.testing.assert_close(embeddings, unclip.embed_pictures(system, pictures), rtol=0, atol=2e-3)
    torch.testing.assert_close(system.decoder.mean, embeddings.mean(0, keepdim=True), rtol=0, atol=1e-3)
    torch.testing.assert_close(system.prior.transformer.clip_mean, system.decoder.mean)


def test_plain_diffusers_opens_the_folder_and_draws(trained, tmp_path):
    folder, _ = trained
    script = f"""
import torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({str(folder / "picture_book")!r})
picture = pipe("a cute corgi puppy", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
assert picture.size == (64, 64)
assert "course_utils" not in __import__("sys").modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, timeout=300)


def test_trained_latents_have_unit_variance(trained):
    folder, _ = trained
    vae, _, _ = recipes.load_trained(folder, torch.device("cpu"))
    scenes = [book.sample_scene(n, seed=9) for n in range(32)]
    latents = recipes.encode_pictures(vae, book.pictures(scenes)) * vae.config.scaling_factor
    assert latents.shape == (32, LATENT_CHANNELS, 16, 16)
    assert latents.std().item() == pytest.approx(1, abs=0.1)


def test_crops_of_pixel_art_lie_as_they_do_in_a_page():
    scenes = [book.sample_scene(n) for n in range(32)]
    pixels = torch.zeros(32, 3, 64, 64, dtype=torch.uint8)
    pixels[:, 0], pixels[:, 1] = torch.arange(64)[:, None], torch.arange(64)  # each pixel says where it is
    crops = _crops(PictureSet(scenes, pixels), torch.arange(32), Samples(numpy.arange(32), seed=0))
    corners = ((crops[:, :2, 0, 0] + 1) * 127.5).round()
    assert (corners % 4 == 0).all() and len(corners.unique(dim=0)) > 16


def test_the_decoder_is_finished_on_latents_that_stay(trained):
    folder, _ = trained
    before = load_file(folder / "vae" / "checkpoint.safetensors")
    after = load_file(folder / "picture_book" / "vae" / "diffusion_pytorch_model.safetensors")
    changed = {
        name.split(".")[0] for name, value in after.items() if not value.equal(before[f"average.vae.{name}"].half())
    }
    assert changed == {"decoder", "post_quant_conv"}


def test_the_pipelines_text_encoder_begins_as_clips_and_is_trained_on(trained):
    from transformers import CLIPModel, CLIPTokenizer

    folder, _ = trained
    clip = CLIPModel.from_pretrained(folder / "clip")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "clip")
    _, text_encoder, other = recipes.load_trained(folder, torch.device("cpu"))
    ids = torch.tensor([other("a red cat").input_ids])
    assert tokenizer("a red cat").input_ids == ids[0].tolist()
    before = clip.text_model(ids).last_hidden_state
    torch.testing.assert_close(before, text_encoder(ids).last_hidden_state)
    after = load_picture_book(folder / "picture_book").text_encoder(ids).last_hidden_state
    assert 0 < (after - before).square().mean() < 0.5 * before.square().mean()  # 2 if they had nothing in common


def test_the_unet_goes_on_from_the_shipped_one(trained, tmp_path):
    folder, _ = trained
    shipped, mine = tmp_path / "shipped", tmp_path / "mine"
    recipes.ship(folder, shipped)
    recipes.adopt(mine, shipped)
    assert sorted(p.name for p in mine.iterdir()) == sorted(p.name for p in folder.iterdir())
    task = recipes.PARTS["unet"].build(mine, torch.device("cpu"))
    finished = load_file(shipped / "picture_book" / "unet" / "diffusion_pytorch_model.safetensors")
    assert not task.model.unet.conv_in.weight.equal(finished["conv_in.weight"].float())
    task.begin()
    assert all(value.equal(finished[name].float()) for name, value in task.model.unet.state_dict().items())
    (mine / "judge" / "config.json").write_text("{}")
    recipes.adopt(mine, shipped)
    assert (mine / "judge" / "config.json").read_text() == "{}"  # what is there stays


@pytest.mark.parametrize("part", ["unet", "decoder"])
def test_the_record_of_a_training_from_shipped_names_both(tmp_path, part):
    list(recipes.train_part(part, tmp_path, from_shipped=True))
    before, after = (json.loads((tmp_path / part / f"{name}.json").read_text()) for name in ("shipped", "record"))
    more = f"COURSE_PROFILE=smoke python3 course.py train {part} --steps 12 --seed 0 --from-shipped"
    assert after["command"] == f"{before['command']} && {more}"
    assert after["steps"] == before["steps"] + 12 and after["seconds"] >= before["seconds"]
    with pytest.raises(ValueError, match="without --from-shipped"):
        next(recipes.train_part("judge", tmp_path, from_shipped=True))


def test_the_judge_comes_back_from_its_folder(trained):
    folder, _ = trained
    judge = recipes.load_judge(folder / "judge")
    maps = judge(book.pictures([book.sample_scene(0)]))
    assert maps["kind"].shape == (1, len(book.SUBJECTS), 16, 16) and not judge.training


def test_a_finished_part_is_not_trained_again(trained):
    folder, _ = trained
    assert list(recipes.train_part("judge", folder)) == []
    record = json.loads((folder / "judge" / "record.json").read_text())
    assert record["steps"] == 12 and record["command"].startswith("COURSE_PROFILE=smoke python3 course.py train judge")


def test_shipping_copies_the_parts_and_lists_them(trained, tmp_path):
    from course_utils.doctor import check_checkpoints

    folder, _ = trained
    recipes.ship(folder, tmp_path)
    assert check_checkpoints(tmp_path) == ([], [])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(manifest["training"]) == set(ORDER)
    shipped, tokenizer = recipes.load_clip(tmp_path / "clip")
    trained, _ = recipes.load_clip(folder / "clip")
    assert shipped.dtype == torch.float32 and not shipped.training
    halves, floats = ((home / "clip" / "model.safetensors").stat().st_size for home in (tmp_path, folder))
    assert halves < 0.6 * floats and not (tmp_path / "clip" / "checkpoint.safetensors").exists()
    ids = torch.tensor([tokenizer("a red cat").input_ids])
    torch.testing.assert_close(
        shipped.text_model(ids).last_hidden_state, trained.text_model(ids).last_hidden_state, rtol=0, atol=0.02
    )
    (tmp_path / "judge" / "config.json").write_text("{}")
    assert "changed" in check_checkpoints(tmp_path)[0][0]
    with pytest.raises(ValueError, match="vae, decoder, clip, unet, control, vq, dalle, embedder"):
        recipes.ship(tmp_path)


def test_what_is_missing_or_unknown_is_said(tmp_path):
    with pytest.raises(ValueError, match="train vae"):
        next(recipes.train_part("unet", tmp_path))
    with pytest.raises(ValueError, match="vae, decoder, clip, unet, control, vq, dalle, embedder"):
        next(recipes.train_part("text", tmp_path))


def test_captions_true_of_a_picture_are_told_from_those_that_are_not():
    red, blue = book.Thing("cat", "red", "sitting"), book.Thing("cat", "blue", "sitting")
    scenes = [book.Scene((thing,), "snow", style="watercolour") for thing in (red, blue)]
    captions = [book.Caption("a red cat", (book.Thing("cat", "red"),)), book.Caption("on the beach", (blue,), "beach")]
    scenes += [book.sample_scene(number) for number in range(12)]
    captions += [book.caption(scene, 1) for scene in scenes]
    same = recipes.true_pairs(recipes.fact_numbers(scenes), recipes.fact_numbers(captions))
    assert same[:2, :2].tolist() == [[True, False], [False, False]]
    assert same.tolist() == [[caption.is_true_of(scene) for caption in captions] for scene in scenes]


def test_a_training_whose_checkpoint_is_gone_has_no_record(tmp_path):
    with pytest.raises(ValueError, match="expected the checkpoint of the training that has ended"):
        facts_of(None, tmp_path, from_shipped=False)
