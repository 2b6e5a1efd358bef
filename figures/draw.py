"""Draw every figure of the README as SVG: `make figures`, or `python figures/draw.py [folder]`.

The same bytes on every run, so that a figure in git changes only when its drawing or its numbers do.
"""

import html
import io
import json
import sys
from pathlib import Path

import matplotlib

from mixer_utils import diagrams
from mixer_utils.checkpoints import write_atomically
from mixer_utils.plotting import plot_confusion_matrix, plot_history
from mixer_utils.training import History

HERE = Path(__file__).resolve().parent
MINUTE = HERE.parent / "results" / "minute.json"
STYLE = {"svg.hashsalt": "mlp-mixer-tutorial", "svg.fonttype": "path"}


def main(folder=HERE):
    save(diagrams.architecture(), "MLP-Mixer architecture", folder, "architecture")
    save(diagrams.patch_embedding(), "Patch embedding", folder, "patch_embedding")
    save(diagrams.mixer_layer(), "One Mixer layer", folder, "mixer_layer")
    save(diagrams.mlp_block(), "The MLP block", folder, "mlp_block")

    if not MINUTE.exists():
        return f"{MINUTE} is missing: run `make results` to measure it; curves and confusion matrix were not drawn."
    run = next(run for run in json.loads(MINUTE.read_text())["runs"] if run["seed"] == 0)
    curves = plot_history(History(**run["history"]))
    for ax in curves.axes:
        for line in ax.lines:
            line.set_rasterized(len(line.get_xdata()) > 500)  # thousands of steps would be most of the file
    save(curves, "Loss and accuracy during training", folder, "curves")
    metrics = run["metrics"]
    names = [row["name"] for row in metrics["per_class"]]
    save(plot_confusion_matrix(metrics["confusion_matrix"], names), "Confusion matrix", folder, "confusion_matrix")


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
