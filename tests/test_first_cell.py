import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import torch
from told import assert_told

from mixer_utils import __version__, devices, first_cell
from mixer_utils.first_cell import install_missing, requirements, start

ROOT = Path(__file__).parent.parent
NEEDED = {"torch": "2.9", "torchvision": "0.24", "numpy": "2.0", "seaborn": "0.13", "tqdm": "4.66"}
HERE = {"torch": "2.11.0+cu126", "torchvision": "0.26.0", "numpy": "2.1.3", "seaborn": "0.13.2", "tqdm": "4.70.1"}


@pytest.fixture(autouse=True)
def no_host(monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)


class Machine:
    """What is installed on a made-up machine, and what its pip was called with; pip answers as told."""

    def __init__(self, monkeypatch):
        self.here, self.calls, self.says = dict(HERE), [], ""
        monkeypatch.setattr(first_cell, "requirements", lambda: NEEDED)
        monkeypatch.setattr(metadata, "version", self.version)
        monkeypatch.setattr(subprocess, "run", self.pip)

    def version(self, name):
        if name not in self.here:
            raise metadata.PackageNotFoundError(name)
        return self.here[name]

    def pip(self, command, **options):
        assert command[:4] == [sys.executable, "-m", "pip", "install"]
        self.calls.append([part for part in command[4:] if not part.startswith("-")])
        if not self.says:
            self.here |= {part.split(">=")[0]: "99.0" for part in command if ">=" in part}
        return subprocess.CompletedProcess(command, 1 if self.says else 0, "", self.says)


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def test_where_nothing_is_missing_pip_is_not_called_and_nothing_is_printed(machine, capsys):
    install_missing()
    assert machine.calls == []
    assert capsys.readouterr().out == ""


def test_what_is_missing_is_installed_by_one_call_that_pins_torch_torchvision_and_numpy(machine, capsys):
    del machine.here["seaborn"], machine.here["tqdm"]
    install_missing()
    assert machine.calls == [
        ["seaborn>=0.13", "tqdm>=4.66", "torch==2.11.0+cu126", "torchvision==0.26.0", "numpy==2.1.3"]
    ]
    assert capsys.readouterr().out == "Installing seaborn, tqdm …\n"


def test_a_second_time_nothing_is_installed(machine, capsys):
    del machine.here["seaborn"]
    install_missing()
    install_missing()
    assert len(machine.calls) == 1
    assert capsys.readouterr().out.count("Installing") == 1


def test_torch_is_announced_as_large_and_what_is_there_of_the_three_is_pinned_all_the_same(machine, capsys):
    del machine.here["torch"]
    install_missing()
    assert machine.calls == [["torch>=2.9", "torchvision==0.26.0", "numpy==2.1.3"]]
    assert capsys.readouterr().out == "Installing torch (torch is large: minutes) …\n"


def test_what_is_older_than_asked_is_left_as_it_is_with_one_line(machine, capsys):
    machine.here["torch"] = "2.6.0+cu124"
    install_missing()
    assert machine.calls == []
    assert capsys.readouterr().out == (
        "torch 2.6.0+cu124 is here, 2.9 or newer was expected: it is left as it is, and some cells may fail.\n"
    )


def test_what_is_older_than_asked_is_pinned_when_something_else_is_installed(machine):
    machine.here["tqdm"] = "4.9"
    del machine.here["seaborn"]
    install_missing()
    assert machine.calls == [
        ["seaborn>=0.13", "torch==2.11.0+cu126", "torchvision==0.26.0", "numpy==2.1.3", "tqdm==4.9"]
    ]


@pytest.mark.parametrize("found", ["2.9", "2.9.0a0+git1f3e", "2.10.0+cpu", "2.14.1", "3.0rc1"])
def test_versions_are_compared_as_numbers(machine, capsys, found):
    machine.here["torch"] = found
    install_missing()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "stderr, reason",
    [
        ("WARNING: Retrying\nERROR: No matching distribution found for tqdm>=4.66\n",
         "No matching distribution found for tqdm>=4.66"),
        ("/venv/bin/python: No module named pip\n", "/venv/bin/python: No module named pip"),
        ("\n", "no reason given"),
    ],
)  # fmt: skip
def test_where_pip_fails_one_sentence_says_what_is_missing_why_and_what_to_do(machine, stderr, reason):
    del machine.here["seaborn"], machine.here["tqdm"]
    machine.says = stderr
    with pytest.raises(RuntimeError) as error:
        install_missing()
    assert str(error.value) == (
        f"pip could not install seaborn, tqdm ({reason}): connect this machine to the internet, or install them "
        f"yourself, then restart the kernel and run this cell again."
    )


