"""Draw the figures of README and docs/ as SVG: `make figures`, or `python figures/draw.py [folder]`.

The same bytes on every run, so that a figure in git changes only when its drawing or its numbers do.
"""

import html
import io
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np

from mixer_utils import diagrams, load_pretrained, mixing
from mixer_utils.checkpoints import write_atomically
from mixer_utils.plotting import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SIGNED,
    figure,
    montage,
    plot_confusion_matrix,
    plot_history,
)
from mixer_utils.training import History
from mixer_utils.widgets import untrained

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
MINUTE, SHIPPED, PEERS, COST = (
    RESULTS / f"{name}.json" for name in ("minute", "pretrained-mnist", "bench-peers", "bench-cost")
)
STYLE = {"svg.hashsalt": "mlp-mixer-tutorial", "svg.fonttype": "path"}


def main(folder=HERE):
    save(diagrams.architecture(), "MLP-Mixer architecture", folder, "architecture")
    save(diagrams.patch_embedding(), "Patch embedding", folder, "patch_embedding")
    save(diagrams.mixer_layer(), "One Mixer layer", folder, "mixer_layer")
    save(diagrams.mlp_block(), "The MLP block", folder, "mlp_block")
    save(maps_over_seeds(), "What units of token mixing read, over seeds", folder, "maps")
    if PEERS.exists() and COST.exists():  # what `make bench` measures
        bench = plot_bench(json.loads(PEERS.read_text())["cases"], json.loads(COST.read_text())["sweeps"])
        save(bench, "Speed beside other Mixers, and how cost grows", folder, "bench")

    missing = [path.name for path in (MINUTE, SHIPPED) if not path.exists()]
    if missing:
        return f"{' and '.join(missing)} missing: run `make results`; curves and confusion matrix were not drawn."
    run = next(run for run in json.loads(MINUTE.read_text())["runs"] if run["seed"] == 0)
    curves = plot_history(History(**run["history"]))
    for ax in curves.axes:
        for line in ax.lines:
            line.set_rasterized(len(line.get_xdata()) > 500)  # thousands of steps would be most of the file
    save(curves, "Loss and accuracy during training", folder, "curves")
    metrics = json.loads(SHIPPED.read_text())["metrics"]
    names = [row["name"] for row in metrics["per_class"]]
    save(plot_confusion_matrix(metrics["confusion_matrix"], names), "Confusion matrix", folder, "confusion_matrix")


