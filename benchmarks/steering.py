"""How well the model is steered: by a drawing (ControlNet), and inside a mask, each beside drawing freely.

    python -m benchmarks.steering [--control FOLDER] [--count 300] [--masks 100] [--steps 20 --guidance 4]
                                  [--manifest] [--sheets FOLDER]

Control: pages of a data set that nothing was trained on give prompts and outlines; picture i has seed i, with and
without the outline. IoU: of the pixels that a small segmenter reads as things with those that the page's things cover.
Masks: of a page with one thing a random box around that thing is drawn again, after a prompt with another thing.
Intervals: 95%, Wilson's, or of the mean by its standard error.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from tqdm.auto import tqdm

from benchmarks.adherence import draw_prompts, keep
from course_utils.data import picture_book as book
from course_utils.machine.devices import describe_machine, pick_device
from course_utils.metrics.pictures import faults, iou
from course_utils.metrics.statistics import share
from course_utils.models.control import steered
from course_utils.models.judge import read
from course_utils.pipelines import editing
from course_utils.pipelines.control import CONTROL, load_control
from course_utils.pipelines.picture_book import load_picture_book, make_scheduler
from course_utils.plotting import picture_grid
from course_utils.recipes import load_judge
from course_utils.recipes.probes import segmenter, things_masks

DATA_SET = 12  # the model was trained on data set 0
BATCH = 20
SIDE = 64


@torch.no_grad()
def draw_after(pipe, scenes: list[book.Scene], texts: list[str], steps: int, guidance: float) -> torch.Tensor:
    """One picture a scene, after its prompt and its outlines, picture i from seed i: (scenes, 3, 64, 64)."""
    unet, pictures = pipe.unet, []
    for start in tqdm(range(0, len(scenes), BATCH), "after outlines"):
        part = slice(start, start + BATCH)
        lines = torch.stack([book.maps(scene).lines for scene in scenes[part]]).expand(-1, 3, -1, -1)
        seeds = range(start, start + len(lines))
        shape = (pipe.unet.config.in_channels, 16, 16)
        x_T = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        try:
            pipe.unet = Steered(unet, pipe.controlnet, lines.to(pipe.device))
            scheduler = make_scheduler("unipc", pipe.scheduler.config)
            pictures.append(
                editing.draw_from(pipe, x_T, texts[part], guidance=guidance, steps=steps, scheduler=scheduler).cpu()
            )
        finally:
            pipe.unet = unet
    return torch.cat(pictures)


class Steered(torch.nn.Module):
    """`models.control.steered` in the place of a pipeline's U-Net."""

    def __init__(self, unet, controlnet, drawing: torch.Tensor):
        super().__init__()
        self.config, self.device, self.dtype = unet.config, unet.device, unet.dtype
        self.forward = steered(unet, controlnet, drawing)


def judge_pictures(judge, pictures: torch.Tensor, scenes: list[book.Scene], captions: list[book.Caption]) -> dict:
    """What pictures follow of their captions, and of the pages that the captions are of."""
    wrong = faults(judge, pictures, captions)
    verdicts = [verdict for part in pictures.split(64) for verdict in read(judge, part)]
    rows = list(zip(wrong, verdicts, scenes, captions, strict=True))
    related = [fault for fault, _, _, caption in rows if caption.relation]
    counted = [(verdict, scene) for _, verdict, scene, _ in rows if scene.relation is None and len(scene.things) > 1]
    overlap = iou(segmenter().read(pictures), things_masks(scenes))
    return {
        "all that the prompt names": share([fault is None for fault in wrong]),
        "both things there, on their sides": share(
            [fault not in ("side", "one thing twice", "a thing missing", "another thing") for fault in related]
        ),
        "number of things": share([len(verdict.findings) == len(scene.things) for verdict, scene in counted]),
        "IoU with the page's things": round(overlap.mean().item(), 3),
        "± 95%": round(1.96 * overlap.std().item() / len(overlap) ** 0.5, 3),
    }


def masked_pages(count: int) -> list[tuple[book.Scene, book.Scene, torch.Tensor]]:
    """`count` times: a page with one thing, what is to be drawn there instead, and a random box around the thing."""
    found, rng = [], random.Random(DATA_SET)
    for n in range(100 * count):
        page, other = book.sample_scene(2 * n, DATA_SET), book.sample_scene(2 * n + 1, DATA_SET)
        if len(page.things) > 1 or len(other.things) > 1 or len(found) == count:
            continue
        wish = book.Scene(other.things, page.place, other.seed, page.style)
        rows, columns = (book.maps(page).things > 0).nonzero(as_tuple=True)
        mask = torch.zeros(1, 1, SIDE, SIDE)
        top, left = (max(0, int(side.min()) - rng.randint(2, 12)) for side in (rows, columns))
        bottom, right = (min(SIDE, int(side.max()) + rng.randint(3, 13)) for side in (rows, columns))
        mask[..., top:bottom, left:right] = 1
        found.append((page, wish, mask))
    return found


