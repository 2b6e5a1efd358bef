"""Weights on disk: safetensors files that carry their own description and notice damage.

Nothing is unpickled. A file holds named tensors and, in its header, one JSON text ``about`` (the model's configuration,
where it came from) with a SHA-256 of everything: a single flipped byte is noticed when the file is read.
The paper authors' own ``.npz`` files are read too.
"""

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch

from mixer_utils.model import MlpMixer, check_config

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


# What the authors call our modules; beside these, a weight is called scale in a LayerNorm and kernel elsewhere.
OFFICIAL_NAMES = {"stem.proj": "stem", "blocks.": "MixerBlock_", ".norm_": ".LayerNorm_", "dense_": "Dense_", ".": "/"}


def load_official_npz(path, image_size):
    """The MlpMixer of a checkpoint that the paper's authors published (``.npz``), on the CPU and in eval mode.

    ``image_size`` is the side of the images in pixels, or (H, W); every other size is read off the arrays.
    Layout: https://github.com/google-research/vision_transformer, ``vit_jax/models_mixer.py``.

    Raises CheckpointError for a file that is missing, damaged, or holds something else, and where its number of tokens
    is not that of ``image_size``; ValueError for an ``image_size`` that no image can have.
    """
    path, other = Path(path), f"{path} is no checkpoint of the authors' Mixer"
    check_config(image_size, patch_size=1, stochastic_depth=0, gelu="tanh")
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    arrays = _read_npz(path)

    def sizes(key, names):
        found = arrays[key].shape if key in arrays else "missing"
        if found == "missing" or len(found) != len(names):
            raise CheckpointError(f"{other}: {key} is {found}, expected ({', '.join(names)}).")
        return found

    P, _, in_channels, hidden_dim = sizes("stem/kernel", ("P", "P", "in_channels", "C"))
    S, tokens_mlp_dim = sizes("MixerBlock_0/token_mixing/Dense_0/kernel", ("S", "D_S"))
    _, channels_mlp_dim = sizes("MixerBlock_0/channel_mixing/Dense_0/kernel", ("C", "D_C"))
    _, num_classes = sizes("head/kernel", ("C", "classes"))
    if height % P or width % P or height * width != S * P * P:
        rows = max(rows for rows in range(1, S + 1) if S % rows == 0 and rows * rows <= S)
        raise CheckpointError(
            f"{path} is for images of {S} patches of {P} x {P} pixels, which image_size {height} x {width} does not "
            f"give: take another, such as ({rows * P}, {S // rows * P})."
        )
    num_blocks = len({key.split("/")[0] for key in arrays if key.startswith("MixerBlock_")})
    with torch.device("meta"):  # shapes without numbers, since those of the file are put in their place
        model = MlpMixer(image_size, in_channels, P, num_classes, num_blocks, hidden_dim, tokens_mlp_dim,
                         channels_mlp_dim, gelu="tanh")  # fmt: skip

    tensors, wrong = {}, []
    for name, tensor in model.state_dict().items():
        key = name.replace("weight", "scale" if tensor.ndim == 1 else "kernel")
        for ours, theirs in OFFICIAL_NAMES.items():
            key = key.replace(ours, theirs)
        array, expected = arrays.pop(key, None), tuple(reversed(tensor.shape))  # (C, in, P, P) is (P, P, in, C) there
        if array is None or array.shape != expected:
            wrong.append(f"{key} is {'missing' if array is None else array.shape}, expected {expected}")
        else:
            array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else None)  # pixels stay in row order
            tensors[name] = torch.from_numpy(np.array(array, order="C"))
    wrong += [f"{key} does not belong there" for key in arrays]
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(f"{other} with {num_blocks} blocks: {'; '.join(wrong[:5])}{more}.")
    model.load_state_dict(tensors, assign=True)
    model.about = {"model": model.config}
    return model.eval()


def _read_npz(path):
    """The arrays of an ``.npz`` file by name, read-only. Unlike np.load it allocates no more than the file holds."""
    arrays = {}
    with _reading(path, ".npz", "fetch one", "fetch it anew"), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            raw = archive.read(name)  # all of it: only then does zipfile compare the checksum
            header = io.BytesIO(raw)
            np.lib.format.read_magic(header)
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(header)
            if dtype != np.float32 or 0 in shape:
                raise ValueError(f"{name} is {dtype} {shape}, expected float32 numbers")
            array = np.frombuffer(raw, dtype, offset=header.tell())
            arrays[name.removesuffix(".npy")] = array.reshape(shape, order="F" if fortran_order else "C")
    return arrays


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
    from safetensors import safe_open

    path = Path(path)
    with _reading(path, "safetensors", "train one", "make it anew"):
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if "about" not in header or "sha256" not in header:
            raise CheckpointError(f"{path} was not written by mixer_utils: its header lacks 'about' and 'sha256'.")
        found, expected = _digest(tensors, header["about"]), header["sha256"]
        if found != expected:
            raise CheckpointError(
                f"{path} is damaged (SHA-256 {found[:12]}…, expected {expected[:12]}…): delete it and make it anew."
            )
        return tensors, dict(json.loads(header["about"]))


@contextlib.contextmanager
def _reading(path, kind, if_missing, if_damaged):
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