def maps_over_seeds(shown=5):
    """Of every block and network some units, evenly over the half whose maps have most structure."""
    networks = {
        "before training": untrained(load_pretrained("mnist-14x14")),
        "MNIST, seed 0": load_pretrained("mnist-14x14"),
        "MNIST, seed 1": load_pretrained("mnist-14x14-seed-1"),
        "MNIST, seed 2": load_pretrained("mnist-14x14-seed-2"),
        "Fashion-MNIST, seed 0": load_pretrained("fashion-mnist-14x14"),
    }
    num_blocks = next(iter(networks.values())).config["num_blocks"]
    picture, axes = figure(len(networks), num_blocks, (9, 3.5), alt=(
        "Rows of 14 x 14 maps, five units for each block and network. Before training they are noise. After it, with "
        "every seed and on Fashion-MNIST, too, areas of one colour stand beside areas of the other."
    ))  # fmt: skip
    for k, ax in enumerate(axes[0]):
        ax.set_title(f"block {k}", fontsize=10)
    for row, (name, model) in zip(axes, networks.items(), strict=True):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        grid = mixing.patch_grid(model)
        for ax, maps in zip(row, mixing.unit_maps(model)[:, 0].numpy(), strict=True):
            order = mixing.by_structure(maps, grid)[: len(maps) // 2 : len(maps) // 2 // shown][:shown]
            scaled = maps[order] / np.abs(maps[order]).max(axis=1, keepdims=True)
            strip = montage(scaled.reshape(-1, *grid), columns=shown)
            ax.imshow(strip, cmap=SIGNED, vmin=-1, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    return picture


OTHERS = ("timm", "lucidrains", "small MNIST Mixer")  # and not our own, written in other ways


def plot_bench(cases, sweeps):
    """Above, how many times as long other Mixers take as ours; below, seconds and memory of a step against its size."""
    precision = cases[0]["precision"]
    ratios = [
        ratio["median"]
        for case in cases
        for name, ratio in case["ratio"].items()
        if name in OTHERS and case["precision"] == precision
    ]
    exponents = ", ".join(f"{found['exponent']['seconds']:.2f} of {name}" for name, found in sweeps.items())
    beside = f", between {min(ratios):.2f} and {max(ratios):.2f} times as long in {precision}" if ratios else ""
    picture, axes = figure(2, 2, (8.4, 7.6), alt=(
        f"Time of other Mixers relative to ours, by shape, in training and inference{beside}. Below, seconds and saved "
        f"memory of a training step against the formula's multiply-adds; seconds grow with the power {exponents}."
    ), height_ratios=[3, 2])  # fmt: skip
    for ax, mode in zip(axes[0], ("training", "inference"), strict=True):
        draw_ratios(ax, [case for case in cases if case["mode"] == mode], precision)
        ax.set(title=mode, xlabel="time relative to ours")
    axes[0, 1].set_yticklabels([])
    axes[0, 0].legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    for ax, key, unit, name in [(axes[1, 0], "seconds", 1e-3, "a training step (ms)"),
                                (axes[1, 1], "saved_bytes", 2**20, "saved for backward (MiB)")]:  # fmt: skip
        for (sweep, found), colour, marker in zip(sweeps.items(), (BLUE, ORANGE, GREEN), "osD", strict=True):
            ax.loglog([point["multiply_adds"] / 1e6 for point in found["points"]],
                      [point[key] / unit for point in found["points"]], color=colour, marker=marker, ms=5,
                      label=f"{sweep} alone: as {sweep} to the power {found['exponent'][key]:.2f}")  # fmt: skip
        ax.set(xlabel="multiply-adds of one image (millions)", ylabel=name)
        ax.grid(alpha=0.25)
        ax.set_ylim(top=3 * ax.get_ylim()[1])  # room for the legend
        ax.legend(fontsize=8, loc="upper left")
    return picture


def draw_ratios(ax, cases, precision):
    """A bar for each shape and model in ``precision``, with its quartiles; a dot on it for float32."""
    shapes = list(dict.fromkeys(case["shape"] for case in cases))
    names = [name for name in OTHERS if any(name in case["ratio"] for case in cases)]
    wide = 0.8 / max(1, len(names))
    for i, (name, colour) in enumerate(zip(names, (BLUE, ORANGE, PURPLE), strict=False)):
        for case in cases:
            if name not in case["ratio"]:
                continue
            found, y = case["ratio"][name], shapes.index(case["shape"]) + (i - (len(names) - 1) / 2) * wide
            if case["precision"] == precision:
                spread = [[found["median"] - found["low"]], [found["high"] - found["median"]]]
                ax.barh(y, found["median"], wide * 0.9, xerr=spread, color=colour, error_kw={"ecolor": GREY, "lw": 1},
                        label=name if case["shape"] == shapes[0] else None)  # fmt: skip
            else:
                ax.plot(found["median"], y, "o", color="white", mec="black", ms=4.5, zorder=3,
                        label=case["precision"] if i == 0 and case["shape"] == shapes[0] else None)  # fmt: skip
    ax.axvline(1, color="black", lw=1)
    ax.set_yticks(range(len(shapes)), shapes)
    ax.invert_yaxis()


def save(picture, title, folder, name):
    """Write ``folder/name.svg``, which says what it shows to those who cannot see it: title, alt text, role."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        picture.savefig(text, format="svg", dpi=192, metadata={"Date": None, "Creator": None})
    before, rest = text.getvalue().split("<svg ", 1)
    attributes, after = rest.split(">", 1)
    said = f"<title>{html.escape(title)}</title>\n <desc>{html.escape(picture.alt)}</desc>"
    svg = f'{before}<svg role="img" {attributes}>\n {said}{after}'
    write_atomically(Path(folder) / f"{name}.svg", svg.encode())
    print(f"{name}.svg")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
