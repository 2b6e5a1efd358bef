"""Marking submitted notebooks: what ``python -m mixer_utils grade FILE.ipynb`` runs.

A submission runs in a process of its own, in an empty folder, for a limited time. Its answers are tried by checks that
it cannot reach by a name, so one that redefines ``ex.check`` gains nothing. But this is no sandbox: the submitted code
has the rights of whoever marks it, and who sets out to deceive can.
"""

import ast
import contextlib
import json
import os
import re
import signal
import subprocess
import symtable
import sys
import tempfile
import time
import warnings
from pathlib import Path

import mixer_utils
from mixer_utils.data import data_folder
from mixer_utils.exercises import catalogue, notebooks
from mixer_utils.exercises.exercise import diagnose, one_line
from mixer_utils.exercises.shelter import Stopped, sheltered

SECONDS = 600


def grade(path, seconds=SECONDS, whole=False):
    """{"02.1": ("pass" | "fail" | "missing", sentence)} for every exercise of the notebook submitted as ``path``.

    Only the cells that the checks need are run, or with ``whole`` all; ``seconds`` is for the file, not for a cell.
    Saved outputs do not count. Raises ValueError for a file that is no notebook of the series.
    """
    notebook, cells = read(path)
    end = time.monotonic() + seconds
    kept = list(range(len(cells))) if whole else needed(cells)
    found, unreached = run(notebook, [cells[i] for i in kept], end)
    left_out = " ".join(source for i, source in enumerate(cells) if i not in kept)
    unknown = {number: re.search(r"name '(\w+)' is not defined", sentence) for number, (_, sentence) in found.items()}
    doubtful = {number for number, name in unknown.items() if name and name[1] in left_out}
    if doubtful:  # a name is set in a way that names() cannot see
        again, unreached = run(notebook, cells, end)
        found = {number: finding for number, finding in found.items() if number not in doubtful} | again
    asked = {number for source in cells for number, _ in checks(source)}
    unreached = unreached or f"stopped after {seconds:g} s"
    return {
        number: found.get(number, ("missing", unreached if number in asked else "its check cell is gone"))
        for number in catalogue(notebook)[0]
    }


def read(path):
    """("02", [the source of each code cell]) of a file of any name. Raises ValueError."""
    try:
        cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
        sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): give the path of a notebook.") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path} is no notebook, or a damaged one: ask for the .ipynb file again.") from None
    code = [source for kind, source in sources if kind == "code"]
    numbers = [number[:2] for source in code for number, _ in checks(source)]
    numbers += [found[1] for _, source in sources if (found := re.match(r"# (\d\d) · ", source))]
    for number in numbers:
        if number in notebooks():
            return number, code
    raise ValueError(f"{path} is no notebook of this series: it has neither a check nor a title like '# 02 · …'.")


def checks(source):
    """[("02.1", "move_on")]: the exercises that a cell checks, and the expressions it gives as answers."""
    found = []
    for call in ast.walk(parsed(source) or ast.parse("")):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", getattr(call.func, "id", "")) == "check":
            match [*call.args, *(keyword.value for keyword in call.keywords)]:
                case [ast.Constant(str(number)), given] if re.fullmatch(r"\d\d\.\d+", number):
                    found.append((number, ast.unparse(given)))
    return found


def parsed(source):
    """The syntax tree of a cell, or None. Lines that are IPython's own, ``%`` and ``!``, are passed over."""
    for text in [source, re.sub(r"^[ \t]*(%%?\w|!).*", "", source, flags=re.MULTILINE)]:
        try:
            with warnings.catch_warnings():  # of a "\d" in a submission, say
                warnings.simplefilter("ignore")
                symtable.symtable(text, "cell", "exec")  # finds mistakes that a tree may hold
                return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
    return None


