"""What the first cell of every notebook calls: install what is missing, seed, pick the device, say what to expect."""

import sys


def start(seed=0):
    """Seed everything, pick the device and print one line: versions, device, expected minutes. Returns the device."""
    install_missing()
    import torch  # not before it is sure to be there

    from mixer_utils import __version__
    from mixer_utils.devices import gains_from_bf16, keep_freed_memory, pick_device

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


def install_missing():
    """Install those of the project's requirements that are missing here."""
