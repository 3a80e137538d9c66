"""Words on their way to a network: cutting them into tokens and encoding these (`tokens`), and what a prompt asks for
(`prompts`). Networks that read text stand in `models`, pages and captions of the picture book in `data`.
"""
