"""The website's pages in a browser, from their files and with no network: its views are as alive as in a notebook."""

import subprocess
import sys

import pytest
from helpers import ROOT, screenshot, watched_page
from test_notebooks_with_views import CHECKS, WITH_VIEWS

from mixer_utils import load_dataset, load_pretrained


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("website")
    run = subprocess.run([sys.executable, ROOT / "tools" / "website.py", folder], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "site"


@pytest.fixture(scope="module", params=WITH_VIEWS)
def opened(browser, site, request):
    with watched_page(browser, offline=True) as page:
        page.goto((site / "notebooks" / f"{request.param}.html").as_uri())
        page.evaluate("window.mixerViews")
        yield request.param, page


@pytest.mark.parametrize("name", CHECKS)
def test_every_control_of_a_view_draws_what_the_data_says(opened, name):
    stem, page = opened
    if name not in WITH_VIEWS[stem]:
        pytest.skip(f"{stem} has no {name}")
    root = page.locator(".mixer-view").nth(WITH_VIEWS[stem].index(name))
    build, check = CHECKS[name]
    check(page, root, build(load_pretrained("mnist"), load_dataset("mnist")))
    screenshot(root, f"site-{stem}-{name}")


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (1280, "dark"), (390, "light")])
def test_pages_ask_for_nothing_outside_and_fit_the_screen(new_page, site, width, scheme):
    page = new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    for path in [site / "index.html", *sorted((site / "notebooks").glob("*.html")), site / "explorer" / "index.html"]:
        page.goto(path.as_uri())
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path.name} is {wide} px wider than a screen of {width}"
        assert page.outside == [], path.name
        if path.stem in ("index", "02_token_mixing"):
            screenshot(page, f"site-{path.parent.name}-{path.stem}-{width}-{scheme}")
