"""The table of how Mixers differ, in docs/comparison.md and notebook 04, is what the models themselves say."""

import re
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn

from benchmarks.differences import MODELS, distribution, features, main

ROOT = Path(__file__).parent.parent
COLUMNS = {"this project": "here", "timm": "timm 1.0.31", "lucidrains": "lucidrains 0.3.1"}


def table(text):
    """{column: {feature: cell}} of the table whose first heading is "the authors", bold marks left out."""
    (found,) = re.findall(r"^\| \| the authors \|.*\n\|[-|]+\|\n(?:\|.*\n?)+", text, re.MULTILINE)
    heading, _, *rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in found.splitlines()]
    return {name: {row[0]: row[at] for row in rows} for at, name in enumerate(heading) if name}


PAGE = table((ROOT / "docs" / "comparison.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODELS)
def test_the_table_says_what_each_model_does(name):
    found = features(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install '.[bench]'")
    assert PAGE[COLUMNS[name]] == found


def test_notebook_04_has_the_same_table():
    cells = nbformat.read(ROOT / "notebooks" / "04_mlp_mixer.ipynb", as_version=4).cells
    (text,) = [cell.source for cell in cells if "| | the authors |" in cell.source]
    assert table(text) == PAGE


def test_here_it_is_as_the_authors_have_it_but_for_images_that_do_not_fit():
    differ = {feature for feature, cell in PAGE["the authors"].items() if cell != PAGE["here"][feature]}
    assert differ == {"H or W no multiple of P"}


@pytest.mark.parametrize(
    "fill, expected",
    [
        (lambda w: nn.init.xavier_uniform_(w), "Xavier uniform"),
        (lambda w: nn.init.kaiming_uniform_(w, a=5**0.5), "PyTorch's default"),
        (lambda w: nn.init.normal_(w, std=400**-0.5), "LeCun normal"),
        (lambda w: nn.init.normal_(w, std=0.5), "variance 0.25"),
    ],
)
def test_a_distribution_is_known_by_its_values(fill, expected):
    torch.manual_seed(0)
    weight = torch.empty(300, 400)
    fill(weight)
    assert distribution(weight) == expected


def test_the_program_prints_a_column_for_what_is_installed_and_names_the_rest(monkeypatch, capsys):
    monkeypatch.setitem(MODELS, "timm", ("no_such_module", *MODELS["timm"][1:]))
    main()
    printed = capsys.readouterr().out
    assert printed.startswith("| | this project |")
    assert "timm: not installed; pip install '.[bench]' brings it." in printed
