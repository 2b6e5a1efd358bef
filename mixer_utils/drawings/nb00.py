"""Notebook 00: how often each digit occurs, one answer of the network, and what its patches are worth."""

import numpy as np

from mixer_utils.plotting import BLUE, COUNTED, GREY, ORANGE, as_picture, figure


def class_counts(counts, names):
    """A bar for each class: ``counts`` (classes,), its number of training images."""
    low, high = min(counts), max(counts)
    picture, ax = figure(size=(6.4, 2.6), alt=f"Number of training images per digit: between {low:,} and {high:,}.")
    ax.bar(names, counts, color=BLUE)
    ax.set(xlabel="digit", ylabel="training images")
    return picture


def answer(image, probabilities, names):
    """An image (1, H, W) beside the probabilities (classes,) that the network gave; the highest is blue."""
    best = int(probabilities.argmax())
    picture, (left, right) = figure(1, 2, size=(7, 2.6), width_ratios=[1, 2], alt=(
        f"A handwritten digit, and the Mixer's ten probabilities as bars: {names[best]} has the highest."))  # fmt: skip
    left.imshow(as_picture(image), cmap="gray")
    left.axis("off")
    right.bar(names, probabilities, color=[BLUE if i == best else GREY for i in range(len(names))])
    right.set(xlabel="digit", ylabel="probability", ylim=(0, 1.05))
    return picture


def covered(image, lost, worst, P):
    """What covering a patch costs: one image, its patches, and the worst patch of every image.

    image: (1, H, W). lost: (S,), the probability that its true class loses with each patch. worst: (N,), the largest
    such loss of each of N images. P: the side of a patch in pixels.
    """
    shown, lost, worst = as_picture(image), np.asarray(lost), np.asarray(worst)
    rows, columns = shown.shape[0] // P, shown.shape[1] // P
    low, median, high = np.quantile(worst, [0.25, 0.5, 0.75])
    picture, (left, middle, right) = figure(1, 3, size=(8, 2.7), width_ratios=[1, 1.25, 1.7], alt=(
        f"Left a digit, cut into {rows} by {columns} patches. In the middle, what its true class loses when each patch "
        f"is covered, at most {lost.max():.2f}. Right, a histogram of the largest loss of each of {len(worst)} images: "
        f"the median is {median:.2f}, the quartiles are {low:.2f} and {high:.2f}."))  # fmt: skip
    left.imshow(shown, cmap="gray")
    for line in range(1, rows):
        left.axhline(line * P - 0.5, color="white", lw=0.6)
    for line in range(1, columns):
        left.axvline(line * P - 0.5, color="white", lw=0.6)
    drawn = middle.imshow(lost.reshape(rows, columns), cmap=COUNTED, vmin=0, vmax=1)
    middle.set_title("probability lost", fontsize=10)
    picture.colorbar(drawn, ax=middle, fraction=0.046)
    left.axis("off"), middle.axis("off")
    right.hist(worst, bins=np.linspace(0, 1, 21), color=BLUE)
    right.axvline(median, color=ORANGE, label="median")
    right.axvspan(low, high, color=ORANGE, alpha=0.25, zorder=0, label="middle half")
    right.set(xlabel="lost with the worst patch", ylabel="images")
    right.legend(fontsize=9)
    return picture
