"""The mathematics of diffusion, for any model, which is always handed in.

The way to noise (`schedules`), what a network learns (`objectives`), one step back (`steps`) and whole ways back
(`samplers`), the pull of the prompt (`guidance`), pictures that are there already (`editing`), pictures that were only
measured (`posterior`), and diffusion on an autoencoder's latents (`latents`). Networks stand in `models`, whole systems
in `pipelines`.
"""
