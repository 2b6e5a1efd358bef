"""Weights on disk: safetensors files that carry their own description and notice damage.

Nothing is unpickled. A file holds named tensors and, in its header, one JSON text ``about`` (the model's configuration,
where it came from) with a SHA-256 of everything: a single flipped byte is noticed when the file is read.
Files that others made are read in ``official``.
"""

import contextlib
import hashlib
import json
from pathlib import Path

import torch

from mixer_utils._files import CheckpointError, at_home, write_atomically
from mixer_utils.model import MlpMixer

__all__ = ["CheckpointError", "PRETRAINED", "load_checkpoint", "save_checkpoint", "write_atomically"]

# The models that come with the package.
PRETRAINED = {"mnist": Path(__file__).parent / "weights" / "mnist.safetensors"}


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
    write_atomically(path, save(tensors, {"about": about, "sha256": digest_of(tensors, about)}))


def read_tensors(path):
    """The named tensors and the ``about`` of a file written by ``write_tensors``."""
    from safetensors import safe_open

    path = at_home(path)
    with reading(path, "safetensors", "train one", "make it anew"):
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if "about" not in header or "sha256" not in header:
            raise CheckpointError(f"{path} was not written by mixer_utils: its header lacks 'about' and 'sha256'.")
        found, expected = digest_of(tensors, header["about"]), header["sha256"]
        if found != expected:
            raise CheckpointError(
                f"{path} is damaged (SHA-256 {found[:12]}…, expected {expected[:12]}…): delete it and make it anew."
            )
        return tensors, dict(json.loads(header["about"]))


@contextlib.contextmanager
def reading(path, kind, if_missing, if_damaged):
    """Turn whatever a missing or damaged file makes its reader raise into one CheckpointError."""
    try:
        if not path.is_file():
            raise CheckpointError(f"There is no checkpoint {path}: {if_missing}, or check the path.")
        yield
    except CheckpointError:
        raise
    except Exception as error:  # zip files alone fail in ten ways; what they say is kept
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(f"{path} is damaged or no {kind} file ({reason}): delete it and {if_damaged}.") from error


def digest_of(tensors, about):
    """The SHA-256 of a file's content: its tensors by name, and the text ``about``."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
