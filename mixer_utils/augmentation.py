"""Augmentation: a whole batch at once, every image changed by its own row of random numbers.

``numbers`` are uniform in [0, 1), one row an image. What is done to an image follows from its row alone: the same
numbers give the same images on every device, and on one machine or eight. (``mixup`` blends neighbours of a batch, and
so depends on who shares it.)
"""

import math
import random

import torch
from torch.nn import functional as F

GRID = 5  # elastic deformation: the points, each way, that are moved by hand; the pixels between follow smoothly
SHIFT_NUMBERS = 2
AFFINE_NUMBERS = 6 + 2 * GRID**2
FLIP_NUMBERS = 1
ERASE_NUMBERS = 2


def random_shift(images, most, numbers=None):
    """Move every image by its own random whole number of pixels, at most ``most`` each way; zeros come in behind.

    Shape: (B, in_channels, H, W) -> the same. numbers: (B, 2), else drawn here.
    """
    batch, _, height, width = images.shape
    numbers = torch.rand(batch, SHIFT_NUMBERS, device=images.device) if numbers is None else numbers
    down, right = (numbers * (2 * most + 1)).long().T
    # Every window that a shift can leave, as a view that copies nothing: (B, in_channels, down, right, H, W).
    windows = F.pad(images, (most,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(batch, device=images.device), :, down, right]


def random_affine(images, rotation=0.0, scale=0.0, shear=0.0, translation=0.0, elastic=0.0, numbers=None):
    """Turn, stretch, slant, move and bend every image, each by its own random amounts; zeros come in from outside.

    Shape: uint8 (B, in_channels, H, W) -> the same. At most: ``rotation`` in degrees, ``scale`` and ``shear`` as shares
    (0.1 is 10 %), ``translation`` and ``elastic`` in pixels. ``elastic`` moves the points of a 5 x 5 grid and all
    between them smoothly (some of those a little further), after Simard et al., "Best Practices for Convolutional
    Neural Networks Applied to Visual Document Analysis" (2003).

    numbers: (B, 56), else drawn here. They stand for the rotation (0 is clockwise, 1 is counter-clockwise), for width
    and height (0 enlarges, 1 shrinks), the slant, the move right (0) or left (1) and down (0) or up (1), and the grid.
    """
    batch, _, height, width = images.shape
    numbers = torch.rand(batch, AFFINE_NUMBERS, device=images.device) if numbers is None else numbers
    by = numbers * 2 - 1
    angle = by[:, 0] * math.radians(rotation)
    cos = angle.cos()
    sin = angle.sin()
    wide = 1 + by[:, 1] * scale
    high = 1 + by[:, 2] * scale
    slant = by[:, 3] * shear
    half = torch.tensor([width / 2, height / 2], device=images.device)  # grid_sample's unit is half an image
    move = by[:, 4:6] * translation / half
    # Where each pixel of the new image is taken from. x and y are counted in half widths and half heights: what goes
    # from one to the other is scaled by the ratio of the two, or a turned image that is not square would be squeezed.
    x_from_y = (slant - sin) * high * (height / width)
    y_from_x = sin * wide * (width / height)
    matrix = torch.stack([cos * wide, x_from_y, move[:, 0], y_from_x, cos * high, move[:, 1]], 1)
    grid = F.affine_grid(matrix.view(batch, 2, 3), [batch, 1, height, width], align_corners=False)
    if elastic:
        bend = by[:, 6:].reshape(batch, 2, GRID, GRID) * elastic
        bend = F.interpolate(bend, size=(height, width), mode="bicubic", align_corners=True)
        grid = grid + bend.permute(0, 2, 3, 1) / half
    moved = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.round().to(images.dtype)


def random_flip(images, chance, numbers=None):
    """Mirror every image, left for right, with the given ``chance``.

    Shape: (B, in_channels, H, W) -> the same. numbers: (B, 1), else drawn here.
    """
    numbers = torch.rand(len(images), FLIP_NUMBERS, device=images.device) if numbers is None else numbers
    return torch.where(numbers.view(-1, 1, 1, 1) < chance, images.flip(-1), images)


def random_erase(images, side, numbers=None):
    """Set a square of ``side`` x ``side`` pixels of every image to zero; its centre may be any pixel.

    Shape: (B, in_channels, H, W) -> the same. numbers: (B, 2), else drawn here: the centre, from the top (0) to the
    bottom (1) and from left to right. Source: DeVries and Taylor, "Improved Regularization of Convolutional Neural
    Networks with Cutout" (2017), https://arxiv.org/abs/1708.04552.
    """
    batch, _, height, width = images.shape
    numbers = torch.rand(batch, ERASE_NUMBERS, device=images.device) if numbers is None else numbers
    first = (numbers * torch.tensor([height, width], device=images.device)).long() - side // 2
    rows, columns = (torch.arange(size, device=images.device) for size in (height, width))
    rows = (rows >= first[:, :1]) & (rows < first[:, :1] + side)
    columns = (columns >= first[:, 1:]) & (columns < first[:, 1:] + side)
    return images.masked_fill((rows[:, :, None] & columns[:, None])[:, None], 0)


def mixup(images, labels, num_classes, alpha, seed):
    """Blend every image with the next one of the batch (the last with the first), and their labels alike.

    Shape: float images (B, in_channels, H, W), labels int64 (B,) -> the blended images, and the classes' shares in each
    of them, float32 (B, num_classes). The blend is the same for the whole batch: a share drawn from Beta(alpha, alpha)
    with the whole number ``seed``; alpha 0 blends nothing. Source: Zhang et al., "mixup: Beyond Empirical Risk
    Minimization", ICLR 2018, https://arxiv.org/abs/1710.09412.
    """
    shares = F.one_hot(labels, num_classes).float()
    if alpha == 0:
        return images, shares
    share = random.Random(seed).betavariate(alpha, alpha)
    return images.roll(-1, 0).lerp(images, share), shares.roll(-1, 0).lerp(shares, share)
