"""The explorer's page as its readers use it: from a file, with no network, on a phone, by keyboard alone."""

import importlib

import numpy as np
import pytest
from helpers import FRAMES, ROOT, pixels, screenshot, start_all, watched_page

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
        start_all(page)
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
    start_all(page)
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


def test_a_view_is_drawn_when_it_is_scrolled_near_and_its_numbers_are_unpacked_then(new_page, address):
    page = new_page(offline=True)
    page.add_init_script("""const Whole = window.DecompressionStream;
      window.unpacked = 0;
      window.DecompressionStream = class extends Whole { constructor(kind) { super(kind); window.unpacked++; } };""")
    page.goto(address)
    page.wait_for_selector("#mixing-view [data-drawn]")
    page.evaluate(FRAMES)
    assert page.locator("#training-view [data-drawn]").count() == 0
    before = page.evaluate("unpacked")
    assert 0 < before < page.locator("script.mixer-buffer").count()
    page.locator("#training-view").scroll_into_view_if_needed()
    page.wait_for_selector("#training-view [data-drawn]")
    assert page.evaluate("unpacked") > before


def test_page_and_views_follow_the_reader_s_colours(opened):
    def light(page, one):
        return page.evaluate(
            """(one) => {
              const { backgroundColor, color } = getComputedStyle(document.querySelector(one));
              return [backgroundColor, color].map((colour) => {
                const parts = colour.match(/[0-9]+/g);
                return parts.slice(0, 3).reduce((sum, part) => sum + Number(part) / 765, 0);
              });
            }""",
            one,
        )

    for scheme, (ground, text) in {"light": (0.97, 0.1), "dark": (0.11, 0.9)}.items():
        page = opened(color_scheme=scheme)
        for one in ("body", ".mixer-view", "#mixer-copy"):
            assert light(page, one) == pytest.approx([ground, text], abs=0.09), (scheme, one)
        screenshot(page.locator("body"), f"explorer-{scheme}")


def test_each_view_takes_a_key_and_moves_a_control(opened):
    page = opened()
    for name, build in VIEWS.items():
        importlib.import_module(f"check_{name}").touch(page.locator(f"#{name}-view .mixer-view"), build())


# --- what is chosen, in the page's address ----------------------------------------------------------------------------


def wait_for_hash(page, text):
    page.wait_for_function("(text) => location.hash === text", arg=text)


def test_what_is_chosen_stands_in_the_address_and_opens_again(opened):
    page = opened()
    page.locator("#mixing-view [data-trait=block]").press("ArrowRight")
    page.locator("#mixing-view [data-trait=sort]").select_option("pairs")
    page.locator("#influence-view [data-trait=show]").select_option("composed")
    wait_for_hash(page, "#mixing.block=1&mixing.sort=pairs&influence.show=composed")
    again = opened("#mixing.block=1&mixing.sort=pairs&influence.show=composed")
    assert [value(again, "mixing", trait) for trait in ("block", "sort", "unit")] == [1, "pairs", 0]
    assert value(again, "influence", "show") == "composed"
    assert again.locator("#mixing-view [data-trait=block]").input_value() == "1"
    assert again.locator("#mixer-said").inner_text() == ""


def test_a_link_starts_the_view_it_is_about_and_leads_there(new_page, address):
    page = new_page(offline=True)
    page.goto(address + "#training.time=3&training.block=1")
    page.evaluate("mixerViews.then(() => null)")
    assert (value(page, "training", "time"), value(page, "training", "block")) == (3, 1)
    assert page.evaluate("document.querySelector('#training').getBoundingClientRect().top") < 200
    assert page.locator("#digit-view [data-drawn]").count() == 0


def test_a_drawn_digit_stands_in_the_address_at_16_levels(opened):
    page = opened()
    board = page.locator("#digit-view canvas.mixer-board")
    page.locator("#digit-view").get_by_role("button", name="Clear").click()
    for key in ["Space", *["ArrowRight"] * 5, *["ArrowDown"] * 4, "Space", "h"]:
        board.press(key)
    page.wait_for_function("location.hash.includes('digit.hidden') && location.hash.includes('digit.pixels')")
    link = page.evaluate("location.hash")
    assert len(link) < 300
    pixels_of = """mixerViews.then((all) => {
      const { buffer, byteOffset, byteLength } = all.get("digit-view").get("pixels");
      return [...new Uint8Array(buffer, byteOffset, byteLength)];
    })"""
    drawn, again = np.array(page.evaluate(pixels_of)), opened(link)
    sent = np.array(again.evaluate(pixels_of))
    assert drawn.max() == 255 and (drawn > 0).sum() > 15
    assert (sent == 17 * np.floor(drawn / 17 + 0.5)).all()
    assert value(again, "digit", "start") == -1
    assert value(again, "digit", "hidden") == value(page, "digit", "hidden") != []


