"""Exercises of notebook 01, patch embedding."""

import torch
from torch.nn import functional as F

from mixer_utils.exercises.exercise import Exercise
from mixer_utils.model import PatchEmbedding


def rearranged(split, order):
    """A ``put_together``: patches read with the sizes in ``split``, put into ``order``, then read as images.

    Letters: B image, h w place of the patch, c channel, p q place inside the patch.
    """

    def answer(patches, in_channels, height, width, patch_size):
        sizes = {
            "B": len(patches),
            "h": height // patch_size,
            "w": width // patch_size,
            "c": in_channels,
            "p": patch_size,
            "q": patch_size,
        }
        pieces = patches.reshape([sizes[letter] for letter in split])
        return pieces.permute([split.index(letter) for letter in order]).reshape(-1, in_channels, height, width)

    return answer


def folded(patches, in_channels, height, width, patch_size):
    """A ``put_together`` by the library."""
    return F.fold(patches.transpose(1, 2), (height, width), patch_size, stride=patch_size)


def some_patches():
    """(patches, in_channels, height, width, patch_size), where every number of the images is another."""
    cases = []
    for B, in_channels, height, width, P in [(2, 3, 4, 6, 2), (1, 1, 9, 6, 3), (3, 2, 10, 5, 5)]:
        images = torch.arange(B * in_channels * height * width).reshape(B, in_channels, height, width)
        patches = F.unfold(images.float(), P, stride=P).transpose(1, 2)
        cases.append((patches, in_channels, height, width, P))
    return cases


def changed_tokens(stem, images, row, column):
    """(B, S, C): True where a change of one pixel changes a token's channel."""
    other = images.clone()
    other[0, 0, row, column] += 1
    return (stem(other) - stem(images)).abs() > 1e-6


def some_stems():
    """(stem, images, row, column): a stem for grey images, one whose patches overlap, and one for colour."""
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(1, 5, kernel_size=4, stride=2).requires_grad_(False)
    # Two channels see half of each patch: so a look at a single channel, or at all, is told from a look at any.
    convolution.weight[0, :, :2] = 0
    convolution.weight[1, :, :, :2] = 0
    grey = PatchEmbedding(1, 2, 7).requires_grad_(False)
    colour = PatchEmbedding(3, 2, 7).requires_grad_(False)

    def overlapping(images):
        return convolution(images).flatten(2).transpose(1, 2)

    return [
        (grey, torch.zeros(2, 1, 6, 10), 1, 4),
        (overlapping, torch.ones(3, 1, 8, 12), 5, 3),
        (colour, torch.ones(1, 3, 4, 8), 3, 2),
    ]


