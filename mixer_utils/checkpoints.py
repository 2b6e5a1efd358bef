"""Weights on disk: safetensors files that carry their own description and notice damage.

Nothing is unpickled. A file holds named tensors and, in its header, one JSON text ``about`` (the model's configuration,
where it came from) with a SHA-256 of everything: a single flipped byte is noticed when the file is read.
Files that others made are read in ``official``.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mixer_utils._departures import departures, some_of, uncompiled, weights_of
from mixer_utils._file_kinds import reading
from mixer_utils._files import CheckpointError, at_home, one_line, write_atomically
from mixer_utils.model import MlpMixer

__all__ = ["CheckpointError", "PRETRAINED", "load_checkpoint", "save_checkpoint", "write_atomically"]

# The models that come with the package: the more accurate one, and one of 14 x 14 patches, whose mixing can be seen.
SHIPPED = Path(__file__).parent / "weights"
PRETRAINED = {
    name: SHIPPED / f"{name}.safetensors"
    for name in ("mnist", "mnist-14x14", "mnist-14x14-seed-1", "mnist-14x14-seed-2", "fashion-mnist-14x14")
}


def save_checkpoint(model, path, **about):
    """Write the weights of an MlpMixer, its configuration, and whatever JSON can hold of ``about``.

    The file is whole or not there at all. Raises CheckpointError where it cannot be written (full disk, read-only
    folder); an older file of that name is then left as it was. ValueError for a model that could not be loaded again:
    one that is no longer what its configuration says.
    """
    check_loadable(model)
    write_tensors(path, weights_of(model), {**about, "model": uncompiled(model).config})


def check_loadable(model):
    """Raise ValueError unless a file of this model can be loaded again: an MlpMixer, and as its configuration says."""
    model = uncompiled(model)
    if not isinstance(model, MlpMixer):
        raise ValueError(
            f"A checkpoint is of an MlpMixer, and this model is a {type(model).__name__}: keep it with "
            "torch.save(model.state_dict(), path)."
        )
    with torch.device("meta"):  # shapes are enough
        changes = departures(model, MlpMixer(**model.config))
    if not changes:
        return
    remedy = "keep it with torch.save(model.state_dict(), path), beside the code that builds it"
    if {change.split()[0] for change in changes} == {"head.weight", "head.bias"} and isinstance(model.head, nn.Linear):
        classes = model.head.out_features
        remedy = (
            f"take model = with_classes(model, {classes}) before training, or, to keep this head, set "
            f'model.config["num_classes"] = {classes}'
        )
    raise ValueError(
        f"This model is not what its configuration says ({some_of(changes)}) and could not be loaded again: {remedy}."
    )


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
    head = tensors.get("head.weight", torch.empty(0))
    try:
        if head.ndim == 2:  # release 0.1.0 saved heads that were put there by hand, of other classes than it noted
            about["model"]["num_classes"] = len(head)
        model = MlpMixer(**about["model"])
        model.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = one_line(error)
        raise CheckpointError(f"{path} is a checkpoint of another model than MlpMixer here: {reason}.") from error
    model.about = about
    return model.eval()


def write_tensors(path, tensors, about):
    """Write named tensors and the JSON object ``about``, atomically. Raises CheckpointError where that fails."""
    from safetensors.torch import save

    path = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = json.dumps(about, sort_keys=True, default=python_number)
    write_atomically(path, save(tensors, {"about": about, "sha256": digest_of(tensors, about)}))


def python_number(value):
    """A number of NumPy's as Python's, which JSON can hold."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"JSON cannot hold {value!r}, of type {type(value).__name__}.")


def read_tensors(path):
    """The named tensors and the ``about`` of a file written by ``write_tensors``."""
    from safetensors import safe_open

    path = at_home(path)
    with reading(path, ("safetensors",), "train one", "make it anew"):
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if "about" not in header or "sha256" not in header:
            raise CheckpointError(
                f"{path} was not written by mixer_utils: its header lacks 'about' and 'sha256' (load_timm reads timm's "
                "weights from such a file)."
            )
        found, expected = digest_of(tensors, header["about"]), header["sha256"]
        if found != expected:
            raise CheckpointError(
                f"{path} is damaged (SHA-256 {found[:12]}…, expected {expected[:12]}…): delete it and make it anew."
            )
        return tensors, dict(json.loads(header["about"]))


def digest_of(tensors, about):
    """The SHA-256 of a file's content: its tensors by name, and the text ``about``."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
