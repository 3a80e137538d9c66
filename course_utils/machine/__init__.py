"""What the machine has and how to use it: devices and number formats (`devices`), how much memory a network needs
(`memory`), and how Stable Diffusion is fitted into what there is (`memory_plan`). Nothing here knows what is computed.
"""
