"""Moves every control of ``explore_influence`` and compares what is drawn with what Python computes."""

import re

import numpy as np
import pytest
from helpers import FRAMES, colours_of

MAPS = ("image", "row", "values", "weights", "products", "column", "writes")

# Every cell of a map: where it was looked at (in the canvas's own pixels) and its colour there. Numbers stand in the
# middle of a cell, outlines on its edge.
CELLS = """(canvas, [rows, columns]) => {
  const ratio = canvas.width / parseFloat(canvas.style.width), side = Number(canvas.dataset.side);
  const from = Math.min(5, side / 2), context = canvas.getContext("2d"), found = [];
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
    const x = Math.floor((c * side + from) * ratio), y = Math.floor((r * side + from) * ratio);
    found.push([x, y, ...context.getImageData(x, y, 1, 1).data.slice(0, 3)]);
  }
  return { width: canvas.width, height: canvas.height, found };
}"""
# The corner of the unit's tile at a place, brought into sight, on the canvas in CSS pixels.
CORNER = f"""
  const names = ["across", "gap", "width", "height"];
  const [across, gap, width, height] = names.map((name) => Number(canvas.dataset[name]));
  const left = 2 + (at % across) * (width + gap), below = 2 + Math.floor(at / across) * (height + gap);
  const box = canvas.closest(".mixer-scroll");
  if (below < box.scrollTop || below + height > box.scrollTop + box.clientHeight) {{
    box.scrollTop = below - 2;
    await ({FRAMES})();
  }}
  const top = below - Number(canvas.dataset.top);
"""
TILE = f"""async (canvas, [at, rows, columns]) => {{
  {CORNER}
  const ratio = canvas.width / parseFloat(canvas.style.width), context = canvas.getContext("2d"), found = [];
  const side = Number(canvas.dataset.side);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {{
    const x = Math.floor((left + (c + 0.5) * side) * ratio), y = Math.floor((top + (r + 0.5) * side) * ratio);
    found.push([...context.getImageData(x, y, 1, 1).data.slice(0, 3)]);
  }}
  return found;
}}"""
PLACE = f"async (canvas, at) => {{ {CORNER} return [left, top]; }}"
# Of a map: the patches that have a dark line at their left on the canvas over it.
OUTLINED = """(canvas, [rows, columns, left, top]) => {
  const over = canvas.parentElement.querySelector(".mixer-over"), found = [];
  const ratio = canvas.width / parseFloat(canvas.style.width), side = Number(canvas.dataset.side);
  if (!over.width) return found;
  const context = over.getContext("2d");
  for (let patch = 0; patch < rows * columns; patch++) {
    const x = left + (patch % columns) * side - 0.75, y = top + (Math.floor(patch / columns) + 0.5) * side;
    const [light, , , opaque] = context.getImageData(Math.floor(x * ratio), Math.floor(y * ratio), 1, 1).data;
    if (opaque > 100 && light < 100) found.push(patch);
  }
  return found;
}"""
EDGE = """(canvas, [row, column]) => {
  const ratio = canvas.width / parseFloat(canvas.style.width), side = Number(canvas.dataset.side);
  const [x, y] = [Math.round(column * side * ratio), Math.round((row + 0.5) * side * ratio)];
  return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data.slice(0, 3)];
}"""


