"""Run the notebooks: `tutorial` makes executed copies and HTML pages in a folder, `solutions` executed copies with the
exercises solved, `save` refreshes the saved outputs, `save-imagenet` runs notebook 09 on the authors' B/16 and keeps
what it measured, `address` writes the repository's address into every notebook.

    python tools/notebooks.py tutorial [build]
    python tools/notebooks.py solutions [build/solutions]
    python tools/notebooks.py save [notebooks/05_training.ipynb ...]
    python tools/notebooks.py save-imagenet
    python tools/notebooks.py address [https://github.com/someone/fork]
"""

import argparse
import inspect
import json
import os
import re
import shutil
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import nbformat
import running
from nbclient.exceptions import CellExecutionError
from traitlets.config import PyFileConfigLoader

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
# What a kernel says of itself and nbconvert goes by, without the version of Python: the same at every run.
LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}


def execute(path, change=None):
    """The notebook at ``path``, run from a fresh kernel in its own folder, without progress bars or widget state.

    ``change(notebook)`` may edit its cells before.
    """
    os.environ["MIXER_EXERCISES"] = "0"  # nobody's answers
    notebook = nbformat.read(path, as_version=4)
    if change:
        change(notebook)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    running.run(notebook, path.parent)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):  # a view's picture stays: without its kernel the view itself is dead
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = LANGUAGE
    for number, cell in enumerate(notebook.cells):  # the same names at every run: smaller diffs
        cell["id"] = f"cell-{number:02}"
    return notebook


# How notebooks print the seconds that a run of the recipe `minute` takes; results/minute.json has the measured ones.
SECONDS = {"00_start_here": r"about (\d+) s for the run in notebook 05", "05_training": r"(\d+) s of training"}
BUSY = "beside other programs it is faster here"  # said by train
MOST_OFF = 3  # times: processors differ, but not by more than that


def save(paths):
    # As the tests run them: notebook 09 with the model that ships.
    os.environ |= {"MIXER_DOWNLOAD": "0", "MIXER_WEIGHTS": "build/no-weights", "MIXER_CLAIMS": "strict"}
    for path in paths:
        start = time.perf_counter()
        notebook = execute(path)
        if problem := off(notebook, path.stem):
            sys.exit(f"error: {path.name} was not saved: {problem}")
        running.write(notebook, path)
        print(f"{path.name}: saved after {time.perf_counter() - start:.0f} s")


def off(notebook, name):
    """What is wrong with the seconds that a notebook prints, in one sentence; None where nothing is."""
    outputs = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    if any(BUSY in text for text in outputs):
        return "it was run beside other programs and says so: close them and save it again."
    if name not in SECONDS:
        return None
    measured = json.loads((ROOT / "results" / "minute.json").read_text(encoding="utf-8"))
    measured = measured["summary"]["train_seconds"]["median"]
    found = re.search(SECONDS[name], "\n".join(outputs))
    if not found:
        return f"it says nothing like {SECONDS[name]!r}."
    seconds = int(found[1])
    if measured / MOST_OFF <= seconds <= measured * MOST_OFF:
        return None
    return (
        f"it says {seconds} s where results/minute.json has {measured:.0f} s, more than {MOST_OFF} times off: close "
        "other programs and save it again, or measure again what results/ holds."
    )


