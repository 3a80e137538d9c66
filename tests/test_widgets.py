"""Explorers: drawn at both ends of every control, still and live."""

import itertools

import pytest
import torch
from tiny import tiny_pipeline

from course_utils import widgets
from course_utils.data import picture_book as book
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.machine.memory_plan import Part
from course_utils.models.gan import PictureGenerator, PointDiscriminator
from course_utils.models.pixelcnn import PixelCNN
from course_utils.widgets import Choice, Explorer, Slider, explore, filmstrip, noise_explorer, schedule_explorer

LEVELS = torch.arange(24).reshape(2, 3, 4) % 3
PICTURES = torch.linspace(-1, 1, 576).reshape(3, 3, 8, 8)
ALPHA_BAR = alpha_bar_from_beta(scaled_linear_beta(50))


def blobs(z):
    """Pictures from latents: (batch, d) -> (batch, 1, 8, 8)."""
    return z.mean(1).tanh().reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)


# every explorer of the course, made of the smallest things that will do
CASES = {
    "attention_explorer": lambda: widgets.attention_explorer(PICTURES[:1]),
    "best_judge_explorer": widgets.best_judge_explorer,
    "bias_explorer": widgets.bias_explorer,
    "bound_explorer": widgets.bound_explorer,
    "fill_in_explorer": lambda: widgets.fill_in_explorer(PixelCNN(levels=3, hidden=4, blocks=1), LEVELS),
    "game_explorer": lambda: widgets.game_explorer(
        {"a": [(step, PointDiscriminator(4), torch.zeros(5, 2)) for step in (1, 2)]}, torch.zeros(5, 2)
    ),
    "guidance_explorer": lambda: widgets.guidance_explorer(torch.eye(2), ALPHA_BAR, 20),
    "ink_blot_explorer": lambda: widgets.ink_blot_explorer(lambda x_t, t: x_t, PICTURES, ALPHA_BAR),
    "interpolation_explorer": lambda: widgets.interpolation_explorer(blobs, torch.randn(4, 3).cumsum(0)),
    "latent_explorer": lambda: widgets.latent_explorer(lambda z: z[:, :3], torch.randn(2, 4, 8, 8)),
    "latent_map_explorer": lambda: widgets.latent_map_explorer(blobs, torch.eye(2), torch.tensor([3, 4])),
    "latent_walk_explorer": lambda: widgets.latent_walk_explorer(PictureGenerator(1, 8, 3, 4)),
    "noise_explorer": lambda: noise_explorer(PICTURES[:1]),
    "overlap_explorer": widgets.overlap_explorer,
    "plan_explorer": lambda: widgets.plan_explorer({"unet": Part(10**9, 10**8, 9), "vae": Part(10**8, 10**9, 9)}),
    "prompt_explorer": lambda: widgets.prompt_explorer(tiny_pipeline()),
    "receptive_field_explorer": lambda: widgets.receptive_field_explorer(5),
    "scale_explorer": lambda: widgets.scale_explorer(lambda z: z, PICTURES[:1], ALPHA_BAR),
    "schedule_explorer": schedule_explorer,
    "shift_explorer": lambda: widgets.shift_explorer(book.sample_scene(0)),
    "search_explorer": lambda: widgets.search_explorer(PICTURES, torch.eye(3), lambda said: torch.eye(3)[: len(said)]),
    "temperature_explorer": lambda: widgets.temperature_explorer(torch.eye(5), torch.eye(5)),
    "drawing_explorer": lambda: widgets.drawing_explorer(lambda prompt, seed, lines, weight: 2 * lines - 1),
    "two_prompts_explorer": lambda: widgets.two_prompts_explorer(
        lambda texts: torch.zeros(len(texts), 2, 3),
        lambda x_t, t, cond: x_t,
        lambda x: x,
        (3, 8, 8),
        ALPHA_BAR,
        ["a", "b"],
        3,
    ),
    "trajectory_explorer": lambda: widgets.trajectory_explorer(lambda x_t, t, cond=None: x_t, torch.eye(2), ALPHA_BAR),
}


@pytest.fixture(params=CASES)
def explorer(request):
    return CASES[request.param]()


def test_no_explorer_is_left_out():
    assert {name for name in vars(widgets) if name.endswith("_explorer")} == set(CASES)


def test_every_control_can_be_drawn_at_both_ends(explorer):
    import matplotlib.pyplot as plt

    ends = {
        name: (control.low, control.high) if isinstance(control, Slider) else control.options
        for name, control in explorer.controls.items()
        if control
    }
    assert any(isinstance(control, Slider) for control in explorer.controls.values())
    for values in itertools.product(*ends.values()):
        figure, axes = plt.subplots(1, explorer.panels)
        sentence = explorer.draw(axes, **{**explorer.start, **dict(zip(ends, values, strict=True))})
        assert sentence.endswith(".") and all(ax.images or ax.lines for ax in figure.axes)
        plt.close(figure)


