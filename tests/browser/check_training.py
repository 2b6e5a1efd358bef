"""Moves every control of ``explore_training`` and compares what is drawn with the snapshots."""

import math

import numpy as np
from check_mixing import said_i, signed
from helpers import FRAMES, wait_until
from tiles import choose, expect_outline, expect_tiles, hovered, point, sent

from mixer_utils.mixing import morans_i

ORANGE = (213, 94, 0)  # the mark of the snapshot at hand


def check_training(page, root, view):
    """``root`` is the view's element, ``view`` the same widget in Python; at the end the state is not what it was."""
    last = view.data["num_snapshots"] - 1
    root.scroll_into_view_if_needed()
    expect_shown(root, view)
    for keys in [["Home"], ["ArrowRight"] * 3, ["End"], ["ArrowLeft"] * 2]:
        choose(root, view, "time", *keys)
        expect_shown(root, view)
    choose(root, view, "block", "End")
    for sort in ["norm", "frequency", "pairs", "number", "structure"]:
        choose(root, view, "sort", option=sort)
        expect_shown(root, view)
    for scale in ["each", "shared"]:
        choose(root, view, "scale", option=scale)
        choose(root, view, "time", "Home")
        expect_shown(root, view)
        choose(root, view, "time", "End")
    check_lines(page, root, view)
    check_maps(page, root, view)
    check_play(page, root, view, last)


def touch(root, view):
    """The view is shown as the snapshots are; a key and a control change it as they should."""
    root.scroll_into_view_if_needed()
    expect_shown(root, view)
    line(root, "accuracy").press("ArrowLeft")
    view.time -= 1
    expect_shown(root, view)
    choose(root, view, "time", "Home")
    expect_shown(root, view)


def expect_shown(root, view):
    """Tiles, lines, legend and texts are those of the view's state."""
    root.page.evaluate(FRAMES)
    canvas, grid, maps = tiles(root), view.data["grid"], maps_of(view)
    run = sent(view.data["weights"])[:, view.block]
    top = np.abs(run if view.scale == "shared" else maps).max()
    expect_tiles(canvas, view.order(), maps, grid, top)
    expect_outline(canvas, grid, view.order(), view.unit)
    assert root.locator(".mixer-legend span").last.text_content() == f"+{top:#.3g}"
    step, accuracy = view.steps[view.time], view.validation_accuracy[view.time]
    said = f"step {step:,} of {view.steps[-1]:,}, validation accuracy {np.float32(accuracy):.2%}".replace(
        "%", "\u00a0%"
    )
    assert root.locator("label:has([data-trait=time]) output").text_content() == said
    norms = np.linalg.norm(run[:, 0, view.unit], axis=1)
    assert f"unit {view.unit} reads: {norms[view.time]:.2f}" in root.locator(".mixer-line").last.text_content()
    for name, values, most in [("accuracy", view.validation_accuracy, 1), ("norm", norms, norms.max())]:
        expect_mark(root, view, name, values[view.time] / most)
        assert line(root, name).get_attribute("aria-valuetext") == said
    expect_text(root, view, view.unit, view.patch)


def expect_text(root, view, unit, patch):
    """The line below names the unit, its place, the patch and its two weights at this snapshot."""
    root.page.evaluate(FRAMES)
    reads, writes = maps_of(view)[:, unit, patch]
    at, (row, column) = list(view.order()).index(unit), divmod(patch, view.data["grid"][1])
    structure = said_i(morans_i(maps_of(view)[0, [unit]], view.data["grid"])[0])
    assert root.locator(".mixer-readout").text_content() == (
        f"Unit {unit} (place {at} of 0 to {view.data['num_units'] - 1}, Moran's I {structure}), patch in row {row}, "
        f"column {column}: reads it with weight {signed(reads)}, writes to it with {signed(writes)}."
    )


