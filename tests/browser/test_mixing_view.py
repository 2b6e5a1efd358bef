"""View 1 in a browser: its pixels against the weights."""

import pytest
import torch
from check_mixing import check_mixing, expect_shown, tiles, touch
from helpers import FRAMES, latency, screenshot
from tiles import choose, hovered, point

from mixer_utils import MlpMixer, create_mixer, load_pretrained
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
    for sort in ["structure", "norm", "frequency", "pairs", "number"]:
        choose(root, view, "sort", option=sort)
        expect_shown(root, view)
        shown = tiles(root).get_attribute("data-order").split().index("5")
        assert shown == list(view.order()).index(5)
        places.add(shown)
    assert len(places) > 1


def test_on_a_phone_the_maps_of_a_unit_stand_one_below_the_other(opened):
    view = explore_mixing(load_pretrained("mnist"))
    page, root = opened(view, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert (int(tiles(root).get_attribute("data-across")), float(tiles(root).get_attribute("data-right"))) == (2, 0)
    touch(root, view)
    screenshot(root, "view-mixing-phone")


@pytest.mark.parametrize("width, across", [(1000, 4), (360, 2)])
def test_maps_of_14_by_14_patches_can_be_read_at_once(opened, width, across):
    view = explore_mixing(fourteen())
    page, root = opened(view, viewport={"width": width, "height": 740})
    assert float(tiles(root).get_attribute("data-side")) >= 8
    assert int(tiles(root).get_attribute("data-across")) == across
    assert page.evaluate("document.documentElement.scrollWidth") == width
    screenshot(root, f"view-mixing-14x14-{width}")
    touch(root, view)


def fourteen():
    """A model with the paper's grid."""
    torch.manual_seed(0)
    return MlpMixer(28, patch_size=2, hidden_dim=4, num_blocks=2, channels_mlp_dim=4)


@pytest.mark.parametrize("width", [1280, 800, 360])  # rows of four, of three and, one map below the other, of two
def test_of_two_opposite_units_the_one_stands_beside_the_other(opened, width):
    view = explore_mixing(fourteen())
    page, root = opened(view, viewport={"width": width, "height": 740})
    choose(root, view, "sort", option="pairs")
    page.evaluate(FRAMES)
    assert int(tiles(root).get_attribute("data-across")) % 2 == 0
    touch(root, view)


def test_what_is_out_of_sight_is_not_drawn_and_what_is_scrolled_to_is(opened):
    view = explore_mixing(create_mixer("L/16", num_classes=10, num_blocks=2, hidden_dim=4, channels_mlp_dim=4))
    page, root = opened(view)
    canvas = tiles(root)
    inside, all_ = canvas.evaluate("(one) => [one.clientHeight, one.closest('.mixer-tall').clientHeight]")
    assert inside < 700 and all_ > 10_000
    expect_shown(root, view)  # the last tile among them
    page.evaluate("document.querySelector('.mixer-tiles').scrollTop = 3333")
    page.evaluate(FRAMES)
    assert float(canvas.get_attribute("data-top")) == 3333
    grid, place = view.data["grid"], 140
    where = point(canvas, grid, place, 0, 30)
    canvas.hover(position=where)
    page.evaluate(FRAMES)
    assert f"Unit {view.order()[place]} " in root.locator(".mixer-readout").text_content()
    assert hovered(canvas, grid)[0] == {30}


def test_a_patch_hovered_in_another_view_of_the_same_model_is_outlined_without_drawing_maps_anew(opened):
    view = explore_mixing(fourteen())
    page, root = opened(view)
    canvas = tiles(root)
    page.evaluate("""() => {
      window.maps = 0;
      const put = CanvasRenderingContext2D.prototype.putImageData;
      CanvasRenderingContext2D.prototype.putImageData = function (...all) { window.maps += 1; put.apply(this, all); };
    }""")
    for patch in (0, 100, 195):
        canvas.hover(position=point(canvas, [14, 14], 1, 0, patch))
        patches, maps = hovered(canvas, [14, 14])
        assert patches == {patch} and maps >= 16
    assert page.evaluate("window.maps") == 0
    root.locator("[data-trait=block]").press("ArrowRight")
    page.evaluate(FRAMES)
    assert page.evaluate("window.maps") > 0  # and are counted


def test_a_model_alone_is_shown_without_a_switch(opened, monkeypatch):
    monkeypatch.setattr(base, "MOST_SENT", 250)  # room for one side
    view = explore_mixing(create_mixer("mnist/4", patch_size=14, tokens_mlp_dim=7, num_blocks=2))
    page, root = opened(view)
    assert len(view.data["sides"]) == 1 and root.locator("[data-trait=before]").count() == 0
    tiles(root).press("b")
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
    canvas = tiles(root)
    latency(root.locator("[data-trait=block]"), ["ArrowRight", "ArrowLeft"], canvas, "view 1, block of B/16")
    for _ in range(9):
        canvas.press("ArrowDown")
    page.evaluate(FRAMES)
    view.unit = int(view.order()[9 * int(canvas.get_attribute("data-across"))])
    top, height = canvas.evaluate("(one) => [Number(one.dataset.top), one.clientHeight]")
    assert 0 < top <= 2 + 9 * (112 + 5) < top + height - 112
    expect_shown(root, view)