def test_the_filmstrip_has_a_panel_a_setting_and_says_what_it_shows(explorer, capsys):
    name, slider = next((name, control) for name, control in explorer.controls.items() if isinstance(control, Slider))
    filmstrip(explorer, [{name: slider.low}, {name: slider.low + slider.step}])
    said = capsys.readouterr().out
    assert said.startswith("From left to right: " if explorer.panels == 1 else "From top to bottom: ")
    both = [explorer.start | {name: value} for value in (slider.low, slider.low + slider.step)]
    assert all(said.count(f"{value[name]:g}") for value in both)


def test_every_explorer_comes_alive(explorer):
    *controls, picture, sentence = explore(explorer).children
    assert len(controls) == len(explorer.controls) and sentence.value.endswith(".")
    assert bytes(picture.value).startswith(b"\x89PNG")


def test_noise_at_both_ends_of_time():
    import matplotlib.pyplot as plt

    explorer = noise_explorer(torch.full((1, 3, 32, 32), 0.5))
    for t, low, high in ((0, 0.4, 0.6), (999, -0.2, 0.2)):
        figure, axes = plt.subplots(1, 3)
        explorer.draw(axes, t=t, schedule="linear")
        heights = [patch.get_height() for patch in axes[1].patches]
        edges = [patch.get_x() for patch in axes[1].patches]
        mean = sum(h * (x + 0.05) for h, x in zip(heights, edges, strict=True)) / sum(heights)
        assert low < mean < high
        plt.close(figure)
    with pytest.raises(ValueError, match="batch axis"):
        noise_explorer(torch.zeros(3, 8, 8))


def test_the_schedule_explorer_says_what_is_left_at_the_end():
    import matplotlib.pyplot as plt

    explorer, (_, axes) = schedule_explorer(), plt.subplots(1, 3)
    assert "even at t = 259" in explorer.draw(axes, "linear", 1000, 0.02)
    assert "factor 0.0064" in explorer.draw(axes, "linear", 1000, 0.02)
    assert "never outweighs" in explorer.draw(axes, "scaled linear", 10, 0.012)
    plt.close("all")


def test_a_choice_draws_anew():
    drawn = []

    def draw(ax, word: str) -> str:
        drawn.append(word)
        return f"<{word}>."

    box = explore(Explorer(draw, {"word": Choice(("a", "b"))}, {"word": "a"}))
    box.children[0].value = "b"
    assert drawn == ["a", "b"] and box.children[-1].value == "&lt;b&gt;."


def test_letting_a_slider_go_draws_anew():
    drawn = []

    def draw(ax, level: int) -> str:
        drawn.append(level)
        if level == 3:
            raise ValueError("Level 3 cannot be drawn.")
        return f"Level {level}."

    box = explore(Explorer(draw, {"level": Slider(0, 3)}, {"level": 1}))
    slider = box.children[0]
    slider.value = 2
    slider.value = 3  # an error is said, not raised: the other controls stay alive
    slider.value = 0
    assert drawn == [1, 2, 3, 0]


def test_a_missing_starting_value_is_an_error():
    with pytest.raises(ValueError, match="starting value"):
        Explorer(lambda ax: "", {"a": Slider(0, 1)}, {})


def test_the_best_judge_is_a_coin_before_equal_hills_and_sure_before_distant_ones():
    import matplotlib.pyplot as plt

    explorer, (_, ax) = widgets.best_judge_explorer(), plt.subplots()
    assert "value -1.386, a Jensen-Shannon divergence of 0.000" in explorer.draw(ax, 0.0, 1.0)
    assert "divergence of 0.69" in explorer.draw(ax, 4.0, 0.25)  # nearly log 2
    plt.close("all")


def test_lines_are_moved_scaled_and_cut_at_the_edge():
    from course_utils.widgets.steering import moved_lines

    lines = moved_lines("ball", 30, 40, 0.6)
    assert lines.shape == (1, 3, 64, 64) and lines.min() == 0 and lines.max() == 1
    rows, columns = lines[0, 0].nonzero().float().T
    assert abs(rows.mean() - 40) < 2 and abs(columns.mean() - 30) < 2
    heights = [moved_lines("ball", 30, 40, size)[0, 0].any(1).sum().item() for size in (0.6, 1.2)]
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.15)
    assert 0 < moved_lines("ball", 0, 0, 1.0).sum() < 0.5 * moved_lines("ball", 32, 32, 1.0).sum()
    with pytest.raises(ValueError, match="size above 0"):
        moved_lines("ball", 32, 32, 0)
