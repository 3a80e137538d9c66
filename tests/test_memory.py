"""Measuring time and memory, batches that shrink, counting without weights, and plans from injected facts."""

import time

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from course_utils.machine.devices import GIBIBYTE
from course_utils.machine.memory import in_batches_that_fit, measure, peak_activations, weight_bytes
from course_utils.machine.memory_plan import RESERVE, SCRATCH, Machine, Part, memory_need, plan_memory
from course_utils.pipelines.stable_diffusion import v1_5_parts

MIB = 2**20


# --- measuring ---------------------------------------------------------------------------------------------


def test_a_large_tensor_and_a_pause_are_seen():
    with measure("cpu") as took:
        kept = torch.ones(64 * MIB // 4)
        time.sleep(0.05)
        del kept
    assert 60 * MIB < took.peak < 96 * MIB
    assert 0.05 <= took.seconds < 5
    assert str(took).endswith("MiB more at the peak")


def test_what_was_there_before_does_not_count():
    there = torch.ones(64 * MIB // 4)
    with measure("cpu") as took:
        there += 1
    assert took.peak < 16 * MIB


def test_a_measurement_ends_when_its_block_raises():
    with pytest.raises(KeyError), measure("cpu") as took:
        raise KeyError
    assert took.seconds > 0


# --- batches that shrink -----------------------------------------------------------------------------------


def out_of_memory():
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")


def test_batches_shrink_until_they_fit_and_nothing_is_drawn_twice():
    sizes, drawn = [], []

    def draw(items):
        sizes.append(len(items))
        if len(items) > 2 or (len(items) == 2 and len(drawn) >= 4):  # later on even two are too many
            raise out_of_memory()
        drawn.extend(items)
        return [item * 10 for item in items]

    assert in_batches_that_fit(draw, list(range(7)), 8) == [0, 10, 20, 30, 40, 50, 60]
    assert drawn == list(range(7))
    assert sizes == [7, 4, 2, 2, 2, 1, 1, 1]


def test_one_that_does_not_fit_is_said_so():
    def draw(items):
        raise out_of_memory()

    with pytest.raises(MemoryError, match="Not even one fits"):
        in_batches_that_fit(draw, [1, 2], 4)


def test_other_errors_are_passed_on():
    def draw(items):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        in_batches_that_fit(draw, [1], 4)
    with pytest.raises(ValueError, match="at least 1"):
        in_batches_that_fit(draw, [1], 0)
    assert in_batches_that_fit(draw, [], 4) == []


# --- counting ----------------------------------------------------------------------------------------------


def test_weight_bytes():
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))  # 20 + 10 parameters, 10 statistics, one counter
    assert weight_bytes(model, torch.float32) == 4 * 40 + 8
    assert weight_bytes(model, torch.bfloat16) == 2 * 40 + 8
    assert weight_bytes(model.to("meta"), torch.float16) == 88


def test_the_peak_counts_what_lives_at_the_same_time():
    x = torch.empty(1000, device="meta")

    def chain(x):
        a = x + 1  # 4000 bytes
        b = a * 2  # beside it
        del a
        return b.relu()  # b and its result

    assert peak_activations(chain, x) == 8000
    assert peak_activations(lambda x: x.view(10, 100).T, x) == 0  # a view is no new memory
    assert peak_activations(lambda x: x.add_(1), x) == 0


def test_fused_attention_holds_no_matrix():
    q = torch.empty(1, 1, 1000, 8, device="meta")
    fused = peak_activations(scaled_dot_product_attention, q, q, q)
    assert fused == q.numel() * 4
    assert peak_activations(scaled_dot_product_attention, q, q, q, fused_attention=False) >= 4 * 1000**2


def test_the_count_agrees_with_what_is_measured():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 3, 3, padding=1))
    counted = peak_activations(model.to("meta"), torch.empty(16, 3, 256, 256, device="meta"))
    assert counted == 2 * 16 * 64 * 256**2 * 4  # two tensors of 64 channels


# --- plans -------------------------------------------------------------------------------------------------

PARTS = {"unet": Part(1000, 100, 50), "vae": Part(80, 400, 10), "text_encoder": Part(300, 10, 200)}


def test_need_by_hand():
    weights, work, layers = {"a": 10, "b": 3}, {"a": 1, "b": 7}, {"a": 5, "b": 2}
    assert memory_need(weights, work, layers, "none") == 20
    assert memory_need(weights, work, layers, "model") == 11
    assert memory_need(weights, work, layers, "sequential") == 9
    with pytest.raises(ValueError, match="none, model, sequential, got 'some'"):
        memory_need(weights, work, layers, "some")


def v1_5_plan(device, free, half="float16", main=16, **options):
    machine = Machine(device, round(free * GIBIBYTE), half, round(main * GIBIBYTE))
    return plan_memory(v1_5_parts(), machine, **options)


@pytest.mark.parametrize(
    "free, options, offload, decoder",
    [
        (23, {}, "none", "whole"),
        (23, {"pictures": 8}, "none", "whole"),
        (7.2, {}, "none", "whole"),
        (7.2, {"pictures": 8}, "none", "sliced"),
        (3.3, {}, "model", "whole"),
        (3.5, {"pictures": 5}, "model", "sliced"),
        (3.5, {"size": 2.2}, "model", "tiled"),
        (1.5, {}, "sequential", "whole"),
    ],
)
def test_plans_for_cuda(free, options, offload, decoder):
    plan = v1_5_plan("cuda", free, **options)
    assert (plan.fits, plan.dtype, plan.offload, plan.decoder) == (True, "float16", offload, decoder)
    assert plan.need <= free * GIBIBYTE - RESERVE
    assert not plan.attention_slicing and "No attention slicing" in str(plan)
    assert [fits for *_, fits in plan.tried] == [False] * (len(plan.tried) - 1) + [True]
    assert ("too large" in str(plan)) == (len(plan.tried) > 1)


def test_an_old_gpu_gets_float32_and_pays_for_it():
    assert v1_5_plan("cuda", 8, "float32").need > 1.9 * v1_5_plan("cuda", 8, "float16").need


def test_nothing_fits_and_why():
    plan = v1_5_plan("cuda", 0.6)
    assert not plan.fits and "most frugal way needs" in str(plan)
    plan = v1_5_plan("cuda", 3.3, main=1)  # offloaded weights have nowhere to wait
    assert not plan.fits and "too little main memory" in str(plan)


@pytest.mark.parametrize(
    "device, free, half, dtype, fits",
    [
        ("mps", 12, "float32", "float32", True),
        ("mps", 5, "float32", "float16", True),
        ("cpu", 16, "float32", "float32", True),
        ("cpu", 16, "bfloat16", "bfloat16", True),
        ("cpu", 5, "float32", "bfloat16", True),
        ("cpu", 2, "float32", "bfloat16", False),
    ],
)
def test_one_memory_knows_no_offload(device, free, half, dtype, fits):
    plan = v1_5_plan(device, free, half)
    assert (plan.dtype, plan.offload, plan.fits) == (dtype, "none", fits)


def test_activations_grow_with_pictures_and_with_the_square_of_the_size():
    machine = Machine("cpu", 10**12, "float32")
    one, two, large = (plan_memory(PARTS, machine, pictures, size).need for pictures, size in ((1, 1), (2, 1), (1, 2)))
    assert two - one == pytest.approx(1.1 * SCRATCH["cpu"] * 400, abs=2)
    assert large - one == pytest.approx(1.1 * SCRATCH["cpu"] * 3 * 400, abs=2)
    with pytest.raises(ValueError, match="at least one picture"):
        plan_memory(PARTS, machine, 0)
