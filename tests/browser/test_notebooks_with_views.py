"""The notebooks with views, run to the end in JupyterLab and in Notebook 7: every control draws what the data says."""

import re
from pathlib import Path

import nbformat
import pytest
import torch
from check_digit import check_digit
from check_embedding import check_embedding
from check_influence import check_influence
from check_mixing import check_mixing
from check_training import check_training
from helpers import INTERFACES, open_notebook, screenshot, watched_page

from mixer_utils import load_dataset, load_pretrained, widgets

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CALL = re.compile(rf"^({'|'.join(widgets.__all__)})\(", re.MULTILINE)


def calls(path):
    """The views of a notebook, in their order."""
    cells = nbformat.read(path, as_version=4).cells
    return [name for cell in cells if cell.cell_type == "code" for name in CALL.findall(cell.source)]


WITH_VIEWS = {path.stem: calls(path) for path in sorted(NOTEBOOKS.glob("*.ipynb")) if calls(path)}


def ten_images(data):
    return torch.stack([data.test.images[data.test.labels == digit][0] for digit in range(10)])


# The same view as in the notebook, built here, and what its controls must draw.
CHECKS = {
    "explore_mixing": (lambda model, data: widgets.explore_mixing(model), check_mixing),
    "explore_training": (lambda model, data: widgets.explore_training(), check_training),
    "explore_influence": (lambda model, data: widgets.explore_influence(model, ten_images(data)), check_influence),
    "draw_digit": (lambda model, data: widgets.draw_digit(model, data), check_digit),
    "explore_embedding": (lambda model, data: widgets.explore_embedding(model, ten_images(data)), check_embedding),
}


def test_every_view_is_in_a_notebook():
    assert {name for names in WITH_VIEWS.values() for name in names} == set(widgets.__all__) == set(CHECKS)


@pytest.fixture(scope="module", params=[(stem, kind) for stem in WITH_VIEWS for kind in INTERFACES], ids="-".join)
def opened(browser, server, request):
    stem, kind = request.param
    with watched_page(browser) as page:
        notebook = nbformat.read(NOTEBOOKS / f"{stem}.ipynb", as_version=4)
        yield stem, kind, open_notebook(page, server, notebook, kind, seconds=400)


@pytest.mark.parametrize("name", CHECKS)
def test_every_control_draws_what_the_data_says(opened, name):
    stem, kind, page = opened
    if name not in WITH_VIEWS[stem]:
        pytest.skip(f"{stem} has no {name}")
    root = page.locator(".mixer-view").nth(WITH_VIEWS[stem].index(name))
    root.scroll_into_view_if_needed()
    build, check = CHECKS[name]
    check(page, root, build(load_pretrained("mnist"), load_dataset("mnist")))
    screenshot(root, f"{stem}-{kind}-{name}")


def test_nothing_was_asked_of_another_machine_but_the_colab_badge(opened):
    assert [address for address in opened[2].outside if not address.endswith("/colab-badge.svg")] == []
