"""The figures of notebook 08: shuffled digits, mistakes of every network, and loss curves."""

import numpy as np
import torch

from mixer_utils.plotting import BLUE, GREEN, GREY, ORANGE, figure, plot_images

GROUPS = {  # which networks belong together, their marker and their colour
    "the Mixer": (["Mixer"], "o", BLUE),
    "a part taken out": (["no token mixing", "no channel mixing"], "X", ORANGE),
    "token mixing replaced": (
        ["fixed random matrix", "average pooling", "depthwise convolution", "self-attention", "attention with places"],
        "^",
        GREEN,
    ),
    "token mixing shared differently": (["tied MLP", "an MLP per channel", "groups of channels"], "D", BLUE),
    "no Mixer": (["plain MLP", "small CNN"], "s", GREY),
}


def kinds_of_images(kinds):
    """Eight digits in a row for each kind of images, {name: (8, 1, H, W)}."""
    return plot_images(torch.cat(list(kinds.values())), columns=8, size=0.9, alt=(
        "Eight digits in three rows: as they are; with patches and the pixels within them shuffled, where patches of "
        "stroke and of empty ground can still be told apart; with all pixels shuffled, which looks like even noise."
    ))  # fmt: skip


def mistakes(sprint, long):
    """The share of mistakes of every network after the sprint and, if it was measured, after the long run.

    Both are {name: validation accuracies, one a seed}; ``long`` may be empty. The order of the rows is the sprint's.
    """
    order = sorted(sprint, key=lambda name: np.mean(sprint[name]))
    titles = ["after 200 steps", *(["after eight epochs"] if long else [])]
    picture, axes = figure(1, len(titles), (8.4, 5), sharey=True, squeeze=False, alt=(
        "Share of validation images that each of thirteen networks gets wrong, a dot for each seed, the names on the "
        "left in the order of the short run. After 200 steps no token mixing, average pooling and self-attention lie "
        "far from all others." + (" Beside it the same networks after eight epochs." if long else "")
    ))  # fmt: skip
    for ax, title, found in zip(axes[0], titles, (sprint, long), strict=False):
        for group, (names, marker, colour) in GROUPS.items():
            label = group
            for name in names:
                wrong = 100 * (1 - np.asarray(found[name]))
                ax.plot(wrong, [order.index(name)] * len(wrong), marker, color=colour, alpha=0.8, label=label)
                label = None  # one entry in the legend
        on_percent_axis(ax)
        ax.set(title=title, xlabel="images predicted wrongly (%), log axis")
    axes[0, 0].set_yticks(range(len(order)), order)
    axes[0, 0].legend(fontsize=8)
    return picture


def on_percent_axis(ax):
    """A logarithmic axis that is labelled with whole per cents."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ticks = [tick for tick in (1, 2, 3, 5, 10, 20, 30, 50, 70) if low <= tick <= high]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.grid(axis="x", alpha=0.25)


def gaps_of_twins(gaps):
    """How far the losses of two trainings differ at each step, {dtype: array of steps}, on a logarithmic axis."""
    picture, ax = figure(size=(7.6, 3), alt=(
        "Difference of the two loss curves against the training step on a logarithmic axis: in float32 about as small "
        "as float32 can tell, in float64 smaller by eight or nine powers of ten."
    ))  # fmt: skip
    for (dtype, gap), marker, colour in zip(gaps.items(), ("o", "^"), (BLUE, ORANGE), strict=True):
        steps = range(1, len(gap) + 1)
        ax.plot(steps, gap + 1e-17, marker, ms=3, color=colour, label=str(dtype).removeprefix("torch."))
    ax.set(yscale="log", xlabel="training step", ylabel="difference of the losses")
    ax.set_yticks([1e-17, 1e-15, 1e-12, 1e-9, 1e-6], ["0", "1e-15", "1e-12", "1e-9", "1e-6"])
    ax.minorticks_off()
    ax.legend(fontsize=9, loc="center right")
    return picture


def losses_on_shuffled_images(runs):
    """Training loss of Mixer and CNN on three kinds of images, {"Mixer, whole": {"curves": (seeds, steps)}, ...}."""
    picture, (left, right) = figure(1, 2, (8.4, 3.4), sharey=True, alt=(
        "Training loss against steps, the range of three seeds as a band. Mixer: the three kinds of images run close "
        "together. CNN: whole images end lowest, images shuffled by patches above them, globally shuffled ones highest."
    ))  # fmt: skip
    styles = {"whole": (BLUE, "-"), "by patches": (ORANGE, "--"), "globally": (GREY, ":")}
    for ax, name in [(left, "Mixer"), (right, "small CNN")]:
        for how, (colour, style) in styles.items():
            curves = runs[f"{name}, {how}"]["curves"]
            curves = curves.reshape(len(curves), -1, 20).mean(axis=2)  # means of twenty steps
            at = 20 * np.arange(1, curves.shape[1] + 1)
            ax.plot(at, curves.mean(axis=0), style, color=colour, label=how)
            ax.fill_between(at, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15, lw=0)
        ax.set(title=name, xlabel="training step", yscale="log")
    left.set_ylabel("training loss (nats), log axis")
    right.legend(fontsize=9, title="images")
    return picture
