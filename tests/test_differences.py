"""The table of how Mixers differ, in docs/comparison.md and notebook 04, is what the models themselves say."""

import re
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn

from benchmarks.differences import (
    KERAS,
    MODELS,
    biases,
    chances,
    distribution,
    eps_of,
    features,
    features_of_keras,
    form,
    how_many,
    kept,
    main,
    mean_over,
    normalised,
    ours,
    what_becomes_of_the_rest,
)  # fmt: skip
from mixer_utils.model import MixerBlock

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


def test_the_table_says_what_the_parts_of_keras_example_do():
    found = features_of_keras()
    if found is None:
        pytest.skip("keras is not installed: pip install '.[bench]'")
    assert {feature: PAGE[KERAS][feature] for feature in found} == found


def test_notebook_04_has_the_same_table():
    cells = nbformat.read(ROOT / "notebooks" / "04_mlp_mixer.ipynb", as_version=4).cells
    (text,) = [cell.source for cell in cells if "| | the authors |" in cell.source]
    assert table(text) == PAGE


def test_here_it_is_as_the_authors_have_it_but_for_images_that_do_not_fit_and_branches_that_are_kept():
    differ = {feature for feature, cell in PAGE["the authors"].items() if cell != PAGE["here"][feature]}
    assert differ == {"H or W no multiple of P", "a branch that is kept"}


def test_what_differs_from_the_authors_is_bold_and_nothing_else():
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")][1:]
    for _, authors, *others in [row for row in rows if row[0].strip() in PAGE["here"]]:
        for cell in others:
            # 0.5 C and 4 C are the paper's widths, given as factors
            same = cell.strip(" *") == authors.strip() or cell.strip() == "0.5 C, 4 C"
            assert cell.strip().startswith("**") != same, cell


# --- the measurements tell other Mixers apart, too --------------------------------------------------------------------


class Elsewhere(nn.Module):
    """A Mixer for images of other sizes: it fills them with zeros up to 28 x 28, or drops all but 24 x 24."""

    def __init__(self, side):
        super().__init__()
        self.side = side
        self.mixer = ours(side)

    def forward(self, images):
        room = self.side - images.shape[-1]
        return self.mixer(nn.functional.pad(images, (0, room, 0, room)))


@pytest.mark.parametrize("side, expected", [(28, "padded"), (24, "cropped")])
def test_pixels_that_are_left_over_are_seen_to_count_or_not(side, expected):
    with torch.no_grad():
        torch.manual_seed(0)
        assert what_becomes_of_the_rest(lambda image_size: Elsewhere(side)) == expected


def test_a_branch_kept_as_it_is_and_other_chances_are_noticed(monkeypatch):
    def undivided(block, branch):
        return branch * (torch.rand(len(branch), 1, 1) >= block.drop) if block.training else branch

    with torch.no_grad():
        torch.manual_seed(0)
        assert kept(ours(skipped=0.5)) == "divided by 1 − p"
        monkeypatch.setattr(MixerBlock, "keep", undivided)
        assert kept(ours(skipped=0.5)) == "as it is"
        model = ours(skipped=0.5)
        for block in model.blocks:
            block.drop = 0.5
        assert chances(model) == "the same in all blocks"


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 1e-3])
def test_eps_is_measured(eps):
    assert eps_of(nn.LayerNorm(200, eps=eps)) == pytest.approx(eps, rel=0.01)


def test_norms_means_biases_and_gelus_are_known_by_their_values():
    torch.manual_seed(0)
    x = torch.randn(2, 36, 200)
    assert normalised(nn.LayerNorm(200)(x).detach()) == "C"
    assert normalised(nn.LayerNorm(36)(x.mT).mT.detach()) == "S"
    means = x.mean(1), x.mean(2), x[:, 0]
    assert [mean_over(mean, x) for mean in means] == ["tokens", "channels", "neither"]
    assert (form(nn.GELU()), form(nn.GELU(approximate="tanh")), form(nn.ReLU())) == ("erf", "tanh", "another")
    assert [biases(torch.tensor([b])) for b in (0.0, 1e-6, 0.1)] == ["at zero", "within 1e-5 of zero", "at random"]
    norms = [nn.LayerNorm(200) for _ in range(6)]  # of three blocks
    assert (how_many(norms), how_many([norm for norm in norms[:3] for _ in range(2)])) == ("2", "1, used twice")


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