def test_any_picture_comes_back_from_its_text_and_nothing_else_does(page):
    source = (ROOT / "mixer_utils" / "widgets" / "address.js").read_text(encoding="utf-8")
    generator = np.random.default_rng(0)
    pictures = [np.zeros(784), np.full(784, 255), np.full(1, 9), generator.integers(0, 256, 784)]
    pictures += [generator.integers(0, 256, size) * (generator.random(size) > 0.8) for size in (28, 29, 30, 3072)]
    for picture in pictures:
        levels, cut, longer, other = page.evaluate(
            """async ([source, values]) => {
              const module = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
              const { picturePacked, pictureUnpacked } = await import(module);
              const text = picturePacked(Uint8Array.from(values));
              const count = values.length;
              const levels = [...new Uint8Array(pictureUnpacked(text, count).buffer)];
              const wrong = [text.slice(0, -2), `${text}AA`, `é${text.slice(1)}`];
              return [levels, ...wrong.map((one) => pictureUnpacked(one, count))];
            }""",
            [source, picture.tolist()],
        )
        assert levels == (17 * np.floor(picture / 17 + 0.5)).astype(int).tolist()
        assert cut is None and other is None and longer is None


def test_what_the_address_asks_for_and_is_not_there_is_told_in_one_sentence(opened):
    wrong = ["mixing.block=9", "nosuch.unit=1", "mixing.constructor=1", "digit.pixels=AAAA", "mixing.sort=%zz", "x=1"]
    page = opened("#mixing.unit=5&" + "&".join(wrong))
    assert page.locator("#mixer-said").inner_text() == (
        f"The page's address asks for what is not here ({', '.join(wrong)}): this part of it is left out."
    )
    assert (value(page, "mixing", "unit"), value(page, "mixing", "block")) == (5, 0)
    page.evaluate("location.hash = '#mixing.unit=6'")
    page.wait_for_function("document.querySelector('#mixer-said').textContent === ''")
    assert value(page, "mixing", "unit") == 6


def test_back_and_forward_go_through_what_was_chosen(opened):
    page = opened()
    page.wait_for_timeout(2100)  # what is chosen within two seconds is one step
    page.locator("#mixing-view [data-trait=block]").press("ArrowRight")
    wait_for_hash(page, "#mixing.block=1")
    page.go_back()
    wait_for_hash(page, "")
    page.wait_for_function("document.querySelector('#mixing-view [data-trait=block]').value === '0'")
    page.go_forward()
    wait_for_hash(page, "#mixing.block=1")
    page.wait_for_function("document.querySelector('#mixing-view [data-trait=block]').value === '1'")


def test_the_link_is_copied_or_shown(new_page, address):
    for refused in (False, True):
        page = new_page(offline=True)
        page.add_init_script(
            """Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => {
              if (REFUSED) throw new Error("no");
              window.copied = text;
            } } });""".replace("REFUSED", str(refused).lower())
        )
        page.goto(address + "#mixing.unit=7")
        page.evaluate("mixerViews.then(() => null)")
        page.locator("#mixing-view [data-trait=block]").press("ArrowRight")
        page.get_by_role("button", name="Copy link").click()
        page.wait_for_function("document.querySelector('#mixer-said').textContent !== ''")
        link = address + "#mixing.block=1&mixing.unit=7"
        if refused:
            assert page.get_by_label("Link to this page").input_value() == link
        else:
            assert page.evaluate("window.copied") == link


# --- a phone, and a keyboard ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [360, 768])
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
    page.evaluate("mixerViews.then(() => null)")
    for name in VIEWS:
        assert "too old to unpack the model" in page.locator(f"#{name}-view").inner_text()


def test_a_view_that_fails_leaves_a_sentence_and_the_others_are_drawn(browser, tmp_path):
    view = widgets.explore_mixing(load_pretrained("mnist")).get_state()
    places, end = embedded({"broken": {**view, "data": {}}, "whole": view})
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8>{''.join(places)}{end}", encoding="utf-8")
    with pytest.raises(AssertionError, match="The page reported errors"), watched_page(browser) as page:
        page.goto(path.as_uri())
        start_all(page)
        assert page.locator("#broken").inner_text().startswith("This view could not be started (")
        assert page.locator("#whole canvas").first.is_visible()
        shown = True
    assert shown
