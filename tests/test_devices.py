"""Device, number format, memory, seeds and profiles, decided from given facts: no GPU needed."""

import random

import numpy
import psutil
import pytest
import torch

from course_utils.machine import devices
from course_utils.machine.devices import Hardware, choose_device

TWO_GPUS = Hardware(("Small GPU", "Large GPU"), "", apple_gpu=False)
APPLE = Hardware(apple_gpu=True)
NO_GPU = Hardware(cuda_problem="this build of torch has no CUDA")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("COURSE_DEVICE", "COURSE_DTYPE", "COURSE_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("hardware", "wanted", "name", "in_reason"),
    [
        (TWO_GPUS, None, "cuda", "Small GPU and Large GPU"),
        (TWO_GPUS._replace(apple_gpu=True), None, "cuda", "Small GPU"),
        (APPLE, None, "mps", "Apple GPU"),
        (NO_GPU, None, "cpu", "this build of torch has no CUDA"),
        (NO_GPU, "", "cpu", "no CUDA"),
        (TWO_GPUS, "cuda:1", "cuda:1", "COURSE_DEVICE"),
        (TWO_GPUS, "CPU", "cpu", "COURSE_DEVICE"),
    ],
)
def test_choose_device(hardware, wanted, name, in_reason):
    chosen, reason = choose_device(hardware, wanted)
    assert chosen == name
    assert in_reason in reason


@pytest.mark.parametrize(
    ("hardware", "wanted", "message"),
    [
        (NO_GPU, "cuda", "one of cpu on this machine.*'cuda' .this build of torch has no CUDA"),
        (NO_GPU, "mps", "one of cpu on this machine"),
        (TWO_GPUS, "cuda:2", "one of cuda, cuda:0, cuda:1, cpu"),
        (APPLE, "gpu", "one of mps, cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused(hardware, wanted, message):
    with pytest.raises(ValueError, match=message):
        choose_device(hardware, wanted)


def test_pick_device_prints_one_line_with_the_reason(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert devices.pick_device() == torch.device("cpu")
    assert capsys.readouterr().out == "Device: cpu (COURSE_DEVICE asks for it).\n"
    devices.pick_device(quiet=True)
    assert capsys.readouterr().out == ""


def test_a_gpu_that_fails_its_first_sum_is_not_used(monkeypatch):
    def broken(*arguments, **keywords):
        raise RuntimeError("CUDA error: no kernel image is available\nmore lines")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(devices.torch, "ones", broken)
    hardware = devices.find_hardware.__wrapped__()
    assert choose_device(hardware)[0] == "cpu"
    assert hardware.cuda_problem == ("a CUDA GPU does not work here (CUDA error: no kernel image is available)")


def test_bfloat16_must_win_clearly_and_by_the_median():
    assert devices.bfloat16_wins([1.5, 1.5, 1.5], [1.0, 1.0, 9.0])
    assert not devices.bfloat16_wins([1.1, 1.1, 9.0], [1.0, 1.0, 1.0])
    assert not devices.bfloat16_wins([1.0], [12.0])


def test_autocast_dtype_on_a_cpu_follows_the_race(monkeypatch):
    monkeypatch.setattr(devices, "_race_on_cpu", lambda: ([2.0], [1.0]))
    assert devices.autocast_dtype("cpu") == torch.bfloat16
    monkeypatch.setattr(devices, "_race_on_cpu", lambda: ([1.0], [9.0]))
    assert devices.autocast_dtype(torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    ("capability", "dtype"), [((8, 6), torch.bfloat16), ((7, 5), torch.float16), ((6, 1), torch.float32)]
)
def test_autocast_dtype_on_cuda_follows_the_generation(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.autocast_dtype("cuda") == dtype


def test_autocast_dtype_can_be_asked_for(monkeypatch):
    for name, dtype in devices.DTYPES.items():
        monkeypatch.setenv("COURSE_DTYPE", name)
        assert devices.autocast_dtype("cpu") == dtype
    monkeypatch.setenv("COURSE_DTYPE", "half")
    with pytest.raises(ValueError, match="float32, bfloat16, float16, but is 'half'"):
        devices.autocast_dtype("cpu")


def test_the_race_runs_anywhere_and_leaves_the_random_numbers_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with torch.inference_mode():
        float32_seconds, bfloat16_seconds = devices._race_on_cpu.__wrapped__(most_rounds=2)
    assert 1 <= len(float32_seconds) == len(bfloat16_seconds) <= 2
    assert min(float32_seconds + bfloat16_seconds) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_is_that_of_the_machine_or_of_its_container(monkeypatch):
    free, total = devices.memory("cpu")
    assert 0 < free < total <= psutil.virtual_memory().total
    monkeypatch.setattr(devices.Path, "read_text", lambda path: f"{2 * devices.GIBIBYTE}\n")
    free, total = devices.memory("cpu")
    assert total == 2 * devices.GIBIBYTE
    assert free < total
    assert "GiB free of 2.0 GiB" in devices.memory_report("cpu")


def test_describe_machine(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    lines = devices.describe_machine().splitlines()
    assert len(lines) == 4
    assert torch.__version__ in lines[0]
    assert f"torch uses {torch.get_num_threads()} threads" in lines[1]
    assert lines[3] == "Device: cpu (COURSE_DEVICE asks for it)."


def test_one_seed_fixes_all_three_sources_and_the_generator():
    def draws():
        generator = devices.seed_everything(7)
        own = torch.rand(1, generator=generator).item()
        return random.random(), numpy.random.rand(), torch.rand(1).item(), own

    assert draws() == draws()
    assert devices.seed_everything(numpy.int64(2**32 - 1)).initial_seed() == 2**32 - 1


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "seven", None])
def test_a_seed_that_numpy_could_not_take_is_refused(seed):
    with pytest.raises(ValueError, match="whole number from 0 to 4294967295"):
        devices.seed_everything(seed)


def test_budget_follows_the_profile(monkeypatch):
    for name, steps in [("smoke", 1), ("laptop", 2), ("GPU", 3)]:
        monkeypatch.setenv("COURSE_PROFILE", name)
        assert devices.budget(smoke=1, laptop=2, gpu=3) == steps


@pytest.mark.parametrize(("hardware", "expected"), [(NO_GPU, "laptop"), (APPLE, "gpu"), (TWO_GPUS, "gpu")])
def test_the_default_profile_follows_the_device(monkeypatch, hardware, expected):
    monkeypatch.setattr(devices, "find_hardware", lambda: hardware)
    assert devices.profile() == expected
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert devices.profile() == "laptop"


def test_an_unknown_profile_is_refused(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "fast")
    with pytest.raises(ValueError, match="smoke, laptop or gpu, but is 'fast'"):
        devices.profile()
