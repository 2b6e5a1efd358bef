"""Colab's ipywidgets 7 and IPython 7 build every view: they are laid over this environment for one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixer_utils import widgets

ROOT = Path(__file__).parent.parent
# Colab's image of August 2026 (https://github.com/googlecolab/backend-info); the last four are what IPython 7 and
# ipywidgets 7 need and their successors do not.
COLAB = {"ipywidgets": "7.7.1", "anywidget": "0.9.21", "ipython": "7.34.0", "ipykernel": "6.17.1"}
ALSO = ["ipython_genutils", "pickleshare", "backcall", "decorator"]

PROGRAM = """
import json, sys
from importlib.metadata import version
from mixer_utils import load_pretrained, widgets

model, seen = load_pretrained("mnist"), {}
for name in widgets.__all__:
    if name == "explore_training":
        from mixer_utils.snapshots import load_recorded_run
        view = widgets.explore_training(load_recorded_run())
    elif name == "train_in_browser":
        view = widgets.train_in_browser()
    else:
        view = getattr(widgets, name)(model)
    shown, _ = view._repr_mimebundle_()
    state = view.get_state()
    seen[name] = {"view": view.view, "sent": sorted(state), "shown": sorted(shown)}
print(json.dumps({"versions": {name: version(name) for name in sys.argv[1:]}, "views": seen}))
"""


@pytest.fixture(scope="module")
def colab():
    """The folder with Colab's versions, kept in build/ from run to run."""
    folder = ROOT / "build" / "colab"
    wanted = [f"{name}=={number}" for name, number in COLAB.items()] + ALSO
    stamp = folder / "installed.txt"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8").split() != wanted:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", folder, *wanted]
        try:
            run = subprocess.run(pip, capture_output=True, text=True, timeout=300)
            problem = run.returncode and (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        except subprocess.TimeoutExpired:
            problem = "no answer for 5 minutes"
        if problem:
            pytest.skip(f"Colab's versions cannot be installed here ({problem}): connect to the internet.")
        stamp.write_text("\n".join(wanted), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def built(colab):
    """What one process with Colab's versions tells of the views it has built with the shipped model."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(colab), str(ROOT)]), "MIXER_DOWNLOAD": "0"}
    command = [sys.executable, "-c", PROGRAM, *COLAB]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_the_versions_are_colab_s(built):
    assert built["versions"] == COLAB


@pytest.mark.parametrize("name", widgets.__all__)
def test_colab_s_versions_build_each_view_with_the_shipped_model(built, name):
    view = built["views"][name]
    assert view["view"] == {"explore": "network", "train_in_browser": "learn"}.get(name, name.partition("_")[2])
    assert {"_esm", "_css", "view", "data"} <= set(view["sent"])
    assert {"application/vnd.jupyter.widget-view+json", "image/png"} <= set(view["shown"])