# Run behind notebook 09's own cells: what is kept of a run on the authors' weights, in the folder FOLDER.
KEEP = """
import datetime, json, pathlib, platform
from mixer_utils.checkpoints import write_tensors
from mixer_utils.devices import device_name

if trained_on == "ImageNet":
    (name,) = networks
    numbers = {
        "command": "make save-imagenet",
        "date": datetime.date.today().isoformat(),
        "device": device_name(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "model": {"name": name, "weights": "imagenet1k", "num_parameters": count_parameters(model), **model.config},
        "examples": [[class_names[i] for i in row] for row in example_logits.topk(5).indices],
        "answers_kept": {form: shares[name] for form, shares in kept.items()},
        "blocks_add_times": ratios,
        "structure": {
            which: {"morans_i": rows[:, 0].round(4).tolist(), "patches": rows[:, 1].round(2).tolist()}
            for which, rows in structure.items()
        },
        "few_shot": {
            "dataset": other.name, "images": len(clothes), "of_each_class": counts,
            "accuracy": {kind: rows.round(4).tolist() for kind, rows in accuracy.items()},
        },
        "fine_tuned": tuned,
        "enlarged_answers_kept": unmoved,
    }
    maps = {}
    for k, block in enumerate(reads[name][:3]):
        units = draw.shown_units(block, grid)
        maps |= {f"block_{k}.reads": torch.from_numpy(block[units]).half(), f"block_{k}.units": torch.from_numpy(units)}
    folder = pathlib.Path(FOLDER)
    (folder / "imagenet.json").write_text(json.dumps(numbers, indent=1) + "\\n", encoding="utf-8")
    write_tensors(folder / "imagenet-maps.safetensors", maps, {"grid": list(grid), **numbers["model"]})
"""


def save_imagenet(results=ROOT / "results", build=ROOT / "build", prepare=""):
    """Run notebook 09 on the authors' B/16, into ``build``, and keep its numbers and the maps it drew in ``results``.

    Nothing there is touched where the weights cannot be had. ``prepare`` is code that is run behind the first cell.
    """
    (path,) = (path for path in NOTEBOOKS if path.stem.startswith("09"))
    build.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:

        def change(notebook):
            first = next(cell for cell in notebook.cells if cell.cell_type == "code")
            first.source += f"\n{prepare}"
            notebook.cells.append(nbformat.v4.new_code_cell(KEEP.replace("FOLDER", repr(folder))))

        notebook = execute(path, change)
        del notebook.cells[-1]
        running.write(notebook, build / path.name)
        found = sorted(Path(folder).iterdir())
        if not found:
            sys.exit(
                f"error: B/16 could not be had, so nothing was stored: see the first outputs of {build / path.name}."
            )
        for file in found:
            shutil.move(file, results / file.name)
            print(f"{file.name}: stored in {results.name}/")


def tutorial(build=ROOT / "build"):
    """Run the series on whatever data can be had, into the folder ``build``; returns the exit status."""
    from mixer_utils.data import DataError, Unreachable, load_dataset

    instead = ""
    try:
        print("Looking for MNIST, or fetching it …", flush=True)
        load_dataset("mnist")
    except Unreachable as error:
        instead = f"MNIST is not to be had, so this runs on scikit-learn's digits: {error}"
        os.environ["MIXER_DOWNLOAD"] = "0"  # asked once; the notebooks need not ask again
        print(instead)
    except DataError as error:  # a damaged file, say: going on would hide it
        sys.exit(f"error: {error}")
    build.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    for number, path in enumerate(NOTEBOOKS, 1):
        print(f"[{number}/{len(NOTEBOOKS)}] {path.stem} … ", end="", flush=True)
        before = time.perf_counter()
        try:
            notebook = execute(path)
        except CellExecutionError as error:
            print(f"failed.\n\n{error}\n\nThe notebook above stopped; those before it are under {build.name}/.")
            return 1
        running.write(notebook, build / path.name)
        write_page(notebook, build / f"{path.stem}.html")
        print(f"{time.perf_counter() - before:.0f} s", flush=True)
    print(f"\nAll {len(NOTEBOOKS)} notebooks ran in {(time.perf_counter() - start) / 60:.1f} minutes.")
    print(f"Reached: {accuracy_line(build)}")
    print(f"Read them: {build.name}/00_start_here.html, or the notebooks beside it. Go on with `make lab`.")
    if instead:
        print("These runs used scikit-learn's digits, not MNIST: numbers that hold on MNIST alone were not checked.")
    return 0


def write_page(notebook, path):
    from nbconvert import HTMLExporter

    config = PyFileConfigLoader("nbconvert_config.py", str(ROOT / "tools")).load_config()
    body, _ = HTMLExporter(config=config).from_notebook_node(notebook, resources={"metadata": {"name": path.stem}})
    # Links and figures are written for notebooks/; the pages lie in build/.
    body = re.sub(r'href="(\d\d_\w+)\.ipynb', r'href="\1.html', body)
    part = path.with_suffix(".part")
    part.write_text(body, encoding="utf-8")
    os.replace(part, path)


