"""Figures of notebook 01, patch embedding."""

import torch
from torch.nn import functional as F

from mixer_utils.plotting import BLUE, COLOURS, ORANGE, figure, plot_images, plot_maps


def addresses(image, P):
    """The pixels' numbers, (1, 1, 4, 6), each patch of P x P in its colour and with its own number, from 0."""
    H, W = image.shape[2:]
    picture, ax = figure(size=(5.4, 3.4), alt=(
        "A grid of 4 by 6 pixels in six coloured squares of 2 by 2. Patches 0, 1 and 2 fill the upper half from left "
        "to right, patches 3, 4 and 5 the lower half."))  # fmt: skip
    for row in range(H):
        for column in range(W):
            number = row // P * (W // P) + column // P
            ax.fill_between([column, column + 1], row, row + 1, color=COLOURS[number], alpha=0.3, lw=0)
            address = f"{image[0, 0, row, column]:02d}"
            ax.text(column + 0.5, row + 0.5, address, ha="center", va="center", fontsize=13)
            if row % P == column % P == 0:
                ax.text(column + 0.06, row + 0.22, f"patch {number}", fontsize=9)
    ax.vlines(range(0, W + 1, P), 0, H, "black")
    ax.hlines(range(0, H + 1, P), 0, W, "black")
    ax.set(xlim=(0, W), ylim=(H, 0), aspect="equal")
    ax.axis("off")
    return picture


def cut(digit, patches, finer, wrong):
    """A digit (1, 28, 28); its patches (16, 49) and (49, 16); and 16 squares of 49 pixels that are no patches."""
    shown = [digit, spread(patches), spread(finer), spread(wrong)]
    titles = ["28 x 28 pixels", "P = 7, S = 16", "P = 4, S = 49", "P = 7, permute forgotten"]
    return plot_images(shown, titles, columns=4, size=2, alt=(
        "A handwritten digit; the same digit cut into 16 and into 49 patches, still readable; and, where the permute "
        "was forgotten, 16 squares of broken stripes."))  # fmt: skip


def spread(patches):
    """Patches (S, P*P) of a square image, laid out in rows with a grey gap between them: (1, side, side)."""
    S, pixels = patches.shape
    P = round(pixels**0.5)
    tiles = F.pad(patches.reshape(S, P, P), (1, 1, 1, 1), value=110)
    return F.fold(tiles.flatten(1).T[None], round(S**0.5) * (P + 2), P + 2, stride=P + 2)[0]


def stems(untrained, trained):
    """The first 24 filters, (N, P, P), of an untrained and of a trained stem, two rows each."""
    titles = ["untrained"] + 23 * [""] + ["trained"] + 23 * [""]
    return plot_maps(torch.cat([untrained[:24], trained[:24]]), titles, size=0.62, alt=(
        "Four rows of 12 filters, the upper two untrained and the lower two trained, on one colour scale. The "
        "untrained ones are noise."))  # fmt: skip


def costs(tables):
    """Multiply-adds against P; ``tables`` is {side of the image: [(P, S, of the stem, of one block)]}."""
    picture, axes = figure(1, 2, (8, 3.2), alt=(
        "Two panels with logarithmic axes, for 28-pixel and for 224-pixel images. In both, the line of one block falls "
        "to a quarter each time P doubles; that of the stem is level."
    ))  # fmt: skip
    for ax, (side, rows) in zip(axes, tables.items(), strict=True):
        P, S, of_stem, of_block = zip(*rows, strict=True)
        ax.loglog(P, of_block, "o-", color=BLUE, label="one Mixer block")
        ax.loglog(P, of_stem, "s--", color=ORANGE, label="stem")
        ax.set_xticks(P, [f"{p}\nS = {s}" for p, s in zip(P, S, strict=True)])
        ax.minorticks_off()
        ax.set(title=f"{side} x {side} pixels", xlabel="patch size P")
        ax.grid(alpha=0.25)
    axes[0].set_ylabel("multiply-adds for one image")
    axes[0].legend(fontsize=9)
    return picture
