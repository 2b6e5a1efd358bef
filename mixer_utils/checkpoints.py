"""Weights on disk: safetensors files that carry their own description and notice damage.

Nothing is unpickled. A file holds named tensors and, in its header, one JSON text ``about`` (the model's configuration,
where it came from) with a SHA-256 of everything: a single flipped byte is noticed when the file is read.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import torch

from mixer_utils.model import MlpMixer

PRETRAINED = {"mnist": Path(__file__).parent / "weights" / "mnist.safetensors"}


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, or of another kind of model. The message says what to do."""


def save_checkpoint(model, path, **about):
    """Write the weights of an MlpMixer, its configuration, and whatever JSON can hold of ``about``.

    The file is whole or not there at all. Raises CheckpointError where it cannot be written (full disk, read-only
    folder); an older file of that name is then left as it was.
    """
    write_tensors(path, model.state_dict(), {**about, "model": model.config})


def load_checkpoint(path):
    """The MlpMixer saved at ``path``, on the CPU and in eval mode; its ``about`` is what was saved beside the weights.

    Raises CheckpointError for a file that is missing, damaged, or holds something else.
    """
    tensors, about = read_tensors(path)
    if "model" not in about:
        raise CheckpointError(
            f"{path} holds no model (it has {', '.join(about) or 'nothing'}): give a model.safetensors."
        )
    return restore(about, tensors, path)


def load_pretrained(name):
    """A model that ships with the package, in eval mode: ``load_pretrained("mnist")``, logits (B, 10).

    Feed it with ``data.normalize(images)``. Raises ValueError for a name that does not ship.
    """
    if name not in PRETRAINED:
        raise ValueError(f"No model {name!r} ships with mixer_utils: choose one of {', '.join(PRETRAINED)}.")
    return load_checkpoint(PRETRAINED[name])


def restore(about, tensors, path):
    """Build the model that ``about`` describes and fill it with ``tensors``."""
    try:
        model = MlpMixer(**about["model"])
        model.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is a checkpoint of another model than MlpMixer here: {reason[:300]}") from error
    model.about = about
    return model.eval()


def write_tensors(path, tensors, about):
    """Write named tensors and the JSON object ``about``, atomically. Raises CheckpointError where that fails."""
    from safetensors.torch import save

    path = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = json.dumps(about, sort_keys=True)
    write_atomically(path, save(tensors, {"about": about, "sha256": _digest(tensors, about)}))


def read_tensors(path):
    """The named tensors and the ``about`` of a file written by ``write_tensors``."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}: train one, or check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({error}): delete it and make it anew."
        ) from error
    if "about" not in header or "sha256" not in header:
        raise CheckpointError(f"{path} was not written by mixer_utils: its header lacks 'about' and 'sha256'.")
    found = _digest(tensors, header["about"])
    if found != header["sha256"]:
        raise CheckpointError(
            f"{path} is damaged (SHA-256 {found[:12]}…, expected {header['sha256'][:12]}…): delete it and make it anew."
        )
    return tensors, json.loads(header["about"])


def write_atomically(path, data):
    """Write bytes under a temporary name in the same folder and rename: readers see the old file or the new one.

    Raises CheckpointError where that fails.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(part, 0o644)  # mkstemp's file is for its owner alone
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"Cannot write {path} ({reason}): free some space or choose another folder.") from error


def _digest(tensors, about):
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
