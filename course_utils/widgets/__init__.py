"""Explorers of the chapters, one file a chapter, and what shows them: `filmstrip` (static) and `explore` (live)."""

from course_utils.widgets.explorer import Choice, Explorer, Slider, explore, filmstrip
from course_utils.widgets.forward import noise_explorer, schedule_explorer
from course_utils.widgets.ink_blot import ink_blot_explorer
from course_utils.widgets.pixel_by_pixel import fill_in_explorer, receptive_field_explorer
from course_utils.widgets.prompt import prompt_explorer

__all__ = ["Choice", "Explorer", "Slider", "explore", "fill_in_explorer", "filmstrip", "ink_blot_explorer",
           "noise_explorer", "prompt_explorer", "receptive_field_explorer", "schedule_explorer"]
