"""Whole text-to-image systems: the course's own model (`picture_book`), Stable Diffusion v1.5 (`stable_diffusion`), the
loop in which both draw, by hand (`denoising`), and PNG files that remember their settings (`png_info`). How the parts
are trained stands in `recipes`, the mathematics of a step in `diffusion`.
"""
