"""Explorers: a function that draws, and controls over its parameters.

An explorer's `draw(ax, **values)` is an ordinary function that draws on the axes and returns one sentence about
what is to be seen. So it can be tested at both ends of every control, shown as a row of static pictures
(`filmstrip`, for GitHub, print and the first look), and put under live controls (`explore`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from course_utils.data.images import to_tensor
from course_utils.objectives import best_x0, posterior_weights, x0_from_eps
from course_utils.pipelines import draw
from course_utils.plotting import as_png, plot_pictures, show
from course_utils.png_info import Settings
from course_utils.schedules import add_noise


@dataclass(frozen=True)
class Slider:
    """A number from `low` to `high` in steps of `step`; whole numbers give a slider of whole numbers."""

    low: float
    high: float
    step: float = 1


@dataclass(frozen=True)
class Explorer:
    """`draw(ax, **values) -> sentence`, `controls` (name -> Slider, or None for a line of text), starting values."""

    draw: Callable[..., str]
    controls: dict[str, Slider | None]
    start: dict

    def __post_init__(self):
        if set(self.controls) != set(self.start):
            raise ValueError(f"Expected a starting value for each of the controls {sorted(self.controls)}, "
                             f"got them for {sorted(self.start)}.")


def prompt_explorer(pipe, prompt: str = "a cute corgi puppy sitting on the grass") -> Explorer:
    """Draw with a pipeline: prompt, seed, steps and guidance under the learner's hands."""

    def draw_prompt(ax, prompt: str, seed: int, steps: int, guidance: float) -> str:
        ((picture, made),) = draw(pipe, Settings(prompt, seed=seed, steps=steps, guidance=guidance))
        plot_pictures(to_tensor(picture), [f"seed {seed}, {steps} steps, guidance {guidance:g}"], ax=ax)
        return f"The model's picture of “{made.prompt}” with seed {seed}, {steps} steps and guidance {guidance:g}."

    return Explorer(draw_prompt, {"prompt": None, "seed": Slider(0, 99), "steps": Slider(1, 50),
                                  "guidance": Slider(1, 12, 0.5)},
                    {"prompt": prompt, "seed": 3, "steps": 20, "guidance": 4.0})


def ink_blot_explorer(model, pictures, alpha_bar) -> Explorer:
    """A picture, the same in noise, and two guesses of it: the network's and the average of all that could be there.

    model(x_t, t) -> eps_hat. pictures: the training set, (n, channels, height, width), on the device of alpha_bar.
    """

    def draw_guesses(ax, t: int, picture: int, seed: int) -> str:
        x0, times = pictures[picture : picture + 1], torch.tensor([t], device=pictures.device)
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed)).to(x0)
        x_t = add_noise(x0, eps, times, alpha_bar)
        with torch.no_grad():
            guess = x0_from_eps(x_t, model(x_t, times), times, alpha_bar)
        likely = posterior_weights(x_t, times, alpha_bar, pictures)[0].max().item()
        average = best_x0(x_t, times, alpha_bar, pictures)
        titles = ["x_0", f"t = {t}", "network", "average"]
        plot_pictures(torch.cat([x0, x_t, guess, average]), titles, columns=2, ax=ax)
        return f"At t = {t} the likeliest single picture has {likely:.0%} of the weight in the average."

    return Explorer(draw_guesses, {"t": Slider(0, len(alpha_bar) - 1), "picture": Slider(0, len(pictures) - 1),
                                   "seed": Slider(0, 99)},
                    {"t": len(alpha_bar) * 3 // 5, "picture": 0, "seed": 0})


# Every function above that makes an explorer for a model, a training set and a schedule; tested likewise.
DENOISER_EXPLORERS = [ink_blot_explorer]

# Every function above that makes an explorer for a pipeline: the tests draw each at both ends of its sliders.
PIPELINE_EXPLORERS = [prompt_explorer]


def filmstrip(explorer: Explorer, changes: list[dict]) -> None:
    """Show the explorer's drawing at its starting values with each of `changes` in turn, as one row of panels."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(changes), figsize=(2.2 * len(changes), 2.6), squeeze=False)
    sentences = [explorer.draw(ax, **{**explorer.start, **change})
                 for ax, change in zip(panels[0], changes, strict=True)]
    show(figure, "From left to right: " + " ".join(sentences))


def explore(explorer: Explorer):
    """The explorer under live controls, a widget; it draws when a control is let go, and at once at the start.

    What cannot be drawn leaves the picture as it was and says why.
    """
    import ipywidgets

    controls = {name: _control(name, slider, explorer.start[name]) for name, slider in explorer.controls.items()}
    picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(width="22em"))
    sentence = ipywidgets.Label()

    def redraw(change=None) -> None:
        import matplotlib.pyplot as plt

        figure, ax = plt.subplots(figsize=(3.4, 3.7))
        try:
            sentence.value = explorer.draw(ax, **{name: control.value for name, control in controls.items()})
            picture.value = as_png(figure)
        except ValueError as error:
            sentence.value = str(error)
        finally:
            plt.close(figure)

    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*controls.values(), picture, sentence])


def _control(name: str, slider: Slider | None, value):
    import ipywidgets

    wide = {"layout": ipywidgets.Layout(width="34em"), "style": {"description_width": "6em"}}
    if slider is None:
        return ipywidgets.Text(value, description=name, continuous_update=False, **wide)
    kind = ipywidgets.IntSlider if isinstance(value, int) else ipywidgets.FloatSlider
    return kind(value, min=slider.low, max=slider.high, step=slider.step, description=name, continuous_update=False,
                **wide)
