"""The figures of notebook 10: times and gains as bars, the roofline, batches, memory, two processes, size."""

import torch

from mixer_utils.plotting import BLUE, GREY, ORANGE, figure


def bars(times, alt, gain=True, unit="median milliseconds"):
    """A bar for each time {name: seconds}, with its gain over the first, or its share (False), or neither (None)."""
    picture, ax = figure(size=(7.2, 0.7 + 0.4 * len(times)), alt=alt)
    first, whole = next(iter(times.values())), sum(times.values())
    for row, seconds in enumerate(times.values()):
        ax.barh(row, 1000 * seconds, height=0.6, color=GREY if gain and row == 0 else BLUE)
        note = f"{1000 * seconds:.3g} ms"
        if gain and row > 0:
            note += f": {first / seconds:.2f} times as fast"
        elif gain is False:
            note += f": {seconds / whole:.0%}"
        ax.text(1000 * seconds, row, f"  {note}", va="center", fontsize=9)
    ax.set_yticks(range(len(times)), times)
    ax.set(xlabel=unit, ylim=(len(times) - 0.4, -0.6))
    ax.margins(x=0.3)
    return picture


def shares(seconds):
    """Where the time of a training step goes, {kind of operator: seconds}."""
    alt = f"Time of a training step, a bar for each kind of operator: {', '.join(seconds)}."
    return bars(seconds, alt, gain=False, unit="milliseconds a step, mean of ten steps")


def roofline(peaks, bandwidth, operators, times):
    """Four operators under two roofs.

    peaks {precision: FLOP a second}, bandwidth bytes a second, operators {name: (FLOP, bytes)}, times {name: seconds}.
    """
    alt = (
        "Roofline on logarithmic axes: a slanted roof, the memory's, meets a flat one, the processor's. LayerNorm and "
        "GELU are points far left; token mixing and channel mixing lie further right, and higher."
    )
    picture, ax = figure(size=(7.4, 4.2), alt=alt)
    intensity = torch.logspace(-0.5, 3, 200)
    for (name, top), color, line in zip(peaks.items(), (GREY, ORANGE), ("-", "--"), strict=False):
        ax.plot(intensity, (bandwidth * intensity).clamp(max=top) / 1e9, line, color=color)
        ax.text(1000, 1.06 * top / 1e9, f"peak in {name}: {top / 1e9:,.0f}", ha="right", fontsize=9)
    for (name, (flop, moved)), marker in zip(operators.items(), "os^Dv", strict=False):
        ax.plot(flop / moved, flop / times[name] / 1e9, marker, color=BLUE, ms=8)
        ax.text(1.15 * flop / moved, flop / times[name] / 1e9, name, va="center", fontsize=9)
    ax.set(xscale="log", yscale="log", xlabel="FLOP for each byte moved", ylabel="GFLOP a second")
    lowest = min(flop / times[name] for name, (flop, _) in operators.items())
    ax.set_ylim(0.6 * lowest / 1e9, 2 * max(peaks.values()) / 1e9)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:,g}")
    ax.set_title(f"slanted roof: {bandwidth / 1e9:.0f} GB a second of memory", fontsize=10, loc="left")
    ax.grid(alpha=0.25)
    return picture


def batches(sizes, rates):
    """Images a second against the batch size."""
    alt = f"Images a second against batch size from {sizes[0]} to {sizes[-1]:,}: the curve rises, then flattens."
    picture, ax = figure(size=(6.4, 3.2), alt=alt)
    ax.plot(sizes, rates, "o-", color=BLUE)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, sizes)
    ax.set(xlabel="batch size", ylabel="images a second", ylim=(0, None))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.grid(alpha=0.25)
    return picture


def processes(one, two):
    """Training loss, step by step, in one process and in two."""
    alt = "Training loss on digits, in one process and in two: the curves lie on top of each other."
    picture, ax = figure(size=(6.8, 3.2), alt=alt)
    ax.plot(one, color=ORANGE, lw=5, alpha=0.5, label="one process")
    ax.plot(two, color=BLUE, lw=1.2, label="two processes")
    ax.set(xlabel="step", ylabel="training loss (nats)", ylim=(0, None))
    ax.legend()
    return picture


def bigger(rows):
    """Test error against parameters and against the work of training; {recipe: (parameters, TFLOP, accuracies)}."""
    said = "; ".join(f"{name} {100 * (1 - sum(a) / len(a)):.2f} %" for name, (_, _, a) in rows.items())
    alt = f"Test error against parameters and against the work of the whole training, on logarithmic axes: {said}."
    picture, axes = figure(1, 2, (8.4, 3.2), alt, sharey=True)
    for ax, at, name in zip(axes, (0, 1), ("parameters", "TFLOP of training"), strict=True):
        for recipe, row in rows.items():
            errors = [100 * (1 - accuracy) for accuracy in row[2]]
            ax.plot([row[at]] * len(errors), errors, "o", color=BLUE, ms=4, alpha=0.5)
            middle = sum(errors) / len(errors)
            ax.plot(row[at], middle, "D", color=ORANGE, ms=7)
            ax.annotate(recipe, (row[at], middle), (9, 0), textcoords="offset points", va="center", fontsize=9)
        ax.set(xscale="log", yscale="log", xlabel=name)
        ax.set_yticks([0.4, 0.6, 1, 1.5], ["0.4", "0.6", "1", "1.5"])
        ax.minorticks_off()
        ax.margins(x=0.25)
    axes[0].set_ylabel("test error, %")
    return picture


def gains(measured):
    """What each change made of the time of a whole training step, {name: times as fast}; right of 1 is faster."""
    said = ", ".join(f"{name} {gained:.2f}" for name, gained in measured.items())
    picture, ax = figure(size=(7.4, 0.9 + 0.32 * len(measured)), alt=f"Times as fast, each change in turn: {said}.")
    for row, gained in enumerate(measured.values()):
        ax.plot([1, gained], [row, row], color=GREY, lw=1)
        ax.plot(gained, row, "o", color=BLUE, ms=8)
        side = "left" if gained >= 1 else "right"
        ax.text(gained, row, f"   {gained:.2f}   ", va="center", ha=side, fontsize=9)
    ax.axvline(1, color=GREY, lw=1, ls=":")
    ax.set_yticks(range(len(measured)), measured)
    ax.set(xlabel="times as fast (a whole training step)", ylim=(len(measured) - 0.5, -0.5))
    ax.margins(x=0.15)
    return picture
