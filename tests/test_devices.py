import dataclasses
import os

import pytest
import torch
from told import assert_told

from mixer_utils import Recipe, train
from mixer_utils._processes import Processes, joined_processes
from mixer_utils.devices import DeviceError, gains_from_bf16, pick_device, seed_draws

# --- which device ------------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """A function that gives this machine, or takes from it, a CUDA and an Apple GPU."""

    def have(cuda=False, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return have


def test_auto_takes_cuda_then_mps_then_the_cpu(machine):
    for cuda, mps, expected in [(1, 1, "cuda"), (1, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")]:
        machine(bool(cuda), bool(mps))
        assert pick_device() == pick_device("auto") == torch.device(expected)
        assert pick_device("cpu") == torch.device("cpu")
        assert pick_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "gpu"])
def test_a_device_that_is_not_there_is_told_before_anything_else(device, machine, few_digits, tmp_path):
    machine()
    with pytest.raises(DeviceError) as error:
        train(Recipe("r"), data=few_digits, device=device, out=tmp_path / "run")
    assert_told(error.value, f"device {device!r}", "offers cpu:", 'choose one of those or "auto"')
    assert not (tmp_path / "run").exists()


def test_bfloat16_is_a_gain_where_the_processor_has_instructions_for_it(monkeypatch):
    for able, gains in [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True),
                        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False), ({}, False)]:  # fmt: skip
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able, raising=False)
        assert gains_from_bf16(torch.device("cpu")) is gains
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # before torch 2.10
    assert gains_from_bf16(torch.device("cpu")) is False
    for able in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able)
        assert gains_from_bf16(torch.device("cuda")) is able
    assert gains_from_bf16(torch.device("mps")) is False


def test_seeded_draws_are_those_of_torchs_own_seed(monkeypatch):
    drawn = []
    for seed in (lambda: torch.manual_seed(5), lambda: seed_draws(5, torch.device("cpu"))):
        torch.rand(3)
        seed()
        drawn.append(torch.rand(4))
    assert torch.equal(*drawn)
    for kind in ("cuda", "mps"):
        seeded = []
        monkeypatch.setattr(getattr(torch, kind), "manual_seed", seeded.append)
        seed_draws(7, torch.device(kind))
        assert seeded == [7]


# --- one process of several (several at once are in test_processes.py) -------------------------------------


def test_processes_share_a_batch_without_overlap_and_leave_none_of_it():
    batch = torch.randperm(12)
    for size in (1, 2, 3, 4):
        shares = [Processes(rank, size).share(batch) for rank in range(size)]
        assert {len(share) for share in shares} == {12 // size}
        assert sorted(torch.cat(shares).tolist()) == list(range(12))


def test_a_batch_that_cannot_be_shared_equally_is_refused():
    with pytest.raises(ValueError) as error:
        Processes(1, 4).share(torch.arange(50))
    assert_told(error.value, "batch of 50", "4 processes", "a multiple of 4.")


def test_the_first_process_is_the_one_that_writes():
    assert [Processes(rank, 3).first for rank in range(3)] == [True, False, False]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Processes().rank = 1


def test_without_torchrun_a_process_is_alone_and_nothing_is_connected(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    model = torch.nn.Linear(2, 1)
    with joined_processes() as processes:
        assert processes == Processes(0, 1) and processes.first
        assert not torch.distributed.is_initialized()
        assert processes.parallel(model) is model
        assert processes.mean(torch.tensor([1.5, 2.0])) == [1.5, 2.0]
        assert processes.device(torch.device("cpu")) == torch.device("cpu")


def test_on_a_machine_of_several_gpus_every_process_takes_its_own(monkeypatch):
    taken = []
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert Processes(11, 16).device(torch.device("cuda")) == torch.device("cuda", 3)
    assert taken == [torch.device("cuda", 3)]
    assert Processes(11, 16).device(torch.device("cpu")) == torch.device("cpu")
    assert Processes(0, 1).device(torch.device("cuda")) == torch.device("cuda")
    assert len(taken) == 1
