"""View 6: a small Mixer that the browser trains from scratch. The front-end is learn.js, the arithmetic trainer.js.

Where the browser gives a GPU, trainer_gpu.js does the same there.
"""

import numpy as np
import traitlets

from mixer_utils import plotting
from mixer_utils.data import Dataset, Split, load_dataset
from mixer_utils.model import MlpMixer
from mixer_utils.recipes import RECIPES
from mixer_utils.training import hold_out
from mixer_utils.widgets import base
from mixer_utils.widgets.base import Index, View, Whole, packed, packed_colours, room
from mixer_utils.widgets.front_end import joined

MOST_IMAGES = {"train": 5000, "held_out": 1000}
LEVELS = 16  # of grey: 4 bits
NUM_BLOCKS = 2
MODELS = {  # by patch size: so small that a browser trains all but the last in a minute on one core
    7: dict(hidden_dim=48, tokens_mlp_dim=36, channels_mlp_dim=96),
    4: dict(hidden_dim=32, tokens_mlp_dim=36, channels_mlp_dim=64),
    2: dict(hidden_dim=32, tokens_mlp_dim=36, channels_mlp_dim=64),
}
SETTINGS = {"batch_size": 25, "steps": 1000, "warmup": 0.05, "weight_decay": 0.1, "shift": 1}
RATES = [0.001, 0.003, 0.006, 0.01, 0.03]  # the learning rates to choose from


def train_in_browser(data=None):
    """Train a small Mixer in the browser, from random weights, and watch its token-mixing maps form.

    data: a Dataset of grey images in memory whose sides are even or multiples of 7, by default MNIST, or scikit-learn's
    digits where that cannot be had, which a printed line then says. Sent are 5,000 training images at most and 1,000
    held-out ones, with as many of each class, in 16 levels of grey: from what ``train`` trains on and from what it
    validates on, never from the test images. It trains on the GPU where the browser gives one, by WebGPU, else on one
    core of the processor. Nothing comes back: the weights stay in the page, where the view's element gives them,
    ``trained()``. Raises ValueError for other data, for too few images and for too large ones.
    """
    return LearnView(load_dataset("mnist", fallback="digits") if data is None else data)