def accuracy_line(build):
    """The line of the training notebook that names the accuracy, as it was printed."""
    notebook = nbformat.read(build / "05_training.ipynb", as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            found = re.search(r"^test accuracy.*$", output.get("text", ""), re.MULTILINE)
            if found:
                return found.group()
    return "not printed by notebook 05"


def solutions(build=ROOT / "build" / "solutions"):
    """Write the series with every exercise solved into the folder ``build``; returns the exit status."""
    from mixer_utils.exercises.cells import checks

    try:
        from mixer_utils.exercises.solutions import SOLUTIONS
    except ModuleNotFoundError:
        sys.exit("error: mixer_utils/exercises/solutions.py is not there: only a copy that has it can be solved.")
    build.mkdir(parents=True, exist_ok=True)
    failed = []
    for path in NOTEBOOKS:
        print(f"{path.stem} … ", end="", flush=True)
        try:
            notebook = execute(path, lambda notebook: solve(notebook, SOLUTIONS))
        except CellExecutionError as error:
            print(f"failed.\n\n{error}\n")
            failed.append(path.stem)
            continue
        running.write(notebook, build / path.name)
        outputs = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
        printed = "\n".join(outputs).splitlines()
        asked = [number for cell in notebook.cells for number, _ in checks(cell.source)]
        wrong = [number for number in asked if f"{number}: right" not in printed]
        print(f"not right: {', '.join(wrong)}" if wrong else f"{len(asked)} of {len(asked)} right")
        failed += wrong
    if failed:
        print(f"\nFailed: {', '.join(failed)}.")
    return 1 if failed else 0


def solve(notebook, known):
    """Put the solutions that are known, {"02.1": function}, in place of the stubs."""
    for number, stub in stubs(notebook).items():
        if number in known:
            stub.source = inspect.getsource(known[number]).rstrip()


def stubs(notebook):
    """{"02.1": the cell to complete}: the last cell before the check that defines what is checked."""
    from mixer_utils.exercises.cells import checks, names

    code, found = [cell for cell in notebook.cells if cell.cell_type == "code"], {}
    for at, cell in enumerate(code):
        for number, name in checks(cell.source):
            for before in code[:at]:
                if name in names(before.source)[0]:
                    found[number] = before
    return found


def address(url):
    """Write ``url``, or else the address in pyproject.toml, there and into every badge, link and setup cell."""
    project = ROOT / "pyproject.toml"
    old = re.search(r'address = \\"https://github.com/([\w./-]+)\\"', NOTEBOOKS[0].read_text(encoding="utf-8")).group(1)
    stated = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    full = (url or stated).removesuffix("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", full):
        sys.exit(f"error: {full} is not the address of a GitHub repository: give https://github.com/OWNER/NAME.")
    new = full.removeprefix("https://github.com/")
    for path in [project, ROOT / "README.md", ROOT / "CITATION.cff", *NOTEBOOKS]:
        text = path.read_text(encoding="utf-8")
        changed = text.replace(f"github.com/{old}", f"github.com/{new}").replace(f"github/{old}", f"github/{new}")
        if path == project:
            changed = changed.replace(stated, full)
        if changed != text:
            path.write_text(changed, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {full}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tutorial", "solutions", "save", "save-imagenet", "address"])
    parser.add_argument("arguments", nargs="*", help="a folder, notebooks to save, or the new address")
    options = parser.parse_args()
    if options.what in ("tutorial", "solutions"):
        make = tutorial if options.what == "tutorial" else solutions
        sys.exit(make(*map(Path, options.arguments[:1])))
    elif options.what == "save":
        save([Path(path).resolve() for path in options.arguments] or NOTEBOOKS)
    elif options.what == "save-imagenet":
        save_imagenet()
    else:
        address(*options.arguments or [None])


if __name__ == "__main__":
    main()
