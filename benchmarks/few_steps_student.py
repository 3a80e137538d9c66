"""python student.py trajectories seconds rank: progressive jumps 4/2/1 learnt at once, jump told by timestep_cond"""
import sys, time, json, torch
from course_utils.diffusion import samplers
from course_utils.diffusion.schedules import alpha_bar_from_beta, scaled_linear_beta
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.pipelines.editing import hidden_states
from course_utils.models.lora import add_lora, ATTENTION
from course_utils.recipes.task import plain_attention
from course_utils.metrics.pictures import followed
from course_utils.recipes import load_judge
from course_utils.diffusion.latents import decode
from benchmarks.prompts import load
from safetensors.torch import load_file
from torch import nn
path, seconds, rank = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
n_eval = int(sys.argv[4]) if len(sys.argv) > 4 else 100
X = load_file(path)["x"].float(); texts = json.load(open(path + ".json"))[: len(X)]
pipe = load_picture_book(); unet = pipe.unet
table = alpha_bar_from_beta(scaled_linear_beta())
unet.time_embedding.cond_proj = nn.Linear(3, unet.config.block_out_channels[0], bias=False)
nn.init.zeros_(unet.time_embedding.cond_proj.weight)
add_lora(unet, rank, targets=(*ATTENTION, "ff.net.0.proj", "ff.net.2", "time_emb_proj"), generator=torch.Generator().manual_seed(0))
unet.time_embedding.cond_proj.requires_grad_(True)
convs = [m for n_, m in unet.named_modules() if isinstance(m, nn.Conv2d)]
params = [p for p in unet.parameters() if p.requires_grad]
print("trained", sum(p.numel() for p in params), "trajectories", len(X))
T4 = samplers.trailing_times(1000, 4); grid = T4 + [-1]           # 999 749 499 249 -1
jumps = [(0,1),(1,2),(2,3),(3,4),(0,2),(2,4),(0,4)]
a_of = lambda k: 1.0 if grid[k] < 0 else table[grid[k]].item()
kind = torch.tensor([0,0,0,0,1,1,2])
prob = torch.tensor([1.,1,1,1,1.5,1.5,2.])
def predict(x, i, j, cond, k):
    a = torch.tensor([a_of(q) for q in i.tolist()])[:, None, None, None]
    b = torch.tensor([a_of(q) for q in j.tolist()])[:, None, None, None]
    t = torch.tensor([grid[q] for q in i.tolist()])
    v = unet(x, t, cond, timestep_cond=nn.functional.one_hot(k, 3).float()).sample
    x0 = a.sqrt() * x - (1-a).sqrt() * v; eps = (1-a).sqrt() * x + a.sqrt() * v
    return v, b.sqrt() * x0 + (1-b).sqrt() * eps
def target_v(x, y, i, j):
    a = torch.tensor([a_of(q) for q in i.tolist()])[:, None, None, None]; b = torch.tensor([a_of(q) for q in j.tolist()])[:, None, None, None]
    # y = sqrt b x0 + sqrt(1-b) eps, x = sqrt a x0 + sqrt(1-a) eps; v = sqrt a eps - sqrt(1-a) x0
    det = a.sqrt()*(1-b).sqrt() - (1-a).sqrt()*b.sqrt()
    x0 = (x*(1-b).sqrt() - y*(1-a).sqrt())/det; eps = (y*a.sqrt() - x*b.sqrt())/det
    return a.sqrt()*eps - (1-a).sqrt()*x0, det.abs()
opt = torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
dice = torch.Generator().manual_seed(0); start = time.process_time(); n = 0; done = 0; run = []
B = 16
while done < 1:
    for g in opt.param_groups: g["lr"] = 2e-3 * min((n+1)/30, 1-done)
    s = torch.randint(len(X), (B,), generator=dice); c = torch.multinomial(prob, B, replacement=True, generator=dice)
    i = torch.tensor([jumps[q][0] for q in c.tolist()]); j = torch.tensor([jumps[q][1] for q in c.tolist()])
    x, y = X[s, i], X[s, j]
    v, _ = target_v(x, y, i, j)
    cond = hidden_states(pipe, [texts[q] for q in s.tolist()], B)
    with plain_attention(torch.device("cpu")):
        v_hat, _ = predict(x, i, j, cond, kind[c])
    loss = (v_hat - v).square().mean()
    opt.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(params, 1.0); opt.step()
    n += 1; run.append(loss.item()); done = (time.process_time()-start)/seconds
    if n % 100 == 0: print(n, f"{time.process_time()-start:.0f} s loss {sum(run[-100:])/100:.4f}", flush=True)
unet.eval(); judge = load_judge(); prompts = load()[:n_eval]
@torch.no_grad()
def draw(k, path):
    out = []
    for a in range(0, len(prompts), 25):
        part = prompts[a:a+25]; cond = hidden_states(pipe, [p.caption.text for p in part], len(part))
        x = torch.stack([torch.randn(8,16,16, generator=torch.Generator().manual_seed(a+q)) for q in range(len(part))])
        for i, j in path:
            _, x = predict(x, torch.full((len(part),), i), torch.full((len(part),), j), cond, torch.full((len(part),), k))
        out.append(decode(pipe.vae, x).clamp(-1, 1))
    return torch.cat(out)
from course_utils.plotting import picture_grid
for k, path_ in ((0, [(0,1),(1,2),(2,3),(3,4)]), (1, [(0,2),(2,4)]), (2, [(0,4)])):
    y = draw(k, path_); ok = followed(judge, y, [p.caption for p in prompts])
    print(f"{len(path_)} steps: {sum(ok)}/{len(ok)}", flush=True); picture_grid(y[:40], columns=10).save(f"s{len(path_)}.png")
