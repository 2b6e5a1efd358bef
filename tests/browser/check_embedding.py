"""What the view of the patch embedding shows, compared with the same view in Python: wherever it is shown."""

import json
import re

import numpy as np
from helpers import FRAMES, SECONDS, ink_of

from mixer_utils.widgets import embedding

# The colours at points (x, y) of a canvas, in CSS pixels. As texts: Playwright takes seconds for long lists.
COLOURS = """(canvas, points) => {
  const ratio = canvas.width / parseFloat(canvas.style.width), context = canvas.getContext("2d");
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  return JSON.stringify(JSON.parse(points).map(([x, y]) => {
    const at = 4 * (Math.floor(y * ratio) * canvas.width + Math.floor(x * ratio));
    return Array.from(image.data.slice(at, at + 4));
  }));
}"""


def check_embedding(page, root, view):
    """Moves every control of the view in ``root``; ``view`` is the same one in Python, and follows."""
    check_cut(root, view)
    check_filters(root, view)
    check_rebuilt(root, view)


def touch(root, view):
    """The view is shown as Python computes it; a key and a control change it as they should."""
    root.scroll_into_view_if_needed()
    check_images(root, view)
    sizes = [cost["patch_size"] for cost in view.data["costs"]]
    at = sizes.index(view.patch_size) + 1
    part(root, "cut").press("ArrowRight")
    view.patch_size = sizes[at]
    wait_for(root, f"root.querySelector('[data-trait=patch_size]').value === '{at}'")
    check_patches(part(root, "cut"), view)
    choose(root, view, "k", 5)
    check_images(root, view)


def part(root, name):
    return root.locator(f"[data-part={name}]")


def colours(canvas, points):
    """The colours at points (n, 2), red, green and blue: (n, 3). Transparent is white, as the page below it."""
    found = np.array(json.loads(canvas.evaluate(COLOURS, json.dumps(np.asarray(points, dtype=float).tolist()))))
    return np.where(found[:, 3:] == 0, 255, found[:, :3])


def is_ink(canvas, points, within=20):
    """Which of the points (n, 2) have the colour of the text."""
    return (abs(colours(canvas, points) - ink_of(canvas)) < within).all(1)


def off(found, values, scale):
    """How far colours (n, 3) are from those of signed values (in_channels, h, w), one channel's step to and fro."""
    steps = [embedding.as_colours(values + step * scale / 255, scale).reshape(-1, 3).astype(int) for step in (-1, 0, 1)]
    return np.min([abs(found - step) for step in steps], axis=0).max()


def number(canvas, name):
    return float(canvas.get_attribute(f"data-{name}"))


def choose(root, view, name, value):
    """Moves the control of a trait, as a hand does, and sets it in Python; waits for the next drawing."""
    control = root.locator(f"[data-trait={name}]")
    drawn = root.get_attribute("data-drawn")
    before = getattr(view, name)
    if name in ("sort", "scale"):
        control.select_option(value)
    elif name == "patch_size":
        control.fill(str([cost["patch_size"] for cost in view.data["costs"]].index(value)))
    else:
        control.fill(str(value))
    setattr(view, name, value)
    if value != before:
        wait_for(root, f"root.dataset.drawn !== '{drawn}'")


def wait_for(root, condition):
    root.evaluate(
        f"""(root) => new Promise((done, stop) => {{
          const start = performance.now();
          const look = () => {{
            if ({condition}) requestAnimationFrame(() => requestAnimationFrame(done));
            else if (performance.now() - start > {1000 * SECONDS}) stop(new Error(`Not reached: {condition}`));
            else requestAnimationFrame(look);
          }};
          look();
        }})"""
    )


def pixels_of(view):
    """The chosen image as it was given: uint8 (H, W, 3)."""
    sent = view.data["images"]
    image = np.frombuffer(sent["bytes"], np.uint8).reshape(sent["shape"])[view.image]
    return np.broadcast_to(np.moveaxis(image, 0, -1), (*image.shape[1:], 3))


