"""The threads that PyTorch computes with: how many there may be, and how they wait for each other.

Only the standard library is imported: OpenMP, which runs the threads, reads its settings once, as torch is imported.
"""

import contextlib
import math
import os
from pathlib import Path

# How often a thread looks whether the others are done before it goes to sleep. GNU's OpenMP looks 300,000 times: where
# another program has one of two cores, the thread that is looked for is not running, and every layer waits like this.
# 10,000 cost nothing where the cores are free (results/bench-busy.json).
# https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
LOOKS = "10000"


def set_before_torch():
    """Settle, before torch is imported, how its threads wait and how many there are; what a user has set stays."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", LOOKS)
    cores = usable_cores()
    if cores < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def usable_cores(root="/"):
    """How many cores this process may use, 1 or more: the fewest that the machine, its affinity and a quota allow.

    A container may have two of a machine's sixty-four cores: where its scheduler binds it to them, the affinity mask
    says so; where its time is limited, the cgroup's quota does. A part of a core counts as one. ``root`` is where the
    system's files are looked for.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux alone
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min(cores, quota(Path(root)))))


def quota(root):
    """The cores' worth of time that this process's cgroup and those around it may use; inf where nothing limits it.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), and for version 1
    https://docs.kernel.org/scheduler/sched-bwc.html (cpu.cfs_quota_us).
    """
    lowest = math.inf
    for folder in cgroups(root):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit here
            used, period = (folder / "cpu.max").read_text().split()
            lowest = min(lowest, int(used) / int(period))
        with contextlib.suppress(OSError, ValueError):
            used, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            lowest = min(lowest, used / period if used > 0 else math.inf)  # -1: no limit
    return lowest


def cgroups(root):
    """The folders of the cgroups that this process is in, from its own outwards, in both versions.

    A line of /proc/self/cgroup is "0::/path" in version 2 and "4:cpu,cpuacct:/path" in version 1. Inside a container
    the path may be the host's, which is not there: the container's own cgroup is then the outermost.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # another system than Linux
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if not controllers:
            tops = [mounts, mounts / "unified"]
        elif "cpu" in names:
            tops = [mounts / controllers, mounts / "cpu"]
        else:
            continue
        for top in tops:
            own = top / path.lstrip("/")
            yield own
            yield from (folder for folder in own.parents if folder.is_relative_to(top))
