"""Moves every control of ``draw_digit``, draws by mouse and by keyboard, and compares what is seen with Python's."""

import json
import math

import numpy as np
from helpers import FRAMES, colours_of

from mixer_utils import mixing

# The colours of a canvas at places given in CSS pixels. As texts: Playwright takes seconds for long lists.
COLOURS = """(canvas, places) => {
  const ratio = canvas.width / parseFloat(canvas.style.width);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return JSON.stringify(JSON.parse(places).map(([x, y]) => {
    const at = 4 * (Math.floor(y * ratio) * canvas.width + Math.floor(x * ratio));
    return [data[at], data[at + 1], data[at + 2]];
  }));
}"""
# The share of each square, [left, top], that is orange, and so hatched.
HATCHED = """(canvas, [corners, size]) => {
  const ratio = canvas.width / parseFloat(canvas.style.width), context = canvas.getContext("2d");
  return corners.map((corner) => {
    const [left, top, side] = [...corner, size].map((n) => n * ratio);
    const { data } = context.getImageData(left, top, side, side);
    let orange = 0;
    for (let i = 0; i < data.length; i += 4) orange += data[i] > data[i + 2] + 100;
    return orange / (data.length / 4);
  });
}"""


def check_digit(page, root, view):
    """``root`` is the view's element, ``view`` the same widget in Python; at the end the state is not what it was."""
    height, width = view.model.image_shape[1:]
    P, (rows, columns) = view.model.config["patch_size"], mixing.patch_grid(view.model)
    board = root.locator("canvas.mixer-board")
    expect_shown(root, view)

    count = len(view.data["starts"])
    for start in sorted({0, count // 2, count - 1} if count else {}):
        root.locator("[data-trait=start]").select_option(str(start))
        view.start = start
        expect_shown(root, view)
        label = view.data["starts"][start]["label"]
        if "called" in label:
            assert f"called {root.locator('.mixer-answer').inner_text().split(',')[0]} " in label

    press(root, "Clear")
    view.pixels = bytes(height * width)
    expect_shown(root, view)
    image = np.zeros((height, width))
    corners = [(0.25, 0.25), (0.25, 0.75), (0.85, 0.4)]
    corners = [(round(y * height), round(x * width)) for y, x in corners]
    drag(page, root, corners)
    for start, end in zip(corners, corners[1:], strict=False):
        image = np.maximum(image, ink(image.shape, start, end))
    expect_drawn(root, view, image)
    shown = drawn(root, view)

    root.locator("[data-trait=tool]").select_option("erase")
    drag(page, root, [(height // 2, 0), (height // 2, width)])
    view.tool = "erase"
    image = np.minimum(image, 255 - ink(image.shape, (height // 2, 0), (height // 2, width), radius=2))
    expect_drawn(root, view, image)
    assert (drawn(root, view) < shown).any()

    press(root, "Centre")
    image = np.frombuffer(view.pixels, np.uint8).reshape(height, width).astype(float)
    mass = image / image.sum()
    middle = (mass.sum(1) @ np.arange(height), mass.sum(0) @ np.arange(width))
    down, right = (math.floor(side / 2 - at) for side, at in zip((height, width), middle, strict=True))  # rounded
    moved = np.zeros_like(image)
    for y, x in np.argwhere(image):
        if 0 <= y + down < height and 0 <= x + right < width:
            moved[y + down, x + right] = image[y, x]
    expect_drawn(root, view, moved)

    # With the keyboard: from the upper left corner to the right and down, then x where the pen is.
    root.locator("[data-trait=tool]").select_option("draw")
    press(root, "Clear")
    for _ in range(max(rows, columns) + 1):
        board.press("Shift+ArrowUp")
        board.press("Shift+ArrowLeft")
    for key in [
        "ArrowDown",
        "ArrowRight",
        "Space",
        *["ArrowRight"] * (width - 4),
        *["ArrowDown"] * 3,
        "Enter",
        "ArrowDown",
    ]:
        board.press(key)
    image = np.maximum(ink(image.shape, (1.5, 1.5), (1.5, width - 2.5)),
                       ink(image.shape, (1.5, width - 2.5), (4.5, width - 2.5)))  # fmt: skip
    expect_drawn(root, view, image)
    board.press("x")
    pen = (5.5, width - 2.5)
    image = np.minimum(image, 255 - ink(image.shape, pen, pen, radius=2))
    expect_drawn(root, view, image)

    # Hidden patches: by key under the pen, by a click and by key among the patches, by the tool on the image.
    board.press("h")
    hide(view, 5 // P * columns + (width - 3) // P)
    expect_shown(root, view)
    pieces = root.locator("canvas[aria-label^='The patches']")
    click(pieces, *middle_of(pieces, P, rows - 1, 0))
    hide(view, (rows - 1) * columns)
    view.patch = (rows - 1) * columns
    expect_shown(root, view)
    pieces.press("ArrowUp")
    pieces.press("Space")
    view.patch -= columns
    hide(view, view.patch)
    expect_shown(root, view)
    root.locator("[data-trait=tool]").select_option("hide patches")
    side = float(board.get_attribute("data-side"))
    for _ in range(2):  # hidden, and shown again
        click(board, P * side / 2, P * side / 2)
        hide(view, 0)
        expect_shown(root, view)
    press(root, "Show all patches")
    view.hidden = []
    expect_shown(root, view)

    for show, channel, key in [("channel", 0, "Home"), ("channel", view.data["num_channels"] - 1, "End")]:
        root.locator("[data-trait=show]").select_option(show)
        root.locator("[data-trait=channel]").press(key)
        view.show, view.channel = show, channel
        expect_shown(root, view)
    stage = root.locator("canvas[data-stage='1']")
    cell = float(stage.get_attribute("data-side"))
    click(stage, 2 + 0.5 * cell, 2 + 0.5 * cell)
    view.patch = 0
    expect_shown(root, view)
    stage.press("ArrowRight")
    stage.press("ArrowDown")
    view.patch = (columns if rows > 1 else 0) + (1 if columns > 1 else 0)
    expect_shown(root, view)
    root.locator("[data-trait=show]").select_option("norm")
    view.show = "norm"
    expect_shown(root, view)


def touch(root, view):
    """The view is shown as Python computes it; a key, a letter that Jupyter knows too, and a control change it."""
    root.scroll_into_view_if_needed()
    expect_shown(root, view)
    board = root.locator("canvas.mixer-board")
    for _ in range(max(mixing.patch_grid(view.model)) + 1):
        board.press("Shift+ArrowUp")
        board.press("Shift+ArrowLeft")
    board.press("h")
    hide(view, 0)
    expect_shown(root, view)
    last = len(view.data["starts"]) - 1
    root.locator("[data-trait=start]").select_option(str(last))
    view.start = last
    expect_shown(root, view)


def press(root, name):
    root.get_by_role("button", name=name, exact=True).click()
    root.evaluate(FRAMES)


def click(canvas, x, y):
    canvas.click(position={"x": x, "y": y})
    canvas.evaluate(FRAMES)


def hide(view, patch):
    view.hidden = sorted({patch} ^ set(view.hidden))


def middle_of(pieces, P, row, column):
    side, gap = (float(pieces.get_attribute(f"data-{name}")) for name in ("side", "gap"))
    return [gap + at * (P * side + gap) + P * side / 2 for at in (column, row)]


def drag(page, root, corners, steps=3):
    """One stroke through ``corners``, (row, column) in pixels of the image, in so many moves for each line."""
    board = root.locator("canvas.mixer-board")
    board.scroll_into_view_if_needed()
    box, side = board.bounding_box(), float(board.get_attribute("data-side"))
    places = [(box["x"] + x * side, box["y"] + y * side) for y, x in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=steps)
    page.mouse.up()
    root.evaluate(FRAMES)


def ink(shape, start, end, radius=1.1):
    """What the pen leaves between two points: 255 up to half a pixel within its radius, 0 from half a pixel outside."""
    points = np.stack(np.mgrid[: shape[0], : shape[1]], -1) + 0.5
    start, way = np.array(start, float), np.subtract(end, start)
    along = np.clip((points - start) @ way / ((way @ way) or 1), 0, 1)
    distance = np.linalg.norm(points - start - along[..., None] * way, axis=-1)
    return 255 * np.clip(radius + 0.5 - distance, 0, 1)


def colours(canvas, places):
    """The colours at places (n, 2), int (n, 3)."""
    return np.array(json.loads(canvas.evaluate(COLOURS, json.dumps(places))))


def drawn(root, view):
    """The grey values of the image as seen, int (H, W)."""
    board = root.locator("canvas.mixer-board")
    board.evaluate("(board) => board.blur()")  # the keyboard's pen is shown on the image
    board.evaluate(FRAMES)
    (height, width), side = view.model.image_shape[1:], float(board.get_attribute("data-side"))
    places = [((x + 0.5) * side, (y + 0.5) * side) for y in range(height) for x in range(width)]
    return colours(board, places)[:, 0].reshape(height, width)


def expect_drawn(root, view, image):
    """The image is drawn so, whatever the pointer's fractions of a pixel; all else follows from what is drawn."""
    root.evaluate(FRAMES)
    seen = drawn(root, view)
    np.testing.assert_allclose(seen, image, atol=16)
    assert (seen > 0).any()
    view.pixels = seen.astype(np.uint8).tobytes()
    expect_shown(root, view)


def expect_shown(root, view):
    """What is seen is what ``view`` computes for its state: image, patches, tokens, bars and words."""
    root.evaluate(FRAMES)
    probabilities, tokens = view.forward()
    expect_image(root, view)
    expect_answer(root, view, probabilities)
    grids = np.linalg.norm(tokens, axis=2) if view.show == "norm" else tokens[:, :, view.channel]
    expect_tokens(root, view, grids)

    root.locator(".mixer-caption").hover()  # the pointer is over no patch
    root.evaluate(FRAMES)
    _, columns = mixing.patch_grid(view.model)
    hidden = " (hidden)" if view.patch in view.hidden else ""
    where = f"row {view.patch // columns}, column {view.patch % columns}{hidden}: "
    said = root.locator(".mixer-readout").inner_text()
    assert said.startswith(f"Patch {view.patch}, {where}")
    numbers = [float(part.split()[-1].replace("−", "-")) for part in said.removesuffix(".").split(": ")[1].split(", ")]
    np.testing.assert_allclose(numbers, grids[:, view.patch], rtol=6e-3, atol=2e-4)
    selected = root.locator("[data-trait=start]")
    assert selected.count() == 0 or selected.input_value() == str(view.start)


def expect_image(root, view):
    height, width = view.model.image_shape[1:]
    P, (_, columns) = view.model.config["patch_size"], mixing.patch_grid(view.model)
    board, pieces = root.locator("canvas.mixer-board"), root.locator("canvas[aria-label^='The patches']")
    side, small, gap = (float(one.get_attribute(f"data-{name}")) for one, name in
                        [(board, "side"), (pieces, "side"), (pieces, "gap")])  # fmt: skip
    image, given = np.frombuffer(view.pixels, np.uint8).reshape(height, width).astype(int), view.image().astype(int)
    for canvas, values, edge, size, between in [(board, image, 0, side, 0), (pieces, given, gap, small, gap)]:
        cells = [(y, x) for y in range(height) for x in range(width) if patch_of(y, x, P, columns) not in view.hidden]
        places = [(edge + x * size + x // P * between + size / 2, edge + y * size + y // P * between + size / 2)
                  for y, x in cells]  # fmt: skip
        found = colours(canvas, places)
        expected = np.array([[values[y, x]] * 3 for y, x in cells])
        np.testing.assert_allclose(found, expected, atol=2)
        corners = [[edge + at * (P * size + between) + 2 for at in (s % columns, s // columns)]
                   for s in range(view.data["num_patches"])]  # fmt: skip
        for s, orange in enumerate(canvas.evaluate(HATCHED, [corners, P * size - 4])):
            assert (orange > 0.08) == (s in view.hidden), f"patch {s}: {orange:.0%} of it is hatched"


def patch_of(y, x, P, columns):
    return y // P * columns + x // P


def expect_tokens(root, view, grids):
    rows, columns = mixing.patch_grid(view.model)
    top = np.abs(grids).max()
    table = colours_of(root.locator("canvas"))
    for stage, values in enumerate(grids):
        canvas = root.locator(f"canvas[data-stage='{stage}']")
        side = float(canvas.get_attribute("data-side"))
        assert abs(float(canvas.get_attribute("data-scale")) / top - 1) < 1e-3
        places = [(2 + (c + 0.5) * side, 2 + (r + 0.5) * side) for r in range(rows) for c in range(columns)]
        found = colours(canvas, places)
        # A value on the border between two colours may be drawn in either.
        each = [np.abs(found - table[np.clip(np.round(127.5 + 127.5 * values / top + off), 0, 255).astype(int)]).max(1)
                for off in (-0.02, 0, 0.02)]  # fmt: skip
        assert (np.min(each, axis=0) <= 2).all(), f"stage {stage}: {found} for {values}"
    ends = root.locator(".mixer-legend:visible").all_inner_texts()
    assert len(ends) == 1  # the other form's is hidden
    numbers = [float(text.replace("−", "-")) for text in ends[0].split()]
    np.testing.assert_allclose(numbers, [0 if view.show == "norm" else -top, top], rtol=6e-3)


def expect_answer(root, view, probabilities):
    bars, names = root.locator(".mixer-bars li"), view.data["class_names"]
    shown = bars.evaluate_all("""(bars) => bars.map((bar) => {
      const width = (one) => one.getBoundingClientRect().width;
      return [Number(bar.dataset.class), Number(bar.dataset.probability), bar.children[0].textContent,
        parseFloat(bar.children[2].textContent),
        width(bar.querySelector("i")) / width(bar.querySelector("b"))];
    })""")
    assert len(shown) == min(10, len(names))
    classes = [k for k, *_ in shown]
    if len(names) <= 10:
        assert classes == list(range(len(names)))
    assert probabilities[classes].min() >= np.delete(probabilities, classes).max(initial=0) - 1e-3
    for k, probability, name, percent, part in shown:
        assert name == names[k]
        np.testing.assert_allclose([probability, percent / 100, part], probabilities[k], atol=6e-3)
        assert abs(probability - probabilities[k]) < 1e-3
    name, percent = root.locator(".mixer-answer").inner_text().removesuffix(" %").rsplit(", ", 1)
    assert abs(probabilities[names.index(name)] - probabilities.max()) < 1e-3
    assert abs(float(percent) / 100 - probabilities.max()) < 1e-3
