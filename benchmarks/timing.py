"""What all benchmarks share: timing calls in turn, and keeping what was found with where it was found."""

import statistics
import time
from pathlib import Path

import torch

from benchmarks.provenance import write_result
from mixer_utils.devices import gains_from_bf16

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("timm", "mlp-mixer-pytorch")


def alternate(calls, device, least=5, seconds=0.0, most=50, warmup=2):
    """Time the calls {name: function} in turn, one of each a round: {name: [seconds of each round]}.

    What else the machine does then slows all of them alike, and times of one round can be compared. There are ``least``
    rounds, then more until ``seconds`` have passed or there were ``most``; the ``warmup`` rounds before are not kept.
    """
    names, times = list(calls), {name: [] for name in calls}
    for _ in range(warmup):
        for name in names:
            timed(calls[name], device)
    start, number = time.perf_counter(), 0
    while number < least or (number < most and time.perf_counter() - start < seconds):
        at = number % len(names)  # another one goes first in every round
        for name in names[at:] + names[:at]:
            times[name].append(timed(calls[name], device))
        number += 1
    return times


def timed(call, device):
    """The seconds that ``call()`` takes; or the number it returns, where it has timed itself. CUDA events on a GPU."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        own = call()
        end.record()
        torch.cuda.synchronize()
        return own if isinstance(own, float) else start.elapsed_time(end) / 1000
    start = time.perf_counter()
    own = call()
    return own if isinstance(own, float) else time.perf_counter() - start


def ratio(times, others):
    """How many times as long ``others`` took as ``times``, round by round: the median and the quartiles."""
    pairs = [other / one for one, other in zip(times, others, strict=True)]
    low, median, high = statistics.quantiles(pairs, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def medians(times):
    """The median of each list in {name: [seconds]}."""
    return {name: statistics.median(values) for name, values in times.items()}


def precisions(device):
    """The precisions worth timing on ``device``: bfloat16 autocast only where it has instructions for it."""
    if gains_from_bf16(device):
        return ["bfloat16", "float32"]
    print("  bfloat16: skipped, this device has no instructions for it", flush=True)
    return ["float32"]


def autocast(precision, device):
    """The context in which a model computes in "bfloat16" or "float32"; weights and losses stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def save(part, result, device, folder):
    """Write ``result`` to ``folder/bench-{part}.json`` (on a GPU ``bench-{part}-gpu.json``): where, when, how."""
    name = f"bench-{part}" if device.type == "cpu" or part == "gpu" else f"bench-{part}-gpu"
    command = f"python benchmarks/bench.py {part}"
    write_result(Path(folder) / f"{name}.json", {"seeds": [0], **result}, command, device, PACKAGES)
