"""Moves every control of ``explore_mixing`` and compares what is drawn with the weights."""

import numpy as np
from helpers import FRAMES
from tiles import choose, expect_outline, expect_tiles, hovered, point, sent

from mixer_utils.mixing import morans_i


def check_mixing(page, root, view):
    """``root`` is the view's element, ``view`` the same widget in Python; at the end the state is not what it was."""
    root.scroll_into_view_if_needed()
    expect_shown(root, view)
    choose(root, view, "block", "End")
    assert view.block == view.data["num_blocks"] - 1
    for sort in ["norm", "frequency", "pairs", "number", "structure"]:
        choose(root, view, "sort", option=sort)
        expect_shown(root, view)
    for scale in ["each", "shared"]:
        choose(root, view, "scale", option=scale)
        expect_shown(root, view)
    choose(root, view, "block", "ArrowLeft", "ArrowLeft")
    expect_shown(root, view)
    check_switch(root, view)
    check_pointer(page, root, view)
    check_keys(root, view)


def check_switch(root, view):
    """The switch, and the key b, show the units before training in the same places and colours."""
    canvas, switch = tiles(root), root.locator("[data-trait=before]")
    assert switch.get_attribute("role") == "switch"
    places = canvas.get_attribute("data-order")
    for press in (switch.press, canvas.press):
        for key in ("Space", "Space") if press == switch.press else ("b", "b"):
            press(key)
            view.before = not view.before
            expect_shown(root, view)
            assert switch.is_checked() == view.before and canvas.get_attribute("data-order") == places


def touch(root, view):
    """The view is shown as the weights are; a key and a control change it as they should."""
    root.scroll_into_view_if_needed()
    expect_shown(root, view)
    order, canvas = list(view.order()), tiles(root)
    canvas.press("ArrowDown")
    view.unit = int(order[order.index(view.unit) + int(canvas.get_attribute("data-across"))])
    expect_shown(root, view)
    choose(root, view, "sort", option="frequency")
    expect_shown(root, view)


def expect_shown(root, view):
    """Tiles, outline, legend and text are those of the view's state."""
    root.page.evaluate(FRAMES)
    grid, sides = view.data["grid"], maps_of(view)
    maps, title = sides[int(view.before)], view.data["sides"][int(view.before)]["title"]
    top = np.abs(sides).max()
    expect_tiles(
        tiles(root),
        view.order(),
        maps,
        grid,
        top if view.scale == "shared" else np.abs(maps).max(axis=2, keepdims=True),
    )
    expect_outline(tiles(root), grid, view.order(), view.unit)
    ends = root.locator(".mixer-legend span")
    assert ends.last.text_content().startswith("above zero" if view.scale == "each" else f"+{top:#.3g}")
    mean = said_i(morans_i(maps[0], grid).mean())
    assert root.locator("figcaption").text_content() == f"{title}: reads | writes, every unit (mean Moran's I {mean})"
    caption = root.locator(".mixer-caption").text_content()
    assert f"{view.data['num_units']} hidden units of block {view.block}'s" in caption
    expect_text(root, view, view.unit, view.patch)


def expect_text(root, view, unit, patch):
    """The line below names the unit, which of the two models it is in, its place, the patch and its two weights."""
    root.page.evaluate(FRAMES)
    title, maps = view.data["sides"][int(view.before)]["title"], maps_of(view)[int(view.before)]
    reads, writes = maps[:, unit, patch]
    row, column = divmod(patch, view.data["grid"][1])
    at, last = list(view.order()).index(unit), view.data["num_units"] - 1
    structure = said_i(morans_i(maps[0, [unit]], view.data["grid"])[0])
    assert root.locator(".mixer-readout").text_content() == (
        f"Unit {unit} ({title}, place {at} of 0 to {last}, Moran's I {structure}), patch in row {row}, "
        f"column {column}: reads it with weight {signed(reads)}, writes to it with {signed(writes)}."
    )


def check_pointer(page, root, view):
    """What lies under the pointer is read out, its patch outlined in every map; a click chooses it."""
    grid, place = view.data["grid"], min(5, view.data["num_units"] - 1)
    patch, canvas = view.data["num_patches"] - 1, tiles(root)
    drawn = root.get_attribute("data-drawn")
    canvas.hover(position=point(canvas, grid, place, 1, patch))
    expect_text(root, view, view.order()[place], patch)
    patches, maps = hovered(canvas, grid)
    assert patches == {patch} and maps >= 2 * min(place, int(canvas.get_attribute("data-across")))
    page.mouse.move(1, 1)
    expect_text(root, view, view.unit, view.patch)
    assert hovered(canvas, grid) == (set(), 0) and root.get_attribute("data-drawn") == drawn  # nothing drawn anew
    canvas.click(position=point(canvas, grid, place, 0, patch))
    view.unit, view.patch = int(view.order()[place]), patch
    page.mouse.move(1, 1)
    expect_shown(root, view)


def check_keys(root, view):
    """Arrow keys go to the tile beside or below, with Shift to the patch beside or above."""
    canvas, order = tiles(root), list(view.order())
    at, across = order.index(view.unit), int(canvas.get_attribute("data-across"))
    for key, step in [("ArrowLeft", -1), ("ArrowDown", across), ("ArrowRight", 1), ("ArrowUp", -across)]:
        canvas.press(key)
        at = at + step if 0 <= at + step < len(order) else at
        view.unit = int(order[at])
        expect_outline(canvas, view.data["grid"], order, view.unit)
    columns = view.data["grid"][1]
    for key, step in [("Shift+ArrowUp", -columns), ("Shift+ArrowLeft", -1), ("Shift+ArrowRight", 1)]:
        canvas.press(key)
        view.patch += step
        expect_text(root, view, view.unit, view.patch)


def maps_of(view):
    """The block's maps on each side, as the browser has them: (sides, 2, D_S, S)."""
    return np.stack([sent(side["maps"])[view.block] for side in view.data["sides"]])


def tiles(root):
    return root.locator(".mixer-tiles canvas[tabindex]")


def said_i(value):
    """A Moran's I as the views write it."""
    text = f"{value:.2f}"
    return text.replace("-", "−" if float(text) else "")


def signed(value):
    """A number as the views write it, where it has the size of a weight."""
    size = f"{abs(value):#.3g}"
    if abs(value) < 0.001:
        digits, power = f"{abs(value):.2e}".split("e")
        size = f"{digits}e{int(power)}"
    return "0" if value == 0 else f"{'+' if value > 0 else '−'}{size}"
