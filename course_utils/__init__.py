"""Helpers of the course "Image generation: principles and practice".

Importing the package is quick: it loads neither torch nor diffusers. It only asks OpenMP to let waiting
threads sleep, which has to be said before torch is imported: on a busy two-core laptop two spinning torch
threads were measured to run 4-10 times slower than two that sleep.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
