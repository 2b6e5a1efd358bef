"""How, where and when a result was measured: the same in everything that results/ holds."""

import datetime
import importlib.metadata
import json
import platform
from pathlib import Path

import torch

from mixer_utils.checkpoints import write_atomically
from mixer_utils.devices import device_name, gains_from_bf16


def write_result(path, result, command, device, packages=()):
    """Write ``result``, a dict, as JSON, below what tells where it comes from.

    command: what measures it again. device: a torch.device. packages: names whose versions count, where installed.
    Raises CheckpointError where the file cannot be written.
    """
    about = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": "bfloat16 autocast" if gains_from_bf16(device) else "float32",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **installed(packages)},
    }
    write_atomically(Path(path), (json.dumps({**about, **result}, indent=1) + "\n").encode())


def installed(packages):
    """{name: version} of those that are installed here."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
