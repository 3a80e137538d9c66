"""Helpers of the course "Image generation: principles and practice".

Importing the package is quick: it loads neither torch nor diffusers. It only tells OpenMP how torch's threads are to
wait for work, which has to be said before torch is imported: to look a thousand times, which takes microseconds, and
then to sleep. Threads that sleep at once wake too late for a network of many small operations; threads that look for
longer take the processor from whatever runs beside them (`benchmark throughput beside`).
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # GNU's OpenMP, in torch for Linux, has a number for it
