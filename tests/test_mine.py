"""The model of one's own: plans, Muon, training by the clock, and drawing."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from course_utils import cli
from course_utils.checkpoint import saved_run
from course_utils.data import picture_book as book
from course_utils.data.picture_book import plans
from course_utils.metrics.plans import plan_fault
from course_utils.models.worded import NOTHING, PAD, UNKNOWN, Finish, WordedTransformer, mixed
from course_utils.optimizers import Muon, orthogonalized
from course_utils.pipelines.mine import PlannedPipeline, WordList, draw_sheet, falling_times, load_mine, sample
from course_utils.pipelines.png_info import read_png
from course_utils.recipes import mine
from course_utils.recipes.mine import as_numbers, choose_scenes, train_mine, vocabulary
from course_utils.studio.shelf import Shelf
from course_utils.text.prompts import inspect_prompt
from course_utils.timed_training import rate_at, train_for

WORDS = ["<pad>", "<nothing>", "<unknown>", "a", "red", "car", "in", "the", "city", ","]


def test_page_and_things_are_those_of_draw_and_maps():
    for number in range(20):
        scene = book.sample_scene(number)
        page, things = book.page_and_things(scene)
        assert (page == np.asarray(book.draw(scene))).all()
        assert (things == book.maps(scene).things.numpy()).mean() > 0.98


def test_a_plan_says_what_the_caption_says():
    scenes = [book.sample_scene(number) for number in range(300)]
    assert all(plan_fault(plans.plan_of(scene), book.caption(scene, 1)) is None for scene in scenes)
    two = next(scene for scene in scenes if scene.relation == "left of")
    turned = plans.plan_of(two)
    turned[:2, plans.SPOT.start] = turned[:2, plans.SPOT.start].flip(0)
    assert plan_fault(turned, book.caption(two)) == "side"
    turned[: plans.THINGS] = 0
    assert plan_fault(turned, book.caption(two)) == "a thing missing"
    turned[-1] = turned[-1].flip(0)
    assert plan_fault(turned, book.caption(two)) in ("place", "style")


def test_a_plan_has_its_things_in_one_order():
    scenes = [book.sample_scene(number) for number in range(200)]
    for scene in scenes:
        found = [(plans.KINDS.index(thing.kind), thing.x) for thing in plans.read_plan(plans.plan_of(scene))]
        assert len(found) == len(scene.things) and found == sorted(found)
    assert any(len({thing.kind for thing in scene.things}) > 1 for scene in scenes)


def test_a_plan_that_is_nearly_right_is_read_as_the_right_one():
    for number in range(50):
        plan = plans.plan_of(book.sample_scene(number))
        near = plan + 0.1 * torch.randn(plan.shape, generator=torch.Generator().manual_seed(number))
        near[..., plans.SPOT] = plan[..., plans.SPOT]
        assert plans.read_plan(near) == plans.read_plan(plan)
        assert plans.map_of(near).equal(plans.map_of(plan))


def test_a_map_covers_what_the_page_shows():
    for number in range(40):
        scene = book.sample_scene(number)
        _, things = book.page_and_things(scene)
        share = (things > 0).reshape(8, 8, 8, 8).mean((1, 3)).reshape(64)
        told = plans.map_of(plans.plan_of(scene))
        assert told.shape == (64, plans.TOLD)
        covered = told[:, plans.THING - 1].numpy()
        assert (share * (covered == 0)).sum() < 0.1 * share.sum()
        assert (told[:, plans.KIND].sum(1).numpy() == pytest.approx(covered)) and not told[
            covered == 0, : plans.THING
        ].any()
        assert (told[:, plans.THING :].sum(1) == 2).all() and (told[:, plans.THING :] == told[0, plans.THING :]).all()
        assert plans.read_page(plans.plan_of(scene)) == (scene.place, scene.style)


def test_what_is_told_of_a_patch_turns_with_the_thing():
    """u grows to the side to which the thing looks: a thing and its mirror image tell the same, column by column."""
    plan = torch.zeros(plans.ROWS, plans.NUMBERS)
    plan[0, 0] = plan[0, plans.COLOUR.start] = 1
    plan[0, plans.SPOT] = torch.tensor([0.5, 0.5, 0.8, 1, 0])
    mirrored = plan.clone()
    mirrored[0, plans.SPOT.start + 3] = -1
    one, other = (plans.map_of(each).reshape(8, 8, -1) for each in (plan, mirrored))
    side = plans.POSE.stop + 3
    one[..., side] = other[..., side] = 0
    torch.testing.assert_close(one, other.flip(1))


def test_held_out_combinations_are_not_chosen():
    for scene in choose_scenes(300):
        assert not any(book.is_held_out(thing.kind, thing.colour, scene.place) for thing in scene.things)


def test_orthogonalized_keeps_the_directions():
    matrix = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    result = orthogonalized(matrix).float()
    assert ((s := torch.linalg.svdvals(result)) > 0.5).all() and (s < 1.3).all()
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(result.flatten(), (u @ v).flatten(), dim=0) > 0.97


def test_muon_is_that_of_torch():
    dice = torch.Generator().manual_seed(0)
    mine = [torch.nn.Parameter(torch.ones(16, 40)), torch.nn.Parameter(torch.ones(8))]
    torchs = [torch.nn.Parameter(p.detach().clone()) for p in mine]
    both = [
        [Muon(mine[:1], mine[1:], lr=1e-2)],
        [
            torch.optim.Muon(torchs[:1], lr=1e-2, weight_decay=0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(torchs[1:], lr=1e-2, betas=(0.9, 0.99), weight_decay=0),
        ],
    ]
    for _ in range(4):
        for a, b in zip(mine, torchs, strict=True):
            a.grad = torch.randn(a.shape, generator=dice)
            b.grad = a.grad.clone()
        for optimizer in itertools.chain(*both):
            optimizer.step()
    torch.testing.assert_close(mine[0], torchs[0], atol=2e-3, rtol=0)  # bfloat16 rounds each update
    torch.testing.assert_close(mine[1], torchs[1])
    quick = Muon([torch.nn.Parameter(torch.ones(16, 40))], [], lr=1e-2, iterations=0)
    (matrix,) = quick.param_groups[0]["params"]
    matrix.grad = torch.randn(16, 40, generator=dice)
    before = matrix.detach().clone()
    quick.step()  # without iterations it follows the gradient, at the length 1
    step = (before - matrix).detach() / (0.2 * 1e-2 * 40**0.5)
    torch.testing.assert_close(step, matrix.grad / matrix.grad.norm(), atol=5e-3, rtol=0)
    with pytest.raises(ValueError, match="expected matrices"):
        Muon([torch.nn.Parameter(torch.ones(3))], [])


def test_the_rate_ends_at_zero():
    assert rate_at(0, 0.0, 1.0) == pytest.approx(0.01)
    assert rate_at(500, 0.2, 1.0) == 1.0
    assert rate_at(500, 1.0, 1.0) == 0.0


def test_sample_follows_the_exact_flow_of_a_gaussian():
    """Data from N(0, s^2): E[x0 | x_t] is linear in x_t, and the flow leads from eps to s eps."""
    eps, s = torch.randn(100, generator=torch.Generator().manual_seed(0)), 0.5

    def predict(x_t, t):
        return (1 - t) * s**2 / ((1 - t) ** 2 * s**2 + t**2) * x_t

    torch.testing.assert_close(sample(predict, eps, 100), s * eps, atol=0.02, rtol=0)


def test_mixed_asks_for_variance_one():
    """x0_hat = x0 if and only if the network says what x_t lacks, and that has variance 1 at all times."""
    dice = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(3, 40, 100, generator=dice) for _ in range(2))
    t = torch.tensor([0.1, 0.5, 0.9])
    share = t[:, None, None]
    x_t = (1 - share) * x0 + share * eps
    p = (1 - share) ** 2 + share**2
    out = (p * x0 - (1 - share) * x_t) / (share * p.sqrt())
    torch.testing.assert_close(mixed(x_t, out, t), x0, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out.square().mean((1, 2)), torch.ones(3), atol=0.05, rtol=0)


def test_times_fall_to_zero_and_stay_longer_where_there_is_noise():
    assert falling_times(4, 1.0) == pytest.approx([0.999, 0.75, 0.5, 0.25, 0])
    assert falling_times(2, 3.0)[1] == pytest.approx(0.75)


def test_the_finish_begins_as_the_identity_and_crosses_seams():
    torch.manual_seed(0)
    finish = Finish(width=16, patch=8, channels=4)
    guess, x_t, tokens, c = torch.randn(1, 4, 192), torch.randn(1, 4, 192), torch.randn(1, 4, 16), torch.randn(1, 16)
    assert finish(guess, x_t, tokens, c).equal(guess)
    torch.nn.init.normal_(finish.last.weight)
    x_t.requires_grad_()
    finish(guess, x_t, tokens, c)[0, 0].sum().backward()  # the first of 2 x 2 patches
    assert all(x_t.grad[0, patch].any() for patch in range(4))


def test_padding_changes_nothing():
    torch.manual_seed(0)
    model = WordedTransformer(WORDS, numbers=5, tokens=4, width=16, depth=1, heads=2).eval()
    torch.nn.init.normal_(model.out.weight)
    x_t, t = torch.randn(1, 4, 5), torch.tensor([0.5])
    short, long = torch.tensor([[3, 4]]), torch.tensor([[3, 4, 0, 0]])
    torch.testing.assert_close(model(x_t, t, short), model(x_t, t, long))


def test_words_that_nobody_knows():
    words = vocabulary()
    a, red = words.index("a"), words.index("red")
    assert as_numbers(["A red zeppelin.", ""], words).tolist() == [[a, red, UNKNOWN], [NOTHING, PAD, PAD]]
    notes = inspect_prompt(WordList(words), "a red zeppelin" + " , and a red car" * 8).advice()
    assert len(notes) == 2 and "zeppelin" in notes[0] and "does not read" in notes[1]


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    def run(seconds, clock):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 4)
        optimizer = Muon([model.weight], [model.bias])
        return model, train_for(
            seconds,
            model,
            lambda model, samples: model(samples.normals(3)).square().mean(),
            optimizer,
            batch=2,
            learning_rate=1e-2,
            folder=tmp_path,
            clock=clock,
        )

    ticks = itertools.count()
    model, first = run(100, lambda: next(ticks))
    for record in itertools.islice(first, 10):
        step = record.step
    first.close()
    again, second = run(100, lambda: next(ticks))
    records = list(second)
    assert records[0].step == step + 1
    assert records[-1].seconds >= 100


# --- the model as a whole ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def small():
    """Small networks, so that an update takes no time."""
    with pytest.MonkeyPatch.context() as patch:
        for half, facts in mine.HALVES.items():
            sizes = facts.sizes | dict(width=32, depth=1, heads=2) | ({"finish": 8} if half == "painter" else {})
            patch.setitem(mine.HALVES, half, mine.Half(facts.share, 4, sizes))
        yield


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    """A model that was trained for a few updates, by a clock that ticks."""
    home = tmp_path_factory.mktemp("runs") / "mine"
    assert {progress.half for progress in run_to_end(home)} == {"planner", "painter"}
    draw_sheet(home)
    return home


def run_to_end(home, **options):
    return list(train_mine(home, 20 / 60, scenes=60, pages=40, clock=itertools.count().__next__, **options))


def weights(home):
    return {
        f"{half}.{name}": value
        for half in mine.HALVES
        for name, value in load_file(home / half / "diffusion_pytorch_model.safetensors").items()
    }


def same(one, other):
    return one.keys() == other.keys() and all(value.equal(other[name]) for name, value in one.items())


def test_it_draws_and_diffusers_opens_it(folder):
    pipe = load_mine(folder)
    pages = pipe.draw(["a red car in the city", "a cat"], [3, 4])
    assert pages.shape == (2, 3, 64, 64) and pages.abs().max() <= 1
    torch.testing.assert_close(pipe.draw(["a cat"], [4]), pages[1:], atol=2e-2, rtol=0)
    opened = PlannedPipeline.from_pretrained(folder)
    assert opened.draw(["a red car in the city", "a cat"], [3, 4]).equal(pages)
    assert [image.size for image in opened(["a red car", "a cat"]).images] == [(64, 64)] * 2
    with pytest.raises(ValueError, match="expected a prompt"):
        opened([])
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.size == (4 * 192 + 3 * 2, 2 * 192 + 2)


def test_a_pipeline_that_is_saved_is_that_pipeline(folder, tmp_path):
    pipe = load_mine(folder)
    pipe.save_pretrained(tmp_path)
    again = PlannedPipeline.from_pretrained(tmp_path)
    assert again.draw(["a cat"], [0]).equal(pipe.draw(["a cat"], [0]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model_index.json", "painter", "planner"]


def test_halves_that_do_not_belong_together_are_refused(folder):
    pipe = load_mine(folder)
    with pytest.raises(ValueError, match="trained together"):
        PlannedPipeline(WordedTransformer(WORDS, plans.NUMBERS, tokens=plans.ROWS, depth=1), pipe.painter)


def test_without_a_prompt_the_painter_is_told_nothing(folder):
    """The unguided half of a guided prediction sees neither words nor map."""
    pipe = load_mine(folder)
    plan = pipe.plan(["a cat"], [0])
    assert not pipe.paint(["a cat"], plan, [0], steps=2).equal(pipe.paint(["a cat"], 0 * plan, [0], steps=2))
    nothing = pipe.paint(["a cat"], plan, [0], steps=2, guidance=0)
    assert nothing.equal(pipe.paint(["a red car"], 0 * plan, [0], steps=2, guidance=0))


@pytest.mark.parametrize("stop", [1, 2, 3, 9])
def test_a_run_that_was_stopped_comes_to_the_same(folder, tmp_path, stop):
    ticks = itertools.count()
    run = train_mine(tmp_path / "mine", 20 / 60, scenes=60, pages=40, clock=lambda: next(ticks))
    half = [progress.half for progress in itertools.islice(run, stop)][-1]
    run.close()
    assert saved_run(tmp_path / "mine" / "training" / half).step in (stop, stop - 3)
    run_to_end(tmp_path / "mine")
    assert same(weights(tmp_path / "mine"), weights(folder))


def test_restart_begins_from_nothing(folder, tmp_path):
    run_to_end(tmp_path / "mine", seed=5)
    with pytest.raises(ValueError, match="seed 5 .now 0."):
        run_to_end(tmp_path / "mine")
    run_to_end(tmp_path / "mine", restart=True)
    assert same(weights(tmp_path / "mine"), weights(folder))


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_that_make_no_sense_are_refused(tmp_path, minutes):
    with pytest.raises(ValueError, match="minutes above 0"):
        next(train_mine(tmp_path, minutes))


# --- the command line --------------------------------------------------------------------------------------

QUICK = {**os.environ, "COURSE_PROFILE": "smoke"}


def refused(*arguments):
    """The one sentence with which the command line refuses."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 2 and result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    return result.stderr


