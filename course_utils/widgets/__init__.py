"""Explorers of the chapters, one file a chapter, and what shows them: `filmstrip` (static) and `explore` (live)."""

from course_utils.widgets.explorer import Choice, Explorer, Slider, explore, filmstrip
from course_utils.widgets.forward import noise_explorer, schedule_explorer
from course_utils.widgets.ink_blot import ink_blot_explorer
from course_utils.widgets.latent_walk import bound_explorer, interpolation_explorer, latent_map_explorer
from course_utils.widgets.prompt import prompt_explorer

__all__ = ["Choice", "Explorer", "Slider", "bound_explorer", "explore", "filmstrip", "ink_blot_explorer",
           "interpolation_explorer", "latent_map_explorer", "noise_explorer", "prompt_explorer", "schedule_explorer"]
