"""Trajectories of the guided teacher: python teach.py N w steps out"""
import sys, time, torch
from course_utils.data import picture_book as book
from course_utils.diffusion import samplers
from course_utils.diffusion.objectives import as_eps
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.pipelines.editing import hidden_states
from course_utils.recipes.unet import PromptedUNet, weight, _say
from safetensors.torch import save_file
N, w, steps, out = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
pipe = load_picture_book(); pipe.unet.eval()
table = alpha_bar_from_beta(scaled_linear_beta())
scenes = [book.sample_scene(n) for n in range(40000)]
dice = torch.Generator().manual_seed(1)
pages = torch.tensor([n for n, s in enumerate(scenes) for _ in range(weight(s))])
chosen = pages[torch.randint(len(pages), (N,), generator=dice)]
texts = [_say(scenes[i], int(torch.randint(16, (1,), generator=dice))) for i in chosen.tolist()]
null = hidden_states(pipe, [""], 1)
model = samplers.guided(as_eps(PromptedUNet(pipe.unet), "v", table), null, w)
times = samplers.trailing_times(1000, steps)
keep = samplers.trailing_times(1000, 4)
assert set(keep) <= set(times), (times, keep)
B = 32; all_x = []; start = time.process_time()
for a in range(0, N, B):
    part = texts[a:a+B]
    cond = hidden_states(pipe, part, len(part))
    x = torch.randn(len(part), 8, 16, 16, generator=torch.Generator().manual_seed(10**6 + a))
    traj = [x]
    for step in samplers.dpm_solver(model, x, table, times, cond):
        if step.t in keep or step.t == -1: traj.append(step.x_t)
    all_x.append(torch.stack(traj, 1))
    if a % 320 == 0: print(a, f"{time.process_time()-start:.0f} s", flush=True)
    if a % 320 == 0 or a + B >= N:
        import json
        save_file({"x": torch.cat(all_x).half().contiguous()}, out); json.dump(texts, open(out + ".json", "w"))
print("done", time.process_time() - start)
