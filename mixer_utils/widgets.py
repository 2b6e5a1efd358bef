"""Live views of a Mixer: each is one call, ``explore_mixing(model)``, drawn by the browser from data sent once.

Every control is a trait of the widget (``view.block = 2``, ``observe``, ``jslink``), numbered as in the model: the
first block, unit and patch is 0. Where nothing live can be shown (GitHub, nbconvert), a picture of the first state
stands in.
"""

import math
from pathlib import Path

import anywidget
import matplotlib
import numpy as np
import torch
import traitlets
from matplotlib.patches import Rectangle

from mixer_utils import mixing, plotting
from mixer_utils.data import DataError, load_dataset, normalize
from mixer_utils.model import MlpMixer
from mixer_utils.snapshots import Snapshots, load_recorded_run

__all__ = ["draw_digit", "explore_influence", "explore_mixing", "explore_embedding", "explore_training"]

STATIC = Path(__file__).parent / "static"
SCRIPTS = ["kit", "mixer", "mixing", "influence", "digit", "embedding", "training", "index"]
FRONT_END = "\n".join((STATIC / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)  # one ES module
STYLE = (STATIC / "views.css").read_text(encoding="utf-8")
MOST_SENT = 10_000_000  # bytes a view sends to the browser


class View(anywidget.AnyWidget):
    """What all views share: the front-end, the data sent once, and a picture for where there is no front-end.

    ``view`` names the function in ``static/`` that draws. ``data`` is sent once, arrays as ``packed`` makes them.
    """

    _esm = FRONT_END
    _css = STYLE
    view = traitlets.Unicode().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)

    def picture(self):
        """A plotting.Picture of the state at hand, with its alt text."""
        raise NotImplementedError

    def __repr__(self):  # the same at every run, unlike a list of all traits
        return f"{type(self).__name__}({self.view})"

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        picture, about = self.picture()._repr_mimebundle_()
        return {**data, **picture}, {**metadata, **about}


def packed(array, dtype=None):
    """An array as the front-end unpacks it: dtype (float16, float32, int32, int16 or uint8), shape and bytes."""
    array = np.ascontiguousarray(array, dtype=dtype)
    if array.dtype.name not in ("float16", "float32", "int32", "int16", "uint8"):
        raise ValueError(f"An array of {array.dtype.name} cannot be sent: give dtype, float32 for example.")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "bytes": array.tobytes()}


