"""Figures of notebook 03, channel mixing: who notices a change, what excites a hidden unit, tokens in the plane."""

import numpy as np
from matplotlib.patches import Rectangle

from mixer_utils.plotting import BLUE, COLOURS, COUNTED, GREY, ORANGE, RED, figure


def disturbed(changes):
    """How much each token (rows) and channel (columns) changes; changes: {name: (S, C)}, one panel each."""
    picture, axes = figure(1, len(changes), (8, 3.4), sharey=True, alt=(
        "Change in each token (rows) and channel (columns) after token 5 was disturbed. Channel mixing: row 5 alone is "
        "coloured. Token mixing: colour in every row."))  # fmt: skip
    for ax, (name, change) in zip(axes, changes.items(), strict=True):
        ax.imshow(change.numpy(), cmap=COUNTED, vmin=0, aspect="auto")
        ax.set(title=name, xlabel="channel", yticks=range(0, len(change), 2))
    axes[0].set_ylabel("token")
    return picture


def strongest_patches(images, rows, P):
    """For each unit a row of images, a frame around the patch that excites it.

    images: (N, 1, H, W); rows: (label, which images, which patches of them), two lists of equal length; P: patch side.
    """
    H, W = images.shape[-2:]
    gap, most = 3, max(len(which) for _, which, _ in rows)
    canvas = np.full((len(rows) * (H + gap) - gap, most * (W + gap) - gap), np.nan)
    picture, ax = figure(size=(8, 8 * canvas.shape[0] / (canvas.shape[1] + 58)), alt=(
        "Rows of nine digits, a row for each hidden unit, a frame around the patch that excites it most. Trained, "
        "block 0: strokes that look alike, in various digits. Trained, block 3: one digit nine times, with empty "
        "patches framed, and a row of fours, zeros and twos. Random starts: various digits in both blocks."
    ))  # fmt: skip
    for i, (label, which, where) in enumerate(rows):
        top = i * (H + gap)
        ax.text(-6, top + H / 2, label, ha="right", va="center", fontsize=9)
        for j, (image, patch) in enumerate(zip(which, where, strict=True)):
            left = j * (W + gap)
            canvas[top : top + H, left : left + W] = images[image, 0]
            corner = (left + patch % (W // P) * P - 0.5, top + patch // (W // P) * P - 0.5)
            ax.add_patch(Rectangle(corner, P, P, fill=False, ec=ORANGE, lw=1.6))
    ax.imshow(canvas, cmap="gray")
    ax.set_xlim(-58, canvas.shape[1])
    ax.axis("off")
    return picture


def planes(first, ink, last, labels):
    """Tokens before and after channel mixing, in two dimensions each: the first block above, the last below.

    first, last: (before, after), (N, 2) each; ink: (N,), how bright the patch is, 0 to 1; labels: (N,), the digits.
    """
    picture, axes = figure(2, 2, (8, 7.6), sharex="row", sharey="row", alt=(
        "Tokens as points in a plane, before and after channel mixing. First block: before, a narrow cloud, the empty "
        "patches in a dense band on one side; after, it is far wider, and the band has become a long streak. Last "
        "block, one place in the image: the digits lie in groups, before and after."
    ))  # fmt: skip
    for ax, points in zip(axes[0], first, strict=True):
        dots = ax.scatter(*points.T, c=ink, cmap="viridis", s=8)
    picture.colorbar(dots, ax=axes[0], label="ink in the patch", pad=0.01)
    for ax, points in zip(axes[1], last, strict=True):
        for digit in range(10):
            of_digit = points[labels == digit]
            ax.scatter(*of_digit.T, marker=f"${digit}$", color=COLOURS[digit % len(COLOURS)], s=32, lw=0.3)
    for ax, when in zip(axes.T.flat, ["before", "before", "after", "after"], strict=True):
        ax.set_title(f"{'first' if ax in axes[0] else 'last'} block, {when} channel mixing", fontsize=10)
    return picture


def readable(trained, random):
    """How often the digit can be read from one token; trained: {stage: accuracy}, random: a list of such dicts."""
    stages = list(trained)
    picture, ax = figure(size=(8, 3.8), alt=(
        "How often a linear map tells the digit from one token, stage by stage. Trained: it rises from 0.15 at the "
        "stem to 0.91, with token mixing and with channel mixing, with the latter most in the last block. Three "
        "random starts: they rise in the first block and then stay near 0.35."
    ))  # fmt: skip
    for i, one in enumerate(random):
        ax.plot(
            range(len(stages)), list(one.values()), "s:", color=GREY, ms=4, label="random starts" if i == 0 else None
        )
    values = list(trained.values())
    ax.plot(range(len(stages)), values, "-", color=BLUE, lw=1, label="trained")
    for kind, colour, marker in [("token", ORANGE, "^"), ("channel", BLUE, "o")]:
        at = [i for i, stage in enumerate(stages) if stage.startswith(kind)]
        ax.plot(at, [values[i] for i in at], marker, color=colour, ms=8, label=f"trained, after {kind} mixing")
    ax.set_xticks(range(len(stages)), [stage.replace(" mixing ", "\n") for stage in stages])
    ax.set(ylabel="digit read from one token", ylim=(0, 1))
    ax.grid(axis="y", alpha=0.25)
    ax.legend(fontsize=9, loc="upper left")
    return picture


def gelus(z, relu, erf, tanh):
    """GELU's two forms beside ReLU, and their difference; z: where they are taken, (N,), and each (N,)."""
    picture, (left, right) = figure(1, 2, (8, 3.2), alt=(
        "Left: GELU dips to about -0.17 near -0.75 and follows ReLU for large numbers; its two forms lie on top of "
        "each other. Right: tanh form minus erf form, from -0.0002 to 0.0005, largest near -2.7 and 2.7."
    ))  # fmt: skip
    left.plot(z, relu, color=GREY, ls=":", label="ReLU")
    left.plot(z, erf, color=BLUE, lw=3, alpha=0.5, label="GELU, erf")
    left.plot(z, tanh, color=RED, ls="--", label="GELU, tanh")
    left.set(xlabel="x", xlim=(-4, 3), ylim=(-0.5, 3))
    left.legend(fontsize=9)
    right.plot(z, (tanh - erf) * 1e4, color=BLUE)
    right.axhline(0, color=GREY, lw=0.6)
    right.set(xlabel="x", ylabel="tanh − erf, in units of 1e-4")
    return picture