def test_what_was_just_installed_can_be_imported(machine, monkeypatch):
    del machine.here["seaborn"]
    invalidated = []
    monkeypatch.setattr(importlib, "invalidate_caches", lambda: invalidated.append(len(machine.calls)))
    install_missing()
    assert invalidated == [1]


def of_pyproject():
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    needed = dict(line.split(">=") for line in lines)
    del needed["jupyter"], needed["nbval"]
    return needed


def test_in_a_checkout_the_requirements_are_pyproject_s_without_jupyter_and_nbval():
    assert requirements() == of_pyproject()


def test_an_installed_package_knows_them_from_its_metadata_without_the_extras(monkeypatch, tmp_path):
    monkeypatch.setattr(first_cell, "__file__", str(tmp_path / "mixer_utils" / "first_cell.py"))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\n')
    lines = ["torch>=2.9", "jupyter>=1.1", "scikit-learn>=1.5", 'pytest>=8; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", {"mlp-mixer-tutorial": lines}.get)
    assert requirements() == {"torch": "2.9", "scikit-learn": "1.5"}


def test_a_folder_that_was_copied_alone_asks_for_nothing(monkeypatch, tmp_path):
    def not_installed(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(first_cell, "__file__", str(tmp_path / "mixer_utils" / "first_cell.py"))
    monkeypatch.setattr(metadata, "requires", not_installed)
    assert requirements() == {}


PROGRAM = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
subprocess.run = lambda command, **_: subprocess.CompletedProcess(command, 1, "", "no pip in this test")
from mixer_utils.first_cell import install_missing
install_missing()
"""


def test_it_is_imported_and_says_what_is_missing_where_no_package_is_installed_at_all():
    command = [sys.executable, "-S", "-c", PROGRAM, str(ROOT)]  # -S: without site-packages
    run = subprocess.run(command, capture_output=True, text=True)
    names = ", ".join(of_pyproject())
    assert run.stdout == f"Installing {names} (torch is large: minutes) …\n"
    assert run.stderr.splitlines()[-1].startswith(f"RuntimeError: pip could not install {names} (no pip in this test)")


def on_a_machine(monkeypatch, cuda=False, mps=False, bf16=False, host=None):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(devices, "gains_from_bf16", lambda device: bf16)
    if host is not None:  # Kaggle's image has Colab's modules too
        monkeypatch.setitem(sys.modules, "google.colab", object())
    if host == "Kaggle":
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")


@pytest.mark.parametrize(
    "machine, device, told",
    [
        (dict(), "cpu", r"CPU\b.*\b1\b.*, float32"),
        (dict(bf16=True), "cpu", r"CPU\b.*\b1\b.*, bfloat16"),
        (dict(cuda=True, bf16=True, host="Colab"), "cuda", "Tesla T4, bfloat16"),
        (dict(cuda=True, host="Kaggle"), "cuda", "Tesla T4, float32"),
        (dict(mps=True), "mps", "Apple GPU, float32"),
    ],
)
def test_start_prints_one_line_of_versions_device_and_expected_minutes(machine, device, told, monkeypatch, capsys):
    on_a_machine(monkeypatch, **machine)
    assert start() == torch.device(device)
    torch_version = ".".join(re.findall(r"\d+", torch.__version__)[:3])
    *versions, where, minutes = capsys.readouterr().out.split(" · ")
    assert versions == [
        f"mixer_utils {__version__}",
        f"torch {torch_version}",
        f"Python {sys.version_info[0]}.{sys.version_info[1]}",
    ]
    assert re.fullmatch(told, where)
    assert re.fullmatch(r".*\b1 min.*\n", minutes)


def test_the_first_line_says_the_minutes_of_its_own_notebook_as_the_map_in_00_does(monkeypatch, capsys):
    on_a_machine(monkeypatch)
    (first,) = (ROOT / "notebooks").glob("00_*.ipynb")
    text = "\n".join(cell.source for cell in nbformat.read(first, as_version=4).cells)
    rows = re.findall(r"^\| \[?(\d\d) · .*\| (\d+) \|$", text, flags=re.MULTILINE)
    assert len(rows) == len(list((ROOT / "notebooks").glob("*.ipynb")))
    for number, minutes in rows:
        start(number)
        assert f"expect {minutes} min" in capsys.readouterr().out


@pytest.mark.parametrize("host, menu", [("Colab", "Runtime > Change runtime type > T4 GPU"),
                                        ("Kaggle", "Settings > Accelerator > GPU T4 x2")])  # fmt: skip
def test_where_a_gpu_is_offered_and_not_selected_a_second_line_says_how_to_get_one(host, menu, monkeypatch, capsys):
    on_a_machine(monkeypatch, host=host)
    assert start() == torch.device("cpu")
    _, second = capsys.readouterr().out.splitlines()
    assert second == f"For a GPU: {menu}, then run this cell again."


def test_start_seeds_everything(monkeypatch, capsys):
    on_a_machine(monkeypatch)
    drawn = []
    for seed in (7, 7, 8):
        start(seed=seed)
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    start()
    first = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(first, torch.rand(3))


@pytest.fixture
def run_setup_cell(monkeypatch):
    """A function: run the notebooks' first cell in a folder, and return its variables. It may change sys.path."""
    (notebook,) = (ROOT / "notebooks").glob("00_*.ipynb")
    cells = nbformat.read(notebook, as_version=4).cells
    code = next(cell.source for cell in cells if cell.cell_type == "code")
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(folder, change=str):
        monkeypatch.chdir(folder)
        variables = {}
        exec(change(code), variables)
        return variables

    return run


@pytest.mark.parametrize("folder", [ROOT, ROOT / "notebooks", ROOT / "mixer_utils" / "widgets"], ids=os.path.basename)
def test_inside_the_repository_the_setup_cell_takes_the_package_beside_it(run_setup_cell, folder, capsys):
    assert run_setup_cell(folder)["device"].type in ("cpu", "cuda", "mps")
    assert sys.path[0] == str(ROOT)
    assert "mixer_utils" in capsys.readouterr().out.splitlines()[0]


def test_elsewhere_the_setup_cell_takes_an_installed_package_and_calls_no_pip(
    run_setup_cell, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something was started"))
    before = list(sys.path)
    for _ in range(2):
        run_setup_cell(tmp_path)
    assert sys.path == before
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.fixture
def refusal(run_setup_cell, tmp_path, monkeypatch):
    """A function: what the setup cell says where the package is not here and pip fails, and what pip was called with.

    Programs are there or not as ``programs`` says; the repository has the address of ``owner``.
    """

    def refusal(owner="someone", programs=("git",)):
        calls = []
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)
        monkeypatch.setattr(
            subprocess, "run", lambda command: calls.append(command) or subprocess.CompletedProcess(command, 1)
        )
        with pytest.raises(AssertionError) as error:
            run_setup_cell(tmp_path, lambda code: re.sub(r"(?<=https://github.com/)[\w-]+", owner, code))
        return str(error.value), calls

    return refusal


def test_where_the_package_cannot_be_had_the_setup_cell_says_so_in_one_sentence(refusal):
    told, (pip,) = refusal()
    assert "--no-deps" in pip and pip[-1].startswith("git+https://github.com/someone/")
    assert told == f"mixer_utils cannot be had from {pip[-1].removeprefix('git+')}: is there a network?"


def test_where_git_is_not_installed_the_setup_cell_says_so_and_calls_no_pip(refusal):
    told, calls = refusal(programs=())
    assert_told(told, "git is not installed", "install it")
    assert calls == []


def test_where_the_address_is_the_placeholder_the_setup_cell_says_so_and_how_it_is_set(refusal):
    told, calls = refusal(owner="OWNER", programs=())
    assert_told(told, "https://github.com/OWNER/mlp-mixer-tutorial is a placeholder", "`make address URL=…`")
    assert calls == []
