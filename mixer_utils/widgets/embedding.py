"""View 4: the patch embedding: the cut, the filters, and an image rebuilt. The front-end is embedding.js."""

import numpy as np
import torch
import traitlets

from mixer_utils import mixing, plotting
from mixer_utils.data import normalize
from mixer_utils.model import MlpMixer, count_parameters, multiply_adds
from mixer_utils.widgets import base
from mixer_utils.widgets.base import (
    Index,
    View,
    Whole,
    check_model,
    choice,
    example_images,
    packed,
    packed_colours,
    room,
    signed_colours,
)

LIVE = 0.01  # a filter with less of the largest norm than this is called dead


def explore_embedding(model, images=None):
    """The patch embedding: an image cut at any patch size and what it costs, the learned filters, and what they keep.

    model: an MlpMixer for images of 1 or 3 channels. images: uint8 (N, in_channels, H, W), else one MNIST test image of
    each class. "Rebuilt from the first k filters" is each patch's projection onto the span of these filters, in the
    normalised pixels that the stem reads: all that the first k numbers of a token can tell of its patch. Errors are in
    normalised pixels too; no filter at all leaves the mean of the training images. Of very wide stems, as many filters
    are used for rebuilding as 10 MB allow. Raises ValueError for something else than an MlpMixer, for images of another
    number of channels, for images that do not fit the model, and for more than 2 MB of them.
    """
    return EmbeddingView(model, images)