def check_influence(page, root, view):
    """``root`` is the view's element, ``view`` the same widget in Python; at the end the state is not what it was."""
    rows, columns = view.data["grid"]
    expect_shown(root, view)
    for name, keys, value in [
        ("block", ["End"], view.data["num_blocks"] - 1),
        ("image", ["End", "ArrowLeft"], view.data["num_images"] - 2),
        ("channel", ["Home", "ArrowRight", "ArrowRight"], 2),
        ("block", ["ArrowLeft"], view.data["num_blocks"] - 2),
    ]:
        if value >= 0 and root.locator(f"[data-trait={name}]").count():
            for key in keys:
                root.locator(f"[data-trait={name}]").press(key)
            setattr(view, name, value)
            expect_shown(root, view)
    for name, value in [("show", "composed"), ("direction", "writes"), ("show", "one block"), ("direction", "reads")]:
        root.locator(f"[data-trait={name}]").select_option(value)
        setattr(view, name, value)
        expect_shown(root, view)

    for where, row, column in [("image", 0, columns - 1), ("row", rows - 1, 0), ("products", rows - 2, columns - 1)]:
        click(root, where, row, column)
        view.patch = row * columns + column
        expect_shown(root, view)
    of(root, "row").press("ArrowLeft")
    of(root, "image").press("ArrowUp" if rows > 2 else "ArrowDown")
    view.patch += -1 + (-columns if rows > 2 else columns)
    expect_shown(root, view)

    order, across = order_shown(root), int(of(root, "units").get_attribute("data-across"))
    click_tile(root, 3)
    view.unit = order[3]
    expect_shown(root, view)
    for key, step in [("ArrowRight", 1), ("ArrowDown", across), ("ArrowLeft", -1), ("ArrowUp", -across)]:
        if order.index(view.unit) + step < len(order):
            of(root, "units").press(key)
            view.unit = order[order.index(view.unit) + step]
            expect_shown(root, view)

    expect_numbers_under_the_pointer(root, view)
    expect_outlines_everywhere(root, view)


def touch(root, view):
    """The view is shown as Python computes it; a key and a control change it as they should."""
    root.scroll_into_view_if_needed()
    expect_shown(root, view)
    order, units = order_shown(root), of(root, "units")
    units.press("ArrowDown")
    view.unit = order[order.index(view.unit) + int(units.get_attribute("data-across"))]
    expect_shown(root, view)
    root.locator("[data-trait=block]").press("End")
    view.block = view.data["num_blocks"] - 1
    expect_shown(root, view)


def expect_shown(root, view):
    """Every canvas and every text is what the traits of ``view`` say."""
    root.evaluate(FRAMES)
    grid = view.data["grid"]
    expect_map(root, view, "row", view.row(), np.abs(view.matrix()).max())
    low, high = root.locator(".mixer-legend span").all_inner_texts()
    assert number(high) == pytest.approx(np.abs(view.matrix()).max(), rel=0.01) and number(low) == -number(high)
    expect_image(root, view)

    sum_ = view.arithmetic()
    for name in ["values", "weights", "products", "column", "writes"]:
        scale = max(np.abs(sum_[name]).max(), np.abs(sum_["column"]).max() if name == "writes" else 0)
        expect_map(root, view, name, sum_[name], scale)
    said = root.locator(".mixer-sum")
    scale = float(np.abs(sum_["products"]).max())
    assert float(said.get_attribute("data-sum")) == pytest.approx(sum_["sum"], abs=2e-3 * scale)
    assert float(said.get_attribute("data-gelu")) == pytest.approx(sum_["gelu"], abs=2e-3 * scale)
    without, bias, total, gelu = [
        number(found) for found in re.findall(r"[+−]?\d[\d.]*(?:e[+-]?\d+)?", said.inner_text())
    ]
    assert [without + bias, total, gelu] == pytest.approx([sum_["sum"]] * 2 + [sum_["gelu"]], abs=0.02 * scale)
    assert bias == pytest.approx(sum_["bias"], rel=0.01, abs=1e-6)

    order, strengths = order_shown(root), view.strengths()
    assert sorted(order) == list(range(len(strengths)))
    assert strengths[order] == pytest.approx(strengths[view.order()], rel=0.01, abs=1e-3 * float(strengths.max()))
    reads = view.maps[view.block, 0]
    for at in [0, 1, len(order) - 1, order.index(view.unit)]:
        found = np.array(of(root, "units").evaluate(TILE, [at, *grid]))
        expect_colours(root, f"unit {order[at]}", found, reads[order[at]], np.abs(reads).max())


def expect_map(root, view, name, values, scale):
    cells = of(root, name).evaluate(CELLS, view.data["grid"])
    expect_colours(root, name, np.array(cells["found"])[:, 2:], values, scale)
    assert of(root, name).evaluate(EDGE, divmod(view.patch, view.data["grid"][1])) == [0, 0, 0]  # the outline


