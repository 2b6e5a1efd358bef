"""The website's pages in a browser, from their files and with no network: its views are as alive as in a notebook."""

import subprocess
import sys

import pytest
from helpers import ROOT, screenshot, watched_page
from test_notebooks_with_views import NOTEBOOK, VIEWS, touch


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("website")
    run = subprocess.run([sys.executable, ROOT / "tools" / "website.py", folder], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def opened(browser, site):
    with watched_page(browser, offline=True) as page:
        page.goto((site / "notebooks" / f"{NOTEBOOK.stem}.html").as_uri())
        page.evaluate("window.mixerViews")
        yield page


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_opens_takes_a_key_and_moves_a_control(opened, name):
    screenshot(touch(opened, name), f"site-07-{name}")


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
