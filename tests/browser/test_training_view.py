"""View 5 in a browser: its pixels against the snapshots."""

import torch
from check_training import check_training, expect_shown, line, touch
from helpers import FRAMES, latency, screenshot

from mixer_utils import create_mixer
from mixer_utils.mixing import unit_maps
from mixer_utils.snapshots import Snapshots
from mixer_utils.widgets import explore_training


def test_the_recorded_run_shows_its_weights_at_every_snapshot(opened):
    view = explore_training()
    page, root = opened(view)
    check_training(page, root, view)
    screenshot(root, "view-training")


def test_so_it_does_at_another_zoom(opened):
    view = explore_training()
    _, root = opened(view, device_scale_factor=1.5)
    touch(root, view)


def test_nothing_plays_before_it_is_asked_to(opened):
    view = explore_training()
    view.time, view.playing = 0, True
    page, root = opened(view, reduced_motion="reduce")
    page.wait_for_timeout(400)
    assert root.locator("[data-trait=time]").input_value() == "0"
    assert root.locator("[data-trait=playing]").text_content() == "▶ Play"


def test_on_a_phone_nothing_is_wider_than_the_page(opened):
    view = explore_training()
    page, root = opened(view, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    expect_shown(root, view)
    screenshot(root, "view-training-phone")


def test_it_works_by_keyboard_alone(opened):
    view = explore_training()
    page, root = opened(view)
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.dataset.trait || document.activeElement.ariaLabel"))
    assert reached[:5] == ["playing", "time", "block", "sort", "scale"]
    assert ["maps" in str(name).lower() or "along the run" in str(name) for name in reached[5:]].count(True) == 3
    root.locator("[data-trait=playing]").press("Space")  # the button's own Space, once and not twice
    assert "Pause" in root.locator("[data-trait=playing]").text_content()
    page.keyboard.press("Space")
    assert "Play" in root.locator("[data-trait=playing]").text_content()


def test_every_key_press_changes_the_picture(opened):
    page, root = opened(explore_training())
    latency(root.locator("[data-trait=time]"), ["ArrowLeft", "ArrowRight"], root, "view 5, snapshot")


def test_a_large_model_s_run_and_a_resumed_one_are_drawn_right(opened):
    snapshots, model = Snapshots(), create_mixer("B/16", num_classes=10)
    snapshots.begin(model, 500)
    torch.manual_seed(0)
    for step, accuracy in [(400, 0.7), (500, 0.8)]:
        snapshots.steps.append(step)
        snapshots.validation_accuracy.append(accuracy)
    snapshots.weights = torch.stack([unit_maps(model), 1.5 * unit_maps(model)]).half()
    view = explore_training(snapshots)
    assert view.data["weights"]["dtype"] == "int8"
    page, root = opened(view)
    expect_shown(root, view)
    line(root, "accuracy").press("Home")
    view.time = 0
    page.evaluate(FRAMES)
    expect_shown(root, view)
    latency(line(root, "accuracy"), ["End", "Home"], root.locator(".mixer-tiles"), "view 5, B/16")
