"""Snapshots of a run: the token-mixing weights, and how good the model is, at some of its steps.

``train(snapshots=Snapshots())`` takes them; one recorded run ships with the package.
"""

import numbers
from pathlib import Path

import torch

from mixer_utils._files import CheckpointError
from mixer_utils.checkpoints import read_tensors, write_tensors
from mixer_utils.mixing import patch_grid, unit_maps
from mixer_utils.model import MlpMixer

RECORDED_RUN = Path(__file__).parent / "weights" / "recorded-run.safetensors"


class Snapshots:
    """What token mixing looked like along a run: give it to ``train``, which fills it anew.

    steps: how many steps were done at each of the N snapshots, 0 first, the last step last; early ones lie closer
    together, since early steps change most. validation_accuracy: a number from 0 to 1 for each. weights: float16
    (N, num_blocks, 2, D_S, S), where ``[n, l, 0, h]`` is what hidden unit h of block l reads from the patches (row h of
    W_1) and ``[n, l, 1, h]`` what it writes to them (column h of W_2). grid: rows and columns of patches. about: the
    run's recipe, seed, dataset, model (its configuration), steps_per_epoch, device, processes and torch_version.

    A run stopped by hand ends with a snapshot of where it stopped; a resumed one holds only what comes from there on.
    ``count`` is the most that are planned. Raises ValueError unless it is a whole number, 2 or more.
    """

    def __init__(self, count=60):
        if not isinstance(count, numbers.Integral) or isinstance(count, bool) or count < 2:
            raise ValueError(f"count is {count!r}: it must be a whole number, 2 or more.")
        self.count = int(count)
        self.steps, self.validation_accuracy, self.weights, self.grid, self.about = [], [], None, None, {}

    def begin(self, model, steps, **about):
        """Forget what was taken before and plan snapshots of ``model`` over ``steps`` steps.

        Raises ValueError for a model that is not an MlpMixer.
        """
        if not isinstance(model, MlpMixer):
            raise ValueError(
                f"snapshots= records an MlpMixer's token mixing, and this model is a {type(model).__name__}: leave "
                "snapshots= away."
            )
        last = min(self.count, steps + 1) - 1
        self.due = {max(i, round(steps * (i / last) ** 2)) for i in range(last + 1)}  # max: no step twice
        self.steps, self.validation_accuracy, self.weights = [], [], unit_maps(model)[None][:0].half()
        self.grid, self.about = patch_grid(model), {**about, "model": model.config}

    def add(self, step, model, validation_accuracy):
        """Take a snapshot of ``model`` after ``step`` steps."""
        self.steps.append(step)
        self.validation_accuracy.append(validation_accuracy)
        self.weights = torch.cat([self.weights, unit_maps(model)[None].half()])

    def save(self, path):
        """Write everything to one file. Raises ValueError where nothing was taken yet, CheckpointError for a full disk
        or a folder that cannot be written."""
        if not self.steps:
            raise ValueError("These snapshots are empty: give them to train(snapshots=...) before they are saved.")
        columns = {name: getattr(self, name) for name in ("count", "steps", "validation_accuracy", "grid", "about")}
        write_tensors(path, {"weights": self.weights}, {"snapshots": columns})

    @classmethod
    def load(cls, path):
        """The Snapshots saved at ``path``. Raises CheckpointError for a file that is missing, damaged or another."""
        tensors, about = read_tensors(path)
        if "snapshots" not in about:
            raise CheckpointError(
                f"{path} holds no snapshots (it has {', '.join(about) or 'nothing'}): give a file that "
                "Snapshots.save has written."
            )
        columns = about["snapshots"]
        loaded = cls(columns["count"])
        vars(loaded).update(columns, grid=tuple(columns["grid"]), weights=tensors["weights"])
        return loaded


def load_recorded_run():
    """The Snapshots that ship with the package: recipe ``mixing`` on MNIST, seed 0 (``tools/measure.py mixing``)."""
    return Snapshots.load(RECORDED_RUN)
