"""How fast the live views answer: key to pixels, frames while dragging, and how soon the explorer's page is there."""

import contextlib
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.timing import ROOT
from mixer_utils import create_mixer, load_pretrained, load_recorded_run, widgets

# What a view is moved by, and what must have changed then, as CSS selectors within the view; keys in turn.
MOVES = {
    "mixing": [("block", "[data-trait=block]", ["ArrowRight", "ArrowLeft"], ".mixer-tiles")],
    "influence": [
        ("block", "input[data-trait=block]", ["ArrowRight", "ArrowLeft"], "canvas[data-map=units]"),
        ("patch", "canvas[data-map=image]", ["ArrowRight", "ArrowLeft"], "canvas[data-map=image]"),
    ],
    "digit": [("hidden patch", "canvas[aria-label^='The patches']", ["Space"], "canvas[aria-label^='The patches']")],
    "embedding": [
        ("filters used", "[data-trait=k]", ["ArrowRight", "ArrowLeft"], "[data-part=rebuilt]"),
        ("image", "[data-trait=image]", ["ArrowRight", "ArrowLeft"], "[data-part=cut]"),
    ],
    "network": [("image", "select[data-trait=start]", ["ArrowDown", "ArrowUp"], "canvas[data-map=image]")],
    "training": [("snapshot", "[data-trait=time]", ["ArrowLeft", "ArrowRight"], ".mixer-tiles")],
}
# Where one drags in a view: along this canvas, from its left edge to its right one and back.
DRAGS = {
    "network": "canvas[data-map=image]",
    "mixing": ".mixer-tiles canvas",
    "influence": "canvas[data-map=image]",
    "digit": "canvas.mixer-board",
    "embedding": "canvas[data-part=cut]",
    "training": "canvas[data-line=accuracy]",
}
DRAWN = """new MutationObserver(() => {
  if (document.querySelector("[data-drawn]")) window.firstDrawn ??= performance.now();
}).observe(document, { subtree: true, childList: true, attributes: true });"""
# The times at which frames were shown, from now on; asked for again, it ends.
FRAMES = """() => {
  const shown = window.framesShown = [];
  const look = (now) => {
    if (window.framesShown !== shown) return;
    shown.push(now);
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""


def views():
    """{name: (the kind of view, it)}: those of the 14 x 14 model, and the one that is largest of B/16."""
    model, large = load_pretrained("mnist-14x14"), create_mixer("B/16", num_classes=10)
    return {
        "network": ("network", widgets.explore(model)),
        "mixing": ("mixing", widgets.explore_mixing(model)),
        "mixing, B/16": ("mixing", widgets.explore_mixing(large)),
        "influence": ("influence", widgets.explore_influence(model)),
        "digit": ("digit", widgets.draw_digit(model)),
        "embedding": ("embedding", widgets.explore_embedding(load_pretrained("mnist"))),
        "training": ("training", widgets.explore_training(load_recorded_run())),
    }


def run(device, smoke=False):
    """Press keys in every view, in Chromium and without Jupyter; then open the explorer's page.

    ``milliseconds`` run from the press of a key to the first frame in which the pixels have changed: the median, and
    the quartiles, of 40 presses. ``dragging`` has the frames a second while the pointer is dragged over a view, of the
    60 that the browser shows at most, and the milliseconds that 95 % of the frames stay below. ``page`` has the
    milliseconds from opening the file until a view is drawn, and until all are when all are asked for: the median of
    five. ``learning`` has, for each patch size of ``train_in_browser()``, the seconds of one core until 90 % of the
    held-out digits are called rightly. The browser computes on the processor, whatever ``device`` is.
    """
    sys.path.insert(0, str(ROOT / "tests" / "browser"))  # the browser and the clock are those of the tests
    try:
        from helpers import launched, presses, show_view, start_all, watched_page
    finally:
        sys.path.pop(0)
    with contextlib.ExitStack() as stack:
        try:
            browser = stack.enter_context(launched())
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            print(f"  skipped: no browser can be had ({reason})", flush=True)
            return
        yield from measure(browser, show_view, presses, watched_page, start_all, smoke)


def measure(browser, show_view, presses, watched_page, start_all, smoke):
    found = {
        "browser": f"Chromium {browser.version}",
        "presses": 4 if smoke else 40,
        "milliseconds": {},
        "dragging": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (kind, view) in views().items():
            with watched_page(browser) as page:
                root = show_view(page, view, Path(folder))
                for what, control, keys, changed in MOVES[kind]:
                    times = presses(root.locator(control), keys, root.locator(changed).first, found["presses"])
                    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
                    found["milliseconds"][f"{name}: {what}"] = {"median": median, "low": low, "high": high}
                    print(f"  {name}, {what}: {median:.0f} ms from key press to changed pixels", flush=True)
                found["dragging"][name] = dragging(page, root.locator(DRAGS[kind]).first, 0.2 if smoke else 3)
                rate = found["dragging"][name]["frames a second"]
                print(f"  {name}: {rate:.0f} frames a second while dragging", flush=True)
            yield found
        found["page"] = opening(browser, watched_page, start_all, Path(folder), 1 if smoke else 5)
        print(f"  the explorer's page: a view after {found['page']['first view']:.0f} ms, all of them after "
              f"{found['page']['all views']:.0f} ms", flush=True)  # fmt: skip
        yield found
        if not smoke:
            found["learning"] = learning(browser, show_view, watched_page, Path(folder))
            yield found


def dragging(page, canvas, seconds):
    """Frames while the pointer goes to and fro over a canvas, its button down, for so many seconds."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    y = box["y"] + min(box["height"] / 2, 150)
    page.mouse.move(box["x"] + 2, y)
    page.mouse.down()
    page.evaluate(FRAMES)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for part in (*range(2, 100, 2), *range(98, 0, -2)):
            page.mouse.move(box["x"] + box["width"] * part / 100, y)
    shown = page.evaluate("() => { const shown = window.framesShown; window.framesShown = null; return shown; }")
    page.mouse.up()
    between = np.diff(shown)
    return {
        "frames a second": float(1000 * len(between) / between.sum()),
        "95 % below, ms": float(np.quantile(between, 0.95)),
    }


