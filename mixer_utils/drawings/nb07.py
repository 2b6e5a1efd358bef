"""The figures of notebook 07: maps of units, their structure, how they form, and what happens without them."""

import numpy as np

from mixer_utils.plotting import BLUE, GREY, ORANGE, figure, plot_images, plot_maps, plot_matrix


def one_unit(maps):
    """The two maps of one unit, (2, rows, columns): what it reads and what it writes."""
    return plot_maps(maps, titles=["reads", "writes"], size=1.6, shared_scale=False, alt=(
        "Two maps of 14 by 14 weights, what one unit of block 0 reads and what it writes: red and "
        "blue areas of many patches each."
    ))  # fmt: skip


def structure_of_units(start, trained):
    """Histograms of Moran's I of every unit, a panel for each block: two lists of arrays, one a block."""
    picture, axes = figure(1, len(trained), (7.2, 2.6), sharey=True, alt=(
        "Histograms of Moran's I over units, block by block. Random starts lie around 0. Trained units "
        "lie around 0.5 in blocks 0 and 1, apart from them, and around 0.2 in block 2, overlapping them."
    ))  # fmt: skip
    bins = np.linspace(-0.3, 1, 27)
    for k, ax in enumerate(axes):
        ax.hist(start[k], bins, color=GREY, alpha=0.7, label="random start")
        ax.hist(trained[k], bins, color=ORANGE, alpha=0.7, label="trained")
        ax.set(title=f"block {k}", xlabel="Moran's I of a unit")
    axes[0].set_ylabel("units, of three seeds")
    axes[-1].legend(fontsize=8)
    return picture


def maps_forming(run, likeness, structure):
    """Along a recorded run: its accuracy, the maps' cosine with their start, and Moran's I, (snapshots, blocks)."""
    picture, ax = figure(size=(6.4, 3.4), alt=(
        "Against training steps: validation accuracy rises to 0.9 while the maps' cosine with their "
        "random start falls from 1 to 0.75; Moran's I rises at the same steps, block 0 first, then block 1."
    ))  # fmt: skip
    ax.plot(run.steps, run.validation_accuracy, "o-", color=BLUE, ms=4, label="validation accuracy")
    ax.plot(run.steps, likeness, "s-", color=GREY, ms=4, label="cosine of the maps with their start")
    for k, style in enumerate(["-", "--", ":"]):
        ax.plot(run.steps, structure[:, k], color=ORANGE, ls=style, label=f"Moran's I, block {k}")
    ax.set(xlabel="training step", xscale="symlog", ylim=(-0.05, 1.03))
    ax.legend(loc="center left", fontsize=8)
    return picture


def trained_and_frozen(steps, curves):
    """Validation error with token mixing trained and not, {frozen: accuracies (seeds, snapshots)}, but for step 0."""
    picture, ax = figure(size=(6.4, 3.2), alt=(
        "Validation error against training steps, on logarithmic axes, three seeds each. Where token mixing "
        "is trained the error is lower from about step ten on; the curves come closer towards the end."
    ))  # fmt: skip
    for frozen, colour, style, label in [
        (False, BLUE, "o-", "trained"),
        (True, ORANGE, "s--", "left as it was drawn"),
    ]:
        for curve in curves[frozen]:
            ax.plot(steps[1:], 1 - curve[1:], style, color=colour, ms=4, label=label)
            label = None  # one entry in the legend
    ax.set(xlabel="training step", ylabel="validation error", yscale="log", xscale="log")
    ax.legend(title="token mixing", fontsize=9)
    return picture