EXERCISES = {
    "01.1": Exercise(
        reference=lambda height, width, P: F.unfold(torch.zeros(1, 1, height, width), P, stride=P).shape[2],
        inputs=lambda: [(28, 20, 4), (6, 10, 2), (160, 224, 16)],
        mistakes={
            "this takes the image to be square: count the rows of patches from height and the columns from width": (
                lambda height, width, P: (height // P) ** 2
            ),
            "this takes the image to be square: count the columns of patches from width and the rows from height": (
                lambda height, width, P: (width // P) ** 2
            ),
            "a patch covers P * P pixels, and you divided by P only once: divide both sides": (
                lambda height, width, P: height * width // P
            ),
            "rows and columns of patches were added: each row holds all the columns, so multiply": (
                lambda height, width, P: height // P + width // P
            ),
            "this is the number of pixels in one patch: S is the number of patches in the image": (
                lambda height, width, P: P * P
            ),
        },
        hints=(
            "section 1 gives S in one formula",
            "H / P is the number of rows of patches and W / P that of columns; // divides whole numbers",
        ),
    ),
    "01.2": Exercise(
        reference=folded,
        inputs=some_patches,
        mistakes={
            "the permute is missing: each patch was spilled along an image row. Split into six dimensions, permute so "
            "that the patch row stands beside the row inside it, then reshape": (rearranged("Bhwcpq", "Bhwcpq")),
            "the patches were placed in column order: split S into (height / P, width / P), in this order": (
                rearranged("Bwhcpq", "Bchpwq")
            ),
            "the pixels inside each patch are mirrored at the diagonal: the row inside a patch goes beside the patch "
            "row, the column beside the patch column": (rearranged("Bhwcpq", "Bchqwp")),
            "the channel was read as the fastest index: here a patch is stored as channel, row, column": (
                rearranged("Bhwpqc", "Bchpwq")
            ),
            "this is the permute of section 3, which cuts: you go the other way, so find the order that undoes it": (
                rearranged("Bhwcpq", "Bwphcq")
            ),
            "the first reshape is that of section 3, which splits an image: split S into (height / P, width / P) and "
            "the last dimension into (in_channels, P, P)": (rearranged("Bchpwq", "Bhwcpq")),
            "rows and columns of the images are swapped: the last two dimensions are height and width": (
                lambda *inputs: folded(*inputs).transpose(2, 3)
            ),
            "the channels are missing among the dimensions: there are six, with in_channels before the row and the "
            "column inside a patch": (rearranged("Bhwpq", "Bhpwq")),
            "F.fold wants the patches in the columns, (B, in_channels * P * P, S): transpose(1, 2) before it": (
                lambda patches, in_channels, height, width, P: F.fold(patches, (height, width), P, stride=P)
            ),
        },
        hints=(
            "first give every number its six indices, as in section 3: which six are they here, and in which order?",
            "S splits into (height // P, width // P) and the last dimension into (in_channels, P, P)",
            "an image is read channel, patch row, row inside, patch column, column inside: permute into that order",
            "after the first reshape these are the dimensions 0, 3, 1, 4, 2 and 5; the last reshape merges each pair",
        ),
    ),
    "01.3": Exercise(
        reference=lambda *inputs: changed_tokens(*inputs)[0].any(dim=1),
        inputs=some_stems,
        mistakes={
            "no token changed. Either the pixel was set to the value it had (add to it instead), or the copy shares "
            "its memory with images (use images.clone())": (
                lambda *inputs: torch.zeros_like(changed_tokens(*inputs)[0, :, 0])
            ),
            "this has one entry for each channel: collect changes over the last dimension, not over the tokens": (
                lambda *inputs: changed_tokens(*inputs)[0].any(dim=0)
            ),
            "row and column are swapped: images are indexed [image, channel, row, column]": (
                lambda stem, images, row, column: changed_tokens(stem, images, column, row)[0].any(dim=1)
            ),
            "this holds all images of the batch: return image 0 only, as (S,)": (
                lambda *inputs: changed_tokens(*inputs).any(dim=2)
            ),
            "this still holds every channel: a token has changed where any of its C numbers has": (
                lambda *inputs: changed_tokens(*inputs)[0]
            ),
            "True and False are swapped: True is for tokens that change": (
                lambda *inputs: ~changed_tokens(*inputs)[0].any(dim=1)
            ),
            "these are the places of the tokens in the list: return True or False for each of the S tokens": (
                lambda *inputs: changed_tokens(*inputs)[0].any(dim=1).nonzero().flatten()
            ),
            "this looks at channel 0 of the tokens alone: a token has changed where any of its C numbers has": (
                lambda *inputs: changed_tokens(*inputs)[0, :, 0]
            ),
            "this asks that all C numbers of a token change: one that changes is enough, so any and not all": (
                lambda *inputs: changed_tokens(*inputs)[0].all(dim=1)
            ),
            "the stem wants a batch, and images[0] has lost that dimension: use images[:1]": (
                lambda stem, images, row, column: stem(images[0])
            ),
        },
        hints=(
            "what would you compare if you had two photographs that differ in one pixel?",
            "run the stem on images, and on a copy in which that one pixel has another value; clone() makes the copy",
            "take the tokens of image 0 from both, (S, C), and ask for each token whether any of its C numbers differs",
            "(after - before).abs() > 1e-6 is True where a number has changed; .any(dim=1) asks over the channels",
        ),
    ),
}

PREDICTIONS = {"01.1": 3, "01.2": 3, "01.3": 3, "01.4": 4}