def place(canvas, view, time):
    """Where a snapshot lies on a line's horizontal axis, logarithmic in the steps: CSS pixels."""
    width = canvas.evaluate("(canvas) => parseFloat(canvas.style.width)")
    first, last = math.log1p(view.steps[0]), math.log1p(view.steps[-1])
    return 52 + (math.log1p(view.steps[time]) - first) / (last - first) * (width - 52 - 14)


def expect_mark(root, view, name, part):
    """An orange dot lies at the snapshot at hand, at this part of the height."""
    canvas = line(root, name)
    height = canvas.evaluate("(canvas) => parseFloat(canvas.style.height)")
    x, y = place(canvas, view, view.time), 8 + (1 - part) * (height - 8 - 36)
    colour = canvas.evaluate(
        """(canvas, [x, y]) => {
          const ratio = canvas.width / parseFloat(canvas.style.width);
          return [...canvas.getContext("2d").getImageData(Math.round(x * ratio), Math.round(y * ratio), 1, 1).data];
        }""",
        [x, y],
    )
    assert np.abs(np.array(colour[:3]) - ORANGE).max() <= 2, (name, colour)


def check_lines(page, root, view):
    """A click, a drag and keys on a line choose the snapshot."""
    last = view.data["num_snapshots"] - 1
    for name, chosen in [("accuracy", last // 2), ("norm", last // 3)]:
        canvas = line(root, name)
        canvas.click(position={"x": place(canvas, view, chosen), "y": 20})
        view.time = chosen
        expect_shown(root, view)
    canvas = line(root, "accuracy")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + place(canvas, view, 0), box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + place(canvas, view, last // 2), box["y"] + 40)
    page.mouse.move(box["x"] + place(canvas, view, 2 * last // 3), box["y"] + 40)
    page.mouse.up()
    view.time = 2 * last // 3
    expect_shown(root, view)
    for key, time_ in [
        ("ArrowRight", view.time + 1),
        ("ArrowLeft", view.time),
        ("Home", 0),
        ("ArrowLeft", 0),
        ("End", last),
    ]:
        canvas.press(key)
        view.time = time_
        expect_shown(root, view)


def check_maps(page, root, view):
    """The pointer reads out, a click and arrow keys choose."""
    canvas, grid = tiles(root), view.data["grid"]
    patch = view.data["num_patches"] - 1
    canvas.hover(position=point(canvas, grid, 3, 1, patch))
    expect_text(root, view, view.order()[3], patch)
    assert hovered(canvas, grid)[0] == {patch}
    canvas.click(position=point(canvas, grid, 3, 1, patch))
    page.mouse.move(1, 1)
    view.unit, view.patch = int(view.order()[3]), patch
    expect_shown(root, view)
    canvas.press("ArrowRight")
    view.unit = int(view.order()[4])
    canvas.press("Shift+ArrowLeft")
    view.patch -= 1
    expect_shown(root, view)
    page.mouse.move(1, 1)


def check_play(page, root, view, last):
    """Play goes on by itself and stops at the end; from the end it begins anew; Space stops it where it is."""
    control, button = root.locator("[data-trait=time]"), root.locator("[data-trait=playing]")
    choose(root, view, "time", "End", *["ArrowLeft"] * 4)
    assert button.text_content() == "▶ Play"
    button.click()
    wait_until(page, lambda: "Play" in button.text_content())
    assert control.input_value() == str(last)
    view.time = last
    expect_shown(root, view)
    button.click()
    assert int(control.input_value()) < last and "Pause" in button.text_content()
    wait_until(page, lambda: 2 <= int(control.input_value()) < last)
    line(root, "accuracy").press("Space")
    assert "Play" in button.text_content()
    view.time = int(control.input_value())
    expect_shown(root, view)
    page.wait_for_timeout(300)
    assert int(control.input_value()) == view.time < last
    expect_shown(root, view)


def maps_of(view):
    """The block's maps at the snapshot at hand, as the browser has them: (2, D_S, S)."""
    return sent(view.data["weights"])[view.time, view.block]


def tiles(root):
    return root.locator(".mixer-tiles canvas[tabindex]")


def line(root, name):
    return root.locator(f"canvas[data-line={name}]")
