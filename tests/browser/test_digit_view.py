"""View 3 in a browser: drawn digits are recognised, and what is seen is what the model computes in PyTorch."""

import json
import math

import numpy as np
import pytest
import torch
from check_digit import check_digit, drag, drawn, expect_shown
from helpers import FRAMES, latency, screenshot, show_view

from mixer_utils import load_pretrained
from mixer_utils.widgets import draw_digit

STATE = "(name) => window.mixerViews.then((all) => { const value = [...all.values()][0].get(name); " \
        "return ArrayBuffer.isView(value) ? Array.from(new Uint8Array(value.buffer)) : value; })"  # fmt: skip
SET = """(values) => window.mixerViews.then((all) => Object.entries(values).forEach(([name, value]) =>
  [...all.values()][0].set(name, name === "pixels" ? new DataView(Uint8Array.from(value).buffer) : value)))"""


@pytest.fixture(scope="module")
def model():
    return load_pretrained("mnist")


@pytest.fixture
def opened(page, tmp_path):
    """A function: the view on a page of its own, and its element."""

    def open_(view, page=page):
        return show_view(page, view, tmp_path)

    return open_


def test_every_control_does_what_it_says(page, opened, model):
    check_digit(page, opened(draw_digit(model)), draw_digit(model))


def test_so_does_a_small_model_on_oblong_images_with_twelve_classes(page, opened, tiny_mixer):
    model = tiny_mixer(image_size=(12, 20), patch_size=4, num_classes=12)
    view = draw_digit(model, data=False)
    root = opened(view)
    assert root.locator("[data-trait=start]").count() == 0
    check_digit(page, root, draw_digit(model, data=False))


# --- the model in the browser -----------------------------------------------------------------------------------------


def test_a_hundred_test_images_have_the_logits_of_pytorch(page, opened, model, mnist):
    images = mnist.normalize(mnist.test.images[:100])
    root = opened(draw_digit(model, data=False))
    found = root.evaluate(
        """(root, text) => JSON.parse(text).map((image) =>
          Array.from(root.mixer.forward(Float32Array.from(image)).logits))""",
        json.dumps(images.flatten(1).tolist()),  # as a text: Playwright takes seconds for long lists
    )
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


# --- drawing ----------------------------------------------------------------------------------------------------------


def arc(row, column, height, width, start, end):
    """Points of an ellipse, clockwise from an angle to another in quarter turns, 0 to the right; (row, column)."""
    turns = np.linspace(start, end, 9) * math.pi / 2
    return [(row + height * math.sin(t), column + width * math.cos(t)) for t in turns]


DIGITS = {
    "0": [arc(14, 14, 8, 5, 0, 4)],
    "1": [[(5, 14), (23, 14)]],
    "2": [arc(9, 14, 4, 5, -2, 0.3) + [(22, 9), (22, 19)]],
    "3": [arc(10, 13, 4, 5, -1.7, 1) + arc(18, 13, 4.3, 5, -1, 1.7)],
    "4": [[(6, 10), (15, 8), (15, 20)], [(6, 17), (23, 17)]],
    "5": [[(6, 19), (6, 11), (13, 10)] + arc(17, 13.5, 5, 5, -1.2, 1.5)],
    "6": [[(5, 16), (11, 11), (17, 9.5)] + arc(18, 14, 4.5, 4.5, 2, -2)],
    "7": [[(6, 8), (6, 19), (23, 12)]],
    "8": [arc(10, 14, 4, 4, 1, 5) + arc(18, 14, 4.3, 4.8, -1, 3)],
    "9": [arc(10, 14, 4.5, 4.5, 0, -4) + [(14, 18), (23, 16.5)]],
}