# --- the cut and what it costs ----------------------------------------------------------------------------------------


def check_cut(root, view):
    cut, own = part(root, "cut"), view.data["own_patch_size"]
    sizes = [cost["patch_size"] for cost in view.data["costs"]]
    control = root.locator("[data-trait=patch_size]")
    assert control.get_attribute("min") == "0" and control.get_attribute("max") == str(len(sizes) - 1)
    choose(root, view, "image", view.data["num_images"] - 1)
    for size, cost in zip(sizes, view.data["costs"], strict=True):
        choose(root, view, "patch_size", size)
        assert control.get_attribute("aria-valuetext") == f"{size} × {size}"
        check_patches(cut, view)
        row = root.locator("tr[aria-current]")
        assert row.count() == 1 and row.get_attribute("data-patch-size") == str(size)
        facts = part(root, "facts").inner_text()
        assert f"= {cost['tokens']} patches of {cost['numbers']} numbers" in facts and f"own P = {own}" in facts
    check_table(root, view)
    root.locator(f"tr[data-patch-size='{sizes[0]}']").click()
    view.patch_size = sizes[0]
    wait_for(root, f"root.querySelector('[data-trait=patch_size]').value === '{sizes.index(sizes[0])}'")
    check_patches(cut, view)
    cut.press("ArrowRight")  # to the next size that divides the image, whatever lies between
    view.patch_size = sizes[1]
    wait_for(root, "root.querySelector('[data-trait=patch_size]').value === '1'")
    check_patches(cut, view)
    choose(root, view, "patch_size", own)


