"""What all views share: the widget itself, how arrays are sent, how much may be sent, and what is checked.

A view is a Python file and a JavaScript file of the same name. To work on the JavaScript, start Jupyter with
``ANYWIDGET_HMR=1`` in the environment and watchfiles installed: a file that is saved is drawn anew in every open view,
which keeps its state.
"""

import math
import os
import threading

import anywidget
import matplotlib
import numpy as np
import torch
import traitlets
from matplotlib.colors import LinearSegmentedColormap

from mixer_utils import plotting
from mixer_utils.data import load_dataset
from mixer_utils.mixing import patch_grid
from mixer_utils.model import MlpMixer
from mixer_utils.widgets import front_end

MOST_SENT = 10_000_000  # bytes a view sends to the browser
DTYPES = ("float16", "float32", "int32", "int16", "int8", "uint8")  # that the front-end unpacks
# Below zero blue, above zero red, zero as dark as the paper: a curve in CIELAB, from (L, C, h) (84, 27, 245) over
# (48, 74, 272) to (15, 3, 260), and on over (46, 84, 32) to (84, 30, 62), in equal steps; two Bézier curves.
DARK_SIGNED = (
    *("#99daff", "#79c4fa", "#53aaed", "#268bd3", "#026cad", "#125487", "#1f4164", "#233245", "#23262a"),
    *("#412b2b", "#5e302d", "#7d3832", "#a1473b", "#ca634f", "#e8886b", "#f7aa87", "#fcc7a0"),
)
SORTS = ("structure", "norm", "frequency", "pairs", "number")  # orders of a block's units


class View(anywidget.AnyWidget):
    """What all views share: the front-end, the data sent once, and a picture for where there is no front-end.

    ``view`` names the function of the front-end that draws. ``data`` is sent once, arrays as ``packed`` makes them.
    """

    _esm = front_end.SCRIPT
    _css = front_end.STYLE
    view = traitlets.Unicode().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, **traits):
        super().__init__(**traits)
        if os.environ.get("ANYWIDGET_HMR") == "1":
            threading.Thread(target=self.follow_files, daemon=True).start()

    def follow_files(self):
        """Takes the front-end anew whenever one of its files is saved; for whoever works on it."""
        import watchfiles  # no dependency of the package

        for _ in watchfiles.watch(front_end.FOLDER):
            try:
                self._esm = front_end.joined("index")
                self._css = front_end.style()
            except ValueError as error:  # a file half edited
                print(error)

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


class Whole(traitlets.Int):
    """A trait that is a whole number; one of NumPy's is taken, too, since many come from an argmax."""

    def validate(self, view, value):
        return super().validate(view, int(value) if isinstance(value, np.integer) else value)


class Index(Whole):
    """A trait of a view that counts from 0; ``count`` is the entry of the view's ``data`` that says how many there are.

    Raises TraitError for a number that is not below it.
    """

    def __init__(self, count):
        super().__init__(0)
        self.count = count
        self.tag(sync=True)

    def validate(self, view, value):
        value = super().validate(view, value)
        count = view.data[self.count]
        if not 0 <= value < count:
            raise traitlets.TraitError(f"{self.name} is {value}: it must be from 0 to {count - 1}.")
        return value


def choice(*values):
    """A trait that is one of some texts, the first to begin with."""
    return traitlets.Enum(list(values), values[0]).tag(sync=True)


class DrawnView(View):
    """A view of an image that can be drawn on, and of what ``self.model`` makes of it.

    ``data`` holds num_patches, ``starts``, what the examples are called, and ``examples``, the images themselves.
    """

    pixels = traitlets.CBytes().tag(sync=True)  # C: from the browser comes a memoryview
    hidden = traitlets.List(Whole()).tag(sync=True)
    tool = choice("draw", "erase", "hide patches")
    start = Whole(-1).tag(sync=True)
    probabilities = traitlets.List(traitlets.Float()).tag(sync=True)

    @traitlets.validate("hidden")
    def check_hidden(self, proposal):
        patches = sorted(set(proposal["value"]))
        count = self.data["num_patches"]
        wrong = [patch for patch in patches if not 0 <= patch < count]
        if wrong:
            raise traitlets.TraitError(f"hidden holds {wrong[0]}: a patch must be from 0 to {count - 1}.")
        return patches

    @traitlets.validate("start")
    def check_start(self, proposal):
        start = proposal["value"]
        count = len(self.data["starts"])
        if not -1 <= start < count:
            most = f"from 0 to {count - 1}, or -1 for a drawing" if count else "-1, as this view has no examples"
            raise traitlets.TraitError(f"start is {start}: it must be {most}.")
        return start

    @traitlets.observe("start")
    def load_example(self, change):
        if self.start >= 0:
            self.pixels = self.example()

    def example(self):
        """The pixels of the example last loaded, bytes."""
        content = self.data["examples"]["bytes"]
        size = len(content) // len(self.data["starts"])
        return bytes(content[self.start * size : (self.start + 1) * size])

    def image(self):
        """The image as the model gets it, before it is normalised: uint8 (in_channels, H, W), hidden patches black."""
        image = np.frombuffer(self.pixels, np.uint8).reshape(self.model.image_shape).copy()
        size = self.model.config["patch_size"]
        _, columns = patch_grid(self.model)
        for patch in self.hidden:
            top = patch // columns * size
            left = patch % columns * size
            image[:, top : top + size, left : left + size] = 0
        return image


