"""Every notebook as an impatient student runs it: each cell twice, from a folder that is not the notebooks'. It runs on
digits, and trains on them for a few epochs only. A cell that takes long the first time is run once; the end of pytest's
output lists these cells.

Two notebooks are begun, and their kernel is restarted, before that: 05, whose training makes students restart, and 09,
whose files are still there when its kernel is gone.
"""

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.util import run_sync

ROOT = Path(__file__).parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RESTARTED = ("05", "09")
LONG = 2.0  # seconds of a processor: the same cells are long on a busy machine

# What makes a notebook long and changes nothing of what is looked at here; nbval runs every notebook as it is.
SHORTER = {
    "for name in list(measured) * 3:": "for name in list(measured):",
    '"epochs=4"': '"epochs=1"',
    'seeds = (0, 1, 2) if how == "whole" else (3, 4, 5)': "seeds = (0,)",
    "steps=2 * STEPS, batch_size=64": "steps=STEPS, batch_size=64",
}

# Run before the first cell: shorten training, and keep every picture that is made, with the number of its cell.
BEFORE = """
import dataclasses, os
from mixer_utils import RECIPES, plotting
RECIPES["digits"] = dataclasses.replace(RECIPES["digits"], epochs=6)
def _watched(self, *arguments, _init=plotting.Picture.__init__, **options):
    _init(self, *arguments, **options)
    _pictures.append((_cell, self))
plotting.Picture.__init__ = _watched
_pictures = []
"""
CLOCK = "print(sum(os.times()[:4]))"  # of the kernel and of the processes it has waited for
# Run after the last cell: labelled lines of one plot that only their colour tells apart. A line whose label is also
# written into the plot needs no more than that.
AFTER = """
import json
_same = set()
for _cell, _picture in _pictures:
    for _ax in _picture.axes:
        _written, _styles = {text.get_text() for text in _ax.texts}, {}
        for _line in _ax.lines:
            _label = str(_line.get_label())
            if _label and not _label.startswith("_") and _label not in _written:
                _style = (_line.get_linestyle(), _line.get_marker(), _line.get_linewidth())
                _other = _styles.setdefault(_style, _label)
                if _other != _label:
                    _same.add(f"cell {_cell}: {_other!r} and {_label!r}")
print(json.dumps([len(_pictures), sorted(_same)]))
"""


class Kernel:
    """A notebook's kernel; ``errors`` collects what went wrong in its cells, ``long`` the {cell: seconds} run once."""

    def __init__(self, client):
        self.client = client
        self.errors = []
        self.long = {}
        self.cells = [(i, cell) for i, cell in enumerate(client.nb.cells) if cell.cell_type == "code"]

    def restart(self):
        run_sync(self.client.km.restart_kernel)(now=True)
        run_sync(self.client.kc.wait_for_ready)(timeout=120)

    def run(self, cells, times):
        self.also(BEFORE)
        for i, cell in cells:
            self.also(f"_cell = {i}")
            before = float(self.also(CLOCK))
            self.run_once(i, cell, turn=1)
            seconds = float(self.also(CLOCK)) - before
            if seconds > LONG:
                self.long[i] = seconds
            elif times == 2:
                self.run_once(i, cell, turn=2)

    def run_once(self, i, cell, turn):
        self.client.execute_cell(cell, i)
        meant = "raises-exception" in cell.metadata.get("tags", [])
        for output in cell.outputs:
            if output.output_type == "error" and not meant:
                self.errors.append(f"cell {i}, run {turn}: {output.ename}: {output.evalue}\n{cell.source}")

    def also(self, source):
        """Run code that is none of the notebook's; returns what it prints."""
        cell = nbformat.v4.new_code_cell(source)
        self.client.nb.cells.append(cell)
        self.client.execute_cell(cell, len(self.client.nb.cells) - 1)
        assert all(output.output_type == "stream" for output in cell.outputs), cell.outputs
        return "".join(output.text for output in cell.outputs)


def try_out(notebook, folder, restart=False):
    """Run a notebook's cells in ``folder`` as said at the top of this file.

    Returns its ``errors``, the cells that took ``long``, the number of ``pictures`` and the lines that look the
    ``same`` in them.
    """
    variables = {
        "PYTHONPATH": str(ROOT),
        "MIXER_DATA": str(folder / "no data"),
        "MIXER_DOWNLOAD": "0",
        "MIXER_EXERCISES": "0",
        "MIXER_PROGRESS": "0",
        "OMP_NUM_THREADS": "1",
    }
    quiet = ["--log-level=ERROR"]
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", allow_errors=True, extra_arguments=quiet)
    with client.setup_kernel(cwd=str(folder), env=os.environ | variables):
        kernel = Kernel(client)
        if restart:
            kernel.run(kernel.cells[: math.ceil(len(kernel.cells) / 4)], times=1)
            kernel.restart()
        kernel.run(kernel.cells, times=2)
        pictures, same = json.loads(kernel.also(AFTER))
    return SimpleNamespace(errors=kernel.errors, long=kernel.long, pictures=pictures, same=same)


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: path.stem)
def seen(request, tmp_path_factory):
    notebook = nbformat.read(request.param, as_version=4)
    for cell in notebook.cells:
        for long, short in SHORTER.items():
            cell.source = cell.source.replace(long, short)
    restart = request.param.stem[:2] in RESTARTED
    seen = try_out(notebook, tmp_path_factory.mktemp("elsewhere"), restart)
    seen.name = request.param.stem
    return seen


def test_cells_run_twice_from_another_folder_and_after_a_restart_without_an_error(seen):
    assert not seen.errors, "\n\n".join(seen.errors)
    if seen.long:
        print(f"once: {seen.name}:", ", ".join(f"cell {i} ({seconds:.0f} s)" for i, seconds in seen.long.items()))


def test_no_two_lines_with_a_label_differ_by_colour_alone(seen):
    assert seen.pictures
    assert seen.same == []


def test_what_is_made_shorter_stands_in_one_cell_of_the_series():
    sources = [cell.source for path in PATHS for cell in nbformat.read(path, as_version=4).cells]
    for long in SHORTER:
        assert sum(source.count(long) for source in sources) == 1, long


def test_a_cell_that_fails_the_second_time_and_lines_that_look_the_same_are_found(tmp_path):
    sources = [
        "from mixer_utils.plotting import BLUE, RED, figure\nleft = [1]",
        "import pathlib\npathlib.Path('first-quarter').touch(exist_ok=False)",
        "left.pop()",
        "_, ax = figure(alt='Four lines.')\nax.plot([1], color=BLUE, label='a')\nax.plot([2], color=RED, label='b')",
        "ax.plot([2, 1], color=RED, label='dashed', ls='--')\nax.plot([2, 2], label='named')\nax.text(0, 2, 'named')",
    ]
    sources += [
        "import time\nend = time.process_time() + 2.2\nwhile time.process_time() < end:\n    pass\nleft.append(1)"
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    found = try_out(notebook, tmp_path, restart=True)
    assert [error.split(": ")[:2] for error in found.errors] == [
        ["cell 1, run 1", "FileExistsError"],
        ["cell 1, run 2", "FileExistsError"],
        ["cell 2, run 2", "IndexError"],
    ]
    assert found.pictures == 2
    assert found.same == ["cell 3: 'a' and 'b'"]
    assert list(found.long) == [5]
