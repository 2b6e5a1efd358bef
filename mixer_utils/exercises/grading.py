"""Marking submitted notebooks: what ``python -m mixer_utils grade FILE.ipynb`` runs.

A submission runs in a process of its own, in an empty folder, for a limited time. Its answers are tried by checks that
it cannot reach by a name, so one that redefines ``ex.check`` gains nothing. But this is no sandbox: the submitted code
has the rights of whoever marks it, and who sets out to deceive can.
"""

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from mixer_utils._files import data_folder, reason_of
from mixer_utils.exercises.catalogue import exercises_of
from mixer_utils.exercises.cells import checks, needed, read
from mixer_utils.exercises.exercise import diagnose, one_line
from mixer_utils.exercises.shelter import Stopped, sheltered

SECONDS = 600


class Mark(NamedTuple):
    """``state`` is "pass", "fail" or "missing"; ``sentence`` says why, in one line."""

    state: str
    sentence: str


# --- several files: what the command prints and writes ----------------------------------------------------------------


def grade_files(paths, seconds=SECONDS, whole=False, table=None):
    """Print the marks of notebooks, or of all notebooks in a folder; True if every one could be marked.

    ``table`` is the Path of a CSV file to write as well. Raises ValueError where it cannot be written. ``seconds`` and
    ``whole`` are those of ``grade``.
    """
    files = [file for path in paths for file in sorted(path.glob("*.ipynb")) or [path]]
    marks_of = {}
    for file in files:
        if table:
            write_table(table, marks_of)  # before the first, too: a path that cannot be written is told at once
        if len(files) > 1:
            print(file)
        try:
            marks_of[file] = grade(file, seconds, whole)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            marks_of[file] = {}
        else:
            print_marks(marks_of[file])
    if table:
        write_table(table, marks_of)
    return all(marks_of.values())


def print_marks(marks):
    for number, (state, sentence) in marks.items():
        print(f"{number}  pass" if state == "pass" else f"{number}  {state:7}  {sentence}")
    print(f"{count_passed(marks)} of {len(marks)} passed", flush=True)


def write_table(path, marks_of):
    """One row for each file: the state of each exercise, how many passed, and of how many.

    Raises ValueError where ``path`` cannot be written.
    """
    numbers = sorted({number for marks in marks_of.values() for number in marks})
    try:
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file", *numbers, "passed", "of"])
            for name, marks in marks_of.items():
                states = [marks[number][0] if number in marks else "" for number in numbers]
                table.writerow([name, *states, count_passed(marks), len(marks)])
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({reason_of(error)}): give --csv another path.") from error


def count_passed(marks):
    return sum(state == "pass" for state, _ in marks.values())


# --- one file ---------------------------------------------------------------------------------------------------------


def grade(path, seconds=SECONDS, whole=False):
    """{"02.1": Mark} for every exercise of the notebook submitted as ``path``.

    Only the cells that the checks need are run, or with ``whole`` all; ``seconds`` is for the file, not for a cell.
    Saved outputs do not count. Raises ValueError for a file that is no notebook of the series.
    """
    notebook, cells = read(path)
    end = time.monotonic() + seconds
    chosen = list(range(len(cells))) if whole else needed(cells)
    marks, unreached = run(notebook, [cells[i] for i in chosen], end)
    left_out = " ".join(source for i, source in enumerate(cells) if i not in chosen)
    doubtful = [number for number, mark in marks.items() if is_missing_name_in(left_out, mark)]
    if doubtful:  # a name is set in a way that names() cannot see
        for number in doubtful:
            del marks[number]
        again, unreached = run(notebook, cells, end)
        marks |= again
    asked = {number for source in cells for number, _ in checks(source)}
    not_reached = Mark("missing", unreached or f"stopped after {seconds:g} s")
    not_asked = Mark("missing", "its check cell is gone")
    return {
        number: marks.get(number, not_reached if number in asked else not_asked) for number in exercises_of(notebook)
    }


def is_missing_name_in(sources, mark):
    """Whether an answer stopped at a name that stands in these sources."""
    unknown = re.search(r"name '(\w+)' is not defined", mark[1])
    return bool(unknown) and unknown[1] in sources


def run(notebook, cells, end):
    """({"02.1": Mark} of the checks that were reached, why no others were: None where time ran out).

    ``end`` is a time of the monotonic clock.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        job = Path(folder) / "job"
        findings = Path(folder) / "findings"
        work = Path(folder) / "work"
        job.write_text(json.dumps([(source, checks(source)) for source in cells]), encoding="utf-8")
        findings.touch()
        work.mkdir()
        command = [sys.executable, "-m", "mixer_utils.exercises.grading", notebook, job, findings]
        silent = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.DEVNULL)
        environment = os.environ | settings(folder)
        process = subprocess.Popen(command, cwd=work, env=environment, start_new_session=True, **silent)
        unreached = None
        try:
            status = process.wait(max(0, end - time.monotonic()))
            unreached = f"the notebook's process had ended before (exit status {status})"
        except subprocess.TimeoutExpired:
            pass
        finally:
            kill(process)
        lines = findings.read_text(encoding="utf-8").split("\n")[:-1]  # the last may have been stopped half-written
    marks = {}
    for number, state, sentence in map(json.loads, lines):
        if number not in marks or state == "pass":  # of an exercise that is checked twice, the better counts
            marks[number] = Mark(state, sentence)
    return marks, unreached


def settings(folder):
    """The environment variables of a submission's process."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "IPYTHONDIR": folder,
        "MIXER_DATA": str(data_folder().resolve()),
        "MIXER_EXERCISES": "0",  # the record of whoever marks stays as it is
        "MIXER_PROGRESS": "0",
        "MPLBACKEND": "agg",
        "PIP_DRY_RUN": "1",  # a submission's `!pip install` changes nothing here
        "PIP_NO_INDEX": "1",
    }


def kill(process):
    """End a submission's process, with all that it has started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


# --- in the submission's process --------------------------------------------------------------------------------------


def answer(notebook, job, findings):
    """Run a submission's cells, and write the mark of each of its answers, line by line."""
    from IPython.core.interactiveshell import InteractiveShell

    exercises = exercises_of(notebook)
    for name in [name for name in sys.modules if name.startswith("mixer_utils.exercises")]:
        del sys.modules[name]  # the submission imports another copy, and may do with it what it likes
    del sys.modules["mixer_utils"].exercises
    shell = InteractiveShell.instance()
    for source, checked in json.loads(Path(job).read_text(encoding="utf-8")):
        shell.run_cell(source)
        for number, expression in checked:
            if number in exercises:
                mark = try_out(exercises[number], expression, shell.user_ns)
                with open(findings, "a", encoding="utf-8") as file:
                    file.write(json.dumps([number, *mark]) + "\n")


def try_out(exercise, expression, namespace):
    """The Mark of what ``expression`` is among the notebook's names."""
    try:
        value = eval(expression, namespace)
    except Exception as error:
        return Mark("missing", f"the check was not run: {type(error).__name__}, {one_line(error)}")
    try:
        (passed, sentence), _ = sheltered(lambda: tuple(diagnose(exercise, value)))
    except Stopped as stopped:
        return Mark("fail", str(stopped))
    states = {True: "pass", False: "fail", None: "missing"}
    return Mark(states[passed], sentence)


if __name__ == "__main__":
    answer(*sys.argv[1:])