class LearnView(View):
    """A Mixer trained in the browser. Traits: patch_size, learning_rate, seed, block, before.

    ``before`` shows the maps as they were before training.
    """

    view = traitlets.Unicode("learn").tag(sync=True)
    patch_size = Whole().tag(sync=True)
    learning_rate = traitlets.Enum(RATES, 0.006).tag(sync=True)
    seed = Whole().tag(sync=True)
    block = Index("num_blocks")
    before = traitlets.Bool(False).tag(sync=True)

    def __init__(self, data):
        sizes = fitting_patch_sizes(data)
        parts = images_sent(data)
        super().__init__(
            data={
                "name": data.name.replace("mnist", "MNIST"),
                "class_names": list(data.class_names),
                "image_shape": list(data.image_shape),
                "mean": data.mean[0],
                "std": data.std[0],
                "patch_sizes": sizes,
                "num_blocks": NUM_BLOCKS,
                "configs": {str(size): config_for(data, size) for size in sizes},
                "settings": SETTINGS,
                "rates": RATES,
                "colours": packed_colours(),
                **{part: {"levels": packed_levels(split.images.cpu().numpy()), "labels": packed(split.labels, "int16")}
                   for part, split in parts.items()},
                "worker": joined("trainer_worker"),
            },
            patch_size=sizes[0],
        )  # fmt: skip

    @traitlets.validate("patch_size")
    def check_patch_size(self, proposal):
        sizes = self.data["patch_sizes"]
        if proposal["value"] not in sizes:
            choice = " or ".join(", ".join(map(str, sizes)).rsplit(", ", 1))
            raise traitlets.TraitError(f"patch_size is {proposal['value']}: it must be {choice}.")
        return proposal["value"]

    @traitlets.validate("seed")
    def check_seed(self, proposal):
        if not 0 <= proposal["value"] < 2**31:
            raise traitlets.TraitError(f"seed is {proposal['value']}: it must be from 0 to {2**31 - 1}.")
        return proposal["value"]

    def levels(self, part):
        """The images as they are sent, "train" or "held_out": uint8 (N, H, W), grey from 0 to 15."""
        _, height, width = self.data["image_shape"]
        levels = unpacked_levels(self.data[part]["levels"])
        return levels[: len(levels) // (height * width) * height * width].reshape(-1, height, width)

    def picture(self):
        images = self.levels("train")
        labels = np.frombuffer(self.data["train"]["labels"]["bytes"], np.int16)
        names = self.data["class_names"]
        alt = (
            f"Four of the {len(images):,} training images of each class, {', '.join(names)}. The live view trains a "
            "small Mixer on them in the browser, and its token-mixing maps form while one watches."
        )
        picture, axes = plotting.figure(4, len(names), (0.7 * len(names), 2.9), alt, squeeze=False)
        for k, column in enumerate(axes.T):
            for ax, image in zip(column, images[labels == k], strict=False):
                ax.imshow(image, cmap="gray", vmin=0, vmax=LEVELS - 1)
            for ax in column:
                ax.axis("off")
            column[0].set_title(names[k], fontsize=9)
        return picture


def fitting_patch_sizes(data):
    """The patch sizes to choose from. Raises ValueError for data that this view cannot train on."""
    if not isinstance(data, Dataset) or not isinstance(data.train, Split):
        raise ValueError(
            f"This view trains on a Dataset that is in memory, not on a {type(data).__name__}: give "
            "load_dataset('mnist') or one like it."
        )
    channels, height, width = data.image_shape
    sizes = [size for size in MODELS if height % size == width % size == 0]
    if channels != 1 or not sizes:
        raise ValueError(
            f"This view trains on grey images whose sides are even or multiples of 7, {data.name} has images "
            f"{data.image_shape}: give load_dataset('mnist') or data like it."
        )
    return sizes


def config_for(data, patch_size):
    """The configuration of the MlpMixer with patches of this size."""
    model = MlpMixer(image_size=data.image_shape[1:], in_channels=1, patch_size=patch_size,
                     num_classes=len(data.class_names), num_blocks=NUM_BLOCKS, **MODELS[patch_size])  # fmt: skip
    return model.config


def images_sent(data):
    """{"train": Split, "held_out": Split}: of the images that ``train`` trains on and of those it validates on.

    Raises ValueError where they are too few or too large.
    """
    validation = RECIPES.get(data.name, RECIPES["minute"]).validation
    parts = hold_out(data.train, min(validation, max(1, len(data.train) // 6)))
    sent = {part: evenly(split, len(data.class_names), most)
            for (part, most), split in zip(MOST_IMAGES.items(), parts, strict=True)}  # fmt: skip
    if len(sent["train"]) < SETTINGS["batch_size"] or len(sent["held_out"]) == 0:
        raise ValueError(
            f"{data.name} has {len(data.train):,} training images, too few of some class: this view trains on as many "
            f"of each, {SETTINGS['batch_size']} in all at least, and holds out one of each or more."
        )
    size = sum(split.images.numel() for split in sent.values()) // 2
    if size > room():
        raise ValueError(
            f"The images of {data.name} take {size / 1e6:.1f} MB, and this view sends at most "
            f"{base.MOST_SENT / 1e6:.0f} MB to the browser: give smaller ones."
        )
    return sent


def evenly(split, num_classes, most):
    """At most ``most`` images of a Split, as many of each class, evenly spread over the split; always the same ones."""
    labels = split.labels.cpu().numpy()
    places = [np.flatnonzero(labels == k) for k in range(num_classes)]
    count = min(most // num_classes, *map(len, places))
    chosen = [of_class[np.linspace(0, len(of_class) - 1, count).round().astype(int)] for of_class in places]
    return split[np.sort(np.concatenate(chosen))]


def packed_levels(images):
    """uint8 images in 16 levels of grey, two pixels to a byte, the first in the upper half; a last one alone with 0."""
    levels = (images.ravel().astype(np.uint16) * (LEVELS - 1) + 127) // 255  # the nearest
    pairs = np.append(levels, np.zeros(len(levels) % 2, levels.dtype)).reshape(-1, 2)
    return packed(pairs[:, 0] * LEVELS + pairs[:, 1], "uint8")


def unpacked_levels(sent):
    """What ``packed_levels`` made, one level a pixel: uint8, flat."""
    pairs = np.frombuffer(sent["bytes"], np.uint8)
    return np.stack([pairs // LEVELS, pairs % LEVELS], 1).ravel()
