"""The explorer's page as its readers use it: from a file, with no network, on a phone, by keyboard alone."""

import numpy as np
import pytest
from check_training import touch
from helpers import FRAMES, ROOT, pixels, screenshot, start_all, watched_page

from mixer_utils import load_pretrained, load_recorded_run, widgets
from mixer_utils.widgets import explore_training
from mixer_utils.widgets.page import embedded, write_explorer

VIEWS = ["network", "learn", "training"]
# What Tab stops at, in the order of the document.
STOPS = """() => [...document.querySelectorAll("a[href], button, input, select, canvas[tabindex='0']")]
  .filter((element) => element.checkVisibility({ visibilityProperty: true }))
  .filter((element) => !element.disabled && element.tabIndex >= 0)"""


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
      const drawn = document.querySelectorAll(".mixer-view-here > [data-drawn]").length;
      if (drawn) window.drawn ??= performance.now();
      if (drawn === 3) window.allDrawn ??= performance.now();
    }).observe(document, { subtree: true, childList: true, attributes: true });""")
    page.goto(address)
    assert page.evaluate("mixerViews.then((all) => [...all.keys()])") == [f"{name}-view" for name in VIEWS]
    start_all(page)
    for name in ("network", "training"):  # the third draws when it trains
        canvas = page.locator(f"#{name}-view canvas").first
        assert len(np.unique(pixels(canvas).reshape(-1, 3), axis=0)) > 10
    assert asked == [address]
    first, last = page.evaluate("[window.drawn, window.allDrawn]")
    print(f"latency: the explorer: first view drawn {first:.0f} ms after opening, the last {last:.0f} ms")


def test_a_link_to_a_view_leads_there(opened):
    page = opened("#training")
    top = page.locator("#training").evaluate("(heading) => heading.getBoundingClientRect().top")
    assert -1 < top < 500


def test_a_view_is_drawn_when_it_is_scrolled_near_and_its_numbers_are_unpacked_then(new_page, address):
    page = new_page(offline=True)
    page.add_init_script("""const Whole = window.DecompressionStream;
      window.unpacked = 0;
      window.DecompressionStream = class extends Whole { constructor(kind) { super(kind); window.unpacked++; } };""")
    page.goto(address)
    page.wait_for_selector("#network-view [data-drawn]")
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


def test_the_recorded_run_takes_a_key_and_moves_a_control(opened):
    touch(opened().locator("#training-view .mixer-view"), explore_training(load_recorded_run()))


# --- what is chosen, in the page's address ----------------------------------------------------------------------------


def wait_for_hash(page, text):
    page.wait_for_function("(text) => location.hash === text", arg=text)


def test_what_is_chosen_stands_in_the_address_and_opens_again(opened):
    page = opened()
    page.locator("#network-view button[data-stage='token mixing'][data-block='1']").click()
    page.locator("#network-view [data-trait=colours]").select_option("shared")
    page.locator("#training-view [data-trait=block]").press("ArrowRight")
    link = "#network.block=1&network.colours=shared&network.stage=token+mixing&training.block=1"
    wait_for_hash(page, link)
    again = opened(link)
    assert [value(again, "network", trait) for trait in ("block", "colours", "stage")] == [1, "shared", "token mixing"]
    assert again.locator("#network-view .mixer-pane[data-pane='token mixing']").is_visible()
    assert again.locator("#training-view [data-trait=block]").input_value() == "1"
    assert again.locator("#mixer-said").inner_text() == ""


def test_a_link_starts_the_view_it_is_about_and_leads_there(new_page, address):
    page = new_page(offline=True)
    page.goto(address + "#training.time=3&training.block=1")
    page.evaluate("mixerViews.then(() => null)")
    assert (value(page, "training", "time"), value(page, "training", "block")) == (3, 1)
    assert page.evaluate("document.querySelector('#training').getBoundingClientRect().top") < 200


def test_a_drawn_digit_stands_in_the_address_at_16_levels(opened):
    page = opened()
    drawn = np.zeros((28, 28), np.uint8)
    drawn[4:24, 12:16] = np.arange(80).reshape(20, 4) * 3  # a stroke of many levels of grey
    page.evaluate(
        """(values) => mixerViews.then((all) => {
          const view = all.get("network-view");
          view.set("pixels", new DataView(Uint8Array.from(values).buffer));
          view.set("hidden", [3, 10]);
        })""",
        drawn.ravel().tolist(),
    )
    page.wait_for_function("/^#network.pixels=[^&]+&network.hidden=3.10$/.test(location.hash)")
    link = page.evaluate("location.hash")
    assert len(link) < 300
    again = opened(link)
    sent = again.evaluate("""mixerViews.then((all) => {
      const { buffer, byteOffset, byteLength } = all.get("network-view").get("pixels");
      return [...new Uint8Array(buffer, byteOffset, byteLength)];
    })""")
    assert sent == (17 * np.floor(drawn / 17 + 0.5)).astype(int).ravel().tolist()
    assert (value(again, "network", "start"), value(again, "network", "hidden")) == (-1, [3, 10])


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
    wrong = ["network.block=9", "nosuch.unit=1", "network.constructor=1", "network.pixels=AAAA", "network.sort=%zz"]
    wrong.append("x=1")
    page = opened("#network.unit=5&" + "&".join(wrong))
    assert page.locator("#mixer-said").inner_text() == (
        f"The page's address asks for what is not here ({', '.join(wrong)}): this part of it is left out."
    )
    assert (value(page, "network", "unit"), value(page, "network", "block")) == (5, 0)
    page.evaluate("location.hash = '#network.unit=6'")
    page.wait_for_function("document.querySelector('#mixer-said').textContent === ''")
    assert value(page, "network", "unit") == 6


def test_back_and_forward_go_through_what_was_chosen(opened):
    page = opened()
    page.wait_for_timeout(2100)  # what is chosen within two seconds is one step
    block = page.locator("#training-view [data-trait=block]")
    block.press("ArrowRight")
    wait_for_hash(page, "#training.block=1")
    for go, text, shown in [(page.go_back, "", "0"), (page.go_forward, "#training.block=1", "1")]:
        go()
        wait_for_hash(page, text)
        page.wait_for_function(
            "(shown) => document.querySelector('#training-view [data-trait=block]').value === shown", arg=shown
        )


def test_the_link_is_copied_or_shown(new_page, address):
    for refused in (False, True):
        page = new_page(offline=True)
        page.add_init_script(
            """Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => {
              if (REFUSED) throw new Error("no");
              window.copied = text;
            } } });""".replace("REFUSED", str(refused).lower())
        )
        page.goto(address + "#training.unit=7")
        page.evaluate("mixerViews.then(() => null)")
        page.locator("#training-view [data-trait=block]").press("ArrowRight")
        page.get_by_role("button", name="Copy link").click()
        page.wait_for_function("document.querySelector('#mixer-said').textContent !== ''")
        link = address + "#training.block=1&training.unit=7"
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
    reached = {"network": {"BUTTON", "SELECT"}, "learn": {"BUTTON", "INPUT"}, "training": {"INPUT", "CANVAS"}}
    assert list(reached) == VIEWS
    for name, expected in reached.items():
        kinds = page.evaluate(f"stops.filter((one) => one.closest('#{name}-view')).map((one) => one.tagName)")
        assert expected <= set(kinds), (name, kinds)


def test_the_first_key_offers_to_skip_to_the_views(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#network').getBoundingClientRect().top < 100")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#network-view') !== null")


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
