"""The training loop: the same run however it is stopped, resumed or spread."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from course_utils.checkpoint import CHECKPOINT, saved_run
from course_utils.training import MovingAverage, Samples, ema_update, learning_rate_at, train

RUN = """
import json, sys, time, torch
from torch import nn
from course_utils.training import MovingAverage, gather, leave, train

def make_loss(compare):
    def loss(model, samples):
        x, eps = samples.normals(3), samples.normals(2, stream=1)
        y = model(x)
        if compare:  # a loss that compares the samples of the whole batch with each other
            y = gather(y)
            return (y @ y.T).square().mean() / len(y) + y.square().mean()
        return (y - x[:, :2].sin() - 0.1 * eps).square().mean()
    return loss

def run(folder=None, steps=30, compare=False, pause=0, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    average = MovingAverage(model, 0.9)
    losses = []
    for record in train(model, make_loss(compare), steps=steps, batch=8, folder=folder, seed=7, warmup=5,
                        average=average, save_every=4, **options):
        losses.append(record.loss)
        time.sleep(pause)
    return model, average, losses
"""
space = {}
exec(RUN, space)
run, make_loss = space["run"], space["make_loss"]


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_it_learns_and_the_average_follows():
    model, average, losses = run(steps=300)
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])
    assert not same(model, average.model)


def test_runs_of_several_precisions_may_follow_each_other():
    _, _, expected = run(steps=3)
    _, _, half = run(steps=3, precision=torch.bfloat16)
    _, _, again = run(steps=3)
    assert again == expected != half


def test_closed_and_resumed_is_the_uninterrupted_run(tmp_path):
    whole, whole_average, losses = run()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    records = train(
        model,
        make_loss(False),
        steps=30,
        batch=8,
        folder=tmp_path,
        seed=7,
        warmup=5,
        average=MovingAverage(model, 0.9),
        save_every=4,
    )
    first = [next(records).loss for _ in range(10)]
    records.close()  # what a stopped notebook cell or Ctrl-C does
    resumed, average, rest = run(tmp_path)
    assert first + rest == losses
    assert same(resumed, whole) and same(average.model, whole_average.model)


def test_killed_at_any_moment_and_run_again_gives_the_same_weights(tmp_path):
    script = RUN + "\nrun(sys.argv[1], pause=0.02)"
    checkpoint = tmp_path / CHECKPOINT
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
        before = written(checkpoint)
        while process.poll() is None and written(checkpoint) in (None, before):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        process.wait()
    assert 0 < saved_run(tmp_path).step < 30
    whole, _, _ = run()
    resumed, _, rest = run(tmp_path)
    assert 0 < len(rest) < 30
    assert same(resumed, whole)


def written(path):
    """When a file was written; None while there is none, as between the two renames of a save."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


@pytest.mark.parametrize("compare", [False, True])
def test_two_processes_give_the_losses_and_weights_of_one(tmp_path, compare):
    script = (
        RUN
        + f"""
from pathlib import Path
model, average, losses = run(sys.argv[1], steps=8, compare={compare})
assert torch.distributed.is_initialized() and torch.distributed.get_world_size() == 2
if torch.distributed.get_rank() == 0:
    Path(sys.argv[1], "losses.json").write_text(json.dumps(losses))
leave()
"""
    )
    (tmp_path / "run.py").write_text(script)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            "2",
            tmp_path / "run.py",
            tmp_path,
        ],
        check=True,
        timeout=120,
        env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
    )
    model, average, losses = run(steps=8, compare=compare)
    assert json.loads((tmp_path / "losses.json").read_text()) == pytest.approx(losses, rel=1e-5)
    saved = load_file(tmp_path / CHECKPOINT)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(saved[f"model.{name}"], value, rtol=1e-4, atol=1e-6)


def test_pieces_of_a_batch_add_up_to_the_batch():
    whole, _, losses = run()
    pieces, _, other = run(accumulate=4)
    assert other == pytest.approx(losses, rel=1e-4)


def test_each_sample_has_randomness_of_its_own():
    import numpy as np

    all_of_them = Samples(np.arange(8), seed=3)
    half = Samples(np.arange(4, 8), seed=3)
    assert torch.equal(all_of_them.normals(5)[4:], half.normals(5))
    assert not torch.equal(half.normals(5), half.normals(5, stream=1))
    assert not torch.equal(half.normals(5), Samples(np.arange(4, 8), seed=4).normals(5))
    many = Samples(np.arange(4000), seed=0)
    assert abs(many.normals().mean()) < 0.05 and abs(many.normals().std() - 1) < 0.05
    index = many.integers(10)
    assert index.min() == 0 and index.max() == 9
    assert (torch.bincount(index) - 400).abs().max() < 80


def test_the_learning_rate_warms_up_and_ends_near_zero():
    rates = [learning_rate_at(step, 100, 1e-3, 10) for step in range(100)]
    assert max(rates) == pytest.approx(1e-3) and rates[0] == pytest.approx(1e-4)
    assert rates[-1] == pytest.approx(1e-3 / 90)
    assert all(a < b for a, b in zip(rates[:10], rates[1:10], strict=False))


def test_what_is_wrong_is_said(tmp_path):
    run(tmp_path, steps=8)
    with pytest.raises(ValueError, match=r"at least 8 steps.*restart"):
        run(tmp_path, steps=6)
    with pytest.raises(ValueError, match=r"learning_rate 0.001 \(now 0.1\).*restart"):
        run(tmp_path, steps=8, learning_rate=0.1)
    run(tmp_path, steps=6, restart=True)
    with pytest.raises(ValueError, match="multiple of 3"):
        run(accumulate=3)
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="finite"):
        list(train(model, lambda model, samples: model(samples.normals(3)).sum() / 0, steps=1, batch=2))


def test_a_finished_run_can_be_made_longer(tmp_path):
    _, _, first = run(tmp_path, steps=6)
    _, _, more = run(tmp_path, steps=10)
    assert len(first) == 6 and len(more) == 4


def test_a_half_written_checkpoint_is_never_read(tmp_path):
    run(tmp_path, steps=6)
    (tmp_path / f".{CHECKPOINT}.1.part").write_bytes(b"half")
    _, _, losses = run(tmp_path, steps=6)
    assert losses == []


def test_ema_equals_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    model, average = nn.Linear(3, 2), nn.Linear(3, 2)
    average.load_state_dict(model.state_dict())
    library = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    library.update_parameters(model)  # its first update is a copy
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        ema_update(average, model, 0.9)
        library.update_parameters(model)
    for slow, expected in zip(average.parameters(), library.module.parameters(), strict=True):
        torch.testing.assert_close(slow, expected)
