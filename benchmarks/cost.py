"""How the cost of a Mixer grows with the number of tokens, the width and the depth, beside the formula for it."""

import dataclasses
import functools
import math

import torch
from torch.nn import functional as F

from benchmarks import peers
from benchmarks.timing import alternate, autocast, medians
from mixer_utils import model
from mixer_utils.devices import gains_from_bf16

BASE = peers.Shape("base", 4, 128, 64, 512, 4, batch_size=64)


def multiply_adds(shape):
    """Multiply-adds of one image's forward pass through a Mixer of this Shape, by the formula in model.py."""
    return model.multiply_adds(dataclasses.asdict(shape))


def sweeps(base):
    """{what grows: [(its value, Shape)]}: one size is changed at a time, with D_S fixed and D_C = 4 C."""
    return {
        "S": [(shape.num_tokens, shape) for P in (14, 7, 4, 2) for shape in [dataclasses.replace(base, patch_size=P)]],
        "C": [(C, dataclasses.replace(base, hidden_dim=C, channels_mlp_dim=4 * C)) for C in (32, 64, 128, 256)],
        "depth": [(depth, dataclasses.replace(base, num_blocks=depth)) for depth in (1, 2, 4, 8)],
    }


def run(device, smoke=False):
    """Time a training step of every Shape in the sweeps, all in turn; ``exponent`` is the slope on log-log axes.

    ``saved_bytes`` are what autograd keeps from forward to backward and ``parameter_bytes`` the weights: what a step
    needs at least. On CUDA, ``peak_bytes`` is what the allocator measured.
    """
    precision = "bfloat16" if gains_from_bf16(device) else "float32"
    shapes = sweeps(dataclasses.replace(BASE, batch_size=2, hidden_dim=16, channels_mlp_dim=64) if smoke else BASE)
    unique = {shape: None for points in shapes.values() for _, shape in points}
    calls, memory = {}, {}
    for shape in unique:
        mixer = peers.build("ours", shape, device)
        batch = shape.batch(device)
        calls[shape] = functools.partial(peers.training_step, mixer, *batch, precision)
        memory[shape] = memory_of(mixer, *batch, precision)
    times = alternate(calls, device, least=2, warmup=1) if smoke else alternate(calls, device, least=7, seconds=20)
    seconds, found = medians(times), {}
    for name, points in shapes.items():
        rows = [
            {"value": value, "multiply_adds": multiply_adds(shape), "seconds": seconds[shape], **memory[shape]}
            for value, shape in points
        ]
        values = [row["value"] for row in rows]
        columns = ("seconds", "multiply_adds", "saved_bytes")
        exponent = {key: slope(values, [row[key] for row in rows]) for key in columns}
        found[name] = {"exponent": exponent, "points": rows}
        for row in rows:
            print(f"  {name} {row['value']:>3}: {row['multiply_adds'] / 1e6:7.2f} M multiply-adds an image, "
                  f"{row['seconds'] * 1000:8.2f} ms a step, {row['saved_bytes'] / 2**20:7.1f} MiB saved",
                  flush=True)  # fmt: skip
        print(f"  {name}: time grows with the power {exponent['seconds']:.2f}, multiply-adds with "
              f"{exponent['multiply_adds']:.2f}", flush=True)  # fmt: skip
    yield {
        "precision": precision,
        "base": dataclasses.asdict(BASE),
        "rounds": len(times[next(iter(unique))]),
        "sweeps": found,
    }


def slope(x, y):
    """The exponent k of the least-squares fit y = a * x ** k."""
    x, y = [math.log(value) for value in x], [math.log(value) for value in y]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)


def memory_of(network, images, labels, precision):
    """Bytes of a training step: of the parameters, and of what autograd saves that is no parameter, each block once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    saved = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    if images.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast(precision, images.device):
        logits = network(images)
        loss = F.cross_entropy(logits.float(), labels)
    loss.backward()  # until here everything saved is alive, and no address stands for two blocks
    network.zero_grad()
    found = {
        "saved_bytes": sum(saved.values()),
        "parameter_bytes": sum(parameter.numel() * parameter.element_size() for parameter in network.parameters()),
    }
    if images.device.type == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated() - before
    return found