def expect_image(root, view):
    """A pixel is 45 % of the image and 55 % of the colour of its patch."""
    cells = of(root, "image").evaluate(CELLS, view.data["grid"])
    image = view.images[view.image].numpy().astype(float)
    x, y, *colours = np.array(cells["found"]).T
    light = image[:, y * image.shape[1] // cells["height"], x * image.shape[2] // cells["width"]].T
    found = (np.array(colours).T - 0.45 * light) / 0.55
    scale = np.abs(view.matrix()).max()
    expect_colours(root, "image", found, view.row(), scale, within=3)  # dividing makes rounding larger


def expect_colours(root, name, found, values, scale, within=2):
    """Each colour is the table's at the place of its value; a last bit may make it the next place."""
    places = np.floor(128 + 127.5 * values / (scale or 1)).astype(int)
    table = colours_of(root)
    off = [np.abs(found - table[(places + step).clip(0, 255)]).max(1) for step in (-1, 0, 1)]
    off = np.min(off, axis=0)
    assert off.max() <= within, (
        f"{name}: patch {off.argmax()} is {found[off.argmax()]}, {values[off.argmax()]} of {scale}"
    )


def expect_numbers_under_the_pointer(root, view):
    rows, columns = view.data["grid"]
    readout, sum_ = root.locator(".mixer-readout"), view.arithmetic()
    hover(root, "row", 0, 1)
    root.evaluate(FRAMES)
    assert number(re.search(r"by (\S+)\.$", readout.inner_text())[1]) == pytest.approx(
        view.row()[1], rel=0.02, abs=1e-4
    )
    hover(root, "values", rows - 1, 0)
    root.evaluate(FRAMES)
    at = (rows - 1) * columns
    told = re.search(r": (\S+) × (\S+) = (\S+) is read; (\S+) × (\S+) = (\S+) is added", readout.inner_text())
    expected = [sum_["values"][at], sum_["weights"][at], sum_["products"][at]]
    expected += [sum_["gelu"], sum_["column"][at], sum_["writes"][at]]
    assert [number(one) for one in told.groups()] == pytest.approx(expected, rel=0.02, abs=1e-3)


def expect_outlines_everywhere(root, view):
    """A patch hovered on any map is outlined on every map and unit's tile, and nothing is drawn anew."""
    rows, columns = view.data["grid"]
    drawn = root.get_attribute("data-drawn")
    patch = (rows - 1) * columns + columns - 1  # its left edge lies inside every map
    first = order_shown(root)[0]
    for where in ("image", "products", "units"):
        if where == "units":
            hover_tile(root, 0, rows - 1, columns - 1)
        else:
            hover(root, where, rows - 1, columns - 1)
        root.evaluate(FRAMES)
        for name in MAPS:
            assert of(root, name).evaluate(OUTLINED, [rows, columns, 0, 0]) == [patch], (where, name)
        corner = of(root, "units").evaluate(PLACE, 0)
        assert of(root, "units").evaluate(OUTLINED, [rows, columns, *corner]) == [patch], where
    said = root.locator(".mixer-readout").inner_text()
    assert said.startswith(f"Unit {first}, place 0 of {len(view.order())}: reads patch {patch} (")
    root.page.mouse.move(1, 1)
    for name in MAPS:
        assert of(root, name).evaluate(OUTLINED, [rows, columns, 0, 0]) == [], name
    assert root.get_attribute("data-drawn") == drawn


def of(root, name):
    return root.locator(f"canvas[data-map={name}]")


def order_shown(root):
    return [int(unit) for unit in of(root, "units").get_attribute("data-order").split()]


def number(text):
    return float(text.replace("−", "-"))


def middle(root, name, row, column):
    side = float(of(root, name).get_attribute("data-side"))
    return {"x": (column + 0.5) * side, "y": (row + 0.5) * side}


def click(root, name, row, column):
    of(root, name).click(position=middle(root, name, row, column))


def hover(root, name, row, column):
    of(root, name).hover(position=middle(root, name, row, column))


def tile_corner(root, at):
    return of(root, "units").evaluate(PLACE, at)


def click_tile(root, at):
    left, top = tile_corner(root, at)
    of(root, "units").click(position={"x": left + 3, "y": top + 3})


def hover_tile(root, at, row, column):
    (left, top), side = tile_corner(root, at), float(of(root, "units").get_attribute("data-side"))
    of(root, "units").hover(position={"x": left + (column + 0.5) * side, "y": top + (row + 0.5) * side})
