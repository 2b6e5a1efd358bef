"""View 1: the units of a block's token mixing as maps. The front-end is mixing.js."""

import numpy as np
import torch
import traitlets

from mixer_utils import mixing, plotting
from mixer_utils.model import MlpMixer
from mixer_utils.widgets.base import (
    SORTS,
    Index,
    View,
    about,
    check_model,
    choice,
    maps_bytes,
    packed,
    packed_colours,
    packed_maps,
    room,
    unpacked,
)


def explore_mixing(model, before=None):
    """All hidden units of a block's token-mixing MLP as maps over the patches: what they read and what they write.

    A switch shows in the same places what the units were before training, or are in another model.

    model: any MlpMixer. before: another MlpMixer of the same sizes, else ``model``'s architecture as it was before
    training (for a model trained by ``train()``, the very weights that its seed gave). Where 10 MB are too little for
    both in single precision, weights are sent in half precision, else in 255 steps for each map. Raises ValueError for
    something else than an MlpMixer, for two of unlike sizes, and for a model larger than L/16.
    """
    return MixingView(model, before)


class MixingView(View):
    """The units of one block's token mixing as maps. Traits: block, sort, scale, before, unit, patch."""

    view = traitlets.Unicode("mixing").tag(sync=True)
    block = Index("num_blocks")
    sort = choice(*SORTS)
    scale = choice("shared", "each")
    before = traitlets.Bool(False).tag(sync=True)
    unit = Index("num_units")
    patch = Index("num_patches")

    def __init__(self, model, before=None):
        super().__init__(data=mixing_data(model, before))
        self.maps = [unpacked(side["maps"]) for side in self.data["sides"]]
        self.orders = {sort: unpacked(order) for sort, order in self.data["orders"].items()}
        self.unit = int(self.order()[0])

    @traitlets.validate("before")
    def check_before(self, proposal):
        if proposal["value"] and len(self.data["sides"]) == 1:
            raise traitlets.TraitError("before is True: this model was sent alone, with nothing to compare it with.")
        return proposal["value"]

    def order(self):
        """The units in the order in which they are drawn: by ``sort``, of ``model``'s weights, before training too."""
        return self.orders[self.sort][self.block]

    def picture(self):
        maps = self.maps[self.before][self.block, 0]
        order = self.order()[:48]
        title = self.data["sides"][self.before]["title"]
        return plotting.plot_maps(
            maps[order].reshape(-1, *self.data["grid"]),
            [str(unit) for unit in order],
            shared_scale=self.scale == "shared",
            alt=f"What the first {len(order)} of {len(maps)} units of block {self.block}'s token mixing read from "
            f"the patches ({title}), sorted by {self.sort}, each a small map in red (above zero) and blue (below).",
        )


def mixing_data(model, before=None):
    """What the front-end draws view 1 from: a View's ``data``. Arguments and errors are those of ``explore_mixing``."""
    sides = models_by_title(model, before)
    maps = [mixing.unit_maps(side).numpy() for side in sides.values()]
    grids = [mixing.patch_grid(side) for side in sides.values()]
    check_sizes(maps, grids)
    num_blocks, _, num_units, num_patches = maps[0].shape
    dtype = maps_dtype(model, len(maps))
    return {
        "grid": list(grids[0]),
        "num_blocks": num_blocks,
        "num_units": num_units,
        "num_patches": num_patches,
        "colours": packed_colours(),
        "orders": packed_orders(unit_orders(maps[0], grids[0])),
        "sides": [{"title": title, "maps": packed_maps(each, dtype)} for title, each in zip(sides, maps, strict=True)],
    }


def models_by_title(model, before):
    """The models to be shown in one place, by what they are called. Raises ValueError as ``explore_mixing``."""
    check_model(model)
    sides = {"trained" if before is None and about(model) else "this model": model}
    if before is not None:
        check_model(before)
        sides["the other model"] = before
    elif maps_dtype(model, 2):  # else the model alone: numbers drawn at random are what can be missed
        sides["before training"] = untrained(model)
    if not maps_dtype(model, len(sides)):
        raise ValueError(
            f"This model's token mixing has {mixing_size(model):,} weights, more than a view sends: give a model of at "
            "most the size of L/16, or leave before= away."
        )
    return sides


def maps_dtype(model, num_models):
    """The finest dtype in which the maps of so many models like this one can be sent; None where none is."""
    shape = (num_models, mixing_size(model) // model.num_tokens, model.num_tokens)
    return next((dtype for dtype in ("float32", "float16", "int8") if maps_bytes(shape, dtype) <= room()), None)


def check_sizes(maps, grids):
    """Raise ValueError for two models whose units cannot be compared."""
    if maps[0].shape != maps[-1].shape or grids[0] != grids[-1]:
        raise ValueError(
            f"The two models' units cannot be compared, {maps[0].shape[:3:2]} blocks and units on {grids[0]} patches "
            f"and {maps[1].shape[:3:2]} on {grids[1]}: give a model of the same sizes as before=."
        )


def mixing_size(model):
    """How many weights the token mixing of all blocks has, biases apart."""
    return sum(2 * block.token_mixing.dense_0.weight.numel() for block in model.blocks)


def unit_orders(maps, grid):
    """The order of a model's units by every ``sort``: {"norm": (num_blocks, D_S), ...}, found from what they read."""
    reads = maps[:, 0]
    return {
        "structure": np.stack([mixing.by_structure(block, grid) for block in reads]),
        "norm": np.stack([mixing.by_norm(block) for block in reads]),
        "frequency": np.stack([mixing.by_frequency(block, grid) for block in reads]),
        "pairs": np.stack([mixing.by_pairs(block) for block in reads]),
        "number": np.tile(np.arange(reads.shape[1]), (len(reads), 1)),
    }


def packed_orders(orders):
    """What ``unit_orders`` gives, as it is sent."""
    return {sort: packed(order, "int16") for sort, order in orders.items()}


def untrained(model):
    """A Mixer whose token mixing is as training found it; where the seed is not known, drawn anew, small elsewhere."""
    config = dict(model.config)
    if "seed" not in about(model):
        config |= {"hidden_dim": 1, "channels_mlp_dim": 1}  # token mixing does not depend on them
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(about(model).get("seed", 0))
        return MlpMixer(**config)
