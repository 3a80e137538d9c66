"""The mathematics of diffusion, for any model: the way to noise (`schedules`), what a network learns (`objectives`), one
step back (`steps`) and whole ways back (`samplers`), the pull of the prompt (`guidance`), and diffusion on an
autoencoder's latents (`latents`). A model is always handed in; networks stand in `models`, whole pipelines in `pipelines`.
"""
