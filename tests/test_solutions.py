"""Every exercise of every notebook has a solution that fits its stub; a copy without solutions works as well."""

import ast
import contextlib
import functools
import importlib.util
import inspect
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from mixer_utils.exercises.catalogue import exercises_of, notebooks, predictions_of
from mixer_utils.exercises.cells import checks, names

given = pytest.importorskip("mixer_utils.exercises.solutions", reason="this copy comes without solutions")
SOLUTIONS = given.SOLUTIONS
ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "notebooks.py"
spec = importlib.util.spec_from_file_location("notebooks_tool", TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

PATHS = {path.name[:2]: path for path in tool.NOTEBOOKS}
TEACHING = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
NUMBERS = [number for notebook in notebooks() for number in exercises_of(notebook)]


def read(notebook):
    return nbformat.read(PATHS[notebook], as_version=4)


@functools.cache
def cells(notebook):
    """The cells of a notebook, to be read alone: who changes them calls ``read``."""
    return read(notebook).cells


def code(notebook):
    return [cell.source for cell in cells(notebook) if cell.cell_type == "code"]


@functools.cache
def stubs(notebook):
    """{"02.1": the source of the cell to complete}."""
    return {number: cell.source for number, cell in tool.stubs(read(notebook)).items()}


@functools.cache
def imports(notebook):
    """The source of the cell that imports the exercises, and with them all that the solutions use."""
    (source,) = [source for source in code(notebook) if "ex" in names(source)[0]]
    return source


@pytest.fixture(autouse=True)
def gradients_as_before():
    enabled = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(enabled)


@pytest.mark.parametrize("notebook", notebooks())
def test_a_notebook_checks_each_of_its_exercises_once_and_in_order_and_each_has_a_stub(notebook):
    exercises = list(exercises_of(notebook))
    assert [number for source in code(notebook) for number, _ in checks(source)] == exercises
    assert list(stubs(notebook)) == exercises


def test_there_is_a_solution_for_every_exercise_and_no_other():
    assert sorted(SOLUTIONS) == sorted(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_solution_has_the_name_and_the_parameters_of_its_stub(number):
    (stub,) = ast.parse(stubs(number[:2])[number]).body
    (solution,) = ast.parse(inspect.getsource(SOLUTIONS[number])).body
    if isinstance(stub, ast.Assign):  # answer = None: a value is asked for
        assert [target.id for target in stub.targets] == [solution.name] and not solution.args.args
    else:
        assert (stub.name, ast.unparse(stub.args)) == (solution.name, ast.unparse(solution.args))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_solution_pasted_over_its_stub_passes_with_the_notebook_s_own_imports_alone(number):
    notebook = number[:2]
    (check,) = [source for source in code(notebook) if number in dict(checks(source))]
    namespace = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(imports(notebook), namespace)
        exec(inspect.getsource(SOLUTIONS[number]), namespace)
        exec(check, namespace)
    assert printed.getvalue().splitlines()[-1] == f"{number}: right"


def test_the_notes_for_teachers_list_every_exercise_with_the_difficulty_and_minutes_of_its_heading():
    heading = re.compile(r"^### Exercise (\S+) · (\S+) · (\d+) minutes", re.MULTILINE)
    stated = [row for notebook in PATHS for cell in cells(notebook) for row in heading.findall(cell.source)]
    assert [number for number, _, _ in stated] == NUMBERS
    rows = re.findall(r"^\| (\d\d\.\d) \| (\S+) \| (\d+) \|", TEACHING, re.MULTILINE)
    assert rows == stated


def test_the_notes_for_teachers_name_exercises_and_predictions_that_exist():
    predictions = {number for notebook in notebooks() for number in predictions_of(notebook)}
    assert set(re.findall(r"prediction (\d\d\.\d)", TEACHING)) <= predictions
    votes = re.findall(r"^\| \d+–\d+ \|.*\| ([\d., ]+) \|$", TEACHING, re.MULTILINE)
    assert len(votes) >= 8 and {number for vote in votes for number in vote.split(", ")} <= predictions
    assert set(re.findall(r"\d\d\.\d", TEACHING)) <= predictions | set(NUMBERS)


def test_a_prediction_stands_in_the_section_that_the_notes_for_teachers_name():
    named = re.findall(r"(\d\d), section (\d+), prediction (\d\d\.\d)", TEACHING)
    assert len(named) >= 5
    for notebook, section, number in named:
        text = "\n".join(cell.source for cell in cells(notebook))
        inside = re.split(rf"^## {section}\b", text, flags=re.MULTILINE)[1]
        assert f'ex.predict("{number}"' in re.split(r"^## ", inside, flags=re.MULTILINE)[0], number


def test_solving_a_notebook_changes_its_stubs_and_nothing_else():
    notebook = read("02")
    before = read("02")
    tool.solve(notebook, SOLUTIONS)
    changed = [cell.source for cell, old in zip(notebook.cells, before.cells, strict=True) if cell != old]
    assert changed == [inspect.getsource(SOLUTIONS[number]).rstrip() for number in exercises_of("02")]


def first_half(x, norm, mlp):
    return mlp(norm(x).transpose(1, 2)).transpose(1, 2)


def test_the_tool_names_each_check_that_was_not_right_and_ends_with_status_1(tmp_path, monkeypatch, capsys):
    cells = ["import torch\nfrom mixer_utils import exercises as ex"]
    cells += ["def move_on(num_tokens):\n    ...", 'ex.check("02.1", move_on)']
    cells += ["def first_half(x, norm, mlp):\n    ...", 'ex.check("02.2", first_half)']
    path = tmp_path / "02_small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells]), path)
    for name, value in {"PYTHONPATH": str(ROOT), "MIXER_PROGRESS": "0", "MIXER_EXERCISES": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tool, "NOTEBOOKS", [path])
    monkeypatch.setitem(SOLUTIONS, "02.2", first_half)  # a wrong one
    assert tool.solutions(tmp_path / "solved") == 1
    assert capsys.readouterr().out == "02_small … not right: 02.2\n\nFailed: 02.2.\n"
    solved = nbformat.read(tmp_path / "solved" / path.name, as_version=4)
    assert solved.cells[1].source == inspect.getsource(SOLUTIONS["02.1"]).rstrip()
    assert solved.cells[2].outputs[0].text == "02.1: right\n"


# --- a copy of the package without solutions.py ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """A function: run Python with a copy of the package from which solutions.py was removed."""
    folder = tmp_path_factory.mktemp("fork")
    left_out = shutil.ignore_patterns("solutions.py", "__pycache__", "weights", "static")
    shutil.copytree(ROOT / "mixer_utils", folder / "mixer_utils", ignore=left_out)
    environment = os.environ | {"PYTHONPATH": str(folder), "MIXER_EXERCISES": "0"}

    def run(*arguments):
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    return run


def test_without_solutions_py_the_solution_is_not_shown_and_everything_else_works(without):
    program = """
import torch
from mixer_utils import exercises as ex
assert not ex.__file__.startswith(%r)
ex.solution("02.1")
ex.check("02.1", lambda S: torch.eye(S).roll(1, dims=0).tril())
ex.hint("02.1")
ex.progress()
"""
    ran = without("-c", program % str(ROOT))
    assert ran.returncode == 0, ran.stderr
    solution, check, hint, *progress = ran.stdout.splitlines()
    assert solution == "02.1: this copy comes without solutions; ask whoever gave it to you."
    assert check == "02.1: right"
    assert hint.startswith("Hint 1 of ")
    assert "02.1 done" in progress


def test_without_solutions_py_the_tool_says_so(without, tmp_path):
    ran = without(TOOL, "solutions", tmp_path / "solved")
    assert ran.returncode == 1 and ran.stdout == "" and not (tmp_path / "solved").exists()
    assert re.match("error: mixer_utils/exercises/solutions.py is not there.*a copy that has it", ran.stderr)
    assert ran.stderr.count("\n") == 1