def test_digits_drawn_with_the_mouse_are_recognised(page, opened, model):
    root = opened(draw_digit(model))
    for digit, strokes in DIGITS.items():
        root.get_by_role("button", name="Clear").click()
        for stroke in strokes:
            drag(page, root, stroke, steps=1)
        name, percent = root.locator(".mixer-answer").inner_text().removesuffix(" %").split(", ")
        assert name == digit and float(percent) > 90
        if digit == "5":
            screenshot(root, "digit-drawn")


def test_the_traits_follow_when_the_pen_is_lifted_and_the_picture_at_once(page, opened, model):
    root, view = opened(draw_digit(model)), draw_digit(model)
    board = root.locator("canvas.mixer-board")
    root.get_by_role("button", name="Clear").click()
    assert page.evaluate(STATE, "pixels") == [0] * 784 and page.evaluate(STATE, "start") == -1
    box = board.bounding_box()
    page.mouse.move(box["x"] + 110, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 110, box["y"] + 180, steps=4)
    root.evaluate(FRAMES)
    assert page.evaluate(STATE, "pixels") == [0] * 784
    assert root.locator(".mixer-answer").inner_text().startswith("1, ")
    page.mouse.up()
    root.evaluate(FRAMES)
    view.pixels = bytes(page.evaluate(STATE, "pixels"))
    assert max(view.pixels) == 255
    np.testing.assert_allclose(page.evaluate(STATE, "probabilities"), view.forward()[0], atol=1e-4)
    expect_shown(root, view)


