"""Networks of the course's own, one file each, with the mathematics of their family beside them.

What diffusers and transformers have is taken from there; what turns noise into pictures by many calls of a network
stands in `diffusion`.
"""
