"""The tour through the explorer's page: it is begun, followed by mouse and by keys, and left at any step."""

import pytest

from mixer_utils import load_pretrained
from mixer_utils.widgets import page as explorer
from mixer_utils.widgets.page import json_in_html

STEPS = [
    {"view": "nowhere", "set": {"block": 1}, "target": "body", "text": "Of a view that is not on the page."},
    {"view": "network", "set": {"block": 1}, "target": "#network-view [data-trait=show]", "text": "The squares."},
    {"view": "training", "set": {}, "target": "#training-view [data-trait=block]", "text": "The block."},
    {"view": "training", "set": {"block": 2, "unit": 3}, "target": "#no-such-thing", "text": "The whole run."},
]
PANEL = ".mixer-tour"
MARKED = (
    "() => [...document.querySelectorAll('.mixer-toured')].map((one) => one.dataset.trait || one.id || one.className)"
)
SEEN = """() => {
  const { top, bottom } = document.querySelector(".mixer-toured").getBoundingClientRect();
  return top < document.querySelector(".mixer-tour").getBoundingClientRect().top && bottom > 0;
}"""


@pytest.fixture(scope="module")
def html():
    return explorer.explorer_page(load_pretrained("mnist"))


@pytest.fixture
def toured(new_page, html, tmp_path):
    """A function: the explorer with a tour of these steps, in a new page."""

    def start(steps, **context):
        path = tmp_path / "index.html"
        path.write_text(html.replace(json_in_html(explorer.TOUR), json_in_html(steps)), encoding="utf-8")
        page = new_page(**{"offline": True, "reduced_motion": "reduce", **context})
        page.goto(path.as_uri())
        page.evaluate("mixerViews.then(() => null)")
        return page

    return start


def begin(page):
    page.get_by_role("button", name="Take the tour").click()
    wait_for_step(page, 1)


def wait_for_step(page, number, marks=1):
    page.wait_for_function(
        """([start, marks]) => document.querySelector(".mixer-tour-count").textContent.startsWith(start)
          && document.querySelectorAll(".mixer-toured").length === marks""",
        arg=[f"Step {number} ", marks],
    )


def trait(page, view, name):
    return page.evaluate(f"mixerViews.then((all) => all.get('{view}-view').get('{name}'))")


def focused(page):
    return page.evaluate("document.activeElement.textContent")


def test_a_step_says_a_sentence_sets_the_view_and_marks_what_it_is_about(toured):
    page = toured(STEPS)
    panel = page.get_by_role("region", name="Tour")
    assert not panel.is_visible()
    begin(page)
    assert panel.is_visible() and focused(page) == "Next"
    assert panel.locator("[aria-live=polite]").inner_text() == "The squares."  # the first step of a view that is here
    assert panel.locator(".mixer-tour-count").inner_text() == "Step 1 of 3"
    assert page.evaluate(MARKED) == ["show"] and page.evaluate(SEEN)
    assert trait(page, "network", "block") == 1
    panel.get_by_role("button", name="Next").click()
    wait_for_step(page, 2)
    assert panel.locator("[aria-live=polite]").inner_text() == "The block."
    assert page.evaluate(MARKED) == ["block"] and page.evaluate(SEEN)
    page.keyboard.press("ArrowRight")
    wait_for_step(page, 3)
    assert page.evaluate(MARKED) == ["training-view"]  # nothing is found by the selector: the whole view
    assert (trait(page, "training", "block"), trait(page, "training", "unit")) == (2, 3)
    page.keyboard.press("ArrowLeft")
    wait_for_step(page, 2)
    panel.get_by_role("button", name="Back").click()
    wait_for_step(page, 1)
    assert panel.get_by_role("button", name="Back").is_disabled() and focused(page) == "Next"


@pytest.mark.parametrize("way", ["Escape", "Leave the tour", "Finish"])
def test_the_tour_can_be_left_and_the_focus_goes_back_to_where_it_began(toured, way):
    page = toured(STEPS)
    begin(page)
    if way == "Escape":
        page.locator("#network-view [data-trait=show]").focus()  # from anywhere
        page.keyboard.press("Escape")
    elif way == "Finish":
        for number in (2, 3):
            page.keyboard.press("Enter")
            wait_for_step(page, number)
        page.get_by_role("button", name="Finish").click()
    else:
        page.get_by_role("button", name=way).click()
    assert not page.locator(PANEL).is_visible()
    assert page.evaluate(MARKED) == [] and focused(page) == "Take the tour"
    page.keyboard.press("Enter")  # and begun again
    wait_for_step(page, 1)


def test_on_a_phone_the_panel_and_what_it_is_about_are_both_seen(toured):
    page = toured(STEPS, viewport={"width": 360, "height": 640}, is_mobile=True, has_touch=True)
    begin(page)
    for number in (1, 2):
        box = page.locator(PANEL).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["y"] + box["height"] <= 640
        assert page.evaluate(SEEN) and page.evaluate("document.documentElement.scrollWidth") == 360
        page.get_by_role("button", name="Next").click()
        wait_for_step(page, number + 1)


def test_the_six_steps_open_the_six_stages(toured):
    page = toured(explorer.TOUR)
    begin(page)
    for number, step in enumerate(explorer.TOUR, start=1):
        wait_for_step(page, number)
        marked = page.locator(".mixer-toured")
        assert marked.get_attribute("data-pane") == step["set"]["stage"]
        assert page.locator(".mixer-tour-text").inner_text() == step["text"]
        page.keyboard.press("ArrowRight")
    assert not page.locator(PANEL).is_visible()


def test_without_a_view_to_go_through_there_is_no_tour(toured):
    page = toured(STEPS[:1])
    assert page.get_by_role("button", name="Take the tour").count() == 0
    assert page.locator(PANEL).count() == 0
