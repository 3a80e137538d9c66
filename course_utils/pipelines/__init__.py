"""Whole text-to-image systems: the course's own model (`picture_book`), Stable Diffusion v1.5 (`stable_diffusion`), the
loop in which both draw, by hand (`denoising`), the schedulers that both draw with (`schedulers`), what is looked at when
a model is read (`model_folder`), and PNG files that remember their settings (`png_info`). How the parts are trained
stands in `recipes`, the mathematics of a step in `diffusion`.
"""
