"""Write solutions/source/16_studio.py from the drafts, head.py and tail.py."""
import re
from pathlib import Path
ROOT = Path("/tmp/w16/main"); HERE = Path("/tmp/w16/asm")
missed = []
def cells(name):
    text = (ROOT / "drafts16" / f"{name}.py").read_text()
    return {re.search(r'id="(.*?)"', c)[1]: c.rstrip("\n") + "\n" for c in re.split(r"(?=^# %%)", text, flags=re.M) if c.startswith("# %%")}
studio, worlds, science = cells("studio"), cells("worlds"), cells("science")
def swap(where, cell, *pairs):
    for old, new in pairs:
        if cell not in where or old not in where[cell]:
            missed.append((cell, old)); continue
        where[cell] = where[cell].replace(old, new)
exec((HERE / "swaps.py").read_text())
def pick(where, first=None, last=None, drop=()):
    ids = list(where)
    a = ids.index(first) if first else 0
    b = ids.index(last) + 1 if last else len(ids)
    return [where[i] for i in ids[a:b] if i not in drop]
parts = pick(studio, drop=("studio-set-up-text", "studio-set-up"))
parts += pick(worlds, drop=("worlds-set-up-text", "worlds-set-up", "worlds-parts"))
parts += pick(science, "film-text", "shop-page") + pick(science, "measure-text", "believe-read")
text = (HERE / "head.py").read_text().rstrip("\n") + "\n\n" + "\n".join(p.rstrip("\n") + ("\n\n" if False else "\n") for p in parts) + "\n" + (HERE / "tail.py").read_text()
count = 0
def number(match):
    global count
    count += 1
    return f"### Exercise {count} · "
text = re.sub(r"### Exercise(?: \d+)? · ", number, text)
for old, new in GLOBAL:
    if old not in text: missed.append(("all", old))
    text = text.replace(old, new)
ids = re.findall(r'^# %%.*id="(.*?)"', text, re.M)
assert len(ids) == len(set(ids)), [i for i in ids if ids.count(i) > 1]
(ROOT / "solutions/source/16_studio.py").write_text(text)
print(count, "exercises;", len(ids), "cells;", len(text.splitlines()), "lines")
for m in missed: print("NOT FOUND", m)
