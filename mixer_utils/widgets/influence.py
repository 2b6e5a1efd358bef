"""View 2: the influence of patch on patch, and the units that make it so. The front-end is influence.js."""

import numpy as np
import torch
import traitlets
from matplotlib.patches import Rectangle

from mixer_utils import mixing, plotting
from mixer_utils.data import normalize
from mixer_utils.widgets.base import (
    Index,
    View,
    check_model,
    choice,
    example_images,
    packed,
    packed_colours,
    packed_mixer,
    room,
    unpacked,
)


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
    return InfluenceView(model, images)


class InfluenceView(View):
    """Which patches talk to which. Traits: image, block, patch, unit, channel, show, direction."""

    view = traitlets.Unicode("influence").tag(sync=True)
    image = Index("num_images")
    block = Index("num_blocks")
    patch = Index("num_patches")
    unit = Index("num_units")
    channel = Index("num_channels")
    show = choice("one block", "composed")
    direction = choice("reads", "writes")

    def __init__(self, model, images=None):
        super().__init__(data=influence_data(model, images))
        self.model = model
        self.images = torch.from_numpy(unpacked(self.data["images"]).copy())
        self.maps = mixing.unit_maps(model).numpy()
        self.traces = {}
        rows, columns = self.data["grid"]
        self.patch = rows // 2 * columns + columns // 2
        self.unit = int(self.order()[0])  # what is seen first is not a zero
        outputs = hidden_units(model.blocks[0], torch.from_numpy(self.trace()["normed"][0]))
        self.channel = int(outputs[self.unit].abs().argmax())

    def trace(self):
        """The image on its way through the model, as ``followed`` gives it."""
        if self.image not in self.traces:
            image = self.images[self.image]
            blocks = self.data["num_blocks"]
            self.traces[self.image] = followed(self.model, image, self.data["mean"], self.data["std"], blocks)
        return self.traces[self.image]

    def matrix(self):
        """The map of patch on patch that is shown, (S, S): row i is what moves patch i, column j what patch j moves."""
        name = "composed" if self.show == "composed" else "influence"
        return self.trace()[name][self.block]

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
        token_mixing = self.model.blocks[self.block].token_mixing
        values = self.trace()["normed"][self.block, :, self.channel]
        weights, column = self.maps[self.block, :, self.unit]
        bias = token_mixing.dense_0.bias[self.unit].item()
        total = float(values @ weights + bias)
        gelu = token_mixing.act(torch.tensor(total)).item()
        return {
            "values": values,
            "weights": weights,
            "products": values * weights,
            "bias": bias,
            "sum": total,
            "gelu": gelu,
            "column": column,
            "writes": gelu * column,
        }

    def picture(self):
        rows, columns = self.data["grid"]
        row = self.row()
        strongest = int(np.abs(row).argmax())
        chosen = f"the patch in row {self.patch // columns}, column {self.patch % columns}"
        where = f"block {self.block}" if self.show == "one block" else f"blocks 0 to {self.block}, composed"
        what = f"hat moves {chosen}" if self.direction == "reads" else f"hat {chosen} moves"
        alt = (
            f"Image {self.image} cut into {rows} by {columns} patches, and beside it a map in red (above zero) and "
            f"blue (below): w{what} in token mixing of {where}. The strongest is the patch in row "
            f"{strongest // columns}, column {strongest % columns}, with {row[strongest]:+.3f}."
        )
        picture, (left, right) = plotting.figure(1, 2, (6.4, 3.2), alt)

        size = self.model.config["patch_size"]
        left.imshow(plotting.as_picture(self.images[self.image]), cmap="gray", extent=(0, columns, rows, 0))
        left.set(xticks=range(columns + 1), yticks=range(rows + 1))
        left.set_title(f"image {self.image}, {size} × {size} pixels a patch")
        left.grid(color=plotting.ORANGE, lw=0.5)
        left.tick_params(labelbottom=False, labelleft=False, length=0)

        scale = np.abs(self.matrix()).max()
        title = f"W{what},\n{where} (colours ±{scale:.2f})"
        numbers = max(rows, columns) <= 7
        plotting.plot_matrix(row.reshape(rows, columns), title, numbers=numbers, scale=scale, ax=right)
        right.set(xticks=[], yticks=[])
        for ax in (left, right):
            ax.add_patch(Rectangle((self.patch % columns, self.patch // columns), 1, 1, fill=False, lw=2.5))
            ax.title.set_fontsize(9)
        return picture


def influence_data(model, images=None):
    """What the front-end draws view 2 from, a View's ``data``. Arguments and errors are ``explore_influence``'s."""
    check_model(model)
    images, mean, std = example_images(model, images)
    left = room(4 * sum(tensor.numel() for tensor in model.parameters()))
    num_blocks = model.config["num_blocks"]
    if left > images[0].nbytes:
        if images.nbytes > left:
            most = left // images[0].nbytes
            raise ValueError(f"{len(images)} images are too many to send: give at most {most} of them.")
        blocks_sent = num_blocks
        sent = {"mixer": packed_mixer(model)}
    else:
        images = images[:1]
        blocks_sent = blocks_that_fit(model, images)
        sent = {"trace": packed_trace(model, followed(model, torch.from_numpy(images)[0], mean, std, blocks_sent))}
    return {
        "grid": list(mixing.patch_grid(model)),
        "num_images": len(images),
        "num_blocks": blocks_sent,
        "num_units": model.config["tokens_mlp_dim"],
        "num_patches": model.num_tokens,
        "num_channels": model.config["hidden_dim"],
        "all_blocks": num_blocks,
        "gelu": model.config["gelu"],
        "image_shape": list(model.image_shape),
        "images": packed(images),
        "mean": mean,
        "std": std,
        "colours": packed_colours(),
        **sent,
    }


def blocks_that_fit(model, images):
    """Of how many blocks, from the first on, the numbers of one image can be sent. Raises ValueError for none."""
    S = model.num_tokens
    D_S = model.config["tokens_mlp_dim"]
    C = model.config["hidden_dim"]
    each = 2 * (S * S + S * C + 2 * D_S * S + 2 * D_S)  # bytes: influence, normed, maps, and sizes and biases
    count = min(model.config["num_blocks"], room(images.nbytes) // each)
    if count < 1:
        raise ValueError(f"This model's {S} patches are too many for this view: give larger patches.")
    return count


def packed_trace(model, trace):
    """The numbers of one image that are sent in place of a model: of as many blocks as ``trace`` has."""
    count = len(trace["influence"])
    biases = [block.token_mixing.dense_0.bias.detach().float().cpu() for block in model.blocks[:count]]
    arrays = {name: trace[name] for name in ("influence", "normed", "sizes")}
    arrays["biases"] = np.stack(biases)
    arrays["maps"] = mixing.unit_maps(model).numpy()[:count]
    return {name: packed(array, "float16") for name, array in arrays.items()}


def followed(model, image, mean, std, num_blocks=None):
    """An image, uint8 (in_channels, H, W), on its way through the first blocks: "influence" and "composed" (num_blocks,
    S, S), "normed" (num_blocks, S, C), and "sizes" (num_blocks, D_S), the root mean square over the channels of every
    unit's GELU(a)."""
    normed, influence = mixing.follow(model, normalize(image[None], mean, std)[0], num_blocks)
    blocks = model.blocks[: len(normed)]
    sizes = [hidden_units(block, x).square().mean(1).sqrt() for block, x in zip(blocks, normed, strict=True)]
    return {
        "influence": influence.numpy(),
        "composed": mixing.composed(influence).numpy(),
        "normed": normed.numpy(),
        "sizes": torch.stack(sizes).numpy(),
    }


@torch.no_grad()
def hidden_units(block, normed):
    """What the units of a block's token mixing give, (D_S, C), from what they read, (S, C)."""
    token_mixing = block.token_mixing
    channels = normed.T.to(token_mixing.dense_0.weight)
    return token_mixing.act(token_mixing.dense_0(channels)).T.float().cpu()
