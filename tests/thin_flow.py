"""Thin pipelines with the component layout of Stable Diffusion 3 and of Flux; one of each for all tests."""

import functools

from course_utils.pipelines.rectified_flow_models import FLUX_DEV, FLUX_SCHNELL, SD3, thin_copy


@functools.cache
def thin_sd3():
    """No test may change it, nor what `thin_flux` returns."""
    return thin_copy(SD3)


@functools.cache
def thin_flux(guided: bool = True):
    """[dev] is told the guidance and shifts its times by the picture's size; [schnell] does neither."""
    return thin_copy(FLUX_DEV if guided else FLUX_SCHNELL)
