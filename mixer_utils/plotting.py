"""Figures: functions from data to a Picture, a matplotlib Figure that knows its own alt text.

A Picture as the last line of a cell shows itself; nothing here goes through pyplot, so nothing is drawn twice or left
open. Colours are safe for colour-blind readers, and colour never carries a meaning alone.
"""

import io

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#B85F92", "#555555"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY)  # Okabe and Ito's, the purple darker
SIGNED = "RdBu_r"  # for weights: blue below zero, red above, white at zero
COUNTED = "Blues"  # for counts and probabilities


class Picture(Figure):
    """A Figure with ``alt``, one or two sentences that say what it shows; it goes wherever the picture goes."""

    alt = ""

    def _repr_mimebundle_(self, include=None, exclude=None):
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=96)
        return {"image/png": png.getvalue(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def figure(rows=1, columns=1, size=(6.4, 3.6), alt="", **subplots):
    """A Picture and its axes (one, or an array as from ``plt.subplots``): ``picture, ax = figure(alt="A line.")``.

    size: inches (width, height); 8 wide fills a notebook. Raises ValueError without alt text.
    """
    if not alt.strip():
        raise ValueError("A figure needs alt text: one sentence that says what it shows to a reader who cannot see it.")
    picture = Picture(figsize=size, layout="constrained", facecolor="white")
    picture.alt = alt
    axes = picture.subplots(rows, columns, **subplots)
    for ax in np.ravel(axes):
        ax.spines[["top", "right"]].set_visible(False)
    return picture, axes


def as_picture(image):
    """An image tensor or array, (1, H, W), (3, H, W) or (H, W), as imshow wants it: (H, W) or (H, W, 3)."""
    image = np.asarray(image)
    if image.ndim == 3:
        image = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    return image


def plot_images(images, titles=None, columns=10, size=0.8, alt="A grid of images."):
    """Images (N, in_channels, H, W) or (N, H, W) in a grid, each with a title if given; ``size`` is inches a side."""
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    height = size + (0.16 * (1 + max(t.count("\n") for t in titles)) if titles else 0)
    picture, axes = figure(rows, columns, (columns * size, rows * height), alt, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for i, (ax, image) in enumerate(zip(axes.flat, images, strict=False)):
        ax.imshow(as_picture(image), cmap="gray")
        if titles:
            ax.set_title(titles[i], fontsize=9, pad=3)
    return picture


def plot_predictions(originals, given, probabilities, class_names, titles):
    """A row for each picture: the original, (H, W) or (H, W, 3), what the model was given, and its probabilities."""
    probabilities = np.asarray(probabilities)
    said = [f"{title}: {class_names[row.argmax()]} ({row.max():.1%})"
            for title, row in zip(titles, probabilities, strict=True)]  # fmt: skip
    rows = len(given)
    most = min(10, len(class_names))
    picture, axes = figure(rows, 3, (8, 2.2 * rows), f"Pictures, what the model was given, and its answers: "
                           f"{'; '.join(said)}.", squeeze=False, width_ratios=[1, 1, 1.4])  # fmt: skip
    for (left, middle, right), original, image, row, title in zip(
        axes, originals, given, probabilities, said, strict=True
    ):
        left.imshow(original, cmap="gray")
        left.set_title(title, fontsize=9, loc="left")
        middle.imshow(as_picture(image), cmap="gray", vmin=0, vmax=255)
        middle.set_title("what the model was given", fontsize=9)
        for ax in (left, middle):
            ax.axis("off")
        shown = np.sort(np.argsort(-row, kind="stable")[:most])
        right.bar([str(class_names[i]) for i in shown], row[shown], color=BLUE)
        right.set(ylim=(0, 1))
        right.set_ylabel("probability", fontsize=9)
        right.tick_params(labelsize=9)
    return picture


def plot_matrix(matrix, title="", x="", y="", numbers=False, size=(4, 3.4), alt="", scale=None, ax=None):
    """A matrix of signed numbers, red above zero and blue below; ``numbers`` writes each value into its cell.

    ``scale`` is the largest magnitude the colours cover, by default the matrix's own.
    """
    matrix = np.asarray(matrix)
    picture = None
    if ax is None:
        picture, ax = figure(
            size=size, alt=alt or f"{title}: a matrix of {matrix.shape[0]} by {matrix.shape[1]} numbers."
        )
    scale = scale or np.abs(matrix).max() or 1
    sns.heatmap(matrix, ax=ax, cmap=SIGNED, vmin=-scale, vmax=scale, annot=numbers, fmt=".2f", cbar=picture is not None,
                annot_kws={"fontsize": 8}, square=True)  # fmt: skip
    ax.set(title=title, xlabel=x, ylabel=y)
    return picture


def plot_maps(maps, titles=None, columns=12, size=0.7, shared_scale=True, alt=""):
    """Small signed maps (N, h, w) in a grid, as filters or mixing weights; one colour scale for all, or one each."""
    maps = np.asarray(maps)
    rows = -(-len(maps) // columns)
    columns = min(columns, len(maps))
    height = size + (0.17 if titles else 0.03)
    picture, axes = figure(rows, columns, (columns * size + 0.7 * shared_scale, rows * height), alt, squeeze=False)
    top = np.abs(maps).max() or 1
    for i, ax in enumerate(axes.flat):
        ax.axis("off")
        if i < len(maps):
            scale = top if shared_scale else np.abs(maps[i]).max() or 1
            drawn = ax.imshow(maps[i], cmap=SIGNED, vmin=-scale, vmax=scale)
            if titles:
                ax.set_title(titles[i], fontsize=8, pad=2)
    if shared_scale:
        picture.colorbar(drawn, ax=axes, fraction=0.03, pad=0.01).ax.tick_params(labelsize=8)
    return picture


def montage(maps, columns):
    """Maps (N, h, w) side by side in one array, ``columns`` to a row, with a gap of one (not a number) between them."""
    N, h, w = maps.shape
    sheet = np.full((-(-N // columns) * (h + 1) - 1, columns * (w + 1) - 1), np.nan)
    for i, one in enumerate(maps):
        row, column = divmod(i, columns)
        sheet[row * (h + 1) : row * (h + 1) + h, column * (w + 1) : column * (w + 1) + w] = one
    return sheet


def plot_history(history, title=""):
    """Loss and accuracy over the epochs, on training batches (thin: every step) and on validation images."""
    steps, epochs = history.steps, history.epochs
    if not epochs["train_loss"]:
        raise ValueError("This history has no whole epoch: train for one at least, then plot it.")
    count = len(epochs["train_loss"])
    per_step = np.arange(1, len(steps["loss"]) + 1) * count / max(1, len(steps["loss"]))
    at = np.arange(1, count + 1)
    picture, (left, right) = figure(1, 2, (8.4, 3.3), alt=(
        f"Loss and accuracy over {count} epochs. Validation loss ends at {epochs['validation_loss'][-1]:.3f}, "
        f"validation accuracy at {epochs['validation_accuracy'][-1]:.1%}."))  # fmt: skip
    for ax, key, name in [(left, "loss", "loss (nats)"), (right, "accuracy", "accuracy")]:
        ax.plot(per_step, steps[key], color=BLUE, alpha=0.25, lw=0.8, label="training, each step")
        ax.plot(at, epochs[f"train_{key}"], color=BLUE, marker="o", ms=4, label="training, epoch mean")
        ax.plot(at, epochs[f"validation_{key}"], color=ORANGE, marker="s", ms=4, ls="--", label="validation")
        ax.set(xlabel="epoch", ylabel=name, xlim=(0, count + 0.1))
        ax.grid(alpha=0.25)
    left.set_yscale("log")
    right.set_ylim(max(0.0, min(epochs["train_accuracy"] + epochs["validation_accuracy"]) - 0.02), 1.001)
    right.legend(loc="lower right", fontsize=9)
    if title:
        picture.suptitle(title)
    return picture


def plot_confusion_matrix(matrix, class_names, size=(4.9, 4.8)):
    """Counts, true class down, predicted across. Colours show the mistakes alone: the diagonal would drown them."""
    matrix = np.asarray(matrix)
    mistakes = matrix * ~np.eye(len(matrix), dtype=bool)
    i, j = np.unravel_index(mistakes.argmax(), mistakes.shape)
    most = f"; the most frequent mistake is {class_names[i]} predicted as {class_names[j]}, {mistakes[i, j]} times"
    picture, ax = figure(size=size, alt=(
        f"Confusion matrix of {matrix.sum():,} images, {mistakes.sum()} of them predicted wrongly"
        f"{most if mistakes.any() else ''}."))  # fmt: skip
    sns.heatmap(mistakes, ax=ax, annot=matrix, fmt="d", cmap=COUNTED, square=True, linewidths=0.5,
                vmax=1.5 * max(1, mistakes.max()), annot_kws={"fontsize": 9}, cbar=False,
                xticklabels=class_names, yticklabels=class_names)  # fmt: skip
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.tick_params(axis="y", rotation=0)
    return picture


def plot_per_class(per_class, size=(7, 3.2)):
    """Precision and recall of every class, as a dot each; the axis is cut to where they lie."""
    names = [row["name"] for row in per_class]
    worst = min(per_class, key=lambda row: row["f1"])
    picture, ax = figure(size=size, alt=(
        f"Precision and recall of each class; the lowest F1 is {worst['f1']:.4f}, of {worst['name']}."))  # fmt: skip
    for offset, key, colour, marker in [(-0.12, "precision", BLUE, "o"), (0.12, "recall", ORANGE, "s")]:
        ax.plot(np.arange(len(names)) + offset, [row[key] for row in per_class], marker, color=colour, label=key)
    for x in range(len(names) - 1):
        ax.axvline(x + 0.5, color="#eeeeee", zorder=0)
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel="class", ylabel="score")
    ax.grid(axis="y", alpha=0.25)
    ax.legend(fontsize=9, ncols=2, loc="lower center")
    return picture


def plot_calibration(calibration, size=(4.6, 3.6)):
    """Accuracy against confidence, bin by bin, with image counts; on the diagonal, confidence can be believed."""
    count, filled = calibration["count"], calibration["count"] > 0
    picture, ax = figure(size=size, alt=(
        f"Reliability diagram: accuracy against confidence in {filled.sum()} filled bins. The expected calibration "
        f"error is {calibration['error']:.3f}."))  # fmt: skip
    ax.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1, label="perfectly calibrated")
    ax.plot(calibration["confidence"][filled], calibration["accuracy"][filled], "o-", color=BLUE, label="measured")
    for x, y, n in zip(calibration["confidence"][filled], calibration["accuracy"][filled], count[filled], strict=True):
        ax.annotate(f"{n:,}", (x, y), textcoords="offset points", xytext=(4, -12), fontsize=8, color=GREY)
    ax.set(xlabel="confidence (highest probability)", ylabel="accuracy", xlim=(0, 1.08), ylim=(0, 1.05))
    ax.legend(fontsize=9, loc="upper left")
    return picture
