"""View 1 in a browser: its pixels against the weights."""

import pytest
from check_mixing import check_mixing, expect_shown, tiles, touch
from helpers import latency, screenshot
from tiles import choose

from mixer_utils import create_mixer, load_pretrained
from mixer_utils.widgets import base, explore_mixing


def test_every_control_shows_the_shipped_model_s_maps_in_the_colours_of_its_weights(opened):
    view = explore_mixing(load_pretrained("mnist"))
    page, root = opened(view)
    check_mixing(page, root, view)
    screenshot(root, "view-mixing")


@pytest.mark.parametrize("ratio", [1.25, 2])
def test_the_colours_are_right_at_any_zoom(opened, ratio):
    view = explore_mixing(load_pretrained("mnist"))
    _, root = opened(view, device_scale_factor=ratio)
    touch(root, view)


def test_unit_5_of_block_2_stands_where_sorting_says(opened):
    view = explore_mixing(load_pretrained("mnist"))
    page, root = opened(view)
    choose(root, view, "block", "ArrowRight", "ArrowRight")
    assert view.block == 2
    places = set()
    for sort in ["norm", "frequency", "pairs", "number"]:
        choose(root, view, "sort", option=sort)
        expect_shown(root, view)
        shown = tiles(root, 0).get_attribute("data-order").split().index("5")
        assert shown == list(view.order()).index(5)
        places.add(shown)
    assert len(places) > 1


def test_on_a_phone_the_panels_wrap_and_rows_are_full(opened):
    view = explore_mixing(load_pretrained("mnist"))
    page, root = opened(view, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert view.data["num_units"] % int(tiles(root, 0).get_attribute("data-across")) == 0
    boxes = [root.locator(".mixer-panel").nth(i).bounding_box() for i in (0, 1)]
    assert boxes[0]["x"] == boxes[1]["x"] and boxes[1]["y"] > boxes[0]["y"] + boxes[0]["height"]
    screenshot(root, "view-mixing-phone")


def test_a_model_alone_is_shown_without_a_choice_to_compare(opened, monkeypatch):
    monkeypatch.setattr(base, "MOST_SENT", 400)  # room for one side
    view = explore_mixing(create_mixer("mnist/4", patch_size=14, tokens_mlp_dim=7, num_blocks=2))
    page, root = opened(view)
    assert len(view.data["sides"]) == 1 and root.locator("[data-trait=compare]").count() == 0
    choose(root, view, "block", "ArrowRight")
    assert view.block == 1
    expect_shown(root, view)


def test_every_key_press_changes_the_picture(opened):
    page, root = opened(explore_mixing(load_pretrained("mnist")))
    latency(root.locator("[data-trait=block]"), ["ArrowRight", "ArrowLeft"], root, "view 1, block")


def test_b_16_is_drawn_right_and_its_chosen_tile_is_scrolled_into_sight(opened):
    view = explore_mixing(create_mixer("B/16", num_classes=10))
    page, root = opened(view)
    expect_shown(root, view)
    canvas = tiles(root, 0)
    latency(root.locator("[data-trait=block]"), ["ArrowRight", "ArrowLeft"], canvas, "view 1, block of B/16")
    for _ in range(3):
        canvas.press("ArrowDown")
    box = root.locator(".mixer-tiles").first
    assert canvas.evaluate("(canvas) => canvas.clientHeight") > box.evaluate("(box) => box.clientHeight")
    view.unit = int(view.order()[list(view.order()).index(0) + 3 * int(canvas.get_attribute("data-across"))])
    expect_shown(root, view)