def test_a_finger_draws_and_the_page_does_not_scroll(new_page, opened, model):
    page = new_page(viewport={"width": 360, "height": 700}, has_touch=True, is_mobile=True)
    root, view = opened(draw_digit(model), page), draw_digit(model, data=False)
    root.get_by_role("button", name="Clear").tap()
    board = root.locator("canvas.mixer-board")
    board.scroll_into_view_if_needed()
    before, box = page.evaluate("scrollY"), board.bounding_box()
    session = page.context.new_cdp_session(page)
    for kind, y in [("touchStart", 40), *[("touchMove", y) for y in range(50, 190, 10)], ("touchEnd", None)]:
        points = [] if y is None else [{"x": box["x"] + 112, "y": box["y"] + y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    root.evaluate(FRAMES)
    assert page.evaluate("scrollY") == before
    assert (drawn(root, view)[5:22, 13:15] == 255).all()
    assert root.locator(".mixer-answer").inner_text().startswith("1, ")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    screenshot(root, "digit-telephone")


def test_all_of_it_can_be_done_with_the_keyboard(page, opened, model):
    root, view = opened(draw_digit(model)), draw_digit(model)
    reached = []
    while len(reached) < 15:
        root.evaluate(FRAMES)  # the channel's slider is there once a channel is shown
        page.keyboard.press("Tab")
        here = page.evaluate("""(() => { const { dataset, textContent, ariaLabel } = document.activeElement;
          return dataset.trait || ariaLabel || textContent; })()""")
        reached.append(here)
        if here == "Clear":
            page.keyboard.press("Enter")
        if here.startswith("The image"):
            for key in [*["ArrowUp"] * 9, "Space", *["ArrowDown"] * 18, "Space"]:
                page.keyboard.press(key)
        if here == "show":
            page.keyboard.press("ArrowDown")
        if here == "channel":
            page.keyboard.press("End")
        if here.startswith("The patches"):
            page.keyboard.press("ArrowDown")
            page.keyboard.press("Space")
            break
    assert reached == ["tool", "Clear", "Centre", "Show all patches", "Photograph…", "Camera", "start", "show",
                       "channel", "The image: draw here",
                       "The patches as the stem gets them: click one to hide it"]  # fmt: skip
    root.evaluate(FRAMES)
    view.pixels = bytes(page.evaluate(STATE, "pixels"))
    view.hidden, view.show, view.channel, view.patch = [4], "channel", 191, 4
    assert page.evaluate(STATE, "hidden") == [4]
    assert root.locator(".mixer-answer").inner_text().startswith("1, ")
    expect_shown(root, view)


# The share of the edge of each square, [left, top], that has the colour of what is under the pointer: of two rows of
# pixels at its upper side at least one is wholly of that colour where a line of 1.5 pixels goes.
OUTLINED = """(canvas, [corners, size]) => {
  const ratio = canvas.width / parseFloat(canvas.style.width), context = canvas.getContext("2d");
  const accent = getComputedStyle(canvas).getPropertyValue("--mixer-accent") || "#0072b2";
  const colour = [1, 3, 5].map((at) => parseInt(accent.slice(at, at + 2), 16));
  return corners.map(([left, top]) => {
    const { data } = context.getImageData(left * ratio, (top - 1) * ratio, size * ratio, 2 * ratio);
    let count = 0;
    for (let i = 0; i < data.length; i += 4) count += colour.every((one, k) => Math.abs(one - data[i + k]) < 3);
    return count / (data.length / 4);
  });
}"""


def test_a_patch_under_the_pointer_is_outlined_wherever_patches_are(page, opened, model):
    root = opened(draw_digit(model))
    board, pieces = root.locator("canvas.mixer-board"), root.locator("canvas[aria-label^='The patches']")
    layouts = [(board, 0, 32 + 24, 0), (pieces, 4, 35, 4)]
    layouts += [(root.locator(f"canvas[data-stage='{stage}']"), 2, 24, 0) for stage in range(5)]
    page.mouse.move(1, 1)
    for hovered, edge, size, gap in layouts:
        row, column = (1, 2)
        hovered.hover(position={"x": edge + (column + 0.5) * (size + gap), "y": edge + (row + 0.5) * (size + gap)})
        root.evaluate(FRAMES)
        assert root.locator(".mixer-readout").inner_text().startswith("Patch 6, row 1, column 2: ")
        for canvas, edge, size, gap in layouts:
            corners = [[edge + c * (size + gap), edge + r * (size + gap)] for r in range(1, 4) for c in range(4)]
            shares = np.array(canvas.evaluate(OUTLINED, [corners, size]))
            around = {2, 6}  # row 1, column 2 (rows are looked at from 1 on), and the patch below, which shares a side
            assert shares[2] >= 0.5, shares
            assert max(share for place, share in enumerate(shares) if place not in around) < 0.1, shares
    root.locator(".mixer-caption").hover()
    root.evaluate(FRAMES)
    for canvas, edge, size, gap in layouts[1:]:
        corners = [[edge + c * (size + gap), edge + r * (size + gap)] for r in range(1, 4) for c in range(4)]
        assert max(canvas.evaluate(OUTLINED, [corners, size])) == 0


def test_traits_set_from_elsewhere_are_drawn(page, opened, model, mnist):
    root, view = opened(draw_digit(model)), draw_digit(model)
    values = {"pixels": list(mnist.test.images[8].numpy().tobytes()), "hidden": [1, 10], "show": "channel",
              "channel": 7, "patch": 10}  # fmt: skip
    page.evaluate(SET, values)
    for name, value in values.items():
        setattr(view, name, bytes(value) if name == "pixels" else value)
    assert view.start == -1
    expect_shown(root, view)
    page.evaluate(SET, {"start": 33, "hidden": []})
    view.start, view.hidden = 33, []
    expect_shown(root, view)
    assert bytes(page.evaluate(STATE, "pixels")) == view.pixels


def test_every_key_press_changes_the_picture(opened, model):
    root = opened(draw_digit(model))
    board, pieces = root.locator("canvas.mixer-board"), root.locator("canvas[aria-label^='The patches']")
    root.locator("[data-trait=show]").select_option("channel")
    latency(pieces, ["Space"], pieces, "digit: a patch hidden")
    maps = root.locator(".mixer-stages")
    latency(root.locator("[data-trait=channel]"), ["ArrowRight"], maps, "digit: channel")
    board.press("Space")
    latency(board, ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowDown"], board, "digit: drawing")
