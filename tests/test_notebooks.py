"""What every notebook must be, read from the saved files alone. That the cells run is nbval's part (`make test`)."""

import ast
import inspect
import json
import os
import re
import statistics
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import nbformat
import pytest

from mixer_utils import model

ROOT = Path(__file__).parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = ["00_start_here", "01_patch_embedding", "02_token_mixing", "03_channel_mixing", "04_mlp_mixer",
         "05_training", "06_evaluation", "07_mixing_weights", "10_faster_and_bigger"]  # fmt: skip
SHOWN = {"01_patch_embedding": ["PatchEmbedding"], "02_token_mixing": ["TokenMixing", "left"],
         "03_channel_mixing": ["MlpBlock"], "04_mlp_mixer": ["MixerBlock", "MlpMixer"]}  # fmt: skip

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path):
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def tags(cell):
    return set(cell.metadata.get("tags", []))


def images(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                yield output


def test_the_series_is_complete_and_numbered_without_a_gap():
    assert [path.stem for path in PATHS] == NAMES


@every_notebook
def test_a_notebook_is_valid_and_at_most_one_megabyte(path):
    nbformat.validate(json.loads(path.read_text(encoding="utf-8")))
    assert path.stat().st_size <= 1_000_000


@every_notebook
def test_it_was_run_from_the_first_cell_to_the_last(path):
    assert [cell.execution_count for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))


@every_notebook
def test_no_widget_state_is_saved(path):
    assert "widgets" not in read(path).metadata
    for cell in code_cells(path):
        for output in cell.outputs:
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), cell.source


@every_notebook
def test_no_output_is_an_error_or_a_warning(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", f"{cell.source}\nprinted to stderr: {output.get('text')}"


@every_notebook
def test_no_absolute_path_is_left(path):
    folders = r"(?<![\w.:/])/(?:root|home|work|Users|tmp|opt|var)/[\w./-]+|[A-Z]:\\\\\w+"
    assert not re.findall(folders, path.read_text(encoding="utf-8"))


@every_notebook
def test_only_known_tags_are_used(path):
    for cell in code_cells(path):
        assert tags(cell) <= {"nbval-ignore-output", "raises-exception"}, cell.source


@every_notebook
def test_at_least_four_fifths_of_the_printing_cells_are_compared(path):
    printing = [cell for cell in code_cells(path) if cell.outputs]
    compared = [cell for cell in printing if "nbval-ignore-output" not in tags(cell)]
    assert len(compared) >= 0.8 * len(printing), f"{len(compared)} of {len(printing)}"


@every_notebook
def test_every_figure_says_what_it_shows(path):
    for output in images(path):
        alt = output.metadata["image/png"]["alt"]
        assert len(alt.split()) >= 6, alt
        assert not re.match(r"(an? )?(image|picture|figure|plot) of", alt, re.IGNORECASE), alt
        assert output.data["text/plain"] == alt
    for alt, _ in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", prose(path)):
        assert alt.strip()


def test_the_setup_cell_is_the_same_in_all_and_at_most_twelve_lines():
    setups = {code_cells(path)[0].source for path in PATHS}
    assert len(setups) == 1
    (setup,) = setups
    assert len(setup.splitlines()) <= 12
    ast.parse(setup)  # plain Python, no magics


@every_notebook
def test_all_code_is_plain_python(path):
    for cell in code_cells(path):
        ast.parse(cell.source)


@every_notebook
def test_links_between_notebooks_and_to_files_resolve(path):
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)[^)]*\)", prose(path)):
        assert (path.parent / target).is_file(), target


@every_notebook
def test_it_opens_itself_in_colab_from_the_address_in_pyproject(path):
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    name = stated.removeprefix("https://github.com/")
    assert f"https://colab.research.google.com/github/{name}/blob/main/notebooks/{path.name}" in prose(path)
    assert f'address = "{stated}"' in code_cells(path)[0].source


@every_notebook
def test_it_leads_to_its_neighbours(path):
    at = PATHS.index(path)
    for neighbour in PATHS[at + 1 : at + 2] + PATHS[max(0, at - 1) : at]:
        if neighbour.stem != "00_start_here":
            assert neighbour.name in prose(path)


@every_notebook
def test_cells_are_short_and_there_is_enough_to_read(path):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)[1:]]
    limit = 60 if path.stem == "04_mlp_mixer" else 30  # 04 shows MlpMixer whole, once
    assert max(lengths) <= limit
    assert statistics.median(lengths) <= 9
    assert 20 <= len(lengths) + 1 <= 48
    assert 800 <= len(prose(path).split()) <= 3500


@every_notebook
def test_it_asks_before_it_tells_and_ends_with_exercises(path):
    sources = [cell.source for cell in code_cells(path)]
    assert any(source.startswith("prediction = None") for source in sources)
    number = path.stem[:2]
    headings = re.findall(rf"### Exercise {number}\.(\d) · (★+☆*) · \d+ minutes", prose(path))
    assert len(headings) >= 3
    checks = [source for source in sources if source.startswith(f'check("{number}.')]
    assert len(checks) >= 2
    for cell in code_cells(path):
        if cell.source.startswith("check("):
            assert "not yet" in cell.outputs[0].text


def test_without_mnist_the_whole_series_runs_on_digits_and_says_so_at_both_ends(tmp_path):
    nowhere = {"MIXER_DATA": str(tmp_path / "nothing"), "MIXER_DOWNLOAD": "0", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, ROOT / "tools" / "notebooks.py", "tutorial", tmp_path / "build"],
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.strip().splitlines()
    assert sum("digits: mnist is not in" in line for line in lines[:2]) == 1
    assert "digits, not MNIST" in lines[-1]
    assert any(re.fullmatch(r"Reached: test accuracy \d+\.\d+% on 360 images of digits", line) for line in lines)
    assert len(list((tmp_path / "build").glob("*.html"))) == len(NAMES)
    told = (tmp_path / "build" / "05_training.ipynb").read_text(encoding="utf-8")
    assert "test accuracy of at least 98.34 %: not checked (digits instead of mnist)" in told


class WithoutDocstrings(ast.NodeTransformer):
    def visit(self, node):
        self.generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = body[1:]
        return node


def tree(source):
    return ast.dump(WithoutDocstrings().visit(ast.parse(textwrap.dedent(source))))


@pytest.mark.parametrize("name, shown", [(name, shown) for name, parts in SHOWN.items() for shown in parts])
def test_a_class_or_function_shown_in_a_notebook_is_the_package_s(name, shown):
    trees = [ast.parse(cell.source) for cell in code_cells(ROOT / "notebooks" / f"{name}.ipynb")]
    (found,) = [node for cell in trees for node in cell.body if getattr(node, "name", None) == shown]
    assert tree(ast.unparse(found)) == tree(inspect.getsource(getattr(model, shown)))
