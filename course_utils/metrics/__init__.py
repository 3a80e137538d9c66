"""Measuring: how faithful, how lifelike and how obedient to their prompts pictures are (`pictures`), and how the
families of generative models compare (`families`). What is measured is handed in; nothing here draws or trains.
"""