def pairs_of_gelus(z, single, difference, total):
    """What one unit and two kinds of opposite pairs write, against what their pattern gives, each (N,)."""
    picture, ax = figure(size=(5.6, 3.2), alt=(
        "GELU of z is near zero below zero. The difference GELU(z) - GELU(-z) is the straight line "
        "z; the sum is close to the absolute value of z."
    ))  # fmt: skip
    ax.plot(z, single, color=GREY, ls=":", label="GELU(z), one unit")
    ax.plot(z, difference, color=BLUE, label="GELU(z) − GELU(−z), writing opposite")
    ax.plot(z, total, color=ORANGE, ls="--", label="GELU(z) + GELU(−z), writing alike")
    ax.set(xlabel="z, what the pattern gives on an image", ylabel="what the pair writes")
    ax.legend(fontsize=9)
    return picture


def how_pairs_write(panels):
    """Histograms of the cosine of what two units write, {title: {which pairs, by how they read: cosines}}."""
    picture, axes = figure(1, 2, (7.2, 3), sharey=True, alt=(
        "Histograms of the cosine of what two units write. All pairs lie evenly about 0. With 14 x 14 "
        "patches pairs that read most opposite and pairs that read most alike have the same curve, mostly above 0. "
        "With 4 x 4 patches only those that read alike lie above 0; those that read opposite lie as all pairs do."
    ))  # fmt: skip
    for ax, (title, parts) in zip(axes, panels.items(), strict=True):
        for (label, cosines), colour, style in zip(parts.items(), (BLUE, GREY, ORANGE), ("--", ":", "-"), strict=True):
            ax.hist(cosines, np.linspace(-1, 1, 33), color=colour, ls=style, histtype="step", lw=1.8, density=True,
                    label=label)  # fmt: skip
        ax.set(title=title, xlabel="cosine of what the two write")
    axes[0].set_ylabel("density of pairs")
    axes[1].legend(title="pairs that read", fontsize=8, loc="upper left")
    return picture


def without_units(counts, curves, whole, num_units):
    """Accuracy by units removed, {(kind, order): (seeds, counts)}; ``whole`` is the accuracy with all of them."""
    picture, axes = figure(1, 2, (7.4, 3.2), sharey=True, alt=(
        "Accuracy against the number of units removed from every block, zero ablation and mean ablation. "
        "Largest first falls steepest, smallest first least, at random lies between; bars show the seeds."
    ))  # fmt: skip
    styles = {"smallest first": (BLUE, "o-"), "largest first": (ORANGE, "s--"), "at random": (GREY, "^:")}
    for ax, kind in zip(axes, ["zero", "mean"], strict=True):
        for name, (colour, style) in styles.items():
            curve = curves[kind, name]
            mean, deviation = curve.mean(axis=0), curve.std(axis=0, ddof=1)
            ax.errorbar(counts, mean, deviation, color=colour, fmt=style, capsize=3, label=name)
        ax.axhline(whole, color="black", lw=0.8)
        ax.set(title=f"{kind} ablation", xlabel=f"units removed from each block, of {num_units}", ylim=(0, 1.02),
               xticks=counts)  # fmt: skip
    axes[0].set_ylabel("validation accuracy")
    axes[1].legend(fontsize=8, loc="lower left")
    return picture


def effects_of_squares(by_nines, by_fours):
    """How far each of 7 x 7 squares moves the margin, in one colour scale; both (49,)."""
    picture, axes = figure(1, 2, (7.2, 3.2), alt=(
        "Two maps of 7 by 7 squares: how far each moves the margin. Squares of a 9 lower it most in the "
        "middle of the second and third row, where the loop closes; squares of another 4 hardly do."
    ))  # fmt: skip
    scale = np.abs(by_nines).max()
    for ax, title, effect in zip(axes, ["squares of a 9", "squares of another 4"], (by_nines, by_fours), strict=True):
        plot_matrix(effect.reshape(7, 7), title, scale=scale, ax=ax)
    return picture


def fours_made_nines(images):
    """Eight fours, and below them what the squares made of them: (16, 1, H, W)."""
    return plot_images(images, columns=8, size=0.9, alt=(
        "Eight fours, and below them the same fours with six squares taken from nines: most look like a closed loop."
    ))  # fmt: skip
