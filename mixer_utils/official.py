"""Mixers that others trained: the paper authors' ``.npz`` files, read and written, and timm's weights, read.

Authors: https://github.com/google-research/vision_transformer, ``vit_jax/models_mixer.py``; timm:
https://github.com/huggingface/pytorch-image-models, ``timm/models/mlp_mixer.py``. Both hold the same network as
``MlpMixer``; they differ in names, in the order of axes and in GELU's form. Nothing is unpickled.
"""

import argparse
import dataclasses
import io
import os
import pickle
import re
import zipfile

import numpy as np
import torch

from mixer_utils._departures import uncompiled, weights_of
from mixer_utils._file_kinds import kind_of, reading
from mixer_utils._files import CheckpointError, at_home, write_atomically
from mixer_utils.checkpoints import check_loadable
from mixer_utils.model import MlpMixer, check_config, image_sides, with_classes


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a Mixer of ours looks elsewhere: ``names`` are regular expressions, each replaced in turn.

    ``axes`` gives, for a tensor of so many dimensions, ours in the order in which they stand there.
    """

    owner: str
    gelu: str
    names: dict[str, str]
    axes: dict[int, tuple[int, ...]]

    def key(self, name):
        """What a tensor, or a part of its name, is called there."""
        for ours, theirs in self.names.items():
            name = re.sub(ours, theirs, name)
        return name

    def turn(self, axes):
        """Our axes (sizes, or names) in their order."""
        return tuple(axes[i] for i in self.axes[len(axes)])


AUTHORS = Layout(
    "the authors'",
    "tanh",
    {r"(norm|norm_\d)\.weight": r"\1.scale", r"weight": "kernel", r"stem\.proj": "stem", r"blocks\.": "MixerBlock_",
     r"\.norm_": ".LayerNorm_", r"dense_": "Dense_", r"\.": "/"},
    {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)},
)  # fmt: skip
TIMM = Layout(
    "timm's",
    "erf",
    {r"norm_0": "norm1", r"norm_1": "norm2", r"dense_0": "fc1", r"dense_1": "fc2", r"token_mixing": "mlp_tokens",
     r"channel_mixing": "mlp_channels", r"pre_head_layer_norm": "norm"},
    {4: (0, 1, 2, 3), 2: (0, 1), 1: (0,)},
)  # fmt: skip


def load_official_npz(path, image_size):
    """The MlpMixer of a checkpoint that the paper's authors published (``.npz``), on the CPU and in eval mode.

    ``image_size`` is the side of the images in pixels, or (H, W); every other size is read off the arrays. Numbers of
    any floating kind become float32.

    Raises CheckpointError for a file that is missing, damaged, or holds something else, and where its number of tokens
    is not that of ``image_size``; ValueError for an ``image_size`` that no image can have.
    """
    check_config(image_size, patch_size=1, stochastic_depth=0, gelu="tanh")  # before a large file is read
    return build(read_npz(at_home(path)), AUTHORS, image_size, path)


def save_official_npz(model, path):
    """Write an MlpMixer's weights as the authors do (``.npz``); ``load_official_npz`` gives them back bit for bit.

    The format holds the weights alone: the image size and the stochastic depth are not in it. The file is whole or not
    there at all; CheckpointError where it cannot be written. ValueError for a model that would not come back the same:
    one with GELU in its erf form, which whoever reads the file would take for tanh, with other than float32 numbers, or
    no longer what its configuration says.
    """
    check_loadable(model)
    model = uncompiled(model)
    tensors = weights_of(model)
    dtypes = {str(tensor.dtype) for tensor in model.parameters()}
    if model.config["gelu"] != AUTHORS.gelu:
        raise ValueError('The authors\' format is for gelu="tanh", and this model has "erf": use save_checkpoint.')
    if dtypes != {"torch.float32"}:
        raise ValueError(f"The authors' format is for float32, and this model has {', '.join(dtypes)}: call .float().")
    arrays = {}
    file = io.BytesIO()
    for name, tensor in tensors.items():
        array = tensor.detach().cpu().numpy()
        arrays[AUTHORS.key(name)] = np.ascontiguousarray(array.transpose(AUTHORS.axes[array.ndim]))
    np.savez(file, **arrays)
    write_atomically(path, file.getbuffer())


def load_timm(weights, image_size=224, num_classes=None):
    """The MlpMixer of timm's weights (``mixer_b16_224.*``, ``mixer_l16_224.*``, …), on the CPU and in eval mode.

    ``weights`` is timm's model, its ``state_dict()``, or the path of a file that holds one: safetensors, or what
    ``torch.save`` wrote. The state dict may lie in another dict, as "state_dict" or "model", and its names may begin
    with what DistributedDataParallel and torch.compile put there, "module." and "_orig_mod.". ``image_size`` is the
    side of the images in pixels, or (H, W); every other size is read off the tensors. ``num_classes`` asks for a new
    head of zeros, to be trained, where there is none (timm's ``num_classes=0``) or one for another number of classes.
    GELU takes its erf form, as in timm. Numbers of any floating kind become float32; nothing is shared.

    Raises CheckpointError for a file that is missing or damaged, for weights of something else or without a head, and
    where their number of tokens is not that of ``image_size``; ValueError for an ``image_size`` that no image can have
    and a ``num_classes`` that is no whole number.
    """
    classes = 1 if num_classes is None else num_classes
    check_config(image_size, patch_size=1, stochastic_depth=0, gelu="erf", num_classes=classes)
    if isinstance(weights, str | os.PathLike):
        tensors, source = read_state_dict(at_home(weights)), weights
    else:
        tensors, source = weights, "The state dict"
    arrays = {name: tensor.detach().cpu().float().numpy() for name, tensor in state_dict_in(tensors, source).items()}
    if "head.weight" not in arrays and "head.bias" not in arrays and "norm.bias" in arrays:
        if num_classes is None:
            raise CheckpointError(
                f"{source} has no head (timm's num_classes=0): give load_timm the num_classes of a new one."
            )
        arrays["head.weight"] = np.zeros((classes, arrays["norm.bias"].size), np.float32)
        arrays["head.bias"] = np.zeros(classes, np.float32)
    model = build(arrays, TIMM, image_size, source)
    if num_classes is not None and num_classes != model.config["num_classes"]:
        model = with_classes(model, num_classes)
        model.about = {"model": model.config}
    return model


def state_dict_in(weights, source):
    """The tensors by name in what timm's users have: a model, its state dict, or a dict with one of the two in it."""
    for _ in range(3):  # a model in a dict is the deepest that there is
        if isinstance(weights, torch.nn.Module):
            weights = weights.state_dict()
        inner = [weights[key] for key in ("state_dict", "model") if isinstance(weights, dict) and key in weights]
        if inner and isinstance(inner[0], dict | torch.nn.Module):
            weights = inner[0]
    if not isinstance(weights, dict):
        raise CheckpointError(
            f"{source} is a {type(weights).__name__}, expected timm's model, its state dict or a file of one."
        )
    tensors = {re.sub(r"^(module\.|_orig_mod\.)+", "", str(name)): tensor for name, tensor in weights.items()}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            found = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise CheckpointError(
                f"{source} is no state dict of timm's Mixer: {name} is {found}, expected a tensor of floating-point "
                "numbers."
            )
    if any(".token_mixing." in name for name in tensors):
        raise CheckpointError(
            f"{source} has the names of this project's MlpMixer, not timm's: build one of the same sizes and call its "
            "load_state_dict."
        )
    return tensors


def build(arrays, layout, image_size, source):
    """An MlpMixer filled with copies of ``arrays``, {their key: float32 array}; ``source`` is what errors call them."""
    other = f"{source} is no checkpoint of {layout.owner} Mixer"

    def sizes(name, axes):
        key = layout.key(name)
        shape = arrays[key].shape if key in arrays else "missing"
        if shape == "missing" or len(shape) != len(axes) or 0 in shape:
            raise CheckpointError(f"{other}: {key} is {shape}, expected ({', '.join(layout.turn(axes))}).")
        return [shape[layout.axes[len(axes)].index(i)] for i in range(len(axes))]

    hidden_dim, in_channels, P, _ = sizes("stem.proj.weight", ("C", "in_channels", "P", "P"))
    tokens_mlp_dim, S = sizes("blocks.0.token_mixing.dense_0.weight", ("D_S", "S"))
    channels_mlp_dim, _ = sizes("blocks.0.channel_mixing.dense_0.weight", ("D_C", "C"))
    num_classes, _ = sizes("head.weight", ("classes", "C"))
    height, width = image_sides(image_size)
    if height % P or width % P or height * width != S * P * P:
        rows = max(rows for rows in range(1, S + 1) if S % rows == 0 and rows * rows <= S)
        raise CheckpointError(
            f"{source} is for images of {S} patches of {P} x {P} pixels, which image_size {height} x {width} does not "
            f"give: take another, such as ({rows * P}, {S // rows * P})."
        )
    num_blocks = len({block[0] for key in arrays if (block := re.match(layout.key("blocks.") + r"\d+", key))})
    with torch.device("meta"):  # shapes without numbers, since those of the file are put in their place
        model = MlpMixer(image_size, in_channels, P, num_classes, num_blocks, hidden_dim, tokens_mlp_dim,
                         channels_mlp_dim, gelu=layout.gelu)  # fmt: skip

    arrays = dict(arrays)
    tensors = {}
    wrong = []
    for name, tensor in model.state_dict().items():
        key, expected = layout.key(name), layout.turn(tensor.shape)
        array = arrays.pop(key, None)
        if array is None or array.shape != expected:
            wrong.append(f"{key} is {'missing' if array is None else array.shape}, expected {expected}")
        else:
            array = array.transpose(np.argsort(layout.axes[array.ndim]))  # pixels stay in row order
            tensors[name] = torch.from_numpy(np.array(array, order="C"))
    wrong += [f"{key} does not belong there" for key in arrays]
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(f"{other} with {num_blocks} blocks: {'; '.join(wrong[:5])}{more}.")
    model.load_state_dict(tensors, assign=True)
    model.about = {"model": model.config}
    return model.eval()


def read_npz(path):
    """The float32 arrays of an ``.npz`` file by name. Unlike np.load it allocates no more than the file holds."""
    arrays = {}
    with reading(path, ("npz",), "fetch one", "fetch it anew"), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            raw = archive.read(name)  # all of it: only then does zipfile compare the checksum
            header = io.BytesIO(raw)
            np.lib.format.read_magic(header)
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(header)
            if dtype.kind != "f" or 0 in shape:
                raise CheckpointError(
                    f"{path} is no checkpoint of the authors' Mixer: {name} is {dtype} {shape}, expected "
                    "floating-point numbers."
                )
            array = np.frombuffer(raw, dtype, offset=header.tell()).astype(np.float32, copy=False)
            arrays[name.removesuffix(".npy")] = array.reshape(shape, order="F" if fortran_order else "C")
    return arrays


def read_state_dict(path):
    """What ``torch.save`` wrote, of tensors alone, or the tensors of a safetensors file, whatever the file's name."""
    with reading(path, ("torch", "safetensors"), "fetch one", "fetch it anew"):
        if kind_of(path) == "safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                if "about" in (file.metadata() or {}):
                    raise CheckpointError(f"{path} was written by mixer_utils: load_checkpoint reads it.")
                return {name: file.get_tensor(name) for name in file.keys()}
        try:
            # timm's training notes its options as a Namespace. A path would be read by what its name ends in.
            with torch.serialization.safe_globals([argparse.Namespace]), open(path, "rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            foreign = re.search(r"(?:GLOBAL|[Cc]lass) ([\w.]+\.\w+)", str(error))
            if foreign is None:  # torch's own words would be advice to unpickle it
                raise ValueError("its list of tensors cannot be read") from error
            raise CheckpointError(
                f"{path} holds more than tensors ({foreign[1]}), and nothing is unpickled here: save its state dict "
                "with torch.save(model.state_dict(), path) where it was made, and give that."
            ) from error
