"""Figures of notebook 04, the MLP-Mixer."""

import torch

from mixer_utils.plotting import BLUE, GREEN, ORANGE, RED, figure, plot_images


def depth(sizes):
    """How large signal and gradient are after each block; ``sizes`` is {name: (signal, gradient)}, lists of numbers."""
    picture, axes = figure(1, 2, (8, 3.6), alt=(
        "Size of the signal and of the gradient over 24 blocks, on a logarithmic axis. With norms and residuals both "
        "stay within a factor of ten. With neither, the signal falls by fourteen powers of ten, and the gradient as "
        "much on its way back."
    ))  # fmt: skip
    for (name, curves), colour, style in zip(
        sizes.items(), (BLUE, GREEN, ORANGE, RED), ("-", "--", "-.", ":"), strict=True
    ):
        for ax, curve in zip(axes, curves, strict=True):
            ax.semilogy(curve, color=colour, ls=style, lw=2, label=name)
    axes[0].set(title="signal", xlabel="after block", ylabel="root mean square")
    axes[1].set(title="gradient", xlabel="after block")
    axes[0].legend(fontsize=9)
    return picture


def shuffled(images, mixed_up):
    """Six images, (N, 1, H, W), and below them the same ones with pixels and patches shuffled."""
    return plot_images(torch.cat([images[:6], mixed_up[:6]]), columns=6, size=1.2, alt=(
        "Six digits, and below them the same digits with the pixels of every patch shuffled and the patches shuffled: "
        "only noise."
    ))  # fmt: skip