def as_it_is(model):
    """A copy of an MlpMixer, in eval mode, that stays as it is now while the model may be trained on."""
    copy = MlpMixer(**model.config).requires_grad_(False).eval()
    copy.load_state_dict(model.state_dict())
    return copy


# --- what is sent -----------------------------------------------------------------------------------------------------


def room(*taken):
    """Bytes that a view can still send beside the ``taken`` ones; below 0 where there are too many already.

    A fortieth of MOST_SENT is left for what goes with weights and images: colours, orders, names.
    """
    return MOST_SENT - MOST_SENT // 40 - sum(taken)


def packed(array, dtype=None):
    """An array as the front-end unpacks it: dtype (float16, float32, int32, int16, int8 or uint8), shape and bytes."""
    array = np.ascontiguousarray(array, dtype=dtype)
    if array.dtype.name not in DTYPES:
        raise ValueError(f"An array of {array.dtype.name} cannot be sent: give dtype, float32 for example.")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "bytes": array.tobytes()}


def maps_bytes(shape, dtype):
    """How many bytes ``packed_maps`` takes for maps of this shape (..., S) in a dtype."""
    size = math.prod(shape)
    return size + 2 * size // shape[-1] if dtype == "int8" else np.dtype(dtype).itemsize * size


def packed_maps(maps, dtype):
    """Maps (..., S) in float32, float16 or int8 as the front-end unpacks them, and ``unpacked``.

    int8 has 255 steps from a map's largest magnitude to minus that, about as many as there are colours. What a step is
    stands in "scales", float16, one for each map.
    """
    if dtype != "int8":
        return packed(maps, dtype)
    maps = np.asarray(maps, np.float32)
    scales = (np.abs(maps).max(-1) / 127).astype(np.float16)
    steps = maps / np.where(scales == 0, 1, scales).astype(np.float32)[..., None]
    return {**packed(steps.round().clip(-127, 127), "int8"), "scales": packed(scales)}


def unpacked(sent):
    """The array that the front-end has of what ``packed`` or ``packed_maps`` gave."""
    array = np.frombuffer(sent["bytes"], sent["dtype"]).reshape(sent["shape"])
    return array * np.float32(unpacked(sent["scales"]))[..., None] if "scales" in sent else array


def packed_mixer(model):
    """A model as the front-end's ``Mixer`` takes it: {"config", "image_shape", "tensors": {name: packed array}}.

    The tensors are float16 where all weights are exactly that (the shipped models' are), else float32.
    """
    weights = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    exact = all(torch.equal(tensor.half().float(), tensor) for tensor in weights.values())
    dtype = "float16" if exact else "float32"
    return {
        "config": model.config,
        "image_shape": list(model.image_shape),
        "tensors": {name: packed(tensor.numpy(), dtype) for name, tensor in weights.items()},
    }


def signed_colours(dark=False):
    """The 256 colours of signed numbers, uint8 (256, 3): those of the figures, or in the dark those of DARK_SIGNED."""
    table = LinearSegmentedColormap.from_list("dark", DARK_SIGNED) if dark else matplotlib.colormaps[plotting.SIGNED]
    return (table(np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def packed_colours():
    """The colours of signed numbers as the front-end's ``colourTable`` takes them: light, then dark, (2, 256, 3)."""
    return packed(np.stack([signed_colours(), signed_colours(dark=True)]))


# --- what is shown ----------------------------------------------------------------------------------------------------


def check_model(model):
    """Raise ValueError unless ``model`` is an MlpMixer."""
    if not isinstance(model, MlpMixer):
        raise ValueError(f"This view shows an MlpMixer, not a {type(model).__name__}: give load_pretrained('mnist').")


def about(model):
    """What ``load_checkpoint`` and ``load_pretrained`` know about a model; {} for any other one."""
    return getattr(model, "about", {})


def example_images(model, images=None):
    """The images a view shows, uint8 (N, in_channels, H, W), and the mean and std (0 to 1) that the model is fed with.

    images: uint8 (N, in_channels, H, W), else the first test image of each class of the data that the model was trained
    on, MNIST where it does not say. Mean and std are the model's own, else those of the data, else what the paper's
    authors feed, -1 to 1. Raises ValueError, in one sentence, for images that the model does not take.
    """
    channels = model.image_shape[0]
    mean = [0.5] * channels
    std = [0.5] * channels
    if images is None:
        name = about(model).get("dataset", "mnist")
        data = load_dataset(name if name in ("fashion-mnist", "cifar10", "digits") else "mnist")
        _, first = np.unique(data.test.labels.numpy(), return_index=True)
        images = data.test.images[first]
        mean = data.mean
        std = data.std
    images = torch.as_tensor(images).cpu()
    fits = images.dtype == torch.uint8 and images.ndim == 4 and tuple(images.shape[1:]) == model.image_shape
    if not fits or len(images) == 0:
        raise ValueError(
            f"The model takes images uint8 (N, {', '.join(map(str, model.image_shape))}), not "
            f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}: give images= of that kind."
        )
    return images.numpy(), list(about(model).get("mean", mean)), list(about(model).get("std", std))
