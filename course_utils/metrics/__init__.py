"""Measuring: how faithful, how lifelike and how obedient to their prompts pictures are (`pictures`), how near clouds of
features are to each other (`distributions`), how sure a number is (`statistics`), whether intervals
hold as often as they claim (`calibration`), how the families of generative models compare (`families`), what filters
let through (`safety`), and all of that on one page (`model_card`). What is measured is handed in; nothing here draws or
trains.
"""
