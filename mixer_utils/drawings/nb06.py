"""The figures of notebook 06: how sure an accuracy is, calibration, robustness, learning rates, a photograph."""

import numpy as np

from mixer_utils.evaluation import calibration
from mixer_utils.plotting import BLUE, GREEN, GREY, ORANGE, RED, figure

STYLES = {  # of the networks: each differs from the others by more than its colour
    "linear": {"color": GREY, "marker": "o", "ls": ":"},
    "MLP": {"color": ORANGE, "marker": "^", "ls": "-."},
    "CNN": {"color": GREEN, "marker": "s", "ls": "--"},
    "Mixer": {"color": BLUE, "marker": "D", "ls": "-"},
}


def bootstrap(accuracies, accuracy, error, count):
    """Histogram of the accuracies of resampled sets of ``count`` images, with the measured one and two errors of it."""
    picture, ax = figure(size=(7.6, 2.8), alt=(
        f"Histogram of the accuracy on {len(accuracies):,} resampled sets of images: a bell around the measured "
        "accuracy, almost all of it within two standard errors."))  # fmt: skip
    edges = np.arange(count * accuracies.min() - 0.5, count * accuracies.max() + 3, 3)  # three images a bar
    ax.hist(100 * accuracies, bins=100 * edges / count, color=BLUE, alpha=0.6)
    ax.axvline(100 * accuracy, color=GREY, label="measured")
    for sign in (-2, 2):
        label = "± 2 standard errors" if sign > 0 else None
        ax.axvline(100 * (accuracy + sign * error), color=ORANGE, ls="--", label=label)
    ax.set(xlabel="accuracy (%)", ylabel="resampled sets")
    ax.legend(fontsize=9)
    return picture


def reliability(probabilities, labels, least=200, bins=8, draws=1000):
    """Left: accuracy against confidence, the ``least`` confident images in bins of equally many. Right: mistakes among
    the k least confident, measured and as the confidences foretell. Grey: 95 of 100 calibrated models.

    probabilities (N, num_classes), labels (N,).
    """
    order = np.argsort(probabilities.max(1), kind="stable")
    least = min(least, len(order) // 2)
    found = calibration(probabilities[order[:least]], labels[order[:least]], bins, equal_mass=True)
    confidence = probabilities.max(1)[order]
    wrong = (probabilities.argmax(1) != labels)[order]
    foretold = (
        np.random.default_rng(0).random((draws, len(order))) > confidence
    )  # each row a calibrated model's mistakes
    in_bins = 1 - np.stack([part.mean(1) for part in np.array_split(foretold[:, :least], bins, axis=1)])
    counted = foretold.cumsum(1)
    picture, (left, right) = figure(1, 2, size=(8.4, 3.5), alt=(
        f"Left, the {least} least confident predictions in {bins} bins: accuracy against confidence, beside the band "
        f"in which a calibrated model would lie. Right, mistakes among the k least confident images: "
        f"{wrong.sum()} in all, {(1 - confidence).sum():.0f} by the model's own confidences."))  # fmt: skip
    low, high = np.quantile(in_bins, [0.025, 0.975], axis=1)
    left.fill_between(found["confidence"], low, high, color=GREY, alpha=0.2, lw=0, label="95 % of calibrated models")
    left.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1)
    left.plot(found["confidence"], found["accuracy"], "o-", color=BLUE, label="measured")
    left.set(xlabel="confidence", ylabel="accuracy", xlim=(found["confidence"][0] - 0.03, 1.02), ylim=(0, 1.05))
    k = np.arange(1, len(order) + 1)
    low, high = np.quantile(counted, [0.025, 0.975], axis=0)
    right.fill_between(k, low, high, color=GREY, alpha=0.2, lw=0)
    right.plot(k, (1 - confidence).cumsum(), color=GREY, ls="--", label="foretold")
    right.plot(k, wrong.cumsum(), color=BLUE, label="measured")
    right.set(xscale="log", xlabel="the k least confident images", ylabel="mistakes among them")
    for ax, corner in ((left, "lower right"), (right, "upper left")):
        ax.legend(fontsize=9, loc=corner)
        ax.grid(alpha=0.25)
    return picture


def coverage(right, confidence):
    """Accuracy on the images that are answered, against their share; right (N,) true or false, confidence (N,)."""
    surest_first = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(right) + 1)
    accuracy = np.cumsum(right[surest_first]) / answered
    picture, ax = figure(size=(7.6, 2.8), alt=(
        "Accuracy on the answered images against the share of images that is answered: level at first, then falling "
        "ever faster as the share goes to 100 %."))  # fmt: skip
    ax.plot(100 * answered / len(right), 100 * accuracy, color=BLUE)
    for share in (90, 95, 99):
        ax.axvline(share, color=GREY, ls=":", lw=1)
    ax.set(xlabel="coverage: share of images answered (%)", ylabel="accuracy on them (%)", xlim=(80, 100.3))
    ax.grid(alpha=0.25)
    return picture


