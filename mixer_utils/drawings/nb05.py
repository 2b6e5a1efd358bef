"""Notebook 05: losses, learning rates, four optimisers on one plot, and a network that learns by heart."""

import numpy as np

from mixer_utils.plotting import BLUE, GREEN, GREY, ORANGE, RED, figure, plot_images

STYLES = {  # of the optimisers: each differs from the others by more than its colour
    "SGD": {"color": GREY, "ls": ":", "marker": "o"},
    "momentum": {"color": ORANGE, "ls": "-.", "marker": "s"},
    "AdamW": {"color": GREEN, "ls": "--", "marker": "^"},
    "Muon": {"color": BLUE, "ls": "-", "marker": "D"},
}


def one_batch(losses, losses_shuffled):
    """The training loss on one batch at each step, with true and with shuffled labels."""
    picture, ax = figure(size=(6.4, 3), alt=(
        "Training loss on one batch of 64 images, on a logarithmic axis. With true labels it falls quickly; with "
        "shuffled labels it falls as well, only later."))  # fmt: skip
    ax.plot(losses, color=BLUE, label="true labels")
    ax.plot(losses_shuffled, color=ORANGE, ls="--", label="shuffled labels")
    ax.set(xlabel="step", ylabel="training loss (nats)", yscale="log")
    ax.legend()
    return picture


def smooth(values, over=10):
    """The mean over the last ``over`` values, or those there are, at each place."""
    return [np.mean(values[max(0, i + 1 - over) : i + 1]) for i in range(len(values))]


def range_test(rates, losses):
    """The loss of each batch against the learning rate, which rises from step to step, both on logarithmic axes."""
    picture, ax = figure(size=(6.4, 3), alt=(
        "Training loss against a learning rate that rises with every step: flat at tiny rates, a valley in the middle, "
        "and a climb at large ones."))  # fmt: skip
    ax.plot(rates, losses, color=BLUE, alpha=0.3, lw=1, label="each batch")
    ax.plot(rates, smooth(losses), color=BLUE, lw=2, label="mean of ten")
    ax.set(xlabel="learning rate", ylabel="training loss (nats)", xscale="log", yscale="log")
    ax.legend(fontsize=9)
    ax.grid(alpha=0.25)
    return picture


def schedule(recipe, steps):
    """The learning rate of ``recipe`` at each of ``steps`` steps."""
    picture, ax = figure(size=(6.4, 2.4), alt=(
        f"Learning rate over {steps} steps: a straight rise to {recipe.learning_rate:g} during the first "
        f"{recipe.warmup:.0%}, then a straight fall to zero."))  # fmt: skip
    ax.plot([recipe.learning_rate_at(step, steps) for step in range(steps)], color=BLUE)
    ax.set(xlabel="step", ylabel="learning rate")
    return picture


def optimizers(trials, sprints):
    """Left the rates that were tried, right what each optimiser does with its best.

    trials: {optimiser: {rate: validation loss}}. sprints: {optimiser: a list of runs}, each the losses of its steps.
    """
    picture, (left, right) = figure(1, 2, size=(8.4, 3.4), width_ratios=[1, 1.3], alt=(
        "Left, validation loss against learning rate for SGD, momentum, AdamW and Muon, each a valley of its own. "
        "Right, training loss over the steps of the same short budget at the best rate of each, three seeds."
    ))  # fmt: skip
    for name, by_rate in trials.items():
        left.plot(list(by_rate), list(by_rate.values()), ms=5, label=name, **STYLES[name])
    for name, runs in sprints.items():
        style = STYLES[name] | {"marker": ""}
        for number, losses in enumerate(runs):
            right.plot(smooth(losses), lw=1.5, label=None if number else name, **style)
    left.set(xlabel="learning rate", ylabel="validation loss at the end (nats)", xscale="log", yscale="log")
    left.set_ylim(top=3)
    right.set(xlabel="step", ylabel="training loss (mean of ten steps)", yscale="log")
    left.legend(fontsize=8), right.legend(fontsize=9)
    left.grid(alpha=0.25), right.grid(alpha=0.25)
    return picture


def shifted(original, moved):
    """An image (1, H, W) before its shifted copies (N, 1, H, W)."""
    images = [original, *moved]
    alt = "A handwritten digit, and nine copies, each moved by up to three pixels in some direction."
    return plot_images(images, ["original", *["moved"] * len(moved)], alt=alt)


def by_heart(histories):
    """Loss and accuracy over the epochs of few images: {name: histories, one for each seed}, a row for each name."""
    picture, axes = figure(len(histories), 2, size=(8.4, 2.5 * len(histories)), squeeze=False, sharex=True, alt=(
        "Two rows of curves, without and with shifts, three seeds each. Left, the training loss falls by orders of "
        "magnitude while the validation loss soon stops falling. Right, training accuracy reaches one and validation "
        "accuracy stays below it; with shifts the gap is smaller."))  # fmt: skip
    for (left, right), (name, runs) in zip(axes, histories.items(), strict=True):
        for number, history in enumerate(runs):
            epochs = range(1, len(history.epochs["train_loss"]) + 1)
            for ax, key in [(left, "loss"), (right, "accuracy")]:
                training, validation = ("training", "validation") if number == 0 else (None, None)
                ax.plot(epochs, history.epochs[f"train_{key}"], color=BLUE, lw=1.2, label=training)
                ax.plot(epochs, history.epochs[f"validation_{key}"], color=RED, ls="--", lw=1.2, label=validation)
        left.set(ylabel="loss (nats)", yscale="log", title=name)
        right.set(ylabel="accuracy", ylim=(0.5, 1.02), title=name)
        left.grid(alpha=0.25), right.grid(alpha=0.25)
    axes[0, 0].legend(fontsize=9)
    axes[-1, 0].set_xlabel("epoch"), axes[-1, 1].set_xlabel("epoch")
    return picture
