"""View 5: a training run, scrubbed. The front-end is training.js."""

import math

import numpy as np
import traitlets

from mixer_utils import plotting
from mixer_utils.snapshots import Snapshots, load_recorded_run
from mixer_utils.widgets.base import (
    SORTS,
    Index,
    View,
    choice,
    maps_bytes,
    packed,
    packed_colours,
    packed_maps,
    room,
    unpacked,
)
from mixer_utils.widgets.mixing import packed_orders, unit_orders

MOST_IN_HALVES = 2_000_000  # bytes of weights that are sent in half precision, the file's own: larger runs are rounded


def explore_training(snapshots=None):
    """A run's token-mixing weights and its validation accuracy on one slider, with a button that plays it.

    snapshots: the Snapshots that ``train(snapshots=...)`` filled, else the recorded run that ships with the package. Of
    a long run or a large model the weights are sent in 255 steps for each map, and where that does not fit into 10 MB,
    fewer snapshots are sent, evenly spread. Units are sorted by the last
    snapshot, where the view starts, and so keep their places. Raises ValueError for something else than Snapshots, for
    empty ones, and where not even one can be sent.
    """
    return TrainingView(load_recorded_run() if snapshots is None else snapshots)


class TrainingView(View):
    """A run as it went. Traits: time (which snapshot), block, sort, scale, unit, patch, playing."""

    view = traitlets.Unicode("training").tag(sync=True)
    time = Index("num_snapshots")
    block = Index("num_blocks")
    sort = choice(*SORTS)
    scale = choice("shared", "each")
    unit = Index("num_units")
    patch = Index("num_patches")
    playing = traitlets.Bool(False).tag(sync=True)

    def __init__(self, snapshots):
        super().__init__(data=training_data(snapshots))
        chosen = snapshots_sent(snapshots)
        self.weights = unpacked(self.data["weights"]).astype(np.float32)
        self.orders = {sort: unpacked(order) for sort, order in self.data["orders"].items()}
        self.steps = [snapshots.steps[i] for i in chosen]
        self.validation_accuracy = [snapshots.validation_accuracy[i] for i in chosen]
        self.time = len(chosen) - 1
        self.unit = int(self.order()[0])

    def order(self):
        """The units in the order in which they are drawn: by ``sort``, of the last snapshot's weights."""
        return self.orders[self.sort][self.block]

    def top(self):
        """The largest magnitude that the colours cover: of the block in the whole run, or at this snapshot."""
        shown = slice(None) if self.scale == "shared" else self.time
        return float(np.abs(self.weights[shown, self.block]).max())

    def picture(self):
        step = self.steps[self.time]
        accuracy = self.validation_accuracy[self.time]
        alt = (
            f"On the left what the {len(self.order())} units of block {self.block}'s token mixing read from the "
            f"patches after step {step:,} of {self.steps[-1]:,}, sorted by {self.sort} at the end of the run. On the "
            f"right the validation accuracy along the run, {accuracy:.2%} at this step."
        )
        picture, (left, right) = plotting.figure(1, 2, (9, 3.2), alt, width_ratios=[1.6, 1])

        maps = self.weights[self.time, self.block, 0][self.order()]
        tiles = mosaic(maps.reshape(-1, *self.data["grid"]))
        drawn = left.imshow(tiles, cmap=plotting.SIGNED, vmin=-self.top(), vmax=self.top())
        left.axis("off")
        picture.colorbar(drawn, ax=left, fraction=0.03, pad=0.01).ax.tick_params(labelsize=8)

        right.plot(self.steps, 100 * np.array(self.validation_accuracy), color=plotting.BLUE)
        right.plot([step], [100 * accuracy], "o", color=plotting.ORANGE, markeredgecolor="black", markersize=8)
        right.set_xscale("function", functions=(np.log1p, np.expm1))
        ticks = [tick for tick in (0, *10.0 ** np.arange(7)) if self.steps[0] <= tick <= self.steps[-1]]
        right.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        right.set(xlabel="step", ylabel="validation accuracy (%)", ylim=(0, 102))
        return picture


def training_data(snapshots):
    """What the front-end draws view 5 from: a View's ``data``. Raises ValueError as ``explore_training``."""
    chosen = snapshots_sent(snapshots)
    weights = snapshots.weights.numpy()[chosen]
    recipe = snapshots.about.get("recipe", {})
    num_snapshots, num_blocks, _, num_units, num_patches = weights.shape
    dtype = "float16" if maps_bytes(weights.shape, "float16") <= MOST_IN_HALVES else "int8"
    return {
        "grid": list(snapshots.grid),
        "num_snapshots": num_snapshots,
        "num_blocks": num_blocks,
        "num_units": num_units,
        "num_patches": num_patches,
        "colours": packed_colours(),
        "weights": packed_maps(weights, dtype),
        "steps": packed([snapshots.steps[i] for i in chosen], "int32"),
        "validation_accuracy": packed([snapshots.validation_accuracy[i] for i in chosen], "float32"),
        "orders": packed_orders(unit_orders(weights[-1].astype(np.float32), snapshots.grid)),
        "run": f"the run of recipe {recipe['name']}" if "name" in recipe else "the run",
    }


def snapshots_sent(snapshots):
    """Which snapshots are sent, their indices: all, or as many as fit, evenly spread, the last one among them.

    Raises ValueError as ``explore_training``.
    """
    if not isinstance(snapshots, Snapshots):
        raise ValueError(
            f"This view shows Snapshots, not a {type(snapshots).__name__}: give what train(snapshots=...) has filled."
        )
    if not snapshots.steps:
        raise ValueError("These snapshots are empty: give them to train(snapshots=...) before they are shown.")
    most = room() // maps_bytes(snapshots.weights.shape[1:], "int8")
    if most == 0:
        raise ValueError(
            f"One snapshot of this run has {snapshots.weights[0].numel():,} weights, more than a view sends: record a "
            "model of at most the size of L/16."
        )
    count = len(snapshots.steps)
    return np.unique(np.linspace(count - 1, 0, min(count, most)).round().astype(int))


def mosaic(maps):
    """Maps (N, h, w) as one picture with white lines of one cell between, in rows of equal length or nearly: floats."""
    count, height, width = maps.shape
    across = math.ceil(math.sqrt(2 * count))
    down = math.ceil(count / across)
    tiles = np.full((down * across, height + 1, width + 1), np.nan, maps.dtype)
    tiles[:count, :-1, :-1] = maps
    rows = tiles.reshape(down, across, height + 1, width + 1).swapaxes(1, 2)
    return rows.reshape(down * (height + 1), -1)
