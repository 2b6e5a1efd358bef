"""What `python -m mixer_utils grade` finds in submitted notebooks."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixer_utils.__main__ import main
from mixer_utils.exercises import grading
from mixer_utils.exercises.catalogue import exercises_of
from mixer_utils.exercises.cells import checks, needed, read
from mixer_utils.exercises.exercise import NOT_YET
from mixer_utils.exercises.grading import Mark, grade

ROOT = Path(__file__).resolve().parent.parent
(NOTEBOOK_02,) = (ROOT / "notebooks").glob("02_*.ipynb")

START = "import torch\nfrom mixer_utils import exercises as ex"
RIGHT = """
def first_half(x, norm, mlp):
    return x + mlp(norm(x).transpose(1, 2)).transpose(1, 2)
"""
WRONG = """
def first_half(x, norm, mlp):
    return mlp(norm(x).transpose(1, 2)).transpose(1, 2)
"""
SENTENCE = "the residual is missing: add x to the result"
STUB = "def first_half(x, norm, mlp):\n    ..."
CHECK = 'ex.check("02.2", first_half)'
assert SENTENCE in exercises_of("02")["02.2"].mistakes


def code(source, printed=""):
    outputs = [{"output_type": "stream", "name": "stdout", "text": printed}] if printed else []
    return {"cell_type": "code", "metadata": {}, "execution_count": 1, "outputs": outputs, "source": source}


def submit(path, *cells):
    """A notebook of these code cells as a file."""
    cells = [cell if isinstance(cell, dict) else code(cell) for cell in cells]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}), encoding="utf-8")
    return path


# --- one submission --------------------------------------------------------------------------------------------------


def test_answers_in_the_series_own_notebook_pass_fail_or_are_missing(tmp_path):
    notebook = json.loads(NOTEBOOK_02.read_text(encoding="utf-8"))
    own = {number: expression for cell in notebook["cells"] for number, expression in checks("".join(cell["source"]))}
    written = {"02.1": f"{own['02.1']} = lambda S: torch.eye(S).roll(1, dims=0).tril()", "02.2": WRONG}
    cells = []
    for cell in notebook["cells"]:
        for number, _ in checks("".join(cell["source"])):
            cells += [code(written[number])] if number in written else []
            cell["outputs"] = code("", f"{number}: right\n")["outputs"]  # as saved with the file
        cells += [cell]
    marks = grade(submit(tmp_path / "ex2 final (3).ipynb", *cells))
    assert list(marks) == list(exercises_of("02"))
    assert marks.pop("02.1")[0] == "pass"
    assert marks.pop("02.2") == ("fail", SENTENCE)
    assert set(marks.values()) == {("missing", NOT_YET)}


def test_cells_that_fail_and_shell_commands_and_files_written_do_no_harm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = submit(
        tmp_path / "a.ipynb",
        START,
        "1 / 0",
        "this is no Python at all",
        "%matplotlib inline\n!pip install --quiet no-such-package-at-all\n%time pi = 3",
        "open('written.txt', 'w').write(input('your name?'))",
        "open('written.txt', 'w').write('here')\nimport sys\nsys.exit()",
        f"import subprocess\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))"
        if os.name == "posix"
        else "",
        "%%time\n" + RIGHT,
        CHECK,
    )
    marks = grade(path, whole=True)
    assert marks["02.2"] == ("pass", "right")
    assert marks["02.1"] == ("missing", "its check cell is gone")
    assert {file.name for file in tmp_path.iterdir()} <= {"a.ipynb", "pid"}
    if os.name == "posix":  # what it had started has ended with it
        assert_gone(int((tmp_path / "pid").read_text()))


def assert_gone(pid):
    for _ in range(50):  # a killed process is listed until its new parent has noticed
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} is still there")


def test_a_notebook_that_redefines_the_check_is_not_believed(tmp_path):
    path = submit(
        tmp_path / "a.ipynb",
        START,
        "import mixer_utils.exercises.exercise as inner\nfrom mixer_utils.exercises import record\n"
        "ex.check = check = ex.diagnose = inner.diagnose = lambda number, answer: print(f'{number}: right')\n"
        "inner.same = lambda *given: True\n"
        "record.note('exercises', '02.2', passed=True, sentence='right', done=True)",
        WRONG,
        CHECK,
        "import os\nos._exit(7)",
        "move_on = lambda S: torch.eye(S)",
        'ex.check("02.1", move_on)',
    )
    marks = grade(path, whole=True)
    assert marks["02.2"] == ("fail", SENTENCE)
    assert marks["02.1"] == ("missing", "the notebook's process had ended before (exit status 7)")


def test_a_loop_without_end_is_stopped_when_the_time_is_up(tmp_path):
    marks = grade(submit(tmp_path / "a.ipynb", START, f"while True:\n    pass\n{STUB}", CHECK), seconds=4)
    assert marks["02.2"] == ("missing", "stopped after 4 s")


def test_where_the_cut_takes_too_much_the_whole_notebook_is_run(tmp_path):
    cells = [
        START,
        "exec('def turned(x): return x.transpose(1, 2)')",
        RIGHT.replace("norm(x).transpose(1, 2)", "turned(norm(x))"),
    ]
    assert needed([*cells, CHECK]) == [0, 2, 3]
    assert grade(submit(tmp_path / "a.ipynb", *cells, CHECK))["02.2"] == ("pass", "right")


def test_an_answer_with_a_name_that_is_nowhere_is_told_without_a_second_run(tmp_path, monkeypatch):
    name_error = Mark("missing", "the check was not run: NameError, name 'first_half' is not defined")
    runs = []

    def run(*given):
        runs.append(given)
        return {"02.2": name_error}, "ended"

    monkeypatch.setattr(grading, "run", run)
    assert grade(submit(tmp_path / "a.ipynb", START, "unrelated = 1", CHECK))["02.2"] == name_error
    assert len(runs) == 1


# --- which cells are run, which checks there are ---------------------------------------------------------------------


def test_the_cells_that_are_run_are_those_that_set_what_the_checks_read():
    cells = {
        "setup": "device = start()",
        "import": "import torch\nfrom mixer_utils import exercises as ex",
        "training": "model = train('minute')",
        "broken": "def half(",
        "size": "S = 3",
        "scale": "scale = S + 1",
        "by global": "def choose():\n    global shift\n    shift = 1\nchoose()",
        "local": "def other(x):\n    result = x\n    return result",
        "stub": "def answer(x):\n    model = x\n    return [scale * torch.sum(y) + shift for y in model]",
        "check": 'ex.check("02.1", answer)',
        "after": "print(answer(model))",
    }
    assert [list(cells)[i] for i in needed(list(cells.values()))] == [
        "setup", "import", "broken", "size", "scale", "by global", "stub", "check"]  # fmt: skip


@pytest.mark.parametrize(
    "source, expected",
    [
        ('ex.check("02.1", move_on)', [("02.1", "move_on")]),
        ('check("10.12", answer=7 * x)  # once more', [("10.12", "7 * x")]),
        ('%%time\nfor _ in "ab":\n    ex.check("02.1", f)', [("02.1", "f")]),
        ('ex.check("02.1", f); ex.check("02.2", g)', [("02.1", "f"), ("02.2", "g")]),
        ('# ex.check("02.1", f)\nex.hint("02.1")', []),
        ('ex.check(number, f)\nex.check("02.1")\nex.check("two", f)', []),
        ("ex.check('02.1', f", []),
    ],
)
def test_checks_are_found_as_python_reads_them(source, expected):
    assert checks(source) == expected


def test_a_file_s_name_does_not_matter_its_checks_tell_which_notebook_it_is_or_else_its_title(tmp_path):
    title = {"cell_type": "markdown", "metadata": {}, "source": ["# 03 · Channel mixing\n", "\n", "…"]}
    assert read(submit(tmp_path / "05_training.ipynb", title, START, CHECK))[0] == "02"
    assert read(submit(tmp_path / "x.txt", title, START)) == ("03", [START])
    assert set(grade(submit(tmp_path / "x.txt", title), seconds=0).values()) == {("missing", "its check cell is gone")}


# --- the command -----------------------------------------------------------------------------------------------------


NO_NOTEBOOK = "is no notebook.*ask for the .ipynb file again"


@pytest.mark.parametrize(
    "content, told",
    [
        (None, "cannot be read.*give the path of a notebook"),
        (b'{"cells": [', NO_NOTEBOOK),
        (b"[]", NO_NOTEBOOK),
        (b'{"cells": [{"cell_type": "code"}]}', NO_NOTEBOOK),
        (b"PK\x03\x04\xff, a text document", NO_NOTEBOOK),
        (b'{"cells": []}', "is no notebook of this series.*a check nor a title"),
    ],
)
def test_a_file_that_cannot_be_marked_is_told_by_its_name_and_what_to_do(tmp_path, content, told):
    path = tmp_path / "a.ipynb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} {told}"):
        grade(path)


def test_marks_are_printed_and_one_bad_file_does_not_keep_the_others_from_theirs(tmp_path, monkeypatch, capsys):
    marks = {
        "a.ipynb": {"02.1": Mark("pass", "right"), "02.2": Mark("fail", SENTENCE)},
        "c.ipynb": {"03.1": Mark("missing", "stopped after 9 s")},
    }

    def marked(path, seconds, whole):
        assert (seconds, whole) == (9, True)
        if path.name not in marks:
            raise ValueError(f"{path} is no notebook.")
        return marks[path.name]

    monkeypatch.setattr(grading, "grade", marked)
    for name in ["c.ipynb", "a.ipynb", "b.ipynb", "notes.txt"]:
        (tmp_path / name).touch()
    table = tmp_path / "marks.csv"
    with pytest.raises(SystemExit) as end:
        main(["grade", str(tmp_path), "--seconds", "9", "--whole", "--csv", str(table)])
    assert end.value.code == 1
    a = tmp_path / "a.ipynb"
    b = tmp_path / "b.ipynb"
    c = tmp_path / "c.ipynb"
    printed = capsys.readouterr()
    assert printed.out == (
        f"{a}\n02.1  pass\n02.2  fail     {SENTENCE}\n1 of 2 passed\n"
        f"{b}\n"
        f"{c}\n03.1  missing  stopped after 9 s\n0 of 1 passed\n"
    )
    assert printed.err == f"error: {b} is no notebook.\n"
    assert list(csv.reader(table.read_text(encoding="utf-8").splitlines())) == [
        ["file", "02.1", "02.2", "03.1", "passed", "of"],
        [str(a), "pass", "fail", "", "1", "2"],
        [str(b), "", "", "", "0", "0"],
        [str(c), "", "", "missing", "0", "1"],
    ]
    main(["grade", str(a), "--seconds", "9", "--whole"])
    assert capsys.readouterr().out == f"02.1  pass\n02.2  fail     {SENTENCE}\n1 of 2 passed\n"


def test_a_table_that_cannot_be_written_is_told_before_anything_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "grade", lambda *given: pytest.fail("it was run"))
    with pytest.raises(SystemExit, match=f"^error: {re.escape(str(tmp_path))} cannot be written.*give --csv another"):
        main(["grade", str(tmp_path / "a.ipynb"), "--csv", str(tmp_path)])


def test_the_command_marks_a_file_from_any_folder(tmp_path):
    submit(tmp_path / "a.ipynb", START, RIGHT, CHECK)
    command = [sys.executable, "-m", "mixer_utils", "grade", "a.ipynb"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stderr == ""
    assert "02.2  pass\n" in ran.stdout and re.search(r"^1 of \d passed\n\Z", ran.stdout, re.MULTILINE)