def signed_colours():
    """The 256 colours of signed numbers, as in the figures: uint8 (256, 3)."""
    return (matplotlib.colormaps[plotting.SIGNED](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def check_model(model):
    """Raise ValueError unless ``model`` is an MlpMixer."""
    if not isinstance(model, MlpMixer):
        raise ValueError(f"This view shows an MlpMixer, not a {type(model).__name__}: give load_pretrained('mnist').")


def index_trait(name):
    """A validator for a trait that counts from 0; ``limits`` of the view says how many there are."""

    @traitlets.validate(name)
    def check(self, proposal):
        count = self.data[self.limits[name]]
        if not 0 <= proposal["value"] < count:
            raise traitlets.TraitError(f"{name} is {proposal['value']}: it must be from 0 to {count - 1}.")
        return proposal["value"]

    return check


def packed_mixer(model):
    """A model as the front-end's ``Mixer`` takes it: {"config", "image_shape", "tensors": {name: packed array}}.

    The tensors are float16 where all weights are exactly that (the shipped models' are), else float32.
    """
    weights = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    exact = all(torch.equal(tensor.half().float(), tensor) for tensor in weights.values())
    dtype = "float16" if exact else "float32"
    tensors = {name: packed(tensor.numpy(), dtype) for name, tensor in weights.items()}
    return {"config": model.config, "image_shape": list(model.image_shape), "tensors": tensors}


def example_images(model, images=None):
    """The images a view shows, uint8 (N, in_channels, H, W), and the mean and std (0 to 1) that the model is fed with.

    images: uint8 (N, in_channels, H, W), else the first test image of each class of the data that the model was trained
    on, MNIST where it does not say. Mean and std are the model's own, else those of the data, else what the paper's
    authors feed, -1 to 1. Raises ValueError, in one sentence, for images that the model does not take.
    """
    about = getattr(model, "about", {})
    mean, std = [0.5] * model.image_shape[0], [0.5] * model.image_shape[0]
    if images is None:
        name = about.get("dataset", "mnist")
        data = load_dataset(name if name in ("fashion-mnist", "cifar10", "digits") else "mnist")
        first = np.unique(data.test.labels.numpy(), return_index=True)[1]
        images, mean, std = data.test.images[first], data.mean, data.std
    images = torch.as_tensor(images).cpu()
    fits = images.dtype == torch.uint8 and images.ndim == 4 and tuple(images.shape[1:]) == model.image_shape
    if not fits or len(images) == 0:
        raise ValueError(
            f"The model takes images uint8 (N, {', '.join(map(str, model.image_shape))}), not "
            f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}: give images= of that kind."
        )
    return images.numpy(), list(about.get("mean", mean)), list(about.get("std", std))


# --- 1. mixing weights ------------------------------------------------------------------------------------------------


class MixingView(View):
    """The units of one block's token mixing as maps. Traits: block, sort, scale, compare, unit, patch."""

    limits = {"block": "num_blocks", "unit": "num_units", "patch": "num_patches"}
    block = traitlets.Int(0).tag(sync=True)
    sort = traitlets.Enum(["norm", "frequency", "pairs", "number"], "norm").tag(sync=True)
    scale = traitlets.Enum(["shared", "each"], "shared").tag(sync=True)
    compare = traitlets.Bool(True).tag(sync=True)
    unit = traitlets.Int(0).tag(sync=True)
    patch = traitlets.Int(0).tag(sync=True)
    check_block, check_unit, check_patch = index_trait("block"), index_trait("unit"), index_trait("patch")

    def order(self, side=0):
        """The units in the order in which they are drawn, by ``sort``; side 1 is the model before training."""
        return self.orders[side][self.sort][self.block]

    def picture(self):
        maps, order = self.maps[0][self.block, 0], self.order()[:48]
        return plotting.plot_maps(
            maps[order].reshape(-1, *self.data["grid"]), [str(h) for h in order], shared_scale=self.scale == "shared",
            alt=f"What the first {len(order)} of {maps.shape[0]} units of block {self.block}'s token mixing read from "
            f"the patches, sorted by {self.sort}, each a small map in red (above zero) and blue (below).",
        )  # fmt: skip


def explore_mixing(model, before=None):
    """All hidden units of a block's token-mixing MLP as maps over the patches: what they read and what they write.

    model: any MlpMixer. before: another MlpMixer of the same sizes, shown beside it, else ``model``'s architecture as
    it was before training (for a model trained by ``train()``, the very weights that its seed gave; left away
    where both do not fit into 10 MB). Raises ValueError for something else than an MlpMixer, for two of unlike sizes,
    and for a model larger than L/16.
    """
    check_model(model)
    sides = {"trained" if before is None and getattr(model, "about", {}) else "this model": model}
    if before is not None:
        check_model(before)
        sides["the other model"] = before
    elif fits(4 * mixing_size(model)):  # else the model alone: numbers drawn at random are what can be missed
        sides["before training"] = untrained(model)
    if not fits(2 * len(sides) * mixing_size(model)):
        raise ValueError(
            f"This model's token mixing has {mixing_size(model):,} weights, more than a view sends: give "
            "a model of at most the size of L/16, or leave before= away."
        )
    maps = [mixing.unit_maps(one).numpy() for one in sides.values()]
    grids = [mixing.patch_grid(one) for one in sides.values()]
    if maps[0].shape != maps[-1].shape or grids[0] != grids[-1]:
        raise ValueError(
            f"The two models' units cannot be compared, {maps[0].shape[:3:2]} blocks and units on {grids[0]} patches "
            f"and {maps[1].shape[:3:2]} on {grids[1]}: give a model of the same sizes as before=."
        )
    orders = [unit_orders(one, grids[0]) for one in maps]
    dtype = "float32" if fits(4 * len(maps) * maps[0].size) else "float16"
    num_blocks, _, num_units, num_patches = maps[0].shape
    view = MixingView(view="mixing", data={
        "grid": list(grids[0]), "num_blocks": num_blocks, "num_units": num_units, "num_patches": num_patches,
        "colours": packed(signed_colours()),
        "sides": [
            {"title": title, "maps": packed(one, dtype),
             "orders": {name: packed(found, "int32") for name, found in order.items()}}
            for title, one, order in zip(sides, maps, orders, strict=True)
        ],
    })  # fmt: skip
    view.maps, view.orders = maps, orders
    return view


def mixing_size(model):
    """How many weights the token mixing of all blocks has, biases apart."""
    return sum(2 * block.token_mixing.dense_0.weight.numel() for block in model.blocks)


def fits(size):
    """Whether so many bytes of weights can be sent; a little is left for what goes with them."""
    return size <= 0.975 * MOST_SENT


def unit_orders(maps, grid):
    """The order of a model's units by every ``sort``: {"norm": (num_blocks, D_S), ...}, found from what they read."""
    reads = maps[:, 0]
    return {
        "norm": np.stack([mixing.by_norm(one) for one in reads]),
        "frequency": np.stack([mixing.by_frequency(one, grid) for one in reads]),
        "pairs": np.stack([mixing.by_pairs(one) for one in reads]),
        "number": np.tile(np.arange(maps.shape[2]), (len(maps), 1)),
    }


def untrained(model):
    """A Mixer whose token mixing is as training found it; where the seed is not known, drawn anew, small elsewhere."""
    sizes, about = model.config, getattr(model, "about", {})
    if "seed" not in about:
        sizes = {**sizes, "hidden_dim": 1, "channels_mlp_dim": 1}  # token mixing does not depend on them
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(about.get("seed", 0))
        return MlpMixer(**sizes)


# --- 2. influence of patch on patch -----------------------------------------------------------------------------------


class InfluenceView(View):
    """Which patches talk to which. Traits: image, block, patch, unit, channel, show, direction."""

    limits = {"image": "num_images", "block": "num_blocks", "patch": "num_patches", "unit": "num_units",
              "channel": "num_channels"}  # fmt: skip
    image = traitlets.Int(0).tag(sync=True)
    block = traitlets.Int(0).tag(sync=True)
    patch = traitlets.Int(0).tag(sync=True)
    unit = traitlets.Int(0).tag(sync=True)
    channel = traitlets.Int(0).tag(sync=True)
    show = traitlets.Enum(["one block", "composed"], "one block").tag(sync=True)
    direction = traitlets.Enum(["reads", "writes"], "reads").tag(sync=True)
    check_image, check_block, check_patch = index_trait("image"), index_trait("block"), index_trait("patch")
    check_unit, check_channel = index_trait("unit"), index_trait("channel")

    def trace(self):
        """The image on its way through the model, as ``followed`` gives it."""
        if self.image not in self.traces:
            image = self.images[self.image]
            self.traces[self.image] = followed(self.model, image, self.data["mean"], self.data["std"])
        return self.traces[self.image]

    def matrix(self):
        """The map of patch on patch that is shown, (S, S): row i is what moves patch i, column j what patch j moves."""
        return self.trace()["composed" if self.show == "composed" else "influence"][self.block]

    def row(self):
        """The chosen patch's row of it, (S,), or its column, by ``direction``."""
        return self.matrix()[self.patch] if self.direction == "reads" else self.matrix()[:, self.patch]

    def strengths(self):
        """How much each unit of the block writes to the patch, (D_S,): root mean square over the channels."""
        return self.trace()["sizes"][self.block] * np.abs(self.maps[self.block, 1, :, self.patch])

    def order(self):
        """The block's units, the strongest on the chosen patch first."""
        return np.argsort(-self.strengths(), kind="stable")

    def arithmetic(self):
        """What the chosen unit computes in the chosen channel: {"values", "weights", "products", "bias", "sum", "gelu",
        "column", "writes"}; the sum is that of the products and the bias, and what it writes is gelu times column."""
        values = self.trace()["normed"][self.block, :, self.channel]
        weights, column = self.maps[self.block, :, self.unit]
        bias = self.model.blocks[self.block].token_mixing.dense_0.bias[self.unit].item()
        total = float(values @ weights + bias)
        act = self.model.blocks[self.block].token_mixing.act
        gelu = act(torch.tensor(total)).item()
        return {"values": values, "weights": weights, "products": values * weights, "bias": bias, "sum": total,
                "gelu": gelu, "column": column, "writes": gelu * column}  # fmt: skip

    def picture(self):
        rows, columns = self.data["grid"]
        size, row = self.model.config["patch_size"], self.row()
        at = f"the patch in row {self.patch // columns}, column {self.patch % columns}"
        here = f"block {self.block}" if self.show == "one block" else f"blocks 0 to {self.block}, composed"
        said = f"What moves {at}" if self.direction == "reads" else f"What {at} moves"
        i, j = divmod(int(np.abs(row).argmax()), columns)
        picture, (left, right) = plotting.figure(1, 2, (6.4, 3.2), alt=(
            f"Image {self.image} cut into {rows} by {columns} patches, and beside it a map in red (above zero) and "
            f"blue (below): {said[0].lower()}{said[1:]} in token mixing of {here}. The strongest is the patch in row "
            f"{i}, column {j}, with {row[i * columns + j]:+.3f}."))  # fmt: skip
        left.imshow(plotting.as_picture(self.images[self.image]), cmap="gray", extent=(0, columns, rows, 0))
        left.set(xticks=range(columns + 1), yticks=range(rows + 1))
        left.set_title(f"image {self.image}, {size} × {size} pixels a patch")
        left.grid(color=plotting.ORANGE, lw=0.5)
        left.tick_params(labelbottom=False, labelleft=False, length=0)
        scale = np.abs(self.matrix()).max()
        plotting.plot_matrix(row.reshape(rows, columns), f"{said},\n{here} (colours ±{scale:.2f})",
                             numbers=max(rows, columns) <= 7, scale=scale, ax=right)  # fmt: skip
        right.set(xticks=[], yticks=[])
        for ax in (left, right):
            ax.add_patch(Rectangle((self.patch % columns, self.patch // columns), 1, 1, fill=False, lw=2.5))
            ax.title.set_fontsize(9)
        return picture


def explore_influence(model, images=None):
    """Which patches talk to which in token mixing, for an image: from a map of patch on patch to one unit's arithmetic.

    The map is ``mixing.influence``: in row i, column j the derivative of what a block's token mixing adds to patch i by
    patch j, averaged over the channels; composed over blocks it is ``mixing.composed``.

    model: any MlpMixer. images: uint8 (N, in_channels, H, W), else the first test image of each class of the data that
    the model was trained on, MNIST where it does not say. They are normalised by the model's own mean and std, else to
    -1 to 1 as the paper's authors did. The browser runs the model itself; of one whose weights are too much to send
    (B/16) the numbers of the first image are sent, of as many blocks as fit. Raises ValueError for something else than
    an MlpMixer and for images that the model cannot take or that are too many to send.
    """
    check_model(model)
    images, mean, std = example_images(model, images)
    images = torch.from_numpy(images)
    room = MOST_SENT - 4 * sum(tensor.numel() for tensor in model.parameters())
    sent_whole = room > images[0].nbytes
    if sent_whole and images.nbytes > room:
        raise ValueError(f"{len(images)} images are too many to send: give at most {room // images[0].nbytes} of them.")
    images = images if sent_whole else images[:1]

    maps = mixing.unit_maps(model).numpy()
    num_blocks, _, num_units, num_patches = maps.shape
    num_channels, blocks, traces = model.config["hidden_dim"], num_blocks, {}
    if sent_whole:
        sent = {"mixer": packed_mixer(model)}
    else:
        each = 2 * (num_patches**2 + num_patches * num_channels + 2 * num_units * num_patches + 2 * num_units)
        blocks = min(num_blocks, int(0.99 * MOST_SENT - images.nbytes) // each)  # a hundredth for all the rest
        if blocks < 1:
            raise ValueError(f"This model's {num_patches} patches are too many for this view: give larger patches.")
        traces[0] = followed(model, images[0], mean, std, blocks)
        arrays = {name: traces[0][name] for name in ["influence", "normed", "sizes"]}
        arrays["biases"] = np.stack([b.token_mixing.dense_0.bias.detach().float().cpu() for b in model.blocks[:blocks]])
        arrays["maps"] = maps[:blocks]
        sent = {"trace": {name: packed(array, "float16") for name, array in arrays.items()}}
    view = InfluenceView(view="influence", data={
        "grid": list(mixing.patch_grid(model)), "num_images": len(images), "num_blocks": blocks, "num_units": num_units,
        "num_patches": num_patches, "num_channels": num_channels, "all_blocks": num_blocks,
        "gelu": model.config["gelu"], "image_shape": list(model.image_shape), "images": packed(images),
        "mean": mean, "std": std, "colours": packed(signed_colours()), **sent,
    })  # fmt: skip
    view.model, view.images, view.maps, view.traces = model, images, maps, traces
    rows, columns = view.data["grid"]
    view.patch = rows // 2 * columns + columns // 2
    view.unit = int(view.order()[0])  # what is seen first is not a zero
    outputs = hidden_units(model.blocks[0], torch.from_numpy(view.trace()["normed"][0]))
    view.channel = int(outputs[view.unit].abs().argmax())
    return view


def followed(model, image, mean, std, num_blocks=None):
    """An image, uint8 (in_channels, H, W), on its way through the first blocks: "influence" and "composed" (num_blocks,
    S, S), "normed" (num_blocks, S, C), and "sizes" (num_blocks, D_S), the root mean square over the channels of every
    unit's GELU(a)."""
    normed, influence = mixing.follow(model, normalize(image[None], mean, std)[0], num_blocks)
    sizes = [hidden_units(block, x).square().mean(1).sqrt() for block, x in zip(model.blocks, normed, strict=False)]
    found = {"influence": influence, "composed": mixing.composed(influence), "normed": normed,
             "sizes": torch.stack(sizes)}  # fmt: skip
    return {name: tensor.numpy() for name, tensor in found.items()}


@torch.no_grad()
def hidden_units(block, normed):
    """What the units of a block's token mixing give, (D_S, C), from what they read, (S, C)."""
    mix = block.token_mixing
    return mix.act(mix.dense_0.weight @ normed.to(mix.dense_0.weight) + mix.dense_0.bias[:, None]).float().cpu()


# --- 3. draw a digit --------------------------------------------------------------------------------------------------


class DigitView(View):
    """An image to draw on and what a Mixer makes of it. Traits: pixels, hidden, tool, start, show, channel, patch,
    probabilities.

    ``pixels`` are the image's H * W grey values as bytes, black 0; they follow when the pen is lifted. ``hidden`` lists
    the patches that reach the model black. ``start`` is the example last loaded, -1 once the image is another.
    ``probabilities`` are the answer, written by the browser.
    """

    limits = {"channel": "num_channels", "patch": "num_patches"}
    pixels = traitlets.CBytes().tag(sync=True)  # C: from the browser comes a memoryview
    hidden = traitlets.List(traitlets.Int()).tag(sync=True)
    tool = traitlets.Enum(["draw", "erase", "hide patches"], "draw").tag(sync=True)
    start = traitlets.Int(-1).tag(sync=True)
    show = traitlets.Enum(["norm", "channel"], "norm").tag(sync=True)
    channel = traitlets.Int(0).tag(sync=True)
    patch = traitlets.Int(0).tag(sync=True)
    probabilities = traitlets.List(traitlets.Float()).tag(sync=True)
    check_channel, check_patch = index_trait("channel"), index_trait("patch")

    @traitlets.validate("pixels")
    def check_pixels(self, proposal):
        _, height, width = self.data["mixer"]["image_shape"]
        if len(proposal["value"]) != height * width:
            raise traitlets.TraitError(
                f"pixels holds {len(proposal['value'])} bytes: it must hold {height * width}, a grey value from 0 to "
                f"255 for each of {height} × {width} pixels."
            )
        return proposal["value"]

    @traitlets.validate("hidden")
    def check_hidden(self, proposal):
        patches, count = sorted(set(proposal["value"])), self.data["num_patches"]
        wrong = [patch for patch in patches if not 0 <= patch < count]
        if wrong:
            raise traitlets.TraitError(f"hidden holds {wrong[0]}: a patch must be from 0 to {count - 1}.")
        return patches

    @traitlets.validate("start")
    def check_start(self, proposal):
        count = len(self.data["starts"])
        if not -1 <= proposal["value"] < count:
            raise traitlets.TraitError(
                f"start is {proposal['value']}: it must be from 0 to {count - 1}, or -1 for a drawing."
                if count else f"start is {proposal['value']}: it must be -1, as this view has no examples."
            )  # fmt: skip
        return proposal["value"]

    @traitlets.observe("start")
    def load_example(self, change):
        if self.start >= 0:
            self.pixels = self.example()

    @traitlets.observe("pixels")
    def leave_example(self, change):
        if self.start >= 0 and self.pixels != self.example():
            self.start = -1

    def example(self):
        size = len(self.data["examples"]["bytes"]) // len(self.data["starts"])
        return bytes(self.data["examples"]["bytes"][self.start * size : (self.start + 1) * size])

    def image(self):
        """The image as the model gets it, before it is normalised: uint8 (H, W), hidden patches black."""
        image = np.frombuffer(self.pixels, np.uint8).reshape(self.model.image_shape[1:]).copy()
        size, (_, columns) = self.model.config["patch_size"], mixing.patch_grid(self.model)
        for patch in self.hidden:
            top, left = patch // columns * size, patch % columns * size
            image[top : top + size, left : left + size] = 0
        return image

    @torch.inference_mode()
    def forward(self):
        """Probabilities (num_classes,), and every stage's tokens, (1 + num_blocks, S, C), the stem's first."""
        stages, image = {}, torch.from_numpy(self.image())[None, None]
        logits = self.model(normalize(image, [self.data["mean"]], [self.data["std"]]), stages)
        tokens = [stages["stem"], *(stages[f"block_{i}"] for i in range(self.model.config["num_blocks"]))]
        return logits.softmax(1)[0].numpy(), torch.cat(tokens).numpy()

    def picture(self):
        probabilities, names = self.forward()[0], self.data["class_names"]
        order = np.sort(probabilities.argsort()[::-1][:10])
        best = int(probabilities.argmax())
        hidden = f", {len(self.hidden)} of its patches hidden," if self.hidden else ""
        picture, (left, right) = plotting.figure(1, 2, (6.4, 2.8), alt=(
            f"A drawn image{hidden} and beside it the model's answer as bars: {names[best]} with a probability of "
            f"{probabilities[best]:.1%}."))  # fmt: skip
        left.imshow(self.image(), cmap="gray", vmin=0, vmax=255)
        left.axis("off")
        left.set_title(f"{names[best]}, {probabilities[best]:.1%}", fontsize=10)
        right.barh([names[k] for k in order], probabilities[order], color=plotting.BLUE)
        right.invert_yaxis()
        right.set(xlim=(0, 1), xlabel="probability")
        return picture


def draw_digit(model, data=None):
    """Draw an image, by mouse, touch or keyboard, and watch a Mixer read it: its patches, tokens and probabilities.

    model: an MlpMixer for grey images, in_channels=1; the view keeps it as it is now. data: a Dataset whose test images
    and whose worst mistakes (the highest cross-entropy) can be loaded as a start; by default the one that the model was
    trained on, MNIST where it does not say; False for none. The image is normalised by the model's own mean and std,
    else by the data's, else not at all. Raises ValueError for something else than such a model, for one whose weights
    are too much to send, and for data of other sizes or classes than the model's.
    """
    check_model(model)
    channels, height, width = model.image_shape
    if channels != 1:
        raise ValueError(f"This view draws grey images, the model reads {channels} channels: give one that reads 1.")
    count = sum(tensor.numel() for tensor in model.parameters())
    spec = packed_mixer(model) if 2 * count <= MOST_SENT else {"tensors": {}}
    size = sum(len(tensor["bytes"]) for tensor in spec["tensors"].values()) or 4 * count
    if size > MOST_SENT - 100_000:  # for the examples and all the rest
        raise ValueError(
            f"The weights take {size / 1e6:.1f} MB, and this view sends at most {MOST_SENT / 1e6:.0f} MB to the "
            "browser: give a smaller model."
        )
    about, copied = getattr(model, "about", {}), MlpMixer(**model.config).requires_grad_(False).eval()
    copied.load_state_dict(model.state_dict())

    data, note = (None, "") if data is False else (data, "") if data is not None else usual_data(model)
    if data and (data.image_shape != model.image_shape or len(data.class_names) != model.config["num_classes"]):
        raise ValueError(
            f"The model is for images {model.image_shape} of {model.config['num_classes']} classes, {data.name} has "
            f"images {data.image_shape} of {len(data.class_names)}: give other data, or data=False."
        )
    names = about.get("class_names") or (data.class_names if data else range(model.config["num_classes"]))
    names = [str(name) for name in names]
    mean, std = (about["mean"], about["std"]) if "mean" in about else (data.mean, data.std) if data else ([0.0], [1.0])
    starts, images = [], np.zeros((0, height, width), np.uint8)
    if data:
        labels = data.test.labels.cpu()
        first = [i for k in range(len(names)) for i in (labels == k).nonzero()[:3, 0].tolist()][:30]
        starts = [{"group": "Test images", "label": f"{names[labels[i]]} (test image {i})"} for i in first]
        worst, called, tried = worst_mistakes(copied, data, mean, std)
        group = f"The model's worst mistakes in {tried:,} test images"
        starts += [
            {"group": group, "label": f"{names[labels[i]]}, called {names[k]} (test image {i})"}
            for i, k in zip(worst, called, strict=True)
        ]
        images = data.test.images[first + worst].cpu().numpy()[:, 0]
    view = DigitView(view="digit", pixels=bytes(height * width), data={
        "mixer": spec, "mean": float(mean[0]), "std": float(std[0]), "class_names": names, "note": note,
        "num_patches": model.num_tokens, "num_channels": model.config["hidden_dim"],
        "colours": packed(signed_colours()), "starts": starts, "examples": packed(images),
    })  # fmt: skip
    view.model = copied
    view.start = 0 if starts else -1
    view.probabilities = view.forward()[0].tolist()
    return view


MOST_TRIED = 2000  # test images in which mistakes are looked for: a second's work for the shipped model


@torch.inference_mode()
def worst_mistakes(model, data, mean, std, count=12):
    """Test images that the model gets wrong, highest cross-entropy first: [index], [class called], and how many images
    were tried: all, or 2,000 of them, evenly spread.
    """
    indices = torch.arange(0, len(data.test), -(-len(data.test) // MOST_TRIED))
    images, labels = data.test.images[indices].cpu(), data.test.labels[indices].cpu()
    logits = torch.cat([model(normalize(batch, mean, std)) for batch in images.split(50)])
    loss, called = torch.nn.functional.cross_entropy(logits, labels, reduction="none"), logits.argmax(1)
    order = loss.masked_fill(called == labels, -1).argsort(descending=True, stable=True)
    order = order[: min(count, int((called != labels).sum()))]
    return indices[order].tolist(), called[order].tolist(), len(indices)


def usual_data(model):
    """The Dataset a model was trained on, MNIST where it does not say, and ""; or None, and a note that says why."""
    name = getattr(model, "about", {}).get("dataset", "mnist")
    if name not in ("mnist", "fashion-mnist", "digits"):
        return None, f"There are no images to start from, as {name} is not at hand."
    try:
        data = load_dataset(name)
    except DataError:
        return None, f"There are no images to start from, as {name} could not be had."
    if data.image_shape != model.image_shape or len(data.class_names) != model.config["num_classes"]:
        return None, f"There are no images to start from, as the model is not for those of {name}."
    return data, ""


# --- 4. patch embedding -----------------------------------------------------------------------------------------------


class EmbeddingView(View):
    """The stem: its cut, its filters, and an image rebuilt. Traits: image, patch_size, sort, scale, filter, k."""

    limits = {"image": "num_images", "filter": "num_filters", "k": "num_k"}
    image = traitlets.Int(0).tag(sync=True)
    patch_size = traitlets.Int(1).tag(sync=True)
    sort = traitlets.Enum(["norm", "frequency", "number"], "norm").tag(sync=True)
    scale = traitlets.Enum(["shared", "each"], "shared").tag(sync=True)
    filter = traitlets.Int(0).tag(sync=True)
    k = traitlets.Int(0).tag(sync=True)
    check_image, check_filter, check_k = index_trait("image"), index_trait("filter"), index_trait("k")

    @traitlets.validate("patch_size")
    def check_patch_size(self, proposal):
        sizes = [cost["patch_size"] for cost in self.data["costs"]]
        if proposal["value"] not in sizes:
            height, width = self.data["image_shape"][1:]
            raise traitlets.TraitError(
                f"patch_size is {proposal['value']}: a size that divides {height} x {width} is one of "
                f"{', '.join(map(str, sizes))}."
            )
        return proposal["value"]

    def rebuilt(self):
        """The chosen image from the first k filters, normalised as the model sees it: (in_channels, H, W)."""
        rank, basis = self.sorts[self.sort]["ranks"][self.k], self.sorts[self.sort]["basis"]
        patches = self.patches[self.image]
        return from_patches(patches @ basis[:rank].T @ basis[:rank], self.data["image_shape"])

    def error(self):
        """What ``rebuilt`` misses: the mean squared error, and the share of the mean square that is explained."""
        errors = self.sorts[self.sort]["errors"][self.image]
        error = errors[self.sorts[self.sort]["ranks"][self.k]]
        return error, 1 - error / (errors[0] or 1)

    def picture(self):
        shape, P = self.data["image_shape"], self.data["own_patch_size"]
        image, rebuilt = from_patches(self.patches[self.image], shape), self.rebuilt()
        order = self.sorts[self.sort]["order"][:64]
        filters = self.filters[order].reshape(-1, shape[0], P, P)
        filters = np.pad(filters, ((0, -len(order) % 8), (0, 0), (0, 1), (0, 1)))  # rows of 8, a gap after each
        sheet = from_patches(filters.reshape(len(filters), -1), (shape[0], len(filters) // 8 * (P + 1), 8 * (P + 1)))
        errors, ranks = self.sorts[self.sort]["errors"][self.image], self.sorts[self.sort]["ranks"]
        error, share = self.error()
        picture, axes = plotting.figure(1, 5, (10, 2.3), (
            f"Five panels: {len(order)} of the stem's {self.data['num_filters']} filters sorted by {self.sort}; an "
            f"image; the image rebuilt from the first {self.k} filters, {share:.1%} of it explained; the difference; "
            f"and the error, which falls as more filters are used and is {error:.3g} at {self.k}."
        ))  # fmt: skip
        shown = [as_colours(sheet, np.abs(sheet).max()), self.as_pixels(image), self.as_pixels(rebuilt),
                 as_colours(rebuilt - image, np.abs(image).max())]  # fmt: skip
        titles = ["filters", "image", f"from {self.k} filters", "difference"]
        for ax, one, title in zip(axes, shown, titles, strict=False):
            ax.imshow(one)
            ax.set_title(title, fontsize=9)
            ax.axis("off")
        axes[4].plot(errors[ranks], color=plotting.BLUE)
        axes[4].plot(self.k, error, "o", color=plotting.ORANGE)
        axes[4].set(xlabel="filters", ylim=(0, None))
        axes[4].set_title("mean squared error", fontsize=9)
        return picture

    def as_pixels(self, image):
        """A normalised image (in_channels, H, W) as the pixels it stands for: uint8 (H, W, 3)."""
        mean, std = (np.array(self.data[name])[:, None, None] for name in ("mean", "std"))
        pixels = ((image * std + mean) * 255).round().clip(0, 255).astype(np.uint8)
        return np.broadcast_to(np.moveaxis(pixels, 0, -1), (*pixels.shape[1:], 3))


def explore_embedding(model, images=None):
    """The patch embedding: an image cut at any patch size and what it costs, the learned filters, and what they keep.

    model: an MlpMixer for images of 1 or 3 channels. images: uint8 (N, in_channels, H, W), else one MNIST test image of
    each class. "Rebuilt from the first k filters" is each patch's projection onto the span of these filters, in the
    normalised pixels that the stem reads: all that the first k numbers of a token can tell of its patch. Errors are in
    normalised pixels too; no filter at all leaves the mean of the training images. Of very wide stems, as many filters
    are used for rebuilding as 10 MB allow. Raises ValueError for something else than an MlpMixer, for images of another
    number of channels, for images that do not fit the model, and for more than 2 MB of them.
    """
    check_model(model)
    channels, height, width = model.image_shape
    if channels not in (1, 3):
        raise ValueError(f"The model's images have {channels} channels: this view draws 1 (grey) or 3 (colour).")
    images, mean, std = example_images(model, images)
    if images.nbytes > MOST_SENT // 5:
        most = MOST_SENT // 5 // images[0].nbytes
        raise ValueError(f"{len(images)} images are too many to send: give at most {most} of them.")
    P = model.config["patch_size"]
    filters = model.stem.proj.weight.detach().float().cpu().flatten(1).numpy()  # (C, in_channels * P * P)
    normal = normalize(torch.from_numpy(images), mean, std).double().numpy()
    patches = to_patches(normal, P)  # (N, S, in_channels * P * P)
    norms = np.linalg.norm(filters, axis=1)
    found = frequencies(filters, channels)
    by_sort = {"norm": mixing.by_norm(filters), "frequency": np.argsort(found, kind="stable"),
               "number": np.arange(len(filters))}  # fmt: skip
    rank = min(filters.shape)
    dtype = "float32" if 4 * filters.shape[1] * (len(filters) + 3 * rank) < MOST_SENT // 2 else "float16"
    left = MOST_SENT * 0.9 - images.nbytes - filters.size * np.dtype(dtype).itemsize
    most = int(min(rank, left // (3 * filters.shape[1] * np.dtype(dtype).itemsize)))
    sorts = {sort: spans(filters[order], patches, most) | {"order": order} for sort, order in by_sort.items()}
    num_k = min(int(np.searchsorted(one["ranks"], most + 1)) for one in sorts.values())
    view = EmbeddingView(view="embedding", data={
        "image_shape": [channels, height, width], "own_patch_size": P, "num_images": len(images),
        "num_filters": len(filters), "num_k": num_k, "num_dead": int((norms <= 0.01 * norms.max()).sum()),
        "mean": mean, "std": std, "images": packed(images), "colours": packed(signed_colours()),
        "filters": packed(filters, dtype), "bias": packed(model.stem.proj.bias.detach().float().cpu().numpy()),
        "frequencies": packed(found, "float32"),
        "costs": [cost(model, size) for size in range(1, min(height, width) + 1) if height % size == width % size == 0],
        "sorts": {sort: {"order": packed(one["order"], "int32"), "ranks": packed(one["ranks"], "int32"),
                         "basis": packed(one["basis"], dtype), "errors": packed(one["errors"], "float32")}
                  for sort, one in sorts.items()},
    })  # fmt: skip
    view.filters, view.patches, view.sorts = filters, patches, sorts
    view.patch_size, view.filter, view.k = P, int(by_sort["norm"][0]), min(16, num_k - 1)
    return view


def to_patches(images, patch_size):
    """Images (N, in_channels, H, W) -> (N, S, in_channels * P * P), in the order of the stem's weights."""
    N, channels, height, width = images.shape
    P = patch_size
    cut = images.reshape(N, channels, height // P, P, width // P, P).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(N, -1, channels * P * P)


def from_patches(patches, image_shape):
    """Patches (S, in_channels * P * P) back in their places: (in_channels, H, W)."""
    channels, height, width = image_shape
    P = round((patches.shape[1] / channels) ** 0.5)
    placed = patches.reshape(height // P, width // P, channels, P, P).transpose(2, 0, 3, 1, 4)
    return placed.reshape(image_shape)


def as_colours(values, scale):
    """Signed values (in_channels, h, w), from -scale to scale, as uint8 (h, w, 3).

    One channel: the colours of signed numbers. Three: red, green and blue themselves, with zero at mid grey.
    """
    levels = (127.5 + 127.5 * values / (scale or 1)).round().clip(0, 255).astype(np.uint8)
    return signed_colours()[levels[0]] if len(levels) == 1 else np.moveaxis(levels, 0, -1)


def frequencies(filters, channels):
    """The mean spatial frequency of filters (C, in_channels * P * P) in cycles per pixel, over all channels: (C,)."""
    P = round((filters.shape[1] / channels) ** 0.5)
    maps = filters.reshape(-1, P * P)
    power = np.square(maps).sum(1).reshape(-1, channels)
    one_by_one = mixing.frequency(maps, (P, P)).reshape(-1, channels)
    return (power * one_by_one).sum(1) / np.maximum(power.sum(1), 1e-12)


def spans(filters, patches, most):
    """What is known of patches (N, S, D) from the first filters (C, D) alone.

    "basis": orthonormal rows (r, D), r at most ``most``; "ranks": (C + 1,), how many of them span the first k filters;
    "errors": (N, r + 1), the mean squared error of the projection onto the first rows.
    """
    rows = np.float64(filters)
    norms = np.linalg.norm(rows, axis=1)
    kept = np.flatnonzero(norms > 1e-6 * norms.max())
    while True:  # a filter that the ones before it span already is left out; there are hardly ever any
        directions, triangle = np.linalg.qr(rows[kept[: rows.shape[1]]].T)
        spanned = np.abs(np.diag(triangle)) < 1e-5 * norms[kept[: rows.shape[1]]]
        if not spanned.any():
            break
        kept = np.delete(kept, spanned.argmax())
    kept, basis = kept[: rows.shape[1]], directions.T
    ranks = np.searchsorted(kept, np.arange(len(rows) + 1))  # how many kept ones are among the first k
    basis = basis[:most]
    known = np.cumsum(np.square(patches @ basis.T).sum(1), axis=1)  # by Pythagoras, one more row adds its square
    total = np.square(patches).sum((1, 2))[:, None]
    errors = np.maximum(total - np.pad(known, ((0, 0), (1, 0))), 0) / patches[0].size
    return {"basis": basis, "ranks": ranks, "errors": errors}


def cost(model, patch_size):
    """What the model would cost with another patch size and its own widths: a dict of whole numbers.

    "tokens", "numbers" (in a patch), "multiply_adds" of one image's forward pass, and "parameters". Only sums over a
    whole row are counted, as in benchmarks/cost.py: not LayerNorm, GELU, biases and residuals.
    """
    sizes, (channels, height, width) = model.config, model.image_shape
    C, D_S, D_C = sizes["hidden_dim"], sizes["tokens_mlp_dim"], sizes["channels_mlp_dim"]
    S, numbers = height // patch_size * (width // patch_size), channels * patch_size**2
    blocks, classes = sizes["num_blocks"], sizes["num_classes"]
    multiply_adds = S * numbers * C + blocks * 2 * S * C * (D_S + D_C) + C * classes
    mlps = 2 * S * D_S + D_S + S + 2 * C * D_C + D_C + C
    parameters = (numbers + 1) * C + blocks * (mlps + 4 * C) + 2 * C + (C + 1) * classes
    return {"patch_size": patch_size, "tokens": S, "numbers": numbers, "multiply_adds": multiply_adds,
            "parameters": parameters}  # fmt: skip


# --- 5. training, scrubbed --------------------------------------------------------------------------------------------


class TrainingView(View):
    """A run as it went. Traits: time (which snapshot), block, sort, scale, unit, patch, playing."""

    limits = {"time": "num_snapshots", "block": "num_blocks", "unit": "num_units", "patch": "num_patches"}
    time = traitlets.Int(0).tag(sync=True)
    block = traitlets.Int(0).tag(sync=True)
    sort = traitlets.Enum(["norm", "frequency", "pairs", "number"], "norm").tag(sync=True)
    scale = traitlets.Enum(["shared", "each"], "shared").tag(sync=True)
    unit = traitlets.Int(0).tag(sync=True)
    patch = traitlets.Int(0).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    check_time, check_block = index_trait("time"), index_trait("block")
    check_unit, check_patch = index_trait("unit"), index_trait("patch")

    def order(self):
        """The units in the order in which they are drawn: by ``sort``, of the last snapshot's weights."""
        return self.orders[self.sort][self.block]

    def top(self):
        """The largest magnitude that the colours cover: of the block in the whole run, or at this snapshot."""
        shown = slice(None) if self.scale == "shared" else self.time
        return float(np.abs(self.weights[shown, self.block]).max())

    def picture(self):
        step, accuracy = self.steps[self.time], self.validation_accuracy[self.time]
        picture, (left, right) = plotting.figure(1, 2, (9, 3.2), width_ratios=[1.6, 1], alt=(
            f"On the left what the {len(self.order())} units of block {self.block}'s token mixing read from the "
            f"patches after step {step:,} of {self.steps[-1]:,}, sorted by {self.sort} at the end of the run. On the "
            f"right the validation accuracy along the run, {accuracy:.2%} at this step."))  # fmt: skip
        maps = self.weights[self.time, self.block, 0][self.order()].reshape(-1, *self.data["grid"])
        drawn = left.imshow(mosaic(maps), cmap=plotting.SIGNED, vmin=-self.top(), vmax=self.top())
        left.axis("off")
        picture.colorbar(drawn, ax=left, fraction=0.03, pad=0.01).ax.tick_params(labelsize=8)
        right.plot(self.steps, 100 * np.array(self.validation_accuracy), color=plotting.BLUE)
        right.plot([step], [100 * accuracy], "o", color=plotting.ORANGE, markeredgecolor="black", markersize=8)
        right.set_xscale("function", functions=(np.log1p, np.expm1))
        ticks = [tick for tick in (0, *10.0 ** np.arange(7)) if self.steps[0] <= tick <= self.steps[-1]]
        right.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        right.set(xlabel="step", ylabel="validation accuracy (%)", ylim=(0, 102))
        return picture


def explore_training(snapshots=None):
    """A run's token-mixing weights and its validation accuracy on one slider, with a button that plays it.

    snapshots: the Snapshots that ``train(snapshots=...)`` filled, else the recorded run that ships with the package. Of
    a model so large that they do not fit into 10 MB, fewer are sent, evenly spread. Units are sorted by the last
    snapshot, where the view starts, and so keep their places. Raises ValueError for something else than Snapshots, for
    empty ones, and where not even one can be sent.
    """
    snapshots = load_recorded_run() if snapshots is None else snapshots
    if not isinstance(snapshots, Snapshots):
        raise ValueError(
            f"This view shows Snapshots, not a {type(snapshots).__name__}: give what train(snapshots=...) has filled."
        )
    if not snapshots.steps:
        raise ValueError("These snapshots are empty: give them to train(snapshots=...) before they are shown.")
    most = int(0.975 * MOST_SENT) // (2 * snapshots.weights[0].numel())
    if most == 0:
        raise ValueError(
            f"One snapshot of this run has {snapshots.weights[0].numel():,} weights, more than a view sends: record a "
            "model of at most the size of L/16."
        )
    count = len(snapshots.steps)
    kept = np.unique(np.linspace(count - 1, 0, min(count, most)).round().astype(int))
    halves = snapshots.weights.numpy()[kept]
    weights = halves.astype(np.float32)
    recipe = snapshots.about.get("recipe", {})
    _, num_blocks, _, num_units, num_patches = weights.shape
    view = TrainingView(view="training")
    view.weights, view.orders = weights, unit_orders(weights[-1], snapshots.grid)
    view.steps = [snapshots.steps[i] for i in kept]
    view.validation_accuracy = [snapshots.validation_accuracy[i] for i in kept]
    view.data = {
        "grid": list(snapshots.grid), "num_snapshots": len(kept), "num_blocks": num_blocks, "num_units": num_units,
        "num_patches": num_patches, "colours": packed(signed_colours()), "weights": packed(halves),
        "steps": packed(view.steps, "int32"), "validation_accuracy": packed(view.validation_accuracy, "float32"),
        "orders": {name: packed(order, "int32") for name, order in view.orders.items()},
        "run": f"the run of recipe {recipe['name']}" if "name" in recipe else "the run",
    }  # fmt: skip
    view.time = len(kept) - 1
    return view


def mosaic(maps):
    """Maps (N, h, w) as one picture with white lines of one cell between, in rows of equal length or nearly: floats."""
    count, height, width = maps.shape
    across = math.ceil(math.sqrt(2 * count))
    down = -(-count // across)
    tiles = np.full((down * across, height + 1, width + 1), np.nan, maps.dtype)
    tiles[:count, :-1, :-1] = maps
    return tiles.reshape(down, across, height + 1, width + 1).swapaxes(1, 2).reshape(down * (height + 1), -1)
