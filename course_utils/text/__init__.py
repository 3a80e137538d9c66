"""Words on their way to a network: cutting them into tokens and encoding these (`tokens`), words that the tokenizer is
taught (`new_words`), and what a prompt asks for (`prompts`). Networks that read text stand in `models`, pages and
captions of the picture book in `data`.
"""
