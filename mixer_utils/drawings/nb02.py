"""Figures of notebook 02, token mixing: maps of weights over the grid of patches, and S x S matrices side by side."""

from mixer_utils.plotting import figure, plot_maps, plot_matrix


def recipes(mix, grid):
    """The rows of a mixing matrix, (S, S), each as a map over the patches; grid: (rows, columns) of patches."""
    return plot_maps(mix.view(-1, *grid), [f"output {i}" for i in range(len(mix))], columns=6, size=1.1, alt=(
        "Six maps of 2 by 3 weights. Outputs 0, 1 and 5 have one red square, output 2 is red everywhere, outputs 3 and "
        "4 have a red square below a blue one."))  # fmt: skip


def three_ways(convolution, attentions, token_mixing):
    """Who listens to whom, (S, S) each: a convolution, attention on two images, and token mixing.

    Each matrix has a colour scale of its own: what is compared is where the weights are and what moves them.
    """
    picture, axes = figure(2, 2, (8, 7.4), alt=(
        "Four matrices of 16 by 16 weights, a row for each output position. Convolution: a few bands along the "
        "diagonal, the same numbers in each, and white elsewhere. Attention: positive everywhere, with columns that "
        "stand out, other columns for the second image. Token mixing: red and blue everywhere, in no such order."
    ))  # fmt: skip
    shown = {
        "convolution, 3 x 3": convolution,
        "token mixing": token_mixing,
        "attention, first image": attentions[0],
        "attention, second image": attentions[1],
    }
    for ax, (name, matrix) in zip(axes.flat, shown.items(), strict=True):
        plot_matrix(matrix, name, ax=ax)
        ax.set(xticks=(0, 4, 8, 12, 16), yticks=(0, 4, 8, 12, 16))
        ax.set_xticklabels((0, 4, 8, 12, 16), rotation=0)
        ax.set_yticklabels((0, 4, 8, 12, 16), rotation=0)
        ax.grid(color="#cccccc", lw=0.6)  # a line where the next row of patches begins
    for ax in axes[1]:
        ax.set_xlabel("input position")
    for ax in axes[:, 0]:
        ax.set_ylabel("output position")
    return picture


def two_groups(first, second):
    """Maps of weights, (N, rows, columns) each: the first group, A, above the second, B; each map has its own scale."""
    maps = [*first, *second]
    titles = ["A", *[""] * (len(first) - 1), "B", *[""] * (len(second) - 1)]
    return plot_maps(maps, titles, shared_scale=False, alt=(
        f"Two groups of {len(first)} maps of weights over the patch grid, A in the upper rows and B in the lower ones, "
        "each map with its own colour scale."))  # fmt: skip
