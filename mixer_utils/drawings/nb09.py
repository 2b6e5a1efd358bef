"""The figures of notebook 09: answers to pictures, units as the paper draws them, few images, larger images."""

import numpy as np

from mixer_utils import mixing
from mixer_utils.plotting import BLUE, COLOURS, GREY, ORANGE, SIGNED, as_picture, figure, montage


def answers(images, logits, class_names):
    """Images uint8 (B, channels, H, W), and below each its five most probable classes, from logits (B, classes)."""
    B = len(images)
    chances, classes = logits.softmax(dim=1).topk(min(5, logits.shape[1]))
    best = [f"{class_names[c[0]]} ({p[0]:.0%})" for p, c in zip(chances, classes, strict=True)]
    alt = f"{B} pictures, below each a bar for its five most probable classes. The first ones: {', '.join(best)}."
    picture, axes = figure(2, B, (max(6, 2 * B), 4), alt, squeeze=False)
    for i in range(B):
        axes[0, i].imshow(as_picture(images[i]), cmap="gray")
        axes[0, i].axis("off")
        axes[1, i].barh(range(5), chances[i].flip(0), color=BLUE)
        axes[1, i].set_yticks(range(5), [class_names[c][:18] for c in classes[i].flip(0)], fontsize=8)
        axes[1, i].set(xlim=(0, 1), xlabel="probability")
    return picture


def shown_units(maps, grid, most=32):
    """The units (2 * pairs,) of at most ``most`` pairs of opposite maps (D_S, S), smooth pairs first, taken evenly."""
    pairs, _ = mixing.opposite_pairs(maps)
    pairs = pairs[mixing.frequency(maps, grid)[pairs].mean(axis=1).argsort()]
    return pairs[np.linspace(0, len(pairs) - 1, min(most, len(pairs))).round().astype(int)].ravel()


def as_figure_5(reads, grid):
    """What units of the first three blocks read, (L, D_S, S), in pairs as in the paper's figure 5."""
    smoothness = [mixing.morans_i(maps, grid).mean() for maps in reads[:3]]
    said = ", ".join(f"{value:.2f}" for value in smoothness)
    alt = (
        f"Units of blocks 0, 1 and 2, each a map of {grid[0]} by {grid[1]} weights from blue to red beside the "
        f"most opposite one, smooth pairs first. Moran's I of the three blocks is {said}."
    )
    picture, axes = figure(1, 3, (9, 2.3), alt)
    picture.get_layout_engine().set(wspace=0.06)
    for k, ax in enumerate(axes):
        maps = reads[k][shown_units(reads[k], grid)]
        maps = maps / np.abs(maps).max(axis=1, keepdims=True)
        ax.imshow(montage(maps.reshape(-1, *grid), columns=8), cmap=SIGNED, vmin=-1, vmax=1)
        ax.set_title(f"block {k}", fontsize=10)
        ax.axis("off")
    return picture


def structure(measured):
    """Moran's I and the number of patches a map covers, {network: (L, 2)}, against the block; dotted: by chance."""
    said = "; ".join(f"{name}: {', '.join(f'{i:.2f}' for i in rows[:, 0])}" for name, rows in measured.items())
    alt = f"Left Moran's I of the units' maps, block by block ({said}); right over how many patches a map is spread."
    picture, axes = figure(1, 2, (8.4, 3.1), alt)
    names = [(0, "Moran's I (0 by chance)"), (1, "patches that a map is spread over")]
    for ax, (i, name) in zip(axes, names, strict=True):
        for (label, rows), colour, marker in zip(measured.items(), COLOURS, "osD^vP", strict=False):
            line = ":" if label == "by chance" else "-"
            ax.plot(range(len(rows)), rows[:, i], marker + line, color=colour, label=label)
        ax.set(xlabel="block", ylabel=name, xticks=range(len(rows)))
        ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
    axes[0].axhline(0, color=GREY, ls=":", lw=1)
    axes[1].legend(fontsize=8)
    return picture


def few_shot(accuracy, counts):
    """Accuracy (draws, counts) of each kind of input, against labelled images of each class; bars: one deviation."""
    ends = "; ".join(
        f"{name} from {rows[:, 0].mean():.0%} to {rows[:, -1].mean():.0%}" for name, rows in accuracy.items()
    )
    alt = f"Accuracy of a linear head against labelled images of each class, {counts[0]} to {counts[-1]}: {ends}."
    picture, ax = figure(size=(7.4, 3.8), alt=alt)
    styles = zip(accuracy.items(), COLOURS, ("o-", "s--", "D-.", "^:", "v--"), strict=False)
    for (name, rows), colour, style in styles:
        deviation = rows.std(axis=0, ddof=1)
        ax.errorbar(counts, rows.mean(axis=0), deviation, fmt=style, color=colour, capsize=3, label=name)
    ax.axhline(0.1, color=GREY, lw=1, ls=":")
    ax.text(counts[0], 0.11, "by chance", fontsize=8, color=GREY)
    ax.set(xscale="log", xticks=counts, xticklabels=counts, ylim=(0, 1))
    ax.set(xlabel="labelled images of each class", ylabel="accuracy")
    ax.minorticks_off()
    ax.legend(fontsize=8, loc="lower right")
    return picture


def enlarged_reads(W, tiles):
    """Where the enlarged W1 (K²·D_S, K²·S) is not zero; ``tiles`` has the patches' places, tile after tile."""
    alt = (
        f"Where the new W1 of block 0, {W.shape[0]} units by {W.shape[1]} patches, is not zero. Tile after tile: "
        "blocks along the diagonal. In row order: the same columns, in stripes."
    )
    picture, axes = figure(1, 2, (8, 4.2), alt)
    panels = [(W[:, tiles], "patches tile after tile, as in the paper"), (W, "patches in row order, as in the code")]
    for ax, (shown, title) in zip(axes, panels, strict=True):
        ax.imshow(shown != 0, cmap="Greys", aspect="auto", interpolation="nearest")
        ax.set_title(title, fontsize=9)
        ax.set(xlabel="patch", ylabel="unit")
    return picture


def quarters(image, tiles, names):
    """An enlarged image (channels, H, W), its cuts marked, beside its four tiles in their places, each with its answer.

    ``tiles`` (4, channels, H / 2, W / 2) in row order; all values are scaled to the image's own.
    """
    low, high = float(image.min()), float(image.max())
    shown = [as_picture((part - low) / (high - low)) for part in (image, *tiles)]
    alt = f"An enlarged picture with its cuts marked, beside it the four quarters, read as {', '.join(names)}."
    picture, axes = figure(2, 4, (7.4, 3.6), alt, width_ratios=[2, 0.1, 1, 1])
    for ax in axes.flat:
        ax.axis("off")
    grid = axes[0, 0].get_gridspec()
    whole = picture.add_subplot(grid[:, 0])
    whole.imshow(shown[0], cmap="gray")
    for line in (whole.axvline, whole.axhline):
        line(shown[0].shape[0] / 2 - 0.5, color=ORANGE, lw=1.5)
    whole.set_title("the enlarged picture", fontsize=9)
    whole.axis("off")
    for ax, part, name in zip(axes[:, 2:].flat, shown[1:], names, strict=True):
        ax.imshow(part, cmap="gray", vmin=0, vmax=1)
        ax.set_title(f"read as {name}"[:24], fontsize=9)
    return picture
