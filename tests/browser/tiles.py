"""Tiles of two maps, what a unit reads and what it writes, as views 1 and 5 draw them: colours and places."""

import json

import numpy as np
from helpers import FRAMES, colours_of, ink_of

# The colours in the middle of every square: units as they are drawn, then reads and writes, rows, columns, RGB.
# As a text: Playwright takes seconds for long lists.
COLOURS = """(canvas, [count, rows, columns]) => {
  const ratio = canvas.width / parseFloat(canvas.style.width), found = [];
  const [across, side, between, gap] = ["across", "side", "between", "gap"].map((name) => Number(canvas.dataset[name]));
  const wide = 2 * columns * side + between + gap, high = rows * side + gap;
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  for (let at = 0; at < count; at++) for (const writes of [0, 1]) {
    const left = between + (at % across) * wide + writes * (columns * side + between);
    const top = between + Math.floor(at / across) * high;
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
      const x = Math.floor((left + (c + 0.5) * side) * ratio), y = Math.floor((top + (r + 0.5) * side) * ratio);
      found.push(...pixels.subarray(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 3));
    }
  }
  return JSON.stringify(found);
}"""


def sent(packed):
    """The array that the browser has, as float64 or int64."""
    values = np.frombuffer(packed["bytes"], packed["dtype"]).reshape(packed["shape"])
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def expect_tiles(canvas, order, maps, grid, scale):
    """The canvas shows ``maps`` (2, D_S, S), units in ``order``, a value of ``scale`` in the last colour.

    scale: a number, or an array (2, D_S, 1).
    """
    canvas.page.evaluate(FRAMES)
    assert canvas.get_attribute("data-order") == " ".join(map(str, order))
    found = np.array(json.loads(canvas.evaluate(COLOURS, [len(order), *grid]))).reshape(len(order), 2, -1, 3)
    places = np.floor(128 + 127.5 * maps / scale).clip(0, 255).astype(int)[:, order].swapaxes(0, 1)
    assert np.abs(found - colours_of(canvas)[places]).max() <= 2


def point(canvas, grid, at, writes, patch):
    """Where the tile at place ``at`` has this patch: x and y on the canvas, CSS pixels."""
    rows, columns = grid
    across, side, between, gap = sizes(canvas)
    x = between + at % across * (2 * columns * side + between + gap) + writes * (columns * side + between)
    y = between + at // across * (rows * side + gap)
    return {"x": x + (patch % columns + 0.5) * side, "y": y + (patch // columns + 0.5) * side}


def sizes(canvas):
    """Tiles in a row, and in CSS pixels the side of a square, the line between two maps and the gap between tiles."""
    return canvas.evaluate("(c) => ['across', 'side', 'between', 'gap'].map((name) => Number(c.dataset[name]))")


def expect_outline(canvas, grid, order, unit):
    """A line of the colour of the text runs around the unit's tile and around no other one."""
    rows, columns = grid
    across, side, between, gap = sizes(canvas)
    wide, high = 2 * columns * side + between + gap, rows * side + gap
    above = [
        [between + at % across * wide + side / 2, between + at // across * high - 0.75] for at in range(len(order))
    ]
    lined = canvas.evaluate(
        """(canvas, [points, ink]) => {
          const ratio = canvas.width / parseFloat(canvas.style.width), context = canvas.getContext("2d");
          return points.map(([x, y]) => {
            const [r, g, b, a] = context.getImageData(Math.floor(x * ratio), Math.floor(y * ratio), 1, 1).data;
            return a > 200 && Math.max(...[r, g, b].map((level, i) => Math.abs(level - ink[i]))) < 36;
          });
        }""",
        [above, ink_of(canvas).tolist()],
    )
    assert [int(one) for one, is_lined in zip(order, lined, strict=True) if is_lined] == [unit]


def choose(root, view, name, *keys, option=None):
    """Moves the control of a trait, by keys or to an option of a list, and the trait of the view in Python alike."""
    control = root.locator(f"[data-trait={name}]")
    if option is not None:
        control.select_option(option)
        setattr(view, name, option)
        return
    for key in keys:
        control.press(key)
    setattr(view, name, int(control.input_value()))
