"""What must hold of a split before a model meets it: each mistake is told in one sentence, not by a layer far below."""

import dataclasses

import torch


def checked(split, data, called):
    """``split`` with int64 labels, once it has been seen that it fits ``data``.

    Labels may be whole numbers of any kind, from 0 to the number of classes less one. Raises ValueError for others, for
    images that are not uint8 (N, in_channels, H, W), and where there are not as many of the ones as of the others.
    ``called`` is what messages call the split: "the test split".
    """
    labels = split.labels
    check_labels(labels, called)
    images = getattr(split, "images", None)  # not there where they are read from files
    if images is not None:
        check_images(images, called)
        if len(images) != len(labels):
            raise ValueError(
                f"There are {len(images):,} images and {len(labels):,} labels in {called}: give one label an image."
            )
    check_classes(labels, data, called)
    return split if labels.dtype == torch.int64 else dataclasses.replace(split, labels=labels.long())


def check_labels(labels, called):
    """Raise ValueError unless labels are whole numbers, (N,)."""
    check_tensor(labels, f"The labels of {called}")
    if labels.ndim != 1:
        if labels.ndim == 2:
            remedy = "labels.flatten() does that" if labels.shape[1] == 1 else "from one-hot labels, labels.argmax(1)"
        else:
            remedy = "a class for each pixel would be segmentation, and this classifies whole images"
        raise ValueError(
            f"The labels of {called} have the shape {tuple(labels.shape)}, expected one whole number an image, (N,): "
            f"{remedy}."
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"The labels of {called} are {labels.dtype}, expected whole numbers: give labels.long().")


def check_images(images, called):
    """Raise ValueError unless images are uint8, (N, in_channels, H, W)."""
    check_tensor(images, f"The images of {called}")
    if images.dtype != torch.uint8:
        raise ValueError(
            f"The images of {called} are {images.dtype}, expected uint8 (0 to 255): from brightnesses between 0 and 1, "
            "give (images * 255).round().to(torch.uint8)."
        )
    if images.ndim != 4:
        grey = ": images[:, None] adds the one channel of grey images" if images.ndim == 3 else ""
        raise ValueError(
            f"The images of {called} have the shape {tuple(images.shape)}, expected (N, in_channels, H, W){grey}."
        )


def check_tensor(values, called):
    """Raise ValueError unless ``values`` are a tensor."""
    if not isinstance(values, torch.Tensor):
        raise ValueError(f"{called} are a {type(values).__name__}, expected a tensor: give torch.as_tensor(...) of it.")


def check_classes(labels, data, called):
    """Raise ValueError unless every label is the number of a class of ``data``."""
    if not len(labels):
        raise ValueError(f"There are no images in {called}: give at least one.")
    count = len(data.class_names)
    lowest, highest = labels.min().item(), labels.max().item()
    if 0 <= lowest and highest < count:
        return
    if (lowest, highest) == (1, count):
        remedy = "give labels - 1"
    elif lowest < 0:
        remedy = "leave those images out, as in split[split.labels >= 0]"
    else:
        remedy = "leave those images out, or give the Dataset a name for each class"
    raise ValueError(
        f"The labels of {called} run from {lowest} to {highest}, but {data.name} has {count} classes, 0 to "
        f"{count - 1}: {remedy}."
    )
