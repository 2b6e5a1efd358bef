"""How many cores this process may use, read from made-up system files; how torch's threads wait, and how many train."""

import math
import os
import subprocess
import sys
import time

import pytest
import torch

from mixer_utils import _threads, devices
from mixer_utils._threads import quota, usable_cores
from mixer_utils.checkpoints import read_tensors
from mixer_utils.devices import fitting_threads
from mixer_utils.training import train


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A function: the root of a machine of eight cores with these files, {path: text}."""

    def made_of(files):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return made_of


IN_2 = {"proc/self/cgroup": "0::/user.slice/job\n"}
IN_1 = {"proc/self/cgroup": "9:name=systemd:/job\n4:cpu,cpuacct:/job\n3:cpuset:/\n"}
OWN_2, OWN_1 = "sys/fs/cgroup/user.slice/job", "sys/fs/cgroup/cpu,cpuacct/job"


@pytest.mark.parametrize("files, cores", [
    ({}, 8),  # no cgroups at all
    (IN_2, 8),
    (IN_2 | {f"{OWN_2}/cpu.max": "max 100000\n"}, 8),
    (IN_2 | {f"{OWN_2}/cpu.max": "200000 100000\n"}, 2),
    (IN_2 | {f"{OWN_2}/cpu.max": "150000 100000\n"}, 2),  # a part of a core is one
    (IN_2 | {f"{OWN_2}/cpu.max": "20000 100000\n"}, 1),
    (IN_2 | {f"{OWN_2}/cpu.max": "6400000 100000\n"}, 8),  # more than there are
    (IN_2 | {f"{OWN_2}/cpu.max": "max 100000\n", "sys/fs/cgroup/user.slice/cpu.max": "300000 100000\n"}, 3),
    (IN_2 | {f"{OWN_2}/cpu.max": "400000 100000\n", "sys/fs/cgroup/cpu.max": "100000 50000\n"}, 2),
    ({"proc/self/cgroup": "0::/../outside\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),  # the host's path
    (IN_1, 8),
    (IN_1 | {f"{OWN_1}/cpu.cfs_quota_us": "-1\n", f"{OWN_1}/cpu.cfs_period_us": "100000\n"}, 8),
    (IN_1 | {f"{OWN_1}/cpu.cfs_quota_us": "250000\n", f"{OWN_1}/cpu.cfs_period_us": "100000\n"}, 3),
    (IN_1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000\n"}, 1),
    (IN_2 | {f"{OWN_2}/cpu.max": "nonsense\n"}, 8),
])  # fmt: skip
def test_the_quota_of_a_container_and_of_all_around_it_is_kept(files, cores, system):
    assert usable_cores(system(files)) == cores


def test_the_affinity_mask_is_kept_too(system, monkeypatch):
    root = system(IN_2 | {f"{OWN_2}/cpu.max": "400000 100000\n"})
    for mask, cores in [({3}, 1), ({0, 5, 7}, 3), (set(range(6)), 4)]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, mask=mask: mask)
        assert usable_cores(root) == cores


def test_elsewhere_than_on_linux_the_machine_is_counted(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for counted, cores in [(6, 6), (None, 1)]:  # None: the system does not say
        monkeypatch.setattr(os, "cpu_count", lambda counted=counted: counted)
        assert usable_cores(tmp_path) == cores


def test_a_quota_is_told_in_cores_and_none_is_infinite(system, tmp_path):
    assert quota(tmp_path) == math.inf
    assert quota(system(IN_2 | {f"{OWN_2}/cpu.max": "150000 100000\n"})) == 1.5


# --- how threads wait -------------------------------------------------------------------------------------------------


def settings(first, **environment):
    """What a fresh Python says of OpenMP's settings after ``first``."""
    kept = {name: value for name, value in os.environ.items() if "OMP" not in name}
    script = f"{first}; import os; print(os.environ.get('GOMP_SPINCOUNT'))"
    run = subprocess.run([sys.executable, "-c", script], env=kept | environment, capture_output=True, text=True)
    return run.stdout.strip() or run.stderr


def test_threads_go_to_sleep_early_and_what_a_user_has_set_stays():
    assert settings("import mixer_utils") == _threads.LOOKS
    assert settings("from mixer_utils.model import MlpMixer") == _threads.LOOKS
    assert settings("import mixer_utils", GOMP_SPINCOUNT="7") == "7"
    assert settings("import mixer_utils", OMP_WAIT_POLICY="active") == "None"


def test_a_quota_below_the_machines_cores_limits_the_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(_threads, "usable_cores", lambda: 2)
    _threads.set_before_torch()
    assert os.environ["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    _threads.set_before_torch()
    assert os.environ["OMP_NUM_THREADS"] == "5"
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(_threads, "usable_cores", lambda: 8)
    _threads.set_before_torch()
    assert "OMP_NUM_THREADS" not in os.environ


# --- how many of them train -------------------------------------------------------------------------------------------


@pytest.fixture
def two_threads(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(devices, "usable_cores", lambda: 2)
    yield
    torch.set_num_threads(before)


CPU = torch.device("cpu")


@pytest.mark.parametrize("seconds, number", [({1: 0.01, 2: 0.04}, 1), ({1: 0.04, 2: 0.01}, 2), ({1: 0.02, 2: 0.02}, 2)])
def test_one_thread_trains_where_it_is_faster_than_all(two_threads, monkeypatch, capsys, seconds, number):
    with fitting_threads(CPU, lambda: time.sleep(seconds[torch.get_num_threads()])):
        assert torch.get_num_threads() == number
    assert torch.get_num_threads() == 2
    assert ("faster here than 2." in capsys.readouterr().out) == (number == 1)


def test_nothing_is_tried_where_a_run_goes_on_and_on_a_gpu(two_threads):
    def never():
        raise AssertionError("a trial")

    with fitting_threads(CPU, never, number=1):
        assert torch.get_num_threads() == 1
    with fitting_threads(torch.device("cuda"), never):
        assert torch.get_num_threads() == 2


def test_a_long_step_is_tried_once(two_threads, monkeypatch):
    monkeypatch.setattr(devices, "LONG_STEP", 0.001)
    steps = []
    with fitting_threads(CPU, lambda: steps.append(time.sleep(0.01))):
        assert torch.get_num_threads() == 2
    assert len(steps) == 1


def test_a_quota_holds_for_a_torch_that_was_there_before(two_threads, monkeypatch):
    monkeypatch.setattr(devices, "usable_cores", lambda: 1)
    with fitting_threads(CPU, None):
        assert torch.get_num_threads() == 1


def test_a_trial_changes_nothing_and_a_run_goes_on_with_as_many_threads(two_threads, monkeypatch, few_digits, tmp_path):
    from mixer_utils.recipes import changed

    recipe = changed("digits", ["epochs=1", "validation=60", "batch_size=100", "stochastic_depth=0.2"])
    monkeypatch.setattr(devices, "one_is_faster", lambda number, step: False)
    plain, _ = train(recipe, data=few_digits, device="cpu", progress=False)
    monkeypatch.setattr(devices, "one_is_faster", lambda number, step: step())  # None: no, it is not
    tried, _ = train(recipe, data=few_digits, device="cpu", progress=False, out=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), tried.parameters(), strict=True))
    assert read_tensors(tmp_path / "resume.safetensors")[1]["threads"] == 2