def test_train_refuses_in_one_sentence(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to_anna.txt").touch()
    (tmp_path / "file").touch()
    assert "minutes above 0, got -3" in refused("train", "mine", "--minutes", "-3")
    assert "to_anna.txt" in refused("train", "mine", "--folder", "letters")
    assert "file is a file" in refused("train", "mine", "--folder", "file")
    assert "seed" in refused("train", "mine", "--seed", "-1")
    assert "--minutes" in refused("train", "mine", "--steps", "3")
    assert "Only mine" in refused("train", "vae", "--minutes", "3")
    assert "seed 0 (now 1)" in refused("train", "mine", "--folder", folder, "--seed", "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "letters"]


def start(home, minutes="1"):
    command = [sys.executable, "-m", "course_utils.cli", "train", "mine", "--minutes", minutes, "--folder", str(home)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=QUICK,
        cwd=cli.ROOT,
        start_new_session=True,
    )


def wait_for_updates(process):
    """Read what the bar says until the painter has made some updates."""
    said = ""
    while not re.search(r"painter.*[1-9]\d* updates", said):
        piece = process.stderr.read(1)
        assert piece, said
        said += piece


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_ctrl_c_and_kill_lose_nothing(tmp_path):
    home = tmp_path / "mine"
    first = start(home)
    wait_for_updates(first)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130 and "Stopped; all is kept" in out and "Traceback" not in err
    kept = saved_run(home / "training" / "painter")
    assert kept.step > 0
    second = start(home)
    wait_for_updates(second)
    second.kill()
    second.communicate()
    assert saved_run(home / "training" / "painter").step >= kept.step
    third = start(home, minutes="0.3")
    out, err = third.communicate(timeout=120)
    assert third.returncode == 0, err
    assert "sheet.png" in out and saved_run(home / "training" / "painter").began == kept.began
    assert json.loads((home / "model_index.json").read_text())["_class_name"] == "PlannedPipeline"


def test_generate_knows_the_model_by_its_folder(folder, tmp_path):
    def draw(name, *options):
        path = tmp_path / f"{name}.png"
        result = CliRunner().invoke(cli.app, ["generate", "a red car", "--output", str(path), *map(str, options)])
        assert result.exit_code == 0, result.output
        return np.asarray(Image.open(path)), read_png(path), result.stderr

    page, settings, said = draw("one", "--model", folder, "--seed", 4)
    assert page.shape == (64, 64, 3) and settings.system == "mine" and settings.guidance == 2.0 and "Note" not in said
    named, _, _ = draw("two", "--system", "mine", "--model", folder, "--seed", 4)
    assert (page == named).all()


def test_the_studio_does_not_offer_what_it_cannot_draw_with(folder):
    assert str(folder) not in Shelf(folder.parent).models()


def test_generate_refuses_what_the_model_has_not(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no --steps" in refused("generate", "a cat", "--model", folder, "--steps", "3")
    assert "train mine" in refused("generate", "a cat", "--system", "mine")
    broken = tmp_path / "broken"
    for half in mine.HALVES:
        (broken / half).mkdir(parents=True)
        (broken / half / "config.json").write_text("{}")
    (broken / "model_index.json").write_text('{"_class_name": "PlannedPipeline"}')
    assert "broken" in (said := refused("generate", "a cat", "--model", broken)) and "train mine" in said
