"""What the first cell of every notebook calls: install what is missing, seed, pick the device, say what to expect.

Only the standard library is imported at the top: this runs before anything else is sure to be there.
"""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

PROJECT = "mlp-mixer-tutorial"
NOT_NEEDED = {"jupyter", "nbval"}  # by a notebook that is running already
MINUTES = {"05": 3, "06": 2, "08": 4, "10": 2}  # to run them, measured on two CPU cores; the others: 1
NEVER_CHANGED = {"torch", "torchvision", "numpy"}  # a hosted notebook's own fit its driver and each other


def start(notebook="", seed=0):
    """Seed everything, pick the device and print one line: versions, device, and the minutes of ``notebook``, "05" say.

    Returns the device.
    Installs before that what is missing here; raises RuntimeError where it cannot.
    """
    install_missing()
    import torch  # not before it is sure to be there

    from mixer_utils import __version__
    from mixer_utils.devices import gains_from_bf16, keep_freed_memory, pick_device

    torch.manual_seed(seed)
    device = pick_device()
    minutes = f"expect {MINUTES.get(notebook, 1)} min on two CPU cores"
    if device.type == "cpu":
        keep_freed_memory()
        where = f"CPU x {torch.get_num_threads()}"
    else:
        where = torch.cuda.get_device_name() if device.type == "cuda" else "Apple GPU"
        minutes += ", a GPU has not been timed yet"
    precision = "bfloat16" if gains_from_bf16(device) else "float32"
    version, python = torch.__version__.split("+")[0], ".".join(map(str, sys.version_info[:2]))
    print(f"mixer_utils {__version__} · torch {version} · Python {python} · {where}, {precision} · {minutes}")
    if device.type == "cpu" and (menu := gpu_menu()):
        print(f"For a GPU: {menu}, then run this cell again.")
    return device


def gpu_menu():
    """Where a GPU is selected on this host; None where none is offered."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:  # asked first: Kaggle's image is made from Colab's
        return "Settings > Accelerator > GPU T4 x2"
    return "Runtime > Change runtime type > T4 GPU" if "google.colab" in sys.modules else None


def install_missing():
    """Install those of the project's requirements that are missing here, by one call of pip, and say so in one line.

    What is there stays as it is: torch, torchvision, numpy and all that is older than asked are pinned to the version
    that is there. Raises RuntimeError where pip fails.
    """
    wanted = requirements()
    here = {name: version_of(name) for name in wanted}
    missing = [name for name in wanted if here[name] is None]
    old = [name for name in wanted if here[name] and release(here[name]) < release(wanted[name])]
    for name in old:
        print(
            f"{name} {here[name]} is here, {wanted[name]} or newer was expected: it is left as it is, "
            f"and some cells may fail."
        )
    if not missing:
        return
    names = ", ".join(missing)
    print(f"Installing {names}{' (torch is large: minutes)' if 'torch' in missing else ''} …", flush=True)
    ask = [f"{name}>={wanted[name]}" for name in missing]
    pins = [f"{name}=={here[name]}" for name in wanted if here[name] and (name in NEVER_CHANGED or name in old)]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *ask, *pins]
    run = subprocess.run(pip, capture_output=True, text=True)
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ").rstrip(".")
        raise RuntimeError(
            f"pip could not install {names} ({reason}): connect this machine to the internet, or install them "
            f"yourself, then restart the kernel and run this cell again."
        )
    importlib.invalidate_caches()


def requirements():
    """What a running notebook needs: {name: lowest version}, without the extras.

    From pyproject.toml in a checkout, which is newer than what was once installed from it; else from what is installed.
    """
    beside, project = Path(__file__).parent.parent / "pyproject.toml", {}
    if beside.is_file():
        project = tomllib.loads(beside.read_text(encoding="utf-8")).get("project", {})
    if project.get("name") == PROJECT:
        lines = project["dependencies"]
    else:
        try:
            lines = metadata.requires(PROJECT) or []
        except metadata.PackageNotFoundError:  # the folder mixer_utils was copied alone: nothing says what it needs
            lines = []
    plain = (re.fullmatch(r"([\w-]+)>=([\d.]+)", line) for line in lines)  # those of an extra have a marker behind
    return {found[1]: found[2] for found in plain if found and found[1] not in NOT_NEEDED}


def version_of(name):
    """The version of the distribution ``name`` that is installed here, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def release(version):
    """The numbers of a version, to compare: "2.9.1+cu126" is (2, 9, 1)."""
    return tuple(map(int, re.match(r"\d+(\.\d+)*", version).group().split(".")))
