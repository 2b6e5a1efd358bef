"""Moves every control of ``explore_mixing`` and compares what is drawn with the weights."""

import numpy as np
from helpers import FRAMES
from tiles import choose, expect_outline, expect_tiles, point, sent


def check_mixing(page, root, view):
    """``root`` is the view's element, ``view`` the same widget in Python; at the end the state is not what it was."""
    root.scroll_into_view_if_needed()
    expect_shown(root, view)
    choose(root, view, "block", "End")
    assert view.block == view.data["num_blocks"] - 1
    for sort in ["frequency", "pairs", "number", "norm"]:
        choose(root, view, "sort", option=sort)
        expect_shown(root, view)
    for scale in ["each", "shared"]:
        choose(root, view, "scale", option=scale)
        expect_shown(root, view)
    choose(root, view, "block", "ArrowLeft", "ArrowLeft")
    expect_shown(root, view)
    for shown in [False, True]:
        root.locator("[data-trait=compare]").press("Space")
        view.compare = shown
        expect_shown(root, view)
    check_pointer(page, root, view)
    check_keys(page, root, view)


def touch(root, view):
    """The view is shown as the weights are; a key and a control change it as they should."""
    root.scroll_into_view_if_needed()
    expect_shown(root, view)
    order, canvas = list(view.order()), tiles(root, 0)
    canvas.press("ArrowDown")
    view.unit = int(order[order.index(view.unit) + int(canvas.get_attribute("data-across"))])
    expect_shown(root, view)
    choose(root, view, "sort", option="frequency")
    expect_shown(root, view)


def expect_shown(root, view):
    """Tiles, outline, legend and text are those of the view's state."""
    root.page.evaluate(FRAMES)
    grid, sides = view.data["grid"], maps_of(view)
    top = np.abs(sides).max()
    scale = top if view.scale == "shared" else np.abs(sides).max(axis=3, keepdims=True)
    for i, maps in enumerate(sides):
        canvas = tiles(root, i)
        assert canvas.is_visible() == (i == 0 or view.compare)
        if i == 0 or view.compare:
            expect_tiles(canvas, view.order(i), maps, grid, scale if view.scale == "shared" else scale[i])
            expect_outline(canvas, grid, view.order(i), view.unit)
    ends = root.locator(".mixer-legend span")
    assert ends.last.text_content().startswith("above zero" if view.scale == "each" else f"+{top:#.3g}")
    assert (
        f"{view.data['num_units']} hidden units of block {view.block}'s"
        in root.locator(".mixer-caption").text_content()
    )
    expect_text(root, view, 0, view.unit, view.patch)


def expect_text(root, view, side, unit, patch):
    """The line below names the unit, its place, the patch and its two weights."""
    root.page.evaluate(FRAMES)
    title, (reads, writes) = view.data["sides"][side]["title"], maps_of(view)[side][:, unit, patch]
    row, column = divmod(patch, view.data["grid"][1])
    at, last = list(view.order(side)).index(unit), view.data["num_units"] - 1
    assert root.locator(".mixer-readout").text_content() == (
        f"Unit {unit} ({title}, place {at} of 0 to {last}), patch in row {row}, column {column}: reads it with weight "
        f"{signed(reads)}, writes to it with {signed(writes)}."
    )


def check_pointer(page, root, view):
    """What lies under the pointer is read out; a click chooses it."""
    grid, place = view.data["grid"], min(5, view.data["num_units"] - 1)
    patch = view.data["num_patches"] - 1
    for i in range(len(view.data["sides"])):
        tiles(root, i).hover(position=point(tiles(root, i), grid, place, 1, patch))
        expect_text(root, view, i, view.order(i)[place], patch)
    page.mouse.move(1, 1)
    expect_text(root, view, 0, view.unit, view.patch)
    tiles(root, 0).click(position=point(tiles(root, 0), grid, place, 0, patch))
    view.unit, view.patch = int(view.order()[place]), patch
    expect_shown(root, view)


def check_keys(page, root, view):
    """Arrow keys go to the tile beside or below, with Shift to the patch beside or above."""
    canvas, order = tiles(root, 0), list(view.order())
    at, across = order.index(view.unit), int(canvas.get_attribute("data-across"))
    for key, step in [("ArrowLeft", -1), ("ArrowDown", across), ("ArrowRight", 1), ("ArrowUp", -across)]:
        canvas.press(key)
        at = at + step if 0 <= at + step < len(order) else at
        view.unit = int(order[at])
        expect_shown(root, view)
    columns = view.data["grid"][1]
    for key, step in [("Shift+ArrowUp", -columns), ("Shift+ArrowLeft", -1), ("Shift+ArrowRight", 1)]:
        canvas.press(key)
        view.patch += step
        expect_text(root, view, 0, view.unit, view.patch)


def maps_of(view):
    """The block's maps on each side, as the browser has them: (sides, 2, D_S, S)."""
    return np.stack([sent(side["maps"])[view.block] for side in view.data["sides"]])


def tiles(root, side):
    return root.locator(".mixer-tiles canvas").nth(side)


def signed(value):
    """A number as the views write it, where it has the size of a weight."""
    size = f"{abs(value):#.3g}"
    if abs(value) < 0.001:
        digits, power = f"{abs(value):.2e}".split("e")
        size = f"{digits}e{int(power)}"
    return "0" if value == 0 else f"{'+' if value > 0 else '−'}{size}"
