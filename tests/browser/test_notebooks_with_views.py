"""Views in JupyterLab and in Notebook 7, as the notebooks call them: each opens, takes a key and moves a control.

What every control draws is tested in the other files, on pages without Jupyter.
"""

import importlib
import re

import nbformat
import pytest
import torch
from helpers import INTERFACES, ROOT, open_notebook, screenshot, watched_page

from mixer_utils import load_dataset, load_pretrained, widgets

NOTEBOOK = ROOT / "notebooks" / "07_mixing_weights.ipynb"
CALL = re.compile(rf"^({'|'.join(widgets.__all__)})\(", re.MULTILINE)
START = """
import torch
from mixer_utils import load_dataset, load_pretrained
from mixer_utils.widgets import *
data, model = load_dataset("mnist"), load_pretrained("mnist-14x14")
"""
EMBEDDING = 'explore_embedding(load_pretrained("mnist"), ten)'  # as in notebook 01


def calling_cells(path):
    """{view: source of the cell that shows it}, in the notebook's order."""
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return {name: source for source in code for name in CALL.findall(source)}


def ten_images(data):
    return torch.stack([data.train.images[data.train.labels == digit][0] for digit in range(10)])


# The same views as in notebook 07, built here, and the file with what must be seen of them.
IN_07 = {
    "explore_mixing": (lambda model, data: widgets.explore_mixing(model), "check_mixing"),
    "explore_training": (lambda model, data: widgets.explore_training(), "check_training"),
    "explore_influence": (lambda model, data: widgets.explore_influence(model, ten_images(data)), "check_influence"),
    "draw_digit": (lambda model, data: widgets.draw_digit(model, data), "check_digit"),
}
VIEWS = {
    **IN_07,
    "explore_embedding": (lambda model, data: widgets.explore_embedding(model, ten_images(data)), "check_embedding"),
}


def touch(page, name):
    """The view ``name``, shown on ``page`` in the order of VIEWS, opens, takes a key and moves a control."""
    build, check = VIEWS[name]
    root = page.locator(".mixer-view").nth(list(VIEWS).index(name))
    model = load_pretrained("mnist" if name == "explore_embedding" else "mnist-14x14")  # as the notebooks do
    importlib.import_module(check).touch(root, build(model, load_dataset("mnist")))
    return root


def test_views_are_in_notebooks_01_and_07_and_in_no_other():
    shown = {path.stem: list(calling_cells(path)) for path in (ROOT / "notebooks").glob("*.ipynb")}
    expected = {NOTEBOOK.stem: list(IN_07), "01_patch_embedding": ["explore_embedding"]}
    assert shown == dict.fromkeys(shown, []) | expected
    assert set(VIEWS) == set(widgets.__all__) - {"explore", "train_in_browser"}  # these are on the site's first page


@pytest.fixture(scope="module", params=INTERFACES)
def opened(browser, server, request):
    with watched_page(browser) as page:
        yield (
            request.param,
            open_notebook(page, server, [START, *calling_cells(NOTEBOOK).values(), EMBEDDING], request.param),
        )


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_opens_takes_a_key_and_moves_a_control(opened, name):
    kind, page = opened
    screenshot(touch(page, name), f"07-{kind}-{name}")


def test_nothing_was_asked_of_another_machine(opened):
    assert opened[1].outside == []
