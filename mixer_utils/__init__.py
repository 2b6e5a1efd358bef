"""MLP-Mixer in PyTorch: the shared code of the notebooks.

The names below are imported when they are first used, so that ``import mixer_utils`` costs nothing.
"""

import importlib

from mixer_utils._threads import set_before_torch as _set_before_torch

_set_before_torch()  # whatever of the package is imported first

__version__ = "0.1.0"

_WHERE = {
    "_files": ("MixerError",),
    "model": ("MlpMixer", "MixerBlock", "MlpBlock", "PatchEmbedding", "CONFIGS", "create_mixer", "with_classes"),
    "data": ("load_dataset", "load_image_folder", "Dataset", "Split", "DataError"),
    "checkpoints": ("save_checkpoint", "load_checkpoint", "CheckpointError"),
    "official": ("load_official_npz", "save_official_npz", "load_timm"),
    "published": ("load_pretrained",),
    "resolution": ("at_higher_resolution",),
    "snapshots": ("Snapshots", "load_recorded_run"),
    "recipes": ("RECIPES", "Recipe"),
    "training": ("History", "train"),
    "evaluation": ("evaluate", "Report"),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}
__all__ = sorted(_MODULE)


def __getattr__(name):
    if name not in _MODULE:
        raise AttributeError(f"module 'mixer_utils' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mixer_utils.{_MODULE[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
