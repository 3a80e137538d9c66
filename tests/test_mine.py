"""The model of one's own: plans, Muon, training by the clock, and drawing."""

import itertools

import numpy as np
import pytest
import torch

from course_utils.data import picture_book as book
from course_utils.data import plans
from course_utils.models.worded import NOTHING, PAD, UNKNOWN, WordedConfig, WordedTransformer, mixed
from course_utils.optimizers import Muon, orthogonalized
from course_utils.pipelines.mine import draw_sheet, load_mine, sample
from course_utils.recipes.mine import as_numbers, draw_pages, train_half, vocabulary
from course_utils.timed_training import rate_at, train_for


def test_page_and_things_are_those_of_draw_and_maps():
    for number in range(20):
        scene = book.sample_scene(number)
        page, things = book.page_and_things(scene)
        assert (page == np.asarray(book.draw(scene))).all()
        assert (things == book.maps(scene).things.numpy()).mean() > 0.98


def test_a_plan_tells_what_is_on_the_page():
    pages = draw_pages(100)
    right = [
        plans.plan_fault(plan, book.caption(scene)) in (None, "place", "style")
        for plan, scene in zip(pages.plans.float(), pages.scenes, strict=True)
    ]
    assert sum(right) >= 95


def test_held_out_combinations_are_not_drawn():
    for scene in draw_pages(300).scenes:
        assert not any(book.is_held_out(thing.kind, thing.colour, scene.place) for thing in scene.things)


def test_orthogonalized_keeps_the_directions():
    matrix = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    result = orthogonalized(matrix).float()
    assert ((s := torch.linalg.svdvals(result)) > 0.5).all() and (s < 1.3).all()
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(result.flatten(), (u @ v).flatten(), dim=0) > 0.97


def test_muon_is_that_of_torch():
    dice = torch.Generator().manual_seed(0)
    mine = [torch.nn.Parameter(torch.ones(16, 40)), torch.nn.Parameter(torch.ones(8))]
    torchs = [torch.nn.Parameter(p.detach().clone()) for p in mine]
    both = [
        [Muon(mine[:1], mine[1:], lr=1e-2)],
        [
            torch.optim.Muon(torchs[:1], lr=1e-2, weight_decay=0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(torchs[1:], lr=1e-2, betas=(0.9, 0.99), weight_decay=0),
        ],
    ]
    for _ in range(4):
        for a, b in zip(mine, torchs, strict=True):
            a.grad = torch.randn(a.shape, generator=dice)
            b.grad = a.grad.clone()
        for optimizer in itertools.chain(*both):
            optimizer.step()
    torch.testing.assert_close(mine[0], torchs[0], atol=2e-3, rtol=0)  # bfloat16 rounds each update
    torch.testing.assert_close(mine[1], torchs[1])
    with pytest.raises(ValueError, match="expected matrices"):
        Muon([torch.nn.Parameter(torch.ones(3))], [])


def test_the_rate_ends_at_zero():
    assert rate_at(0, 0.0, 1.0) == pytest.approx(0.01)
    assert rate_at(500, 0.2, 1.0) == 1.0
    assert rate_at(500, 1.0, 1.0) == 0.0


def test_sample_follows_the_exact_flow_of_a_gaussian():
    """Data from N(0, s^2): E[x0 | x_t] is linear in x_t, and the flow leads from eps to s eps."""
    eps, s = torch.randn(100, generator=torch.Generator().manual_seed(0)), 0.5

    def predict(x_t, t):
        return (1 - t) * s**2 / ((1 - t) ** 2 * s**2 + t**2) * x_t

    torch.testing.assert_close(sample(predict, eps, 100), s * eps, atol=0.02, rtol=0)


def test_mixed_asks_for_variance_one():
    """x0_hat = x0 if and only if the network says what x_t lacks, and that has variance 1 at all times."""
    dice = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(3, 40, 100, generator=dice) for _ in range(2))
    t = torch.tensor([0.1, 0.5, 0.9])
    share = t[:, None, None]
    x_t = (1 - share) * x0 + share * eps
    p = (1 - share) ** 2 + share**2
    out = (p * x0 - (1 - share) * x_t) / (share * p.sqrt())
    torch.testing.assert_close(mixed(x_t, out, t), x0, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out.square().mean((1, 2)), torch.ones(3), atol=0.05, rtol=0)


def test_padding_changes_nothing():
    torch.manual_seed(0)
    model = WordedTransformer(WordedConfig(words=10, numbers=5, side=2, width=16, depth=1, heads=2)).eval()
    torch.nn.init.normal_(model.out.weight)
    x_t, t = torch.randn(1, 4, 5), torch.tensor([0.5])
    short, long = torch.tensor([[3, 4]]), torch.tensor([[3, 4, 0, 0]])
    torch.testing.assert_close(model(x_t, t, short), model(x_t, t, long))


def test_words_that_nobody_knows():
    words = vocabulary()
    a, red = words.index("a"), words.index("red")
    assert as_numbers(["a red zeppelin", ""], words).tolist() == [[a, red, UNKNOWN], [NOTHING, PAD, PAD]]


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    def run(seconds, clock):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 4)
        optimizer = Muon([model.weight], [model.bias])
        return model, train_for(
            seconds,
            model,
            lambda model, samples: model(samples.normals(3)).square().mean(),
            optimizer,
            batch=2,
            learning_rate=1e-2,
            folder=tmp_path,
            clock=clock,
        )

    ticks = itertools.count()
    model, first = run(100, lambda: next(ticks))
    for record in itertools.islice(first, 10):
        step = record.step
    first.close()
    again, second = run(100, lambda: next(ticks))
    records = list(second)
    assert records[0].step == step + 1
    assert records[-1].seconds >= 100


def test_both_halves_train_and_draw(tmp_path):
    ticks = {half: itertools.count() for half in ("planner", "painter")}
    for half, clock in ticks.items():
        records = list(train_half(half, tmp_path, 4 / 60, lambda clock=clock: next(clock), pages=40))
        assert records
    mine = load_mine(tmp_path)
    pages = mine.draw(["a red car in the city"], [3])
    assert pages.shape == (1, 3, 64, 64)
    torch.testing.assert_close(mine.draw(["a red car in the city"], [3]), pages)
    assert draw_sheet(tmp_path).stat().st_size > 1000
