"""What a screen reader is told of the explorer's page and of every view: roles and names, from Chromium's own tree."""

import pytest
from helpers import show_view, start_all

from mixer_utils import load_pretrained, widgets
from mixer_utils.widgets.page import SECTIONS, write_explorer

CONTROLS = {"button", "slider", "combobox", "checkbox", "link", "textbox", "spinbutton", "radio", "switch"}
PICTURES = {"image", "img"}
NAMED = "[...document.querySelectorAll('canvas[role=img]')].every((one) => one.ariaLabel)"


def nodes(page):
    """The nodes of the tree that a screen reader gets, as they are read: [(role, name, properties)]."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    by_id = {node["nodeId"]: node for node in tree}
    found = []

    def visit(node):
        if not node["ignored"]:
            properties = {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
            found.append((node["role"]["value"], node.get("name", {}).get("value", "").strip(), properties))
        for child in node.get("childIds", []):
            if child in by_id:
                visit(by_id[child])

    visit(tree[0])
    return found


def check_names(page):
    """Every control and picture has a name, and there are as many as the page shows."""
    page.wait_for_function(NAMED)  # the canvases of a view that works in the background get theirs from it
    found = nodes(page)
    nameless = [(role, properties) for role, name, properties in found if role in CONTROLS | PICTURES and not name]
    assert nameless == []
    shown = page.evaluate("""[...document.querySelectorAll("canvas:not([aria-hidden=true])")]
      .filter((one) => one.checkVisibility()).length""")
    named = [name for role, name, _ in found if role in PICTURES]
    sliders = page.locator("canvas[role=slider]:visible").count()
    assert len(named) >= shown - sliders > 0
    controls = page.locator("button:visible, select:visible, input:visible").count()
    assert sum(role in CONTROLS - {"link"} for role, *_ in found) == controls + sliders
    return found


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_explorer(tmp_path_factory.mktemp("explorer")).as_uri()


@pytest.fixture
def page_nodes(new_page, address):
    page = new_page(offline=True)
    page.goto(address)
    start_all(page)
    return check_names(page)


def test_the_page_has_one_main_part_its_headings_are_in_order_and_all_is_named(page_nodes):
    roles = [role for role, *_ in page_nodes]
    assert roles.count("main") == 1 and roles.count("contentinfo") == 1
    headings = [(properties["level"], name) for role, name, properties in page_nodes if role == "heading"]
    assert headings[0] == (1, "Look inside an MLP-Mixer")
    assert headings[1:] == [(2, heading) for heading in [*(one.heading for one in SECTIONS), "The series behind it"]]
    regions = [name for role, name, _ in page_nodes if role == "region"]
    assert [*(one.heading for one in SECTIONS), "The series behind it"] == [one for one in regions if one != "Tour"]
    assert [name for role, name, _ in page_nodes if role == "navigation"] == ["Views"]
    assert roles.count("status") >= 1 + len(SECTIONS)  # the page's sentence, and each view's line


def test_the_view_that_is_not_on_the_page_is_named_too(page, tmp_path):
    show_view(page, widgets.explore_embedding(load_pretrained("mnist")), tmp_path)
    check_names(page)


def test_no_two_canvases_of_a_view_are_called_the_same(new_page, address):
    page = new_page(offline=True)
    page.goto(address)
    start_all(page)
    page.wait_for_function(NAMED)
    for section in SECTIONS:
        labels = page.locator(f"#{section.name}-view canvas[role]").evaluate_all(
            "(all) => all.map((one) => one.ariaLabel)"
        )
        assert len(set(labels)) == len(labels) > 0, section.name
