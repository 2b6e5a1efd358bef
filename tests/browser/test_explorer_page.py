"""The explorer's page as its readers use it: from a file, with no network, on a phone, by keyboard alone."""

import importlib

import numpy as np
import pytest
from helpers import move, pixels, screenshot, watched_page

from mixer_utils import load_pretrained, load_recorded_run, widgets
from mixer_utils.widgets.page import embedded, write_explorer

VIEWS = {
    "mixing": lambda: widgets.explore_mixing(load_pretrained("mnist")),
    "influence": lambda: widgets.explore_influence(load_pretrained("mnist")),
    "digit": lambda: widgets.draw_digit(load_pretrained("mnist")),
    "training": lambda: widgets.explore_training(load_recorded_run()),
}
# What Tab stops at, in the order of the document.
STOPS = """() => [...document.querySelectorAll("a[href], button, input, select, canvas[tabindex='0']")]
  .filter((element) => element.checkVisibility({ visibilityProperty: true }) && !element.disabled)"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_explorer(tmp_path_factory.mktemp("explorer")).as_uri()


@pytest.fixture
def opened(new_page, address):
    """A function: the explorer in a new page with no network, all views drawn."""

    def start(place="", **context):
        page = new_page(**{"offline": True, **context})
        page.goto(address + place)
        page.evaluate("mixerViews.then(() => null)")
        return page

    return start


def value(page, view, trait):
    return page.evaluate(
        "([view, trait]) => mixerViews.then((all) => all.get(view + '-view').get(trait))", [view, trait]
    )


# --- a file, and nothing else -----------------------------------------------------------------------------------------


def test_the_page_shows_every_view_and_asks_for_nothing_but_itself(new_page, address):
    page, asked = new_page(offline=True), []
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script("""new MutationObserver(() => {
      window.drawn ??= document.querySelector("[data-drawn]") && performance.now();
      if (document.querySelectorAll("[data-drawn]").length === 4) window.allDrawn ??= performance.now();
    }).observe(document, { subtree: true, childList: true, attributes: true });""")
    page.goto(address)
    assert page.evaluate("mixerViews.then((all) => [...all.keys()])") == [f"{name}-view" for name in VIEWS]
    for name in VIEWS:
        canvas = page.locator(f"#{name}-view canvas").first
        assert len(np.unique(pixels(canvas).reshape(-1, 3), axis=0)) > 10
    assert asked == [address]
    first, last = page.evaluate("[window.drawn, window.allDrawn]")
    print(f"latency: the explorer: first view drawn {first:.0f} ms after opening, the last {last:.0f} ms")


def test_a_link_to_a_view_leads_there(opened):
    page = opened("#digit")
    top = page.locator("#digit").evaluate("(heading) => heading.getBoundingClientRect().top")
    assert top == pytest.approx(12, abs=1)


def test_views_are_white_cards_on_a_page_that_follows_the_reader_s_colours(opened):
    def colours(page):
        return page.evaluate("""["body", ".mixer-view"].map((one) => {
          const { backgroundColor, color, colorScheme } = getComputedStyle(document.querySelector(one));
          const light = (colour) => colour.match(/[0-9]+/g).reduce((sum, part) => sum + Number(part) / 765, 0);
          return [light(backgroundColor), light(color), colorScheme];
        })""")

    for scheme, (page_light, text_light) in {"light": (0.95, 0.1), "dark": (0.1, 0.9)}.items():
        page = opened(color_scheme=scheme)
        body, card = colours(page)
        assert body[:2] == pytest.approx([page_light, text_light], abs=0.06)
        assert card[:2] == pytest.approx([1, 0.1], abs=0.06)
        assert card[2] == "light"  # so that sliders and boxes are drawn for a white ground
        screenshot(page.locator("body"), f"explorer-{scheme}")


def test_each_view_takes_a_key_and_moves_a_control(opened):
    page = opened()
    for name, build in VIEWS.items():
        importlib.import_module(f"check_{name}").touch(page.locator(f"#{name}-view .mixer-view"), build())


def test_block_unit_and_patch_of_two_views_follow_each_other_when_asked(opened):
    page = opened()
    block = {name: page.locator(f"#{name}-view [data-trait=block]") for name in VIEWS}
    canvas = {name: page.locator(f"#{name}-view canvas").first for name in VIEWS}
    move(block["mixing"], "ArrowRight", canvas["mixing"])
    assert (value(page, "mixing", "block"), value(page, "influence", "block")) == (1, 0)
    page.get_by_label("follow each other").check()
    assert value(page, "influence", "block") == 1
    move(canvas["mixing"], "ArrowRight", canvas["mixing"])
    assert value(page, "influence", "unit") == value(page, "mixing", "unit") != 0
    move(block["influence"], "ArrowRight", canvas["mixing"])
    assert (value(page, "mixing", "block"), value(page, "influence", "block")) == (2, 2)
    page.get_by_label("follow each other").uncheck()
    move(block["influence"], "ArrowRight", canvas["influence"])
    assert (value(page, "mixing", "block"), value(page, "influence", "block")) == (2, 3)


# --- a phone, and a keyboard ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [380, 768])
def test_nothing_is_wider_than_a_narrow_screen_and_everything_can_be_touched(opened, width):
    page = opened(viewport={"width": width, "height": 780}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    hidden = page.evaluate(f"""() => ({STOPS})().filter((element) => !element.matches(".skip")).map((element) => {{
      element.scrollIntoView({{ block: "center", inline: "center", behavior: "instant" }});
      const {{ left, right, top, bottom }} = element.getClientRects()[0];
      const there = document.elementFromPoint((left + right) / 2, Math.min((top + bottom) / 2, innerHeight - 10));
      const inside = left >= 0 && (right <= {width} || element.closest(".mixer-scroll"));
      return inside && (there === element || element.contains(there)) ? null : element.outerHTML.slice(0, 120);
    }}).filter(Boolean)""")
    assert hidden == []
    screenshot(page.locator("body"), f"explorer-{width}")


def test_tab_goes_through_all_links_controls_and_canvases_in_their_order(opened):
    page = opened()
    names = page.evaluate(f"window.stops = ({STOPS})(), stops.map((one) => one.outerHTML.slice(0, 80))")
    visited = []
    for _ in names:
        page.keyboard.press("Tab")
        at = page.evaluate("stops.indexOf(document.activeElement)")
        visited.append(names[at] if at >= 0 else page.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
    assert visited == names
    for name in VIEWS:
        kinds = page.evaluate(f"stops.filter((one) => one.closest('#{name}-view')).map((one) => one.tagName)")
        assert "CANVAS" in kinds and {"INPUT", "SELECT"} & set(kinds)


def test_the_first_key_offers_to_skip_to_the_views(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#mixing').getBoundingClientRect().top < 100")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#mixing-view') !== null")


def test_every_control_is_named(opened):
    names = opened().evaluate(f"""() => ({STOPS})().map((one) => one.labels?.length
      ? one.labels[0].textContent.trim() : one.getAttribute("aria-label") || one.textContent.trim())""")
    assert all(names) and len(names) > 20


# --- where it cannot work ---------------------------------------------------------------------------------------------


def test_without_scripts_a_sentence_says_what_is_missing(new_page, address):
    page = new_page(java_script_enabled=False)
    page.goto(address)
    assert page.locator("noscript p").is_visible()
    assert "allow scripts on this page" in page.locator("noscript p").inner_text()


def test_an_old_browser_is_told_so_in_each_view_s_place(new_page, address):
    page = new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(address)
    for name in VIEWS:
        assert "too old to unpack the model" in page.locator(f"#{name}-view").inner_text()


def test_a_view_that_fails_leaves_a_sentence_and_the_others_are_drawn(browser, tmp_path):
    view = widgets.explore_mixing(load_pretrained("mnist")).get_state()
    places, end = embedded({"broken": {**view, "data": {}}, "whole": view})
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8>{''.join(places)}{end}", encoding="utf-8")
    with pytest.raises(AssertionError, match="The page reported errors"), watched_page(browser) as page:
        page.goto(path.as_uri())
        assert page.evaluate("mixerViews.then((all) => [...all.keys()])") == ["whole"]
        assert page.locator("#broken").inner_text().startswith("This view could not be started (")
        assert page.locator("#whole canvas").first.is_visible()
        shown = True
    assert shown
