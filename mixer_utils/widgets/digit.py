"""View 3: an image to draw on, and what the model makes of it. The front-end is digit.js."""

import numpy as np
import torch
import traitlets

from mixer_utils import plotting
from mixer_utils.data import DataError, load_dataset, normalize, pictures_of
from mixer_utils.widgets import base
from mixer_utils.widgets.base import (
    DrawnView,
    Index,
    about,
    as_it_is,
    check_model,
    choice,
    packed,
    packed_colours,
    packed_mixer,
    room,
)

MOST_TRIED = 2000  # test images in which mistakes are looked for: a second's work for the shipped model


def draw_digit(model, data=None):
    """Draw an image, by mouse, touch or keyboard, and watch a Mixer read it: its patches, tokens and probabilities.

    model: an MlpMixer for grey images, in_channels=1; the view keeps it as it is now. data: a Dataset whose test images
    and whose worst mistakes (the highest cross-entropy) can be loaded as a start; by default the one that the model was
    trained on, MNIST where it does not say; False for none. The image is normalised by the model's own mean and std,
    else by the data's, else not at all. Raises ValueError for something else than such a model, for one whose weights
    are too much to send, and for data of other sizes or classes than the model's.
    """
    return DigitView(model, data)


class DigitView(DrawnView):
    """An image to draw on and what a Mixer makes of it. Traits: pixels, hidden, tool, start, show, channel, patch,
    probabilities.

    ``pixels`` are the image's H * W grey values as bytes, black 0; they follow when the pen is lifted. ``hidden`` lists
    the patches that reach the model black. ``start`` is the example last loaded, -1 once the image is another.
    ``probabilities`` are the answer, written by the browser.
    """

    view = traitlets.Unicode("digit").tag(sync=True)
    show = choice("norm", "channel")
    channel = Index("num_channels")
    patch = Index("num_patches")

    def __init__(self, model, data=None):
        spec = mixer_to_draw_for(model)
        note = ""
        if data is None:
            data, note = usual_data(model)
        if data and not suits(model, data):
            raise ValueError(
                f"The model is for images {model.image_shape} of {model.config['num_classes']} classes, {data.name} "
                f"has images {data.image_shape} of {len(data.class_names)}: give other data, or data=False."
            )
        self.model = as_it_is(model)
        mean, std = mean_and_std(model, data)
        names = about(model).get("class_names") or (data.class_names if data else range(model.config["num_classes"]))
        names = [str(name) for name in names]
        _, height, width = model.image_shape
        starts, images = [], np.zeros((0, height, width), np.uint8)
        if data:
            starts, images = examples(self.model, data, mean, std, names)
        super().__init__(
            data={
                "mixer": spec,
                "mean": float(mean[0]),
                "std": float(std[0]),
                "class_names": names,
                "note": note,
                "pictures": pictures_for(model, data),
                "num_patches": model.num_tokens,
                "num_channels": model.config["hidden_dim"],
                "colours": packed_colours(),
                "starts": starts,
                "examples": packed(images),
            },
            pixels=bytes(height * width),
        )
        self.start = 0 if starts else -1
        self.probabilities = self.forward()[0].tolist()

    @traitlets.validate("pixels")
    def check_pixels(self, proposal):
        _, height, width = self.data["mixer"]["image_shape"]
        count = len(proposal["value"])
        if count != height * width:
            raise traitlets.TraitError(
                f"pixels holds {count} bytes: it must hold {height * width}, a grey value from 0 to 255 for each of "
                f"{height} × {width} pixels."
            )
        return proposal["value"]

    @traitlets.observe("pixels")
    def leave_example(self, change):
        if self.start >= 0 and self.pixels != self.example():
            self.start = -1

    def image(self):
        """The image as the model gets it, before it is normalised: uint8 (H, W), hidden patches black."""
        return super().image()[0]

    @torch.inference_mode()
    def forward(self):
        """Probabilities (num_classes,), and every stage's tokens, (1 + num_blocks, S, C), the stem's first."""
        stages = {}
        image = torch.from_numpy(self.image())[None, None]
        logits = self.model(normalize(image, [self.data["mean"]], [self.data["std"]]), stages)
        blocks = [stages[f"block_{i}"] for i in range(self.model.config["num_blocks"])]
        return logits.softmax(1)[0].numpy(), torch.cat([stages["stem"], *blocks]).numpy()

    def picture(self):
        probabilities, _ = self.forward()
        names = self.data["class_names"]
        order = np.sort(probabilities.argsort()[::-1][:10])
        best = int(probabilities.argmax())
        hidden = f", {len(self.hidden)} of its patches hidden," if self.hidden else ""
        alt = (
            f"A drawn image{hidden} and beside it the model's answer as bars: {names[best]} with a probability of "
            f"{probabilities[best]:.1%}."
        )
        picture, (left, right) = plotting.figure(1, 2, (6.4, 2.8), alt)
        left.imshow(self.image(), cmap="gray", vmin=0, vmax=255)
        left.axis("off")
        left.set_title(f"{names[best]}, {probabilities[best]:.1%}", fontsize=10)
        right.barh([names[k] for k in order], probabilities[order], color=plotting.BLUE)
        right.invert_yaxis()
        right.set(xlim=(0, 1), xlabel="probability")
        return picture


