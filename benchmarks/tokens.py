"""Four ways of turning pictures into whole numbers, and two grids, after the same processor time.

    python -m benchmarks.tokens [--seconds 180] [--pages 8000] [--unseen 400] [--batch 16] [--seed 0] [--rows NAME ...]

Each row trains the tokeniser's network (`recipes.vq.small_vq`) from nothing, on the autoencoder's latents of the same
pages, with one of the quantisers of `models.vq`; for the grid of 16 x 16 the network sees patches of one place. Then
pages of another data set are rebuilt. "judge reads": the share of them in which the judge finds what the page's caption
names, and nothing else; first of the pages themselves, of what the autoencoder alone makes of them, and of what the
shipped tokeniser, trained for longer, makes of them. "used" and "perplexity" are of the codes of the unseen pages.
"""

import argparse
import json
import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from course_utils.data import picture_book as book
from course_utils.diffusion.latents import decode
from course_utils.machine.devices import describe_machine
from course_utils.metrics.pictures import adherence, psnr
from course_utils.models import vq
from course_utils.pipelines.picture_book import load_picture_book
from course_utils.plotting import picture_grid
from course_utils.recipes import encode_pictures, load_judge, load_vq
from course_utils.recipes.task import plain_attention
from course_utils.recipes.unet import training_latents
from course_utils.recipes.vq import CODES, PATCH, WIDTH, Tokenise, small_vq, weighted_error, where_things_are

DATA_SET = 1  # training uses data set 0
PEAK, WARMUP = 2e-3, 100
LEVELS = (8, 8, 6, 5)  # 1,920 codes, nearly as many as the others have
KINDS = ("VQ, EMA", "VQ, EMA, no restarts", "Gumbel", "FSQ", "VQ, EMA, 16 x 16")


def network(kind: str, seed: int) -> Tokenise:
    """The network of a row, with its quantiser."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "FSQ":
            return Tokenise(small_vq(count=math.prod(LEVELS), width=len(LEVELS)), vq.FiniteScalarQuantiser(LEVELS))
        if kind == "Gumbel":
            generator = torch.Generator().manual_seed(seed)
            return Tokenise(small_vq(), vq.GumbelQuantiser(CODES, WIDTH, generator))
        patch = 1 if kind.endswith("16 x 16") else PATCH
        return Tokenise(
            small_vq(patch=patch), vq.VectorQuantiser(CODES, WIDTH, least=0 if "no restarts" in kind else 0.03)
        )


def fit(model: Tokenise, latents, weights, seconds: float, batch: int, seed: int) -> int:
    """Train for so many seconds of processor time; return the number of updates."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=PEAK, weight_decay=0.0, betas=(0.9, 0.99))
    generator, start, step = torch.Generator().manual_seed(seed), time.process_time(), 0
    model.train()
    while (done := (time.process_time() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min((step + 1) / WARMUP, 1 - done)
        if isinstance(model.quantise, vq.GumbelQuantiser):
            model.quantise.temperature = vq.temperature_at(round(1000 * done), 1000)
        index = torch.randint(len(latents), (batch,), generator=generator)
        with plain_attention(latents.device):
            x_hat, _, loss = model(latents[index])
        loss = loss + weighted_error(latents[index], x_hat, weights[index])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        step += 1
    model.eval()
    return step


@torch.no_grad()
def measure(model: Tokenise, vae, judge, latents, pictures, captions, sheet: Path | None = None) -> dict:
    """What unseen pages, given by their latents, are like after a way through the codes."""
    rebuilt, codes = [], []
    for part in latents.split(32):
        x_hat, chosen, _ = model(part)
        rebuilt.append(decode(vae, x_hat).clamp(-1, 1))
        codes.append(chosen)
    x_hat = torch.cat(rebuilt)
    if sheet:
        picture_grid(torch.cat([pictures[:20], x_hat[:20]]), columns=10).save(sheet, optimize=True)
    return facts(judge, pictures, captions, x_hat, torch.cat(codes), model.quantise.count)


def facts(judge, pictures, captions, x_hat, codes, count: int) -> dict:
    """What a table says of pages that were rebuilt, x_hat, from these codes, of which there are `count`."""
    return {
        "tokens": codes[0].numel(),
        "PSNR in dB": round(psnr(x_hat, pictures).mean().item(), 2),
        "codes": count,
        "used": round((vq.code_counts(codes, count) > 0).float().mean().item(), 3),
        "perplexity": round(vq.perplexity(codes, count)),
        "judge reads": round(adherence(judge, x_hat, captions), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180, help="processor time of each training")
    parser.add_argument("--pages", type=int, default=8000, help="pages to train on")
    parser.add_argument("--unseen", type=int, default=400, help="pages to rebuild")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--folder", type=Path, help="where the latents are kept for the next run")
    parser.add_argument("--sheets", type=Path, help="a folder for contact sheets")
    options = parser.parse_args()
    if options.sheets:
        options.sheets.mkdir(parents=True, exist_ok=True)
    print(json.dumps({"machine": describe_machine(), "threads": torch.get_num_threads()}), flush=True)
    vae, judge = load_picture_book().vae.requires_grad_(False), load_judge()
    with TemporaryDirectory() as temporary:
        scenes, latents = training_latents(options.folder or Path(temporary), vae, options.pages)
    weights = where_things_are(scenes)
    unseen = [book.sample_scene(number, DATA_SET, "all") for number in range(options.unseen)]
    pictures, captions = book.pictures(unseen), [book.caption(scene) for scene in unseen]
    theirs = encode_pictures(vae, pictures, 32) * vae.config.scaling_factor
    alone = torch.cat([decode(vae, part).clamp(-1, 1) for part in theirs.split(32)])
    for name, shown in (("the pages", pictures), ("the autoencoder alone", alone)):
        print(json.dumps({"way": name, "judge reads": round(adherence(judge, shown, captions), 3)}), flush=True)
    shipped = load_vq()
    codes = shipped.to_tokens(pictures)
    row = facts(judge, pictures, captions, shipped.to_pictures(codes), codes, shipped.count)
    print(json.dumps({"way": "the shipped tokeniser", **row}), flush=True)
    for kind in options.rows:
        model = network(kind, options.seed)
        updates = fit(model, latents, weights, options.seconds, options.batch, options.seed)
        sheet = options.sheets / f"{kind.replace(', ', '_').replace(' ', '_')}.png" if options.sheets else None
        row = measure(model, vae, judge, theirs, pictures, captions, sheet)
        numbers = sum(p.numel() for p in model.parameters())
        print(json.dumps({"way": kind, "numbers": numbers, "updates": updates, **row}), flush=True)


if __name__ == "__main__":
    main()
