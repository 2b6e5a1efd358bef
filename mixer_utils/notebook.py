"""What every notebook starts with and leans on: the setup line, shape checks, and claims that hold on MNIST alone."""

import sys

import torch

from mixer_utils.devices import gains_from_bf16, keep_freed_memory, pick_device


def start(seed=0):
    """Seed everything, pick the device and print one line: versions, device, expected minutes. Returns the device."""
    from mixer_utils import __version__

    torch.manual_seed(seed)
    device = pick_device()
    minutes = "expect 1 min (05: 3, 06 and 10: 2)"  # as measured on two CPU cores
    if device.type == "cpu":
        keep_freed_memory()
        where = f"CPU x {torch.get_num_threads()}"
    else:
        where = torch.cuda.get_device_name() if device.type == "cuda" else "Apple GPU"
        minutes += "; a GPU has not been timed yet"
    precision = "bfloat16" if gains_from_bf16(device) else "float32"
    version, python = torch.__version__.split("+")[0], ".".join(map(str, sys.version_info[:2]))
    print(f"mixer_utils {__version__} · torch {version} · Python {python} · {where}, {precision} · {minutes}")
    if device.type == "cpu" and "google.colab" in sys.modules:
        print("For a GPU: Runtime > Change runtime type > T4 GPU, then run this cell again.")
    return device


def check_shape(tensor, shape):
    """Print the tensor's shape, and stop with one sentence unless it is ``shape``: ``check_shape(x, (B, S, C))``.

    Raises ValueError.
    """
    found = tuple(tensor.shape)
    if found != tuple(shape):
        raise ValueError(f"This tensor has the shape {found}; {tuple(shape)} was expected here.")
    print(" x ".join(map(str, found)) or "a single number")


def claim(text, holds, data=None, only_on="mnist"):
    """Print whether a claim about a measured number holds: ``claim("at least 98.34 %", accuracy >= 0.9834, data)``.

    A claim about MNIST is not checked on other data, and says so. Raises AssertionError where it does not hold.
    """
    if data is not None and data.name != only_on:
        print(f"{text}: not checked ({data.name} instead of {only_on})")
        return
    print(f"{text}: {bool(holds)}")
    if not holds:
        raise AssertionError(f"This was expected to hold and does not: {text}.")


def verdict(prediction, answer):
    """Print the number of the measured answer and whether it was predicted; ``prediction`` None means no guess."""
    guess = "" if prediction is None else ", as you predicted" if prediction == answer else f", not {prediction}"
    print(f"Measured: {answer}{guess}.")