def robustness(found):
    """Accuracy, with two standard errors over the images, and mean confidence, for each kind of change.

    found: {kind: {amount: (right, confidence)}}, both (N,).
    """
    picture, axes = figure(1, len(found), size=(8.6, 3.2), sharey=True, alt=(
        "Accuracy and mean confidence of the Mixer on digits that are turned, moved and covered with noise, a panel "
        "each. Both begin near 100 %; as the change grows, the accuracy falls and the confidence stays above it."
    ))  # fmt: skip
    for ax, (kind, measured) in zip(axes, found.items(), strict=True):
        amounts = list(measured)
        accuracy = np.array([100 * right.mean() for right, _ in measured.values()])
        error = np.array([100 * right.std() / np.sqrt(len(right)) for right, _ in measured.values()])
        confidence = [100 * confidence.mean() for _, confidence in measured.values()]
        ax.errorbar(amounts, accuracy, 2 * error, color=BLUE, marker="o", ms=4, capsize=2, label="accuracy")
        ax.plot(amounts, confidence, color=RED, ls="--", marker="s", ms=4, label="mean confidence")
        ax.set(xlabel=kind, ylim=(0, 104))
        ax.grid(alpha=0.25)
    axes[0].set_ylabel("%")
    axes[0].legend(fontsize=9, loc="lower left")
    return picture


def changed_images(images):
    """One digit under growing changes, a row for each kind; images: {kind: {amount: (H, W)}}."""
    columns = max(map(len, images.values()))
    size = (0.95 * columns + 2, 1.1 * len(images))
    picture, axes = figure(len(images), columns, size, squeeze=False, alt=(
        f"One digit under growing changes, a row each: {', '.join(images)}. Up to the middle of each row it is plain "
        "to read."))  # fmt: skip
    for line, (kind, row) in zip(axes, images.items(), strict=True):
        line[0].set_ylabel(kind, fontsize=9, rotation=0, ha="right", va="center")
        for ax, (amount, image) in zip(line, row.items(), strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=255)
            ax.set_title(f"{amount:g}", fontsize=8, pad=2)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    return picture


def rates(tried, runs):
    """Left the share of mistakes at every learning rate, right that of every run at the best one.

    tried: {network: {rate: accuracy}}, runs: {network: accuracies, one a seed}.
    """
    picture, (left, right) = figure(1, 2, size=(8.4, 3.4), sharey=True, width_ratios=[1.5, 1], alt=(
        "Left, the share of validation images that each network gets wrong against its learning rate, on logarithmic "
        "axes: every curve has its lowest point inside. Right, a dot for each seed at that rate; the linear model "
        "makes the most mistakes."))  # fmt: skip
    for at, (name, accuracies) in enumerate(tried.items()):
        by_rate = sorted(accuracies.items())
        left.plot([rate for rate, _ in by_rate], [100 * (1 - accuracy) for _, accuracy in by_rate], ms=6, label=name,
                  **STYLES[name])  # fmt: skip
        wrong = 100 * (1 - np.asarray(runs[name]))
        right.plot(
            at + np.linspace(-0.12, 0.12, len(wrong)), wrong, STYLES[name]["marker"], color=STYLES[name]["color"]
        )
    left.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="wrong (%), log axis")
    every = sorted({rate for accuracies in tried.values() for rate in accuracies})
    left.set_xticks(every, [f"{rate:g}" for rate in every], fontsize=8)
    left.set_xticks([], minor=True)
    left.legend(fontsize=9)
    right.set_xticks(range(len(tried)), list(tried))
    right.set_xlim(-0.5, len(tried) - 0.5)
    for ax in (left, right):
        ax.grid(axis="y", alpha=0.25)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
        ax.tick_params(axis="y", which="both", labelsize=8)
    return picture


def stages(steps):
    """What each step leaves of a photograph; steps: {name: image (H, W)}, as ``mixer_utils.photograph.stages`` has."""
    picture, axes = figure(1, len(steps), (9, 2.2), alt=(
        "A photograph of a digit in five stages: a dim sheet on a dark table, the sheet, the ink, the digit cut out, "
        "MNIST's frame."))  # fmt: skip
    for ax, (name, image) in zip(axes, steps.items(), strict=True):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255 if name == "frame" else 1)
        ax.set_title(f"{name}\n{image.shape[0]} x {image.shape[1]}", fontsize=9)
        ax.axis("off")
    return picture