def mixer_to_draw_for(model):
    """The model as it is sent. Raises ValueError for one that this view cannot show, as ``draw_digit``."""
    check_model(model)
    channels = model.image_shape[0]
    if channels != 1:
        raise ValueError(f"This view draws grey images, the model reads {channels} channels: give one that reads 1.")
    count = sum(tensor.numel() for tensor in model.parameters())
    size = 4 * count
    if 2 * count <= room():  # else it is too large in half precision too, and is not packed to find that out
        spec = packed_mixer(model)
        size = sum(len(tensor["bytes"]) for tensor in spec["tensors"].values())
    if size > room():
        raise ValueError(
            f"The weights take {size / 1e6:.1f} MB, and this view sends at most {base.MOST_SENT / 1e6:.0f} MB to the "
            "browser: give a smaller model."
        )
    return spec


def suits(model, data):
    """Whether a Dataset's images and classes are as many and as large as the model's."""
    return data.image_shape == model.image_shape and len(data.class_names) == model.config["num_classes"]


def mean_and_std(model, data):
    """What images are normalised by, a list each: the model's own, else the data's, else nothing."""
    if "mean" in about(model):
        return about(model)["mean"], about(model)["std"]
    if data:
        return data.mean, data.std
    return [0.0], [1.0]


def pictures_for(model, data):
    """How a picture of one's own is made into an image, as ``read_image`` has it: "digit", or "stretch" or "crop".

    As for the images that the model was trained on; where it does not say, as for the data; without data, an image of
    28 x 28 is taken for one of MNIST's.
    """
    known = about(model)
    if "pictures" in known or "dataset" in known:
        return pictures_of(known)
    if data:
        return data.pictures
    return "digit" if model.image_shape == (1, 28, 28) else "stretch"


def usual_data(model):
    """The Dataset a model was trained on, MNIST where it does not say, and ""; or None, and a note that says why."""
    name = about(model).get("dataset", "mnist")
    if name not in ("mnist", "fashion-mnist", "digits"):
        return None, f"There are no images to start from, as {name} is not at hand."
    try:
        data = load_dataset(name)
    except DataError:
        return None, f"There are no images to start from, as {name} could not be had."
    if not suits(model, data):
        return None, f"There are no images to start from, as the model is not for those of {name}."
    return data, ""


def examples(model, data, mean, std, names):
    """What a drawing can start from: [{"group", "label"}], and the images, uint8 (N, H, W).

    Three test images of each class, 30 at most, and then the model's worst mistakes.
    """
    labels = data.test.labels.cpu()
    first = []
    for k in range(len(names)):
        first += (labels == k).nonzero()[:3, 0].tolist()
    first = first[:30]
    starts = [{"group": "Test images", "label": f"{names[labels[i]]} (test image {i})"} for i in first]

    worst, called, tried = highest_losses(model, data, mean, std)
    group = f"The model's worst mistakes in {tried:,} test images"
    for i, k in zip(worst, called, strict=True):
        starts.append({"group": group, "label": f"{names[labels[i]]}, called {names[k]} (test image {i})"})
    return starts, data.test.images[first + worst].cpu().numpy()[:, 0]


@torch.inference_mode()
def highest_losses(model, data, mean, std, count=12):
    """Test images that the model gets wrong, highest cross-entropy first: [index], [class called], and how many images
    were tried: all, or 2,000 of them, evenly spread.
    """
    step = -(-len(data.test) // MOST_TRIED)
    indices = torch.arange(0, len(data.test), step)
    images = data.test.images[indices].cpu()
    labels = data.test.labels[indices].cpu()
    logits = torch.cat([model(normalize(batch, mean, std)) for batch in images.split(50)])
    called = logits.argmax(1)
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    order = loss.masked_fill(called == labels, -1).argsort(descending=True, stable=True)
    mistakes = int((called != labels).sum())
    order = order[: min(count, mistakes)]
    return indices[order].tolist(), called[order].tolist(), len(indices)
