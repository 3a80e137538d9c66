"""Explorers of the chapters, one file a chapter, and what shows them: `filmstrip` (static) and `explore` (live).

`voting` is no explorer: a blind vote between two samplers.
"""

from course_utils.widgets.adversaries import best_judge_explorer, game_explorer, latent_walk_explorer
from course_utils.widgets.contrastive import search_explorer, temperature_explorer
from course_utils.widgets.explorer import Choice, Explorer, Slider, explore, filmstrip
from course_utils.widgets.flows import shift_explorer
from course_utils.widgets.forward import noise_explorer, schedule_explorer
from course_utils.widgets.ink_blot import ink_blot_explorer
from course_utils.widgets.latent_walk import bound_explorer, interpolation_explorer, latent_map_explorer
from course_utils.widgets.latents import latent_explorer, scale_explorer
from course_utils.widgets.measuring import bias_explorer
from course_utils.widgets.networks import attention_explorer, overlap_explorer
from course_utils.widgets.pixel_by_pixel import fill_in_explorer, receptive_field_explorer
from course_utils.widgets.prompt import prompt_explorer
from course_utils.widgets.stable_diffusion import plan_explorer
from course_utils.widgets.steering import drawing_explorer
from course_utils.widgets.text_to_image import guidance_explorer, two_prompts_explorer
from course_utils.widgets.trajectories import trajectory_explorer
from course_utils.widgets.voting import Ballot, voting_booth

__all__ = [
    "Ballot",
    "Choice",
    "Explorer",
    "Slider",
    "attention_explorer",
    "best_judge_explorer",
    "bias_explorer",
    "bound_explorer",
    "drawing_explorer",
    "explore",
    "fill_in_explorer",
    "filmstrip",
    "game_explorer",
    "guidance_explorer",
    "ink_blot_explorer",
    "interpolation_explorer",
    "latent_explorer",
    "latent_map_explorer",
    "latent_walk_explorer",
    "noise_explorer",
    "overlap_explorer",
    "plan_explorer",
    "prompt_explorer",
    "receptive_field_explorer",
    "scale_explorer",
    "schedule_explorer",
    "search_explorer",
    "shift_explorer",
    "temperature_explorer",
    "trajectory_explorer",
    "two_prompts_explorer",
    "voting_booth",
]
