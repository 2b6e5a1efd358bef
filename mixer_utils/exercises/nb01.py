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
        sizes = {"B": len(patches), "h": height // patch_size, "w": width // patch_size, "c": in_channels,
                 "p": patch_size, "q": patch_size}  # fmt: skip
        pieces = patches.reshape([sizes[letter] for letter in split])
        return pieces.permute([split.index(letter) for letter in order]).reshape(-1, in_channels, height, width)

    return answer


def some_patches():
    for B, in_channels, height, width, P in [(2, 3, 4, 6, 2), (1, 1, 9, 6, 3), (3, 2, 10, 5, 5)]:
        images = torch.arange(B * in_channels * height * width).reshape(B, in_channels, height, width)
        yield F.unfold(images.float(), P, stride=P).transpose(1, 2), in_channels, height, width, P


def changed_tokens(stem, images, row, column):
    """(B, S, C): True where a change of one pixel changes a token's channel."""
    other = images.clone()
    other[0, 0, row, column] += 1
    return (stem(other) - stem(images)).abs() > 1e-6


def some_stems():
    torch.manual_seed(0)
    overlapping = torch.nn.Conv2d(1, 5, kernel_size=4, stride=2).requires_grad_(False)
    grey, colour = (PatchEmbedding(in_channels, 2, 7).requires_grad_(False) for in_channels in (1, 3))
    yield grey, torch.zeros(2, 1, 6, 10), 1, 4
    yield lambda images: overlapping(images).flatten(2).transpose(1, 2), torch.ones(3, 1, 8, 12), 5, 3
    yield colour, torch.ones(1, 3, 4, 8), 3, 2


EXERCISES = {
    "01.1": Exercise(
        reference=lambda height, width, P: (height // P) * (width // P),
        inputs=lambda: [(28, 20, 4), (4, 6, 2), (160, 224, 16)],
        mistakes={
            "this takes the image to be square: count the rows of patches from height and the columns from width":
                lambda height, width, P: (height // P) ** 2,
            "this takes the image to be square: count the columns of patches from width and the rows from height":
                lambda height, width, P: (width // P) ** 2,
            "a patch covers P * P pixels, and you divided by P only once: divide both sides":
                lambda height, width, P: height * width // P,
            "rows and columns of patches were added: each row holds all the columns, so multiply":
                lambda height, width, P: height // P + width // P,
            "this is the number of pixels in one patch: S is the number of patches in the image":
                lambda height, width, P: P * P,
        },
    ),
    "01.2": Exercise(
        reference=rearranged("Bhwcpq", "Bchpwq"),
        inputs=lambda: list(some_patches()),
        mistakes={
            "the permute is missing: each patch was spilled along an image row. Split into six dimensions, permute so "
            "that the patch row stands beside the row inside it, then reshape": rearranged("Bhwcpq", "Bhwcpq"),
            "the patches were placed in column order: split S into (height / P, width / P), in this order":
                rearranged("Bwhcpq", "Bchpwq"),
            "the pixels inside each patch are mirrored at the diagonal: the row inside a patch goes beside the patch "
            "row, the column beside the patch column": rearranged("Bhwcpq", "Bchqwp"),
            "the channel was read as the fastest index: here a patch is stored as channel, row, column":
                rearranged("Bhwpqc", "Bchpwq"),
            "this is the permute of section 3, which cuts: you go the other way, so find the order that undoes it":
                rearranged("Bhwcpq", "Bwphcq"),
        },
    ),
    "01.3": Exercise(
        reference=lambda *inputs: changed_tokens(*inputs)[0].any(dim=1),
        inputs=lambda: list(some_stems()),
        mistakes={
            "no token changed. Either the pixel was set to the value it had (add to it instead), or the copy shares "
            "its memory with images (use images.clone())":
                lambda *inputs: torch.zeros_like(changed_tokens(*inputs)[0, :, 0]),
            "this has one entry for each channel: collect changes over the last dimension, not over the tokens":
                lambda *inputs: changed_tokens(*inputs)[0].any(dim=0),
            "row and column are swapped: images are indexed [image, channel, row, column]":
                lambda stem, images, row, column: changed_tokens(stem, images, column, row)[0].any(dim=1),
            "this holds all images of the batch: return image 0 only, as (S,)":
                lambda *inputs: changed_tokens(*inputs).any(dim=2),
            "True and False are swapped: True is for tokens that change":
                lambda *inputs: ~changed_tokens(*inputs)[0].any(dim=1),
        },
    ),
}  # fmt: skip

PREDICTIONS = {}
