"""The explorer of chapter 00: a prompt, and how it is drawn."""

from typing import TYPE_CHECKING

from course_utils.data.images import to_tensor
from course_utils.pipelines.picture_book import draw
from course_utils.pipelines.png_info import Settings
from course_utils.plotting import plot_pictures
from course_utils.text.prompts import inspect_prompt
from course_utils.widgets.explorer import Explorer, Slider

if TYPE_CHECKING:  # named in hints only: importing them takes seconds
    from diffusers import StableDiffusionPipeline


def prompt_explorer(
    pipe: "StableDiffusionPipeline", prompt: str = "a cute corgi puppy sitting on the grass"
) -> Explorer:
    """Draw with a pipeline: prompt, seed, steps and guidance under the learner's hands."""

    def draw_prompt(ax, prompt: str, seed: int, steps: int, guidance: float) -> str:
        notes = inspect_prompt(pipe.tokenizer, prompt).advice()  # an empty prompt is refused here
        ((picture, made),) = draw(pipe, Settings(prompt, seed=seed, steps=steps, guidance=guidance))
        count = f"{steps} step{'s' * (steps != 1)}"
        plot_pictures(to_tensor(picture), [f"seed {seed}, {count}, guidance {guidance:g}"], ax=ax)
        sentence = f"“{made.prompt}” with seed {seed}, {count} and guidance {guidance:g}."
        return " ".join([sentence, *notes])

    return Explorer(
        draw_prompt,
        {"prompt": None, "seed": Slider(0, 99), "steps": Slider(1, 50), "guidance": Slider(1, 12, 0.5)},
        {"prompt": prompt, "seed": 3, "steps": 20, "guidance": 4.0},
    )
