"""A rehearsal of Colab: notebook 00 alone in an empty folder, in an environment with torch, numpy and Jupyter but
without this project and without some of what it needs. The setup cell installs both, the project from a git repository
made of the files as they are. The other notebooks have the same setup cell (test_notebooks.py); that they find what
they import is asked of the environment.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MISSING = {"anywidget", "seaborn"}  # small and pure Python
OF_DEVELOPERS = {re.match(r"[\w-]+", line)[0] for extra in PROJECT["optional-dependencies"].values() for line in extra}
LEFT_OUT = {PROJECT["name"]} | MISSING | OF_DEVELOPERS

# What anywidget asks Colab for (anywidget/_util.py).
STAND_IN = """
class _widgets:
    _installed_url = "https://example.org/manager"

def enable_custom_widget_manager():
    pass
"""


class Colab:
    """An environment in ``folder`` with all that is installed here but for LEFT_OUT, and a stand-in for google.colab.

    It is kept from run to run, and made anew when it is no longer what it should be.
    """

    def __init__(self, folder):
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MIXER_"))}
        self.environment = kept | {
            "PYTHONNOUSERSITE": "1",
            "JUPYTER_PREFER_ENV_PATH": "1",
            "IPYTHONDIR": str(folder / "ipython"),
            "OMP_NUM_THREADS": "1",
            "MIXER_DATA": str(folder / "no data"),
            "MIXER_DOWNLOAD": "0",
            "MIXER_EXERCISES": "0",
        }
        here = metadata.distributions(path=[sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
        lent = [distribution for distribution in here if distribution.name.lower() not in LEFT_OUT]
        self.whole = folder / "made"
        if self.whole.is_file():
            self.run("-m", "pip", "uninstall", "--yes", PROJECT["name"], *MISSING)
        if not self.whole.is_file() or self.installed() != {each.name: each.version for each in lent}:
            self.make(lent)

    def make(self, lent):
        """Files are linked, not copied: gigabytes in seconds. Nobody writes into them: pip puts new files in place."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--clear", self.folder], check=True)
        packages = Path(self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
        for distribution in lent:
            for file in distribution.files or []:
                link(Path(distribution.locate_file(file)), packages / file)
        colab = packages / "google" / "colab"
        colab.mkdir(parents=True)
        (colab / "__init__.py").write_text("from google.colab import output\n")
        (colab / "output.py").write_text(STAND_IN)
        (packages / "colab.pth").write_text("import google.colab\n")  # Colab's kernels have it from their start
        self.whole.touch()

    def run(self, *arguments, cwd=None):
        command = [self.python, *arguments]
        return subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=600)

    def installed(self):
        """{name: version, or the address it was installed from}."""
        return dict(re.split("==| @ ", line) for line in self.run("-m", "pip", "freeze", "--all").stdout.splitlines())


def link(here, there):
    program = here.parent.name in ("bin", "Scripts") and ".." in there.parts  # it names the Python that it belongs to
    useless = here.suffix in (".h", ".pyi") or "tests" in here.parts  # half of all files
    if program or useless or there.exists() or not here.is_file():
        return
    there.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(here, there)
    except OSError:  # two file systems
        shutil.copy2(here, there)


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    colab = Colab(ROOT / "build" / "colab-rehearsal")
    wanted = ["--dest", tmp_path_factory.mktemp("wheels"), "--no-deps", *MISSING, "setuptools"]
    reach = colab.run("-m", "pip", "download", "--quiet", *wanted)
    if reach.returncode and not os.environ.get("CI"):
        pytest.skip(f"No package index can be reached ({reach.stderr.strip().splitlines()[-1]}): go online.")
    return colab


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A git repository of what the package is built from, as the files are now."""
    origin = tmp_path_factory.mktemp("origin")
    shutil.copytree(ROOT / "mixer_utils", origin / "mixer_utils", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, origin)
    git = ["git", "-c", "user.name=A student", "-c", "user.email=student@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "As it is"]):
        subprocess.run([*git, *command], cwd=origin, check=True)
    return origin.as_uri()


@pytest.fixture(scope="module")
def rehearsed(colab, address, tmp_path_factory):
    """What is installed before and after, and what was run in between: its exit status and stderr, and its cells."""
    before = colab.installed()
    folder = tmp_path_factory.mktemp("alone")
    (path,) = (ROOT / "notebooks").glob("00_*.ipynb")
    notebook = nbformat.read(path, as_version=4)
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    setup.source = re.sub('address = "[^"]+"', f'address = "{address}"', setup.source)
    nbformat.write(notebook, folder / path.name)
    convert = ["-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", "--allow-errors", path.name]
    run = colab.run(*convert, cwd=folder)
    return SimpleNamespace(run=run, cells=code_cells(folder / path.name), before=before, after=colab.installed())


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def test_the_notebook_alone_runs_to_its_end(rehearsed):
    cells = rehearsed.cells
    assert rehearsed.run.returncode == 0, rehearsed.run.stderr
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        allowed = "raises-exception" in cell.metadata.get("tags", [])
        for output in cell.outputs:
            assert output.output_type != "error" or allowed, f"{cell.source}\n\n{output.ename}: {output.evalue}"


def test_its_first_cell_says_what_it_installs_and_where_a_gpu_is_selected(rehearsed):
    installing, versions, gpu = printed(rehearsed.cells[0]).splitlines()
    assert installing == "Installing seaborn, anywidget …"
    assert versions.startswith(f"mixer_utils {PROJECT['version']} · torch {metadata.version('torch')}".split("+")[0])
    assert gpu.startswith("For a GPU: Runtime >")


def test_the_project_and_what_was_missing_are_added_and_nothing_else_is_changed(rehearsed, address):
    before, after = rehearsed.before, rehearsed.after
    assert {"torch", "torchvision", "numpy", "ipykernel"} <= set(before)
    assert set(after) - set(before) == {PROJECT["name"]} | MISSING
    assert {name: after.get(name) for name in before} == before
    assert after[PROJECT["name"]].startswith(f"git+{address}@")


def test_running_the_setup_cell_again_installs_nothing(colab, rehearsed, tmp_path):
    setup = rehearsed.cells[0].source
    run = colab.run("-c", f"{setup}\n{setup}", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "Installing" not in run.stdout and run.stdout.count("mixer_utils") == 2
    assert colab.installed() == rehearsed.after


def test_every_module_that_a_notebook_imports_is_there_afterwards(colab, rehearsed, tmp_path):
    imported = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in code_cells(path):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Import):
                    imported.update(name.name for name in node.names)
                elif isinstance(node, ast.ImportFrom):
                    imported.add(node.module)
    assert {"torch", "mixer_utils", "mixer_utils.widgets"} <= imported
    run = colab.run("-c", "\n".join(f"import {name}" for name in sorted(imported)), cwd=tmp_path)
    assert run.returncode == 0, run.stderr