class EmbeddingView(View):
    """The stem: its cut, its filters, and an image rebuilt. Traits: image, patch_size, sort, scale, filter, k."""

    view = traitlets.Unicode("embedding").tag(sync=True)
    image = Index("num_images")
    patch_size = Whole(1).tag(sync=True)
    sort = choice("norm", "frequency", "number")
    scale = choice("shared", "each")
    filter = Index("num_filters")
    k = Index("num_k")

    def __init__(self, model, images=None):
        check_model(model)
        channels = model.image_shape[0]
        if channels not in (1, 3):
            raise ValueError(f"The model's images have {channels} channels: this view draws 1 (grey) or 3 (colour).")
        images, mean, std = example_images(model, images)
        if images.nbytes > base.MOST_SENT // 5:
            most = base.MOST_SENT // 5 // images[0].nbytes
            raise ValueError(f"{len(images)} images are too many to send: give at most {most} of them.")

        P = model.config["patch_size"]
        normal = normalize(torch.from_numpy(images), mean, std).double().numpy()
        self.patches = to_patches(normal, P)  # (N, S, in_channels * P * P)
        self.filters = model.stem.proj.weight.detach().float().cpu().flatten(1).numpy()  # (C, in_channels * P * P)
        found = frequencies(self.filters, channels)
        orders = {
            "norm": mixing.by_norm(self.filters),
            "frequency": np.argsort(found, kind="stable"),
            "number": np.arange(len(self.filters)),
        }
        most, dtype = rows_that_fit(self.filters, images, len(orders))
        self.sorts = {
            sort: {"order": order, **spans(self.filters[order], self.patches, most)} for sort, order in orders.items()
        }
        num_k = min(int(np.searchsorted(result["ranks"], most + 1)) for result in self.sorts.values())
        norms = np.linalg.norm(self.filters, axis=1)
        super().__init__(
            data={
                "image_shape": list(model.image_shape),
                "own_patch_size": P,
                "num_images": len(images),
                "num_filters": len(self.filters),
                "num_k": num_k,
                "num_dead": int((norms <= LIVE * norms.max()).sum()),
                "mean": mean,
                "std": std,
                "images": packed(images),
                "colours": packed_colours(),
                "filters": packed(self.filters, dtype),
                "bias": packed(model.stem.proj.bias.detach().float().cpu().numpy()),
                "frequencies": packed(found, "float32"),
                "costs": costs(model),
                "sorts": {sort: packed_spans(result, dtype) for sort, result in self.sorts.items()},
            }
        )
        self.patch_size = P
        self.filter = int(orders["norm"][0])
        self.k = min(16, num_k - 1)

    @traitlets.validate("patch_size")
    def check_patch_size(self, proposal):
        sizes = [cost["patch_size"] for cost in self.data["costs"]]
        if proposal["value"] not in sizes:
            _, height, width = self.data["image_shape"]
            raise traitlets.TraitError(
                f"patch_size is {proposal['value']}: a size that divides {height} x {width} is one of "
                f"{', '.join(map(str, sizes))}."
            )
        return proposal["value"]

    def rebuilt(self):
        """The chosen image from the first k filters, normalised as the model sees it: (in_channels, H, W)."""
        chosen = self.sorts[self.sort]
        basis = chosen["basis"][: chosen["ranks"][self.k]]
        return from_patches(self.patches[self.image] @ basis.T @ basis, self.data["image_shape"])

    def error(self):
        """What ``rebuilt`` misses: the mean squared error, and the share of the mean square that is explained."""
        chosen = self.sorts[self.sort]
        errors = chosen["errors"][self.image]
        error = errors[chosen["ranks"][self.k]]
        return error, 1 - error / (errors[0] or 1)

    def picture(self):
        order = self.sorts[self.sort]["order"][:64]
        error, share = self.error()
        alt = (
            f"Five panels: {len(order)} of the stem's {self.data['num_filters']} filters sorted by {self.sort}; an "
            f"image; the image rebuilt from the first {self.k} filters, {share:.1%} of it explained; the difference; "
            f"and the error, which falls as more filters are used and is {error:.3g} at {self.k}."
        )
        picture, axes = plotting.figure(1, 5, (10, 2.3), alt)
        image = from_patches(self.patches[self.image], self.data["image_shape"])
        rebuilt = self.rebuilt()
        sheet = self.sheet(order)
        panels = {
            "filters": as_colours(sheet, np.abs(sheet).max()),
            "image": self.as_pixels(image),
            f"from {self.k} filters": self.as_pixels(rebuilt),
            "difference": as_colours(rebuilt - image, np.abs(image).max()),
        }
        for ax, (title, pixels) in zip(axes, panels.items(), strict=False):
            ax.imshow(pixels)
            ax.set_title(title, fontsize=9)
            ax.axis("off")
        chosen = self.sorts[self.sort]
        axes[4].plot(chosen["errors"][self.image][chosen["ranks"]], color=plotting.BLUE)
        axes[4].plot(self.k, error, "o", color=plotting.ORANGE)
        axes[4].set(xlabel="filters", ylim=(0, None))
        axes[4].set_title("mean squared error", fontsize=9)
        return picture

    def sheet(self, chosen):
        """These filters in rows of 8, with a gap of one number after each: (in_channels, h, w)."""
        channels = self.data["image_shape"][0]
        P = self.data["own_patch_size"]
        filters = self.filters[chosen].reshape(-1, channels, P, P)
        filters = np.pad(filters, ((0, -len(chosen) % 8), (0, 0), (0, 1), (0, 1)))
        return from_patches(filters.reshape(len(filters), -1), (channels, len(filters) // 8 * (P + 1), 8 * (P + 1)))

    def as_pixels(self, image):
        """A normalised image (in_channels, H, W) as the pixels it stands for: uint8 (H, W, 3)."""
        mean = np.array(self.data["mean"])[:, None, None]
        std = np.array(self.data["std"])[:, None, None]
        pixels = ((image * std + mean) * 255).round().clip(0, 255).astype(np.uint8)
        return np.broadcast_to(np.moveaxis(pixels, 0, -1), (*pixels.shape[1:], 3))


# --- patches, filters and colours -------------------------------------------------------------------------------------


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
    by_channel = mixing.frequency(maps, (P, P)).reshape(-1, channels)
    return (power * by_channel).sum(1) / np.maximum(power.sum(1), 1e-12)


# --- rebuilding -------------------------------------------------------------------------------------------------------


def rows_that_fit(filters, images, num_sorts):
    """How many rows of each sort's basis can be sent, and in which dtype: single precision where that takes little."""
    rank = min(filters.shape)
    row = filters.shape[1]
    whole = 4 * row * (len(filters) + num_sorts * rank)
    dtype = "float32" if whole < room() // 2 else "float16"
    size = np.dtype(dtype).itemsize
    each = num_sorts * (size * row + 4 * len(images))  # a row, and the errors of all images with it
    most = min(rank, room(images.nbytes, size * filters.size) // each)
    return most, dtype


def spans(filters, patches, most):
    """What is known of patches (N, S, D) from the first filters (C, D) alone.

    "basis": orthonormal rows (r, D), r at most ``most``; "ranks": (C + 1,), how many of them span the first k filters;
    "errors": (N, r + 1), the mean squared error of the projection onto the first rows.
    """
    rows = np.float64(filters)
    norms = np.linalg.norm(rows, axis=1)
    used = np.flatnonzero(norms > 1e-6 * norms.max())
    while True:  # a filter that the ones before it span already is left out; there are hardly ever any
        used_now = used[: rows.shape[1]]
        directions, triangle = np.linalg.qr(rows[used_now].T)
        spanned = np.abs(np.diag(triangle)) < 1e-5 * norms[used_now]
        if not spanned.any():
            break
        used = np.delete(used, spanned.argmax())
    ranks = np.searchsorted(used_now, np.arange(len(rows) + 1))  # how many used ones are among the first k
    basis = directions.T[:most]
    known = np.cumsum(np.square(patches @ basis.T).sum(1), axis=1)  # by Pythagoras, one more row adds its square
    total = np.square(patches).sum((1, 2))[:, None]
    errors = np.maximum(total - np.pad(known, ((0, 0), (1, 0))), 0) / patches[0].size
    return {"basis": basis, "ranks": ranks, "errors": errors}


def packed_spans(result, dtype):
    """What ``spans`` gives, and the order of the filters, as it is sent."""
    return {
        "order": packed(result["order"], "int32"),
        "ranks": packed(result["ranks"], "int32"),
        "basis": packed(result["basis"], dtype),
        "errors": packed(result["errors"], "float32"),
    }


# --- the cost ---------------------------------------------------------------------------------------------------------


def costs(model):
    """What the model would cost at every patch size that divides its images, with its own widths: a dict for each.

    "patch_size", "tokens", "numbers" (in a patch), "multiply_adds" of one image's forward pass, and "parameters".
    """
    channels, height, width = model.image_shape
    sizes = [size for size in range(1, min(height, width) + 1) if height % size == 0 and width % size == 0]
    result = []
    for size in sizes:
        config = {**model.config, "patch_size": size}
        with torch.device("meta"):  # no memory for the weights: they are only counted
            other = MlpMixer(**config)
        cost = {
            "patch_size": size,
            "tokens": other.num_tokens,
            "numbers": channels * size**2,
            "multiply_adds": multiply_adds(config),
            "parameters": count_parameters(other),
        }
        result.append(cost)
    return result
