"""Run a source's cells in order, with `check` and `show` patched: python drafts16/drive.py FILE PROFILE FOLDER [ID ...].

Prints the processor time of each cell; with ids, stops after the last of them.
"""

import os
import re
import sys
import time
import traceback
from pathlib import Path

path, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[3]).resolve()
os.environ["COURSE_PROFILE"], os.environ["MPLBACKEND"] = sys.argv[2], "Agg"
folder.mkdir(parents=True, exist_ok=True)
import course_utils  # noqa: E402
import course_utils.exercises as exercises  # noqa: E402
import course_utils.plotting as plotting  # noqa: E402
from PIL import Image  # noqa: E402

print(course_utils.__file__)
exercises.check = lambda identity, answer: answer
exercises.progress = lambda: None
cell_id = ""


def show(figure, description):
    if isinstance(figure, Image.Image):
        figure.save(folder / f"{cell_id}.png")
    else:
        (folder / f"{cell_id}.png").write_bytes(plotting.as_png(figure))
    print("FIGURE:", description)
    plotting._close(figure)


plotting.show = show
os.chdir(folder)
space, began, table, failed, row = {"__name__": "cells"}, time.perf_counter(), [], 0, 0
for head, body in re.findall(r"^# %%(.*)\n((?:(?!^# %%).*\n?)*)", path.read_text(), re.M):
    if "[markdown]" in head:
        row = 0
        continue
    cell_id, row = re.search(r'id="(.*?)"', head)[1], row + 1
    lines = [x for x in body.split("\n") if x.strip() and x.strip()[0] != "#"]
    if len(lines) > 25 or row > 2:
        print(f"!!! {cell_id}: {len(lines)} lines, code cell {row} in a row")
    start, cpu = time.perf_counter(), time.process_time()
    try:
        exec(compile(body, cell_id, "exec"), space)
    except Exception:
        failed += 1
        traceback.print_exc()
    table.append((time.process_time() - cpu, cell_id))
    print(f"--- {cell_id}: {time.perf_counter() - start:.1f} s, processor {table[-1][0]:.1f} s", flush=True)
print(f"failed cells: {failed}; all: {time.perf_counter() - began:.0f} s, processor {time.process_time():.0f} s")
print("slowest: " + ", ".join(f"{name} {seconds:.1f}" for seconds, name in sorted(table, reverse=True)[:12]))
