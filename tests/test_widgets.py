"""Explorers: drawn at both ends of every control, still and live."""

import itertools

import pytest
import torch
from tiny import tiny_pipeline

from course_utils.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.widgets import (
    DENOISER_EXPLORERS,
    PIPELINE_EXPLORERS,
    Explorer,
    Slider,
    explore,
    filmstrip,
)


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(params=PIPELINE_EXPLORERS, ids=lambda make: make.__name__)
def explorer(request, pipe):
    return request.param(pipe)


def test_every_control_can_be_drawn_at_both_ends(explorer):
    import matplotlib.pyplot as plt

    sliders = {name: slider for name, slider in explorer.controls.items() if slider}
    assert sliders
    for ends in itertools.product(*[(slider.low, slider.high) for slider in sliders.values()]):
        figure, ax = plt.subplots()
        sentence = explorer.draw(ax, **{**explorer.start, **dict(zip(sliders, ends, strict=True))})
        assert sentence.endswith(".") and ax.images
        plt.close(figure)


@pytest.mark.parametrize("make", DENOISER_EXPLORERS)
def test_denoiser_explorers_can_be_drawn_at_both_ends(make):
    pictures = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    explorer = make(lambda x_t, t: x_t, pictures, alpha_bar_from_beta(scaled_linear_beta(20)))
    test_every_control_can_be_drawn_at_both_ends(explorer)


def test_the_filmstrip_has_a_panel_a_setting_and_says_what_it_shows(explorer, capsys):
    filmstrip(explorer, [{"steps": 1}, {"steps": 2}])
    said = capsys.readouterr().out
    assert "From left to right" in said and "1 steps" in said and "2 steps" in said


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
