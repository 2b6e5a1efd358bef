"""The website's pages in a browser, from their files and with no network: its views are as alive as in a notebook."""

import subprocess
import sys

import pytest
from helpers import ROOT, screenshot, start_all, watched_page
from test_notebooks_with_views import IN_07, NOTEBOOK, touch


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
        start_all(page)
        yield page


@pytest.mark.parametrize("name", IN_07)
def test_a_view_opens_takes_a_key_and_moves_a_control(opened, name):
    screenshot(touch(opened, name), f"site-07-{name}")


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (1280, "dark"), (390, "light")])
def test_pages_ask_for_nothing_outside_and_fit_the_screen(new_page, site, width, scheme):
    page = new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    for path in [site / "index.html", *sorted((site / "notebooks").glob("*.html"))]:
        page.goto(path.as_uri())
        start_all(page)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path.name} is {wide} px wider than a screen of {width}"
        assert page.outside == [], path.name
        if path.stem in ("index", "02_token_mixing"):
            screenshot(page, f"site-{path.parent.name}-{path.stem}-{width}-{scheme}")


def test_the_first_page_is_the_explorer_in_the_colours_of_the_site_and_the_series_is_under_it(new_page, site):
    page = new_page(color_scheme="light", offline=True)
    page.goto((site / "index.html").as_uri())
    start_all(page)
    first = page.locator(".mixer-view").first
    assert first.get_attribute("data-theme") == "light"
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert first.get_attribute("data-theme") == "dark"
    first.locator("button[data-stage=stem]").click()
    page.wait_for_function("location.hash === '#network.stage=stem'")
    below = page.locator("#the-notebooks").bounding_box()
    assert first.bounding_box()["y"] < below["y"]
    assert first.bounding_box()["width"] > 880  # of 1280, beside the navigation
    assert page.locator("h1:visible").count() == page.locator("main").count() == 1  # another h1 is for paper
