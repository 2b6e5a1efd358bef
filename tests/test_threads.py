"""How many cores this process may use, read from made-up system files."""

import math
import os

import pytest

from mixer_utils._threads import quota, usable_cores


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