LEARNT = "() => parseFloat(document.querySelector('[data-part=share]').textContent) >= 90"


def learning(browser, show_view, watched_page, folder):
    """{patch size: {"seconds": of training until 90 % are right, "accuracy": then}}, of one run with seed 0."""
    found = {}
    for size in widgets.train_in_browser().data["patch_sizes"]:
        view = widgets.train_in_browser()
        view.patch_size = size
        with watched_page(browser) as page:
            root = show_view(page, view, folder)
            root.locator("[data-control=train]").click()
            page.wait_for_function(LEARNT, timeout=600_000)
            seconds = re.search(r"(\d+) s\b", root.locator("[data-part=pace]").inner_text())[1]
            share = root.locator("[data-part=share]").inner_text()
        found[str(size)] = {"seconds": float(seconds), "accuracy": float(share.removesuffix(" %")) / 100}
        print(f"  patches of {size}: {share} of the held-out digits after {seconds} s of training", flush=True)
    return found


def opening(browser, watched_page, start_all, folder, times):
    from mixer_utils.widgets.page import write_explorer

    address, drawn = write_explorer(folder).as_uri(), []
    for _ in range(times):
        with watched_page(browser, offline=True) as page:
            page.add_init_script(DRAWN)
            page.goto(address)
            page.wait_for_function("window.firstDrawn")
            start_all(page)
            drawn.append(page.evaluate("[window.firstDrawn, performance.now()]"))
    first, last = np.median(drawn, axis=0)
    return {"opened": times, "first view": float(first), "all views": float(last)}