def check_patches(cut, view):
    """Every pixel has its colour, moved by the gaps before its patch; the gaps are white."""
    size, side, gap = view.patch_size, number(cut, "side"), number(cut, "gap")
    image = pixels_of(view)
    height, width = image.shape[:2]
    step = max(1, height // 56)  # of a large image, every fourth pixel
    y, x = (grid.ravel() for grid in np.mgrid[0:height:step, 0:width:step])
    points = np.stack([(x + 0.5) * side + x // size * gap, (y + 0.5) * side + y // size * gap], axis=1)
    assert abs(colours(cut, points) - image[y, x]).max() <= 2
    assert (number(cut, "across"), number(cut, "down")) == (width // size, height // size)
    between = np.arange(1, width // size) * (size * side + gap) - gap / 2
    if len(between):
        assert (colours(cut, np.stack([between, np.full(len(between), 0.5)], axis=1)) == 255).all()


def check_table(root, view):
    """The rows say what Python counted, and the bars are as long as the logarithm of the ratio."""
    own = next(cost for cost in view.data["costs"] if cost["patch_size"] == view.data["own_patch_size"])
    ends = []
    for cost in view.data["costs"]:
        row = root.locator(f"tr[data-patch-size='{cost['patch_size']}']")
        P, S, cells, _, times, parameters = row.locator("th, td").all_inner_texts()
        assert (int(P), int(S)) == (cost["patch_size"], cost["tokens"])
        assert abs(said(cells) / cost["multiply_adds"] - 1) < 0.006
        assert abs(said(parameters) / cost["parameters"] - 1) < 0.006
        ratio = cost["multiply_adds"] / own["multiply_adds"]
        assert abs(said(times) / ratio - 1) < 0.06
        bar = row.locator("i").bounding_box()
        ends.append((np.log(ratio), bar["x"] + (bar["width"] if ratio > 1 else 0)))
    logs, places = np.array(sorted(ends)).T
    expected = places[0] + (logs - logs[0]) / (logs[-1] - logs[0]) * (places[-1] - places[0])
    assert abs(places - expected).max() < 2.5


def said(text):
    """ "1.21 M" -> 1210000.0"""
    value, unit = re.fullmatch(r"([\d.]+) ?([kMGT×]?)", text.strip()).groups()
    return float(value) * {"": 1, "×": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[unit]


# --- the filters ------------------------------------------------------------------------------------------------------


def check_filters(root, view):
    grid = part(root, "filters")
    for sort in ("frequency", "number", "norm"):
        choose(root, view, "sort", sort)
        order = [int(f) for f in grid.get_attribute("data-order").split()]
        assert order == view.sorts[sort]["order"].tolist()
        check_tiles(grid, view)
        check_lines(grid, view)
    choose(root, view, "scale", "each")
    check_tiles(grid, view)
    choose(root, view, "scale", "shared")
    check_tiles(grid, view)

    order = view.sorts[view.sort]["order"].tolist()
    grid.click(position=dict(zip("xy", corner(grid, 1) + 3, strict=True)))
    view.filter = order[1]
    wait_for_filter(root, view)
    check_outline(grid, view)
    grid.press("ArrowRight")
    view.filter = order[2]
    wait_for_filter(root, view)
    check_outline(grid, view)


def corner(grid, place):
    across, step = int(number(grid, "across")), number(grid, "tile") + number(grid, "gap")
    return 3 + step * np.array([place % across, place // across]) - [0, number(grid, "top")]


def check_tiles(grid, view):
    channels, P, zoom = view.data["image_shape"][0], view.data["own_patch_size"], number(grid, "zoom")
    order = view.sorts[view.sort]["order"]
    rows, columns = (part.ravel() for part in np.mgrid[0:P, 0:P])
    for place in {*range(12), len(order) // 2, len(order) - 1} & {*range(len(order))}:
        weights = view.filters[order[place]]
        scale = np.abs(view.filters if view.scale == "shared" else weights).max() or 1
        bring(grid, place)
        points = corner(grid, place) + (np.stack([columns, rows], axis=1) + 0.5) * zoom
        assert off(colours(grid, points), weights.reshape(channels, P, P), scale) <= 2, f"place {place} by {view.sort}"


def bring(grid, place):
    """Scrolls so far that the tile at a place is in sight, and is drawn."""
    row = place // int(number(grid, "across"))
    grid.evaluate(
        f"""(grid, top) => {{
          const box = grid.closest(".mixer-scroll");
          if (top >= box.scrollTop && top + 40 <= box.scrollTop + box.clientHeight) return null;
          box.scrollTop = top;
          return ({FRAMES})();
        }}""",
        row * (number(grid, "tile") + number(grid, "gap")),
    )


def check_lines(grid, view):
    """A line under each filter that is used; under one that adds nothing only a dot; under the others nothing."""
    ranks, tile = view.sorts[view.sort]["ranks"], number(grid, "tile")
    places = [place for place in range(len(ranks) - 1) if place < 200]
    below = np.array([corner(grid, place) + [0, tile + 2] for place in places])
    inked = [is_ink(grid, below + [along, 0]) for along in (1, tile - 3)]
    chosen = view.sorts[view.sort]["order"].tolist().index(view.filter)  # its outline lies over its line
    for place in places:
        if place != chosen:
            used, adds = place < view.k, ranks[place + 1] > ranks[place]
            assert (inked[0][place], inked[1][place]) == (used, used and adds), f"place {place} by {view.sort}"


def check_outline(grid, view):
    order, tile = view.sorts[view.sort]["order"].tolist(), number(grid, "tile")
    at = order.index(view.filter)
    sides = np.array([[-2, tile / 2], [tile + 1.5, tile / 2]])
    assert is_ink(grid, corner(grid, at) + sides, 55).all()
    assert not is_ink(grid, corner(grid, at - 1) + sides[:1], 55).any()


def wait_for_filter(root, view):
    wait_for(root, f"root.querySelector('[data-part=tokens]').ariaLabel.startsWith('filter {view.filter} ')")
    readout = root.locator(".mixer-readout").inner_text()
    norm = np.linalg.norm(view.filters[view.filter])
    assert readout.startswith(
        f"Filter {view.filter} (place {view.sorts[view.sort]['order'].tolist().index(view.filter)} "
    )
    assert abs(float(re.search(r"norm ([\d.e-]+),", readout)[1]) / norm - 1) < 0.01


# --- the image rebuilt ------------------------------------------------------------------------------------------------


def check_rebuilt(root, view):
    last = view.data["num_k"] - 1
    for image, sort, k in [(0, "norm", 0), (0, "norm", 5), (1, "norm", 5), (1, "frequency", 9), (1, "frequency", 8),
                           (1, "number", last), (1, "norm", last // 3)]:  # fmt: skip
        for name, value in [("image", image), ("sort", sort), ("k", k)]:
            choose(root, view, name, value)
        check_images(root, view)
    curve = part(root, "curve")
    left, right, low = (number(curve, name) for name in ("left", "right", "low"))
    curve.click(position={"x": left + (right - left) / 4, "y": low / 2})
    view.k = round(last / 4)
    check_images(root, view)
    curve.press("ArrowRight")
    curve.press("ArrowRight")
    view.k += 2
    check_images(root, view)
    errors = view.sorts[view.sort]["errors"][view.image]
    dot = [left + (right - left) * view.k / last, low - (low - 10) * view.error()[0] / errors[0]]
    assert is_ink(curve, [dot]).all()  # on the blue curve


def check_images(root, view):
    rank = view.sorts[view.sort]["ranks"][view.k]
    sort, k = view.sort, view.k
    wait_for(root, f"root.querySelector('[data-part=rebuilt]').dataset.rank === '{rank}'")
    wait_for(root, f"root.querySelector('[data-trait=k]').value === '{k}'")
    assert root.locator("[data-trait=sort]").input_value() == sort
    channels, height, width = view.data["image_shape"]
    image = embedding.from_patches(view.patches[view.image], view.data["image_shape"])
    rebuilt, top = view.rebuilt(), np.abs(image).max()
    bias = np.frombuffer(view.data["bias"]["bytes"], "float32")[view.filter]
    tokens = view.patches[view.image] @ view.filters[view.filter] + bias
    tokens = tokens.reshape(1, height // view.data["own_patch_size"], -1)
    where = f"by {view.sort} from {view.k}"
    assert abs(on_grid(part(root, "image"), height, width) - pixels_of(view).reshape(-1, 3)).max() <= 2
    pixels = view.as_pixels(rebuilt).reshape(-1, 3).astype(int)
    assert abs(on_grid(part(root, "rebuilt"), height, width) - pixels).max() <= 2, where
    assert off(on_grid(part(root, "difference"), height, width), rebuilt - image, top) <= 2, where
    assert off(on_grid(part(root, "tokens"), *tokens.shape[1:]), tokens, np.abs(tokens).max()) <= 2, where

    caption = root.locator(".mixer-caption").filter(has_text="Each patch is projected").inner_text()
    error, share = view.error()
    assert f"onto the first {view.k} of {len(view.filters)} filters, which span {rank} of its" in caption
    found = re.search(r": ([\d.]+) % of the image is kept, mean squared error ([\d.e-]+) ", caption)
    assert abs(float(found[1]) - 100 * share) < 0.06 and abs(float(found[2]) - error) <= 0.006 * error + 1e-12
    assert ("nothing is lost" in caption) == (rank == view.filters.shape[1])


def on_grid(canvas, rows, columns):
    """The colours in the middle of the cells of a canvas that holds rows x columns of them: (rows * columns, 3)."""
    box = canvas.evaluate("(canvas) => [parseFloat(canvas.style.width), parseFloat(canvas.style.height)]")
    y, x = (one.ravel() for one in np.mgrid[0:rows, 0:columns])
    return colours(canvas, (np.stack([x, y], axis=1) + 0.5) * np.array(box) / [columns, rows])
