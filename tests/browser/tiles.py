"""Tiles of two maps, what a unit reads and what it writes, as views 1 and 5 draw them: colours and places."""

import json

import numpy as np
from helpers import FRAMES, colours_of, ink_of

# The canvas shows what is in sight of the box around it: `scrolled` brings a tile there, `place` says where it then is.
PLACES = f"""
  const frames = {FRAMES};
  const box = canvas.closest(".mixer-scroll"), ratio = canvas.width / parseFloat(canvas.style.width);
  const [across, side, right, down, between, gap] =
    ["across", "side", "right", "down", "between", "gap"].map((name) => Number(canvas.dataset[name]));
  const size = (rows, columns) => [columns * side + right + gap, rows * side + down + gap];
  async function scrolled(at, rows) {{
    const [, high] = size(rows, 1), y = 2 * between + Math.floor(at / across) * high;
    if (y >= box.scrollTop && y + high - gap <= box.scrollTop + box.clientHeight) return;
    box.scrollTop = y - 2 * between;
    await frames();
  }}
  function place(at, rows, columns) {{
    const [wide, high] = size(rows, columns);
    const y = 2 * between + Math.floor(at / across) * high - Number(canvas.dataset.top);
    return [2 * between + (at % across) * wide, y];
  }}
"""

# The colours in the middle of every square: tiles at these places, then reads and writes, rows, columns, RGB.
# As a text: Playwright takes seconds for long lists.
COLOURS = f"""async (canvas, [places, rows, columns]) => {{
  {PLACES}
  const found = [], before = box.scrollTop;
  for (const at of places) {{
    await scrolled(at, rows);
    const [x, y] = place(at, rows, columns);
    for (const writes of [0, 1]) {{
      const [left, top] = [(x + writes * right) * ratio, (y + writes * down) * ratio].map(Math.round);
      const wide = Math.round(columns * side * ratio), high = Math.round(rows * side * ratio);
      const pixels = canvas.getContext("2d").getImageData(left, top, wide, high).data;
      for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {{
        const pixel = 4 * (Math.floor((r + 0.5) * side * ratio) * wide + Math.floor((c + 0.5) * side * ratio));
        found.push(...pixels.subarray(pixel, pixel + 3));
      }}
    }}
  }}
  box.scrollTop = before;
  await frames();
  return JSON.stringify(found);
}}"""

# Which of these places has a line of the colour of the text above its tile.
OUTLINED = f"""async (canvas, [places, ink, rows, columns]) => {{
  {PLACES}
  const found = [], before = box.scrollTop, context = canvas.getContext("2d");
  for (const at of places) {{
    await scrolled(at, rows);
    const [x, y] = place(at, rows, columns);
    const pixel = [(x + side / 2) * ratio, (y - 1) * ratio].map(Math.floor);
    const [r, g, b, a] = context.getImageData(...pixel, 1, 1).data;
    const off = [r, g, b].map((level, i) => Math.abs(level - ink[i]));
    if (a > 200 && Math.max(...off) < 36) found.push(at);
  }}
  box.scrollTop = before;
  await frames();
  return found;
}}"""

# The place of a patch in the map that a tile at a place reads (0) or writes (1), once it is in sight: CSS pixels.
POINT = f"""async (canvas, [at, writes, patch, rows, columns]) => {{
  {PLACES}
  await scrolled(at, rows);
  const [x, y] = place(at, rows, columns);
  const column = patch % columns, row = Math.floor(patch / columns);
  return [x + writes * right + (column + 0.5) * side, y + writes * down + (row + 0.5) * side];
}}"""

# Of all maps in sight: the patches with a dark line at their left and their right, as [place, writes, patch].
HOVERED = f"""(canvas, [count, rows, columns]) => {{
  {PLACES}
  const over = canvas.parentElement.querySelector(".mixer-over");
  if (!over.width) return [];
  const pixels = over.getContext("2d").getImageData(0, 0, over.width, over.height).data, found = [];
  for (let at = 0; at < count; at++) for (const writes of [0, 1]) {{
    const [x, y] = place(at, rows, columns);
    if (y < 0 || y + size(rows, 1)[1] - gap > parseFloat(canvas.style.height)) continue;
    for (let patch = 0; patch < rows * columns; patch++) {{
      const left = x + writes * right + (patch % columns) * side - 0.75;
      const top = y + writes * down + (Math.floor(patch / columns) + 0.5) * side;
      const dark = [left, left + side + 1.5].every((edge) => {{
        const pixel = 4 * (Math.floor(top * ratio) * over.width + Math.floor(edge * ratio));
        return pixels[pixel + 3] > 200 && pixels[pixel] < 60;
      }});
      if (dark) found.push([at, writes, patch]);
    }}
  }}
  return found;
}}"""


def sent(packed):
    """The array that the browser has, as float64 or int64."""
    values = np.frombuffer(packed["bytes"], packed["dtype"]).reshape(packed["shape"])
    if "scales" in packed:
        return values * sent(packed["scales"])[..., None]
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def expect_tiles(canvas, order, maps, grid, scale):
    """The canvas shows ``maps`` (2, D_S, S), units in ``order``, a value of ``scale`` in the last colour.

    scale: a number, or an array (2, D_S, 1). Looked at are the first tiles, some in the middle and the last ones.
    """
    canvas.page.evaluate(FRAMES)
    assert canvas.get_attribute("data-order") == " ".join(map(str, order))
    last = len(order) - 1
    places = sorted({*range(min(6, last)), last // 2, max(0, last - 1), last})
    found = np.array(json.loads(canvas.evaluate(COLOURS, [places, *grid]))).reshape(len(places), 2, -1, 3)
    chosen = np.asarray(order)[places]
    expected = np.floor(128 + 127.5 * maps / scale).clip(0, 255).astype(int)[:, chosen].swapaxes(0, 1)
    assert np.abs(found - colours_of(canvas)[expected]).max() <= 2


def point(canvas, grid, at, writes, patch):
    """Where the tile at place ``at`` has this patch, brought into sight: x and y on the canvas, CSS pixels."""
    return dict(zip("xy", canvas.evaluate(POINT, [int(at), writes, int(patch), *grid]), strict=True))


def expect_outline(canvas, grid, order, unit):
    """A line of the colour of the text runs around the unit's tile and around none beside it."""
    canvas.page.evaluate(FRAMES)
    at = list(order).index(unit)
    across = int(canvas.get_attribute("data-across"))
    places = [place for place in (at - across, at - 1, at, at + 1, at + across) if 0 <= place < len(order)]
    assert canvas.evaluate(OUTLINED, [places, ink_of(canvas).tolist(), *grid]) == [at]


def hovered(canvas, grid):
    """The patches outlined in every map in sight, as a set, and in how many maps they are."""
    count = len(canvas.get_attribute("data-order").split())
    found = canvas.evaluate(HOVERED, [count, *grid])
    return {patch for _, _, patch in found}, len({(at, writes) for at, writes, _ in found})


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
