"""Explorers: a function that draws, and controls over its parameters.

An explorer's `draw(ax, **values)` is an ordinary function that draws on the axes (on a list of them if it has
several panels) and returns one sentence about what is to be seen. So it can be tested at both ends of every
control, shown as static pictures (`filmstrip`, for GitHub, print and the first look), and put under live controls
(`explore`).
"""

import html
from collections.abc import Callable
from dataclasses import dataclass

import torch

from course_utils.data.images import to_tensor
from course_utils.objectives import best_x0, posterior_weights, x0_from_eps
from course_utils.pipelines import draw
from course_utils.plotting import as_png, plot_pictures, show
from course_utils.png_info import Settings
from course_utils.schedules import (
    add_noise,
    alpha_bar_from_beta,
    cosine_beta,
    linear_beta,
    scaled_linear_beta,
    snr,
)
from course_utils.shapes import require_pictures


@dataclass(frozen=True)
class Slider:
    """A number from `low` to `high` in steps of `step`; whole numbers give a slider of whole numbers."""

    low: float
    high: float
    step: float = 1


@dataclass(frozen=True)
class Choice:
    """One of several words."""

    options: tuple[str, ...]


@dataclass(frozen=True)
class Explorer:
    """`draw(ax, **values) -> sentence`, its controls (name -> Slider, Choice, or None for text), starting values.

    With more than one panel, `draw` is given a list of that many axes, side by side.
    """

    draw: Callable[..., str]
    controls: dict[str, Slider | Choice | None]
    start: dict
    panels: int = 1

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


SCHEDULES = {"linear": linear_beta, "scaled linear": scaled_linear_beta, "cosine": cosine_beta}


def noise_explorer(x0: torch.Tensor, seed: int = 0) -> Explorer:
    """Noise on one picture (1, channels, height, width): the noisy picture, its histogram, and the SNR at time t.

    The noise is the same at every t, so that the slider plays a film.
    """
    require_pictures(x0)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    tables = {name: alpha_bar_from_beta(schedule()) for name, schedule in SCHEDULES.items()}
    normal_x = torch.linspace(-4, 4, 161)
    normal = torch.exp(-(normal_x**2) / 2) / (2 * torch.pi) ** 0.5

    def draw_noise(axes, t: int, schedule: str) -> str:
        alpha_bar = tables[schedule]
        x_t = add_noise(x0, eps, torch.tensor([t]), alpha_bar)
        plot_pictures(x_t, [f"x_t, t = {t}"], ax=axes[0])
        axes[1].hist(x_t.flatten().numpy(), bins=80, range=(-4, 4), density=True, color="#56B4E9", label="$x_t$")
        axes[1].plot(normal_x, normal, "--", color="black", label="$N(0, 1)$")
        axes[1].set(xlabel="value of a pixel", ylabel="density", ylim=(0, 1.3))
        axes[1].legend(loc="upper right", handlelength=1.2)
        axes[2].plot(snr(alpha_bar), color="#0072B2")
        axes[2].plot(t, snr(alpha_bar)[t], "o", color="#D55E00", markersize=9)
        axes[2].axhline(1, color="#777777", linewidth=1, linestyle=":")
        axes[2].set(xlabel="t", ylabel="SNR (log scale)", yscale="log", ylim=(1e-5, 1e5))
        return (f"At t = {t} of the {schedule} schedule the picture keeps the factor "
                f"{alpha_bar[t].sqrt():.2f}, the noise has {(1 - alpha_bar[t]).sqrt():.2f}, the SNR is "
                f"{snr(alpha_bar)[t]:.2g}.")

    return Explorer(draw_noise, {"t": Slider(0, 999), "schedule": Choice(tuple(SCHEDULES))},
                    {"t": 250, "schedule": "linear"}, panels=3)


