"""The few-step student: it begins as its teacher, learns where the teacher's paths lead, and draws by DDIM's steps."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from benchmarks import few_steps as benchmark
from benchmarks.prompts import load
from course_utils import cli, recipes, systems
from course_utils.diffusion import samplers
from course_utils.diffusion.few_steps import landing_velocity
from course_utils.diffusion.objectives import as_eps
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.models.few_steps import STEPS, with_condition
from course_utils.pipelines import few_steps
from course_utils.pipelines.editing import decode_latents, hidden_states
from course_utils.pipelines.picture_book import CHECKPOINTS, load_picture_book
from course_utils.pipelines.png_info import Settings, format_parameters, parse_parameters, read_png
from course_utils.recipes.few_steps import JUMPS, OFTEN, jump_loss, levels, teacher_paths
from course_utils.recipes.task import save_half
from course_utils.recipes.unet import PromptedUNet

ALPHA_BAR = alpha_bar_from_beta(scaled_linear_beta())
PROMPTS = ["a red ball on the beach", "a cat in the snow"]


@pytest.fixture(scope="module")
def pipe():
    return load_picture_book()


@pytest.fixture(scope="module")
def student(pipe):
    """A student as if trained: what began at zero is zero no more."""
    student, generator = few_steps.new_student(pipe.unet), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weights in student.named_parameters():
            if name.endswith((".B", "cond_proj.weight")):
                weights.normal_(0, 0.02, generator=generator)
    return student.requires_grad_(False).eval()


def noise(count=2, seed=3):
    return torch.randn(count, 8, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_a_new_student_is_its_teacher_whatever_it_is_told(pipe):
    student, x, t = few_steps.new_student(pipe.unet), noise(3), torch.tensor([999, 400, 3])
    cond = hidden_states(pipe, "a cat", 3)
    with torch.no_grad():
        theirs = pipe.unet(x, t, cond).sample
        torch.testing.assert_close(student(x, t, cond, torch.tensor(STEPS)), theirs, atol=1e-5, rtol=1e-5)
    assert set(student.kept()) == {name for name, p in student.named_parameters() if p.requires_grad}
    assert all(name.endswith((".A", ".B", "cond_proj.weight")) for name in student.kept())
    assert 2 * sum(value.numel() for value in student.kept().values()) < 8e6  # bytes in float16
    with pytest.raises(ValueError, match="told the time only, got one with time_cond_proj_dim = 3"):
        with_condition(student.unet, 3)


def test_what_it_is_told_is_the_librarys_timestep_cond(pipe, student):
    x, t, cond = noise(3), torch.tensor([999, 400, 3]), hidden_states(pipe, "a cat", 3)
    for number, steps in enumerate(STEPS):
        told = torch.eye(3)[[number] * 3]
        expected = student.unet(x, t, cond, timestep_cond=told).sample
        assert student(x, t, cond, torch.tensor([steps] * 3)).equal(expected)
    one, four = (student(x, t, cond, torch.tensor([steps] * 3)) for steps in (1, 4))
    assert (one - four).abs().max() > 1e-3


def test_the_jumps_of_each_number_of_steps_lead_from_noise_to_the_picture():
    for steps in STEPS:
        jumps = [(start, end) for start, end, of in JUMPS if of == steps]
        assert len(jumps) == steps and jumps[0][0] == 0 and jumps[-1][1] == 4
        assert all(end == start for (_, end), (start, _) in zip(jumps, jumps[1:], strict=False))
        times = levels(ALPHA_BAR)[0]
        assert [times[start] for start, _ in jumps] == samplers.trailing_times(1000, steps)
    assert len(OFTEN) == len(JUMPS)


def test_the_teachers_path_is_that_of_the_guided_sampler(pipe):
    paths = teacher_paths(pipe, PROMPTS, noise(), guidance=2.0, steps=8)
    assert paths.shape == (2, 5, 8, 16, 16) and paths[:, 0].equal(noise())
    cond, null = hidden_states(pipe, PROMPTS, 2), hidden_states(pipe, "", 1)
    model = samplers.guided(as_eps(PromptedUNet(pipe.unet), "v", ALPHA_BAR), null, 2.0)
    walk = list(samplers.dpm_solver(model, noise(), ALPHA_BAR, samplers.trailing_times(1000, 8), cond))
    torch.testing.assert_close(paths[:, 1:], torch.stack([walk[n].x_t for n in (1, 3, 5, 7)], 1), atol=1e-4, rtol=1e-4)
    assert walk[1].t == levels(ALPHA_BAR)[0][1]


def test_a_student_that_makes_no_error_draws_the_ends_of_the_paths(pipe):
    """The velocity that the loss asks for has a loss of 0, and DDIM with it ends where the path does."""
    torch.manual_seed(0)
    paths = torch.randn(2, 5, 8, 16, 16)
    times, level = levels(ALPHA_BAR)

    def right(x_t, t, cond, steps):
        start = [times.tolist().index(moment) for moment in t.tolist()]
        end = [next(e for s, e, of in JUMPS if (s, of) == (i, n)) for i, n in zip(start, steps.tolist(), strict=True)]
        return landing_velocity(x_t, paths[range(len(x_t)), end], level[start], level[end])

    for which in range(len(JUMPS)):
        assert jump_loss(right, paths, torch.empty(2), torch.tensor([which] * 2), ALPHA_BAR) < 1e-8
    for steps in STEPS:
        x = paths[:, 0]
        model = as_eps(lambda x, t, cond, n=steps: right(x, t, cond, torch.full((2,), n)), "v", ALPHA_BAR)
        drawn = samplers.finish(samplers.ddim(model, x, ALPHA_BAR, samplers.trailing_times(1000, steps)))
        torch.testing.assert_close(drawn, paths[:, 4], atol=1e-3, rtol=1e-3)


def test_the_loss_trains_the_student_and_leaves_the_teacher(pipe):
    student = few_steps.new_student(pipe.unet)
    cond = hidden_states(pipe, PROMPTS, 2)
    jump_loss(student, torch.randn(2, 5, 8, 16, 16), cond, torch.tensor([4, 6]), ALPHA_BAR).backward()
    trained = {name for name, weights in student.named_parameters() if weights.grad is not None}
    assert trained == set(student.kept()) and all(weights.grad is None for weights in pipe.unet.parameters())


def test_it_draws_by_ddim_told_the_number_of_steps(pipe, student):
    cond = hidden_states(pipe, PROMPTS, 2)
    for steps in STEPS:
        model = as_eps(lambda x, t, c, n=steps: student(x, t, c, torch.full((2,), n)), "v", ALPHA_BAR)
        times = samplers.trailing_times(1000, steps)
        expected = decode_latents(pipe, samplers.finish(samplers.ddim(model, noise(), ALPHA_BAR, times, cond)))
        torch.testing.assert_close(few_steps.draw_fast(pipe, student, PROMPTS, noise(), steps), expected)
    with pytest.raises(ValueError, match="draws in 1, 2 or 4 steps, not in 3: choose one of these"):
        few_steps.draw_fast(pipe, student, PROMPTS, noise(), 3)


# --- the file, and the system


@pytest.fixture(scope="module")
def home(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "few_steps"
    save_half(student, folder)
    return folder


def test_the_student_comes_back_from_its_file(pipe, student, home, tmp_path):
    saved = load_file(home / few_steps.FILE)
    assert set(saved) == set(student.kept()) and all(value.dtype == torch.float16 for value in saved.values())
    found = few_steps.load_student(pipe.unet, home)
    assert not found.training and not any(weights.requires_grad for weights in found.parameters())
    for name, value in found.kept().items():
        torch.testing.assert_close(value, student.kept()[name], atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="There is no few-step student in"):
        few_steps.load_student(pipe.unet, tmp_path)
    (tmp_path / few_steps.FILE).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"The few-step student .* cannot be read"):
        few_steps.load_student(pipe.unet, tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / few_steps.FILE)
    with pytest.raises(ValueError, match="is not as this U-Net needs it"):
        few_steps.load_student(pipe.unet, tmp_path)


def generate(*arguments):
    return CliRunner().invoke(cli.app, ["generate", *map(str, arguments)])


def test_fast_draws_with_the_student_and_the_png_draws_again(here, home, pipe, student):
    result = generate(PROMPTS[0], "--fast", "--seed", 7, "--model", home, "--output", "a.png")
    assert result.exit_code == 0, result.output
    settings = read_png(here / "a.png")
    assert (settings.system, settings.steps, settings.guidance) == ("few-steps", 4, 1.0)
    loaded = systems.load("few-steps", home)
    ((picture, made),) = systems.draw_in_turn(loaded, settings)
    assert made == settings
    drawn = few_steps.draw_fast(pipe, few_steps.load_student(pipe.unet, home), PROMPTS[:1], noise(1, 7), 4)
    torch.testing.assert_close(loaded.draw(PROMPTS[:1], 7, steps=4), drawn, atol=1e-4, rtol=1e-4)
    result = generate(PROMPTS[0], "--fast", "--steps", 1, "--model", home, "--output", "b.png")
    assert result.exit_code == 0 and read_png(here / "b.png").steps == 1


def test_a_png_of_the_student_names_no_sampler():
    settings = Settings("a", steps=2, guidance=1.0, width=64, height=64, model="few_steps", system="few-steps")
    text = "a\nSteps: 2, CFG scale: 1, Seed: 0, Size: 64x64, Model: few_steps, System: few-steps"
    assert format_parameters(settings) == text and parse_parameters(text) == settings


@pytest.mark.parametrize(
    "options, words",
    [
        (["--fast", "--steps", 3], "The system few-steps draws in 1, 2 or 4 steps, not in 3: choose one of these"),
        (["--fast", "--guidance", 4], "guidance has been distilled into the network, so 4 cannot be chosen"),
        (["--fast", "--scheduler", "ddim"], "The system few-steps has no --scheduler"),
        (["--fast", "--negative", "a"], "The system few-steps has no --negative"),
        (["--fast", "--system", "dalle"], "--fast is the system few-steps, but --system is dalle"),
    ],
)
def test_what_the_student_cannot_do_is_refused(here, options, words):
    result = generate("a", *options)
    assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1


def test_the_shipped_student_follows_simple_prompts(pipe):
    """Of 12 frozen prompts with one object, at least 9 in four steps: by `benchmark few_steps` it is nearly all."""
    prompts = [prompt for prompt in load() if prompt.task == "one object"][:12]
    loaded = systems.load("few-steps")
    assert loaded.folder == CHECKPOINTS / "few_steps"
    row = benchmark.by_task(recipes.load_judge(), loaded.draw([p.caption.text for p in prompts], 0), prompts)
    assert row["followed"]["percent"] >= 75


def test_the_benchmarks_table(home, monkeypatch):
    monkeypatch.setattr(benchmark, "seconds_of_one", lambda *_: 0.123)
    row = benchmark.measure(systems.load("few-steps", home), {"steps": 1}, recipes.load_judge(), load()[:4])
    assert row["steps"] == 1 and row["followed"]["n"] == 4 and row["guidance"] == 1.0
    head, rule, line = benchmark.table([row]).splitlines()
    assert head.count("|") == rule.count("|") == line.count("|") and "| few-steps | 1 |" in line and "0.123" in line
