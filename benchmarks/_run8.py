"""python /tmp/run8.py PREFIX...: the cells of chapter 08 whose ids begin with `chinese-`, on what they need of the chapter."""
import os, sys, time, re
os.environ.setdefault("COURSE_PROFILE", sys.argv[1])
import matplotlib; matplotlib.use("Agg")
import torch; torch.set_num_threads(1)
src=open("/work/w08/solutions/source/08_contrastive_language_image.py").read()
cells=re.split(r"^# %%", src, flags=re.M)
ns={}
pre="""
import math, random
from collections import Counter
import matplotlib.pyplot as plt, numpy, torch
from torch import nn
from torch.nn import functional as F
from course_utils.data import picture_book as book
from course_utils.machine.devices import budget, pick_device
from course_utils.plotting import LivePlot, plot_pictures, show, use_style
use_style(); device=pick_device()
from course_utils.training import MovingAverage, Samples, train
from tqdm.auto import tqdm
from course_utils.text.tokens import tokenize
from course_utils.pipelines.picture_book import load_picture_book
pipe=load_picture_book()
COLOURS=list(book.COLOURS)
"""
exec(pre,ns)
seed=int(sys.argv[2]) if len(sys.argv)>2 else 0
T=time.process_time(); W=time.time()
for c in cells:
    m=re.match(r' id="(chinese-[\w-]+)"',c)
    if not m: continue
    body=c.split("\n",1)[1]
    if seed: body=body.replace("torch.manual_seed(0)",f"torch.manual_seed({seed})").replace("manual_seed(first + n)",f"manual_seed({1000*seed} + first + n)").replace('train(student, student_loss,',f'train(student, student_loss, seed={seed},').replace('"held out", 9)',f'"held out", {9+seed})')
    body=body.replace("tqdm(steps, total=settings[\"steps\"])","steps")
    t=time.process_time()
    exec(compile(body,m[1],"exec"),ns)
    print(f"   [{m[1]}: {time.process_time()-t:.1f} CPU s]",flush=True)
print("TOTAL",round(time.process_time()-T),"CPU s",round(time.time()-W),"s wall, profile",os.environ["COURSE_PROFILE"],"seed",seed)
torch.save({k:ns[k] for k in ("alphabet",)}|{"student":ns["student"].state_dict()},f"/tmp/chinese{seed}.pt")