def names(source):
    """The global names that a cell sets and those that it reads: two sets."""
    scopes = [symtable.symtable(ast.unparse(parsed(source) or ast.parse("")), "cell", "exec")]
    for scope in scopes:
        scopes += scope.get_children()
    symbols = [symbol for scope in scopes for symbol in scope.get_symbols() if symbol.is_global()]
    set_here = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    return set_here, {symbol.get_name() for symbol in symbols if symbol.is_referenced()}


def needed(cells):
    """The indices of the cells that the checks need: those that set a name they read, those that these need, and so on.

    The first cell, which sets up, is among them, and so is every cell that cannot be parsed.
    """
    about = [names(source) for source in cells]
    kept = {i for i, source in enumerate(cells) if i == 0 or checks(source) or parsed(source) is None}
    while True:
        read_there = {name for i in kept for name in about[i][1]}
        more = {i for i, (set_here, _) in enumerate(about) if set_here & read_there} - kept
        if not more:
            return sorted(kept)
        kept |= more


def run(notebook, cells, end):
    """({"02.1": (state, sentence)} of the checks that were reached, why no others were: None where time ran out).

    ``end`` is a time of the monotonic clock.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        job, findings, work = (Path(folder) / name for name in ("job", "findings", "work"))
        job.write_text(json.dumps([(source, checks(source)) for source in cells]), encoding="utf-8")
        findings.touch()
        work.mkdir()
        paths = [str(Path(mixer_utils.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "IPYTHONDIR": folder,
            "MIXER_DATA": str(data_folder().resolve()),
            "MIXER_EXERCISES": "0",  # the record of whoever marks stays as it is
            "MIXER_PROGRESS": "0",
            "MPLBACKEND": "agg",
            "PIP_DRY_RUN": "1",  # a submission's `!pip install` changes nothing here
            "PIP_NO_INDEX": "1",
        }
        command = [sys.executable, "-m", "mixer_utils.exercises.grading", notebook, job, findings]
        silent = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.DEVNULL)
        process = subprocess.Popen(command, cwd=work, env=environment, start_new_session=True, **silent)
        unreached = None
        try:
            status = process.wait(max(0, end - time.monotonic()))
            unreached = f"the notebook's process had ended before (exit status {status})"
        except subprocess.TimeoutExpired:
            pass
        finally:
            if os.name == "posix":  # with all that the submission has started
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
        lines = findings.read_text(encoding="utf-8").split("\n")[:-1]  # the last may have been stopped half-written
    found = {}
    for number, *finding in map(json.loads, lines):
        if number not in found or finding[0] == "pass":  # of an exercise that is checked twice, the better counts
            found[number] = tuple(finding)
    return found, unreached


def answer(notebook, job, findings):
    """In the submission's process: run its cells, and write what is found of its answers, line by line."""
    from IPython.core.interactiveshell import InteractiveShell

    exercises = catalogue(notebook)[0]
    for name in [name for name in sys.modules if name.startswith("mixer_utils.exercises")]:
        del sys.modules[name]  # the submission imports another copy, and may do with it what it likes
    del mixer_utils.exercises
    shell = InteractiveShell.instance()
    for source, given in json.loads(Path(job).read_text(encoding="utf-8")):
        shell.run_cell(source)
        for number, expression in given:
            if number in exercises:
                finding = try_out(exercises[number], expression, shell.user_ns)
                with open(findings, "a", encoding="utf-8") as file:
                    file.write(json.dumps([number, *finding]) + "\n")


def try_out(exercise, expression, namespace):
    """The finding on what ``expression`` is among the notebook's names: ("pass" | "fail" | "missing", sentence)."""
    try:
        given = eval(expression, namespace)
    except Exception as error:
        return "missing", f"the check was not run: {type(error).__name__}, {one_line(error)}"
    try:
        (passed, sentence), _ = sheltered(lambda: tuple(diagnose(exercise, given)))
    except Stopped as stopped:
        passed, sentence = False, str(stopped)
    return {True: "pass", False: "fail", None: "missing"}[passed], sentence


if __name__ == "__main__":
    answer(*sys.argv[1:])