def schedule_explorer() -> Explorer:
    """A schedule taken apart: its betas, the factors of picture and noise, and the SNR, for any T and last beta."""

    def draw_schedule(axes, schedule: str, T: int, last_beta: float) -> str:
        beta = cosine_beta(T) if schedule == "cosine" else SCHEDULES[schedule](T, end=last_beta)
        alpha_bar = alpha_bar_from_beta(beta)
        ratio = snr(alpha_bar)
        axes[0].plot(beta, color="#0072B2")
        axes[0].set(xlabel="t", ylabel=r"$\beta_t$ (log scale)", yscale="log", ylim=(5e-5, 1.5))
        axes[1].plot(alpha_bar.sqrt(), "-", color="#0072B2", label=r"picture, $\sqrt{\bar\alpha_t}$")
        axes[1].plot((1 - alpha_bar).sqrt(), "--", color="#D55E00", label=r"noise, $\sqrt{1-\bar\alpha_t}$")
        axes[1].set(xlabel="t", ylabel="factor", ylim=(-0.03, 1.8), yticks=(0, 0.5, 1))
        axes[1].legend(loc="upper center", handlelength=1.5)
        axes[2].plot(ratio, color="#0072B2")
        axes[2].axhline(1, color="#777777", linewidth=1, linestyle=":")
        axes[2].set(xlabel="t", ylabel="SNR (log scale)", yscale="log", ylim=(1e-9, 1e5))
        even = int((ratio > 1).sum())
        met = f"picture and noise are even at t = {even}" if even < T else "the noise never outweighs the picture"
        fixed = " (its betas follow from T alone)" if schedule == "cosine" else f" up to {last_beta:g}"
        return (f"The {schedule} schedule{fixed} with T = {T}: {met}; at the end the picture keeps the factor "
                f"{alpha_bar[-1].sqrt():.2g}.")

    return Explorer(draw_schedule, {"schedule": Choice(tuple(SCHEDULES)), "T": Slider(10, 1000, 10),
                                    "last_beta": Slider(0.001, 0.05, 0.001)},
                    {"schedule": "linear", "T": 1000, "last_beta": 0.02}, panels=3)


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


# Every function above that makes an explorer, by what it is made from: the tests draw each one with every choice and
# at both ends of its sliders.
PIPELINE_EXPLORERS = [prompt_explorer]
PICTURE_EXPLORERS = [noise_explorer]
DENOISER_EXPLORERS = [ink_blot_explorer]  # a model, a training set and a schedule
PLAIN_EXPLORERS = [schedule_explorer]


def filmstrip(explorer: Explorer, changes: list[dict]) -> None:
    """Show the explorer's drawing at its starting values with each of `changes` in turn.

    One row of pictures; or, where the explorer has several panels, one row for each change.
    """
    import matplotlib.pyplot as plt

    if explorer.panels == 1:
        figure, panels = plt.subplots(1, len(changes), figsize=(2.2 * len(changes), 2.6), squeeze=False)
        places, order = panels[0], "From left to right"
    else:
        size = (2.9 * explorer.panels, 2.25 * len(changes))
        figure, places = plt.subplots(len(changes), explorer.panels, figsize=size, squeeze=False)
        order = "From top to bottom"
    sentences = [explorer.draw(place, **{**explorer.start, **change})
                 for place, change in zip(places, changes, strict=True)]
    show(figure, f"{order}: " + " ".join(sentences))


def explore(explorer: Explorer):
    """The explorer under live controls, a widget; it draws when a control is let go, and at once at the start.

    What cannot be drawn leaves the picture as it was and says why.
    """
    import ipywidgets

    controls = {name: _control(name, slider, explorer.start[name]) for name, slider in explorer.controls.items()}
    width = f"{22 * min(explorer.panels, 3)}em"
    picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(width=width, max_width="100%"))
    sentence = ipywidgets.HTML()  # unlike a Label it breaks long lines

    def redraw(change=None) -> None:
        import matplotlib.pyplot as plt

        size = (3.4, 3.7) if explorer.panels == 1 else (3.1 * explorer.panels, 3)
        figure, axes = plt.subplots(1, explorer.panels, figsize=size)
        try:
            said = explorer.draw(axes, **{name: control.value for name, control in controls.items()})
            sentence.value = html.escape(said)
            picture.value = as_png(figure)
        except ValueError as error:
            sentence.value = html.escape(str(error))
        finally:
            plt.close(figure)

    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*controls.values(), picture, sentence])


def _control(name: str, control: Slider | Choice | None, value):
    import ipywidgets

    wide = {"layout": ipywidgets.Layout(width="34em"), "style": {"description_width": "6em"}}
    if control is None:
        return ipywidgets.Text(value, description=name, continuous_update=False, **wide)
    if isinstance(control, Choice):
        return ipywidgets.Dropdown(options=control.options, value=value, description=name, **wide)
    kind = ipywidgets.IntSlider if isinstance(value, int) else ipywidgets.FloatSlider
    fine = {"readout_format": ".3f"} if control.step < 0.01 else {}
    return kind(value, min=control.low, max=control.high, step=control.step, description=name,
                continuous_update=False, **fine, **wide)