def inside_masks(pipe, judge, count: int, steps: int, guidance: float) -> tuple[dict, torch.Tensor]:
    """Adherence of what is drawn inside masks and of the same prompts drawn freely; whether the outside is the same."""
    chosen = masked_pages(count)
    captions = [book.caption(wish) for _, wish, _ in chosen]
    pages, masks = book.pictures(page for page, _, _ in chosen), torch.cat([mask for _, _, mask in chosen])
    drawn = []
    for start in tqdm(range(0, count, BATCH), "inside masks"):
        part = slice(start, start + BATCH)
        seeds = [torch.Generator().manual_seed(n) for n in range(count)[part]]
        texts = [caption.text for caption in captions[part]]
        scheduler = make_scheduler("unipc", pipe.scheduler.config)
        drawn.append(
            editing.inpaint(
                pipe, pages[part], masks[part], texts, seeds, guidance=guidance, steps=steps, scheduler=scheduler
            ).cpu()
        )
    inside = torch.cat(drawn)
    free = draw_prompts(pipe, [caption.text for caption in captions], steps, guidance, "unipc")
    outside = masks.expand_as(pages) < 0.5
    hits = {
        name: [fault is None for fault in faults(judge, pictures, captions)]
        for name, pictures in (("inside the mask", inside), ("drawn freely", free))
    }
    difference = torch.tensor([a - b for a, b in zip(*hits.values(), strict=True)], dtype=torch.float32)
    table: dict = {name: share(one) for name, one in hits.items()}
    table["difference in points"] = round(100 * difference.mean().item(), 1)
    table["± 95%"] = round(196 * difference.std().item() / count**0.5, 1)
    table["share of the page that is drawn again"] = round(masks.mean().item(), 2)
    table["pages whose outside is the same to the bit"] = sum(
        bool(torch.equal(a[o], b[o])) for a, b, o in zip(inside, pages, outside, strict=True)
    )
    return table, torch.cat([pages[:8], masks[:8].expand(-1, 3, -1, -1) * 2 - 1, inside[:8], free[:8]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control", type=Path, default=CONTROL, help="the ControlNet's folder")
    parser.add_argument("--count", type=int, default=300, help="pages whose outlines are followed")
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--sheets", type=Path, help="a folder for contact sheets")
    parser.add_argument("--manifest", action="store_true", help="keep the tables in the shipped model's manifest")
    options = parser.parse_args()
    pipe, judge = load_picture_book(device=pick_device()), load_judge()
    results: dict = {"machine": describe_machine(), "steps": options.steps, "guidance": options.guidance}
    results["masks"], sheet = inside_masks(pipe, judge, options.masks, options.steps, options.guidance)
    print(json.dumps(results["masks"], indent=2), flush=True)
    scenes = [book.sample_scene(n, DATA_SET) for n in range(options.count)]
    captions = [book.caption(scene) for scene in scenes]
    texts = [caption.text for caption in captions]
    freely = draw_prompts(pipe, texts, options.steps, options.guidance, "unipc")
    after = draw_after(load_control(pipe, options.control), scenes, texts, options.steps, options.guidance)
    results["segmenter's IoU on renders"] = round(segmenter().on_renders, 3)
    results["control"] = {
        "after the outlines": judge_pictures(judge, after, scenes, captions),
        "after the prompt alone": judge_pictures(judge, freely, scenes, captions),
    }
    print(json.dumps(results["control"], indent=2))
    if options.manifest:
        keep("steering", results)
    if options.sheets:
        options.sheets.mkdir(parents=True, exist_ok=True)
        picture_grid(sheet, columns=8, scale=2).save(options.sheets / "masks.png", optimize=True)
        lines = torch.stack([book.maps(scene).lines for scene in scenes[:24]]).expand(-1, 3, -1, -1) * 2 - 1
        rows = zip(*(part.split(8) for part in (lines, after[:24], freely[:24])), strict=True)
        grid = picture_grid(torch.cat([row for three in rows for row in three]), columns=8, scale=2)
        grid.save(options.sheets / "control.png", optimize=True)


if __name__ == "__main__":
    main()
