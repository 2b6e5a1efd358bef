"""What a run computes on, a processor or a graphics card, and how it is made the best of."""

import contextlib
import ctypes
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch

from mixer_utils._files import MixerError
from mixer_utils._threads import usable_cores

LONG_STEP = 2.0  # seconds


class DeviceError(MixerError):
    """A device that is asked for and not there, or processes that lost each other. The message says what to do."""


def pick_device(name="auto"):
    """The torch.device called ``name``; "auto" takes CUDA, then MPS, then the CPU.

    Raises DeviceError for a GPU that is asked for and not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, available in there.items() if available)
    if not there.get(str(name).split(":")[0]):
        raise DeviceError(
            f"The device {name!r} was asked for, but this machine offers {', '.join(k for k in there if there[k])}: "
            f'choose one of those or "auto".'
        )
    return torch.device(name)


def device_name(device):
    """What the device is called: the graphics card's name or the processor's, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def seed_draws(seed, device):
    """Seed what torch draws at random on the CPU and on ``device``.

    ``torch.manual_seed`` draws the same, and looks for every other kind of device first: too long for every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def autocast(device):
    """bfloat16 for the matrix products where the processor has instructions for it; float32 elsewhere.

    Weights, losses and optimisers stay in float32; so do LayerNorms on a GPU, while on a CPU what passes between layers
    is bfloat16 (notebook 05). bfloat16 has float32's range, so losses need no scaling.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=gains_from_bf16(device))


def gains_from_bf16(device):
    """Whether ``device`` computes faster in bfloat16 than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        able = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases: there float32 is a safe answer
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False


def keep_freed_memory():
    """Let this process keep the memory that its tensors free, for the next step's tensors.

    glibc gives large blocks back to the system as soon as they are free, and every step then pays for fresh pages: a
    step of a small Mixer took 1.3 times as long (results/bench-loop.json), and up to 1.9 times on another machine. It
    holds for the whole process, from now on; where the C library is another one, nothing happens.
    https://www.gnu.org/software/libc/manual/html_node/Malloc-Tunable-Parameters.html
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL("libc.so.6").mallopt
            M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
            mallopt(M_MMAP_THRESHOLD, 2**30)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def fitting_threads(device, step, number=None):
    """Inside, torch uses all threads that this process may; or one, on the CPU where ``step()`` is sooner done by one.

    So it is beside busy programs, since threads wait for each other at every layer (see ``_threads``), and for tiny
    networks. Three calls of each kind, in turn, tell; one printed line says where it is one thread. ``number`` asks for
    that many, without a trial.
    """
    before = torch.get_num_threads()
    most = min(before, usable_cores())
    if number is None:
        number = 1 if device.type == "cpu" and most > 1 and one_is_faster(most, step) else most
        if number < most:
            print(f"Training on one thread: beside other programs it is faster here than {most}.")
    try:
        torch.set_num_threads(min(number, most))
        yield
    finally:
        torch.set_num_threads(before)


def one_is_faster(number, step):
    """Whether one thread does ``step()`` in less than 1 / 1.2 of the time that ``number`` of them take.

    A step of seconds is not tried again: its layers are so large that waiting between them is nothing.
    """
    seconds = {number: [], 1: []}
    for _ in range(3):
        for count, times in seconds.items():
            torch.set_num_threads(count)
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
            if times[-1] > LONG_STEP:
                return False
    return 1.2 * statistics.median(seconds[1]) < statistics.median(seconds[number])


def replayed(function, warmup=3):
    """``function`` of CUDA tensors, recorded once and then replayed: one launch a call in place of hundreds.

    The first calls run as usual, so that whatever is made once (optimiser states, cuBLAS workspaces) is there before
    the recording; after it, shapes must stay as they are and the result is overwritten by the next call.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """
    calls = 0
    graph = inputs = result = None

    def call(*tensors):
        nonlocal calls, graph, inputs, result
        calls += 1
        if calls <= warmup:
            side = torch.cuda.Stream()
            current = torch.cuda.current_stream()
            side.wait_stream(current)
            with torch.cuda.stream(side), warnings.catch_warnings():
                # AdamW wonders why it runs unrecorded: it will not for long.
                warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
                result = function(*tensors)
            current.wait_stream(side)
            return result
        if graph is None:
            inputs = [tensor.clone() for tensor in tensors]
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = function(*inputs)
        for recorded, given in zip(inputs, tensors, strict=True):
            recorded.copy_(given)
        graph.replay()
        return result

    return call
