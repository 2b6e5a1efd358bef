"""Views are light or dark as the page around them is: they follow it, and what is written in them can be read."""

import importlib
import re

import numpy as np
import pytest
from check_mixing import expect_shown
from helpers import FRAMES, ROOT, colours_of, ink_of, screenshot, show_view

from mixer_utils import load_pretrained, load_recorded_run, widgets
from mixer_utils.widgets.base import signed_colours

# How the kinds of pages say that they are dark, and that they are light: element, attribute, dark, light.
MARKS = {
    "Sphinx": ("documentElement", "data-theme", "dark", "light"),
    "JupyterLab": ("body", "data-jp-theme-light", "false", "true"),
    "VS Code": ("body", "class", "vscode-body vscode-dark", "vscode-body vscode-light"),
    "high contrast": ("body", "class", "vscode-high-contrast", "vscode-high-contrast vscode-high-contrast-light"),
    "Colab": ("documentElement", "theme", "dark", "default"),
}  # fmt: skip
MARK = "([element, name, value]) => document[element].setAttribute(name, value)"
UNMARK = "([element, name]) => document[element].removeAttribute(name)"
VIEWS = {
    "network": lambda: widgets.explore(load_pretrained("mnist")),
    "learn": lambda: widgets.train_in_browser(),
    "mixing": lambda: widgets.explore_mixing(load_pretrained("mnist")),
    "influence": lambda: widgets.explore_influence(load_pretrained("mnist")),
    "digit": lambda: widgets.draw_digit(load_pretrained("mnist")),
    "embedding": lambda: widgets.explore_embedding(load_pretrained("mnist")),
    "training": lambda: widgets.explore_training(load_recorded_run()),
}

# The contrast of every text that is seen with the ground it stands on, WCAG 2.2: [[contrast, text], ...].
CONTRASTS = """() => {
  const channel = (level) => level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4;
  const parts = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const light = (colour) => {
    const [red, green, blue] = parts(colour).map((level) => channel(level / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const seen = (colour) => (parts(colour)[3] ?? 1) > 0;
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { backgroundColor } = getComputedStyle(at);
      if (seen(backgroundColor)) return light(backgroundColor);
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? 0 : 1;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || element.matches("script, style, title, noscript")) continue;
    const shown = element.closest("select") || element; // an option is seen where its list is
    if (!shown.checkVisibility({ visibilityProperty: true })) continue;
    const pair = [light(getComputedStyle(shown).color), ground(shown)].sort((a, b) => b - a);
    found.push([(pair[0] + 0.05) / (pair[1] + 0.05), text.slice(0, 40)]);
  }
  return found;
}"""


def relative_luminance(colour):
    levels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    low, high = sorted([relative_luminance(one), relative_luminance(other)])
    return (high + 0.05) / (low + 0.05)


def theme_of(root):
    root.evaluate(FRAMES)
    return root.get_attribute("data-theme")


@pytest.fixture
def mixing(tiny_mixer):
    return widgets.explore_mixing(tiny_mixer(), tiny_mixer(seed=1))


@pytest.mark.parametrize("preferred", ["light", "dark"])
def test_a_view_follows_what_the_page_says_and_else_the_reader_s_system(opened, mixing, preferred):
    page, root = opened(mixing, color_scheme=preferred)
    assert theme_of(root) == preferred
    for kind, (element, name, dark, light) in MARKS.items():
        for value, expected in [(dark, "dark"), (light, "light")]:
            page.evaluate(MARK, [element, name, value])
            assert theme_of(root) == expected, f"{kind}: {name}={value}"
            assert root.evaluate("(root) => getComputedStyle(root).colorScheme") == expected
        page.evaluate(UNMARK, [element, name])
    assert theme_of(root) == preferred


def test_in_colab_a_page_that_says_nothing_is_light(new_page, mixing, tmp_path):
    page = new_page(color_scheme="dark")
    page.add_init_script("window.google = { colab: {} };")
    assert theme_of(show_view(page, mixing, tmp_path)) == "light"


def test_an_open_view_is_drawn_anew_in_the_other_colours(opened, mixing):
    page, root = opened(mixing)
    expect_shown(root, mixing)
    assert (colours_of(root) == signed_colours()).all() and ink_of(root).max() < 60
    page.emulate_media(color_scheme="dark")
    expect_shown(root, mixing)
    assert (colours_of(root) == signed_colours(dark=True)).all() and ink_of(root).min() > 200
    middle = root.locator(".mixer-legend i").evaluate("(strip) => strip.style.background").split("rgb(")[9]
    assert max(int(level) for level in re.findall(r"\d+", middle)[:3]) < 50
    page.emulate_media(color_scheme="light")
    expect_shown(root, mixing)


def test_a_view_that_is_closed_is_forgotten(opened, mixing):
    page, root = opened(mixing)
    page.evaluate("mixerViews.then((all) => all.get('view-0').end())")
    page.emulate_media(color_scheme="dark")
    assert theme_of(root) == "light"


@pytest.mark.parametrize("name", VIEWS)
def test_in_the_dark_every_view_is_right_and_can_be_read(opened, name):
    view = VIEWS[name]()
    page, root = opened(view, color_scheme="dark")
    root = root.first  # a view can hold another one
    if name == "network":
        root.locator("button[data-stage='token mixing']").first.click()
    check_contrasts(page, root)
    if name == "embedding":
        check_filters(root, view)
    elif name not in ("network", "learn"):  # their own tests say what they show
        importlib.import_module(f"check_{name}").expect_shown(root, view)
    screenshot(root, f"dark-{name}")
    page.emulate_media(color_scheme="light")
    assert theme_of(root) == "light"
    check_contrasts(page, root)


def check_contrasts(page, root):
    root.evaluate(FRAMES)
    found = page.evaluate(CONTRASTS)
    assert len(found) > 12
    assert [one for one in found if one[0] < 4.5] == []


def check_filters(root, view):
    """Some filters have the colours of their weights, those of the dark."""
    from check_embedding import colours, corner

    grid, P = root.locator("[data-part=filters]"), view.data["own_patch_size"]
    zoom = float(grid.get_attribute("data-zoom"))
    rows, columns = (part.ravel() for part in np.mgrid[0:P, 0:P])
    for place in range(4):
        weights = view.filters[view.sorts[view.sort]["order"][place]].ravel()
        points = corner(grid, place) + (np.stack([columns, rows], axis=1) + 0.5) * zoom
        places = np.floor(128 + 127.5 * weights / np.abs(view.filters).max()).astype(int)
        off = [np.abs(colours(grid, points) - colours_of(grid)[(places + by).clip(0, 255)]).max(1) for by in (-1, 0, 1)]
        assert np.min(off, axis=0).max() <= 2


def test_what_is_drawn_stands_out_from_its_ground_in_both_themes(opened, mixing):
    page, root = opened(mixing)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        root.evaluate(FRAMES)
        style = {
            name: root.evaluate(f"(root) => getComputedStyle(root).getPropertyValue('--mixer-{name}')")
            for name in ("ink", "muted", "paper", "fill", "edge", "accent", "mark")
        }
        for text in ("ink", "muted"):
            assert min(contrast(style[text], style[ground]) for ground in ("paper", "fill")) >= 4.5
        for drawn in ("edge", "accent", "mark"):
            assert contrast(style[drawn], style["paper"]) > 3, (scheme, drawn)
        assert contrast(style["accent"], style["fill"]) > 3  # a bar
        assert contrast(style["ink"], style["edge"]) > 3  # the line around a tile
        for picture in ("#000000", "#ffffff"):  # a hidden patch of a digit
            assert contrast(style["mark"], picture) > 3


def test_what_is_written_on_a_map_can_be_read_on_all_its_colours(page):
    source = (ROOT / "mixer_utils" / "widgets" / "kit.js").read_text(encoding="utf-8")
    for dark in (False, True):
        colours = signed_colours(dark).tolist()
        written = page.evaluate(
            """async ([source, colours]) => {
              const module = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
              const { readableOn } = await import(module);
              return colours.map(([red, green, blue]) => readableOn((255 << 24) | (blue << 16) | (green << 8) | red));
            }""",
            [source, colours],
        )
        for (red, green, blue), ink in zip(colours, written, strict=True):
            assert contrast(f"#{red:02x}{green:02x}{blue:02x}", {"#000": "#000000", "#fff": "#ffffff"}[ink]) >= 4.5


def test_no_view_has_a_colour_of_its_own():
    folder = ROOT / "mixer_utils" / "widgets"
    for path in [*folder.glob("*.js"), folder / "views.css"]:
        text = path.read_text(encoding="utf-8")
        if path.name == "kit.js":
            text = text[: text.index("const PALETTES")] + text[text.index("export const WHITE = ") + 30 :]
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b[\";]", text), path.name
        assert not re.search(r"(fillStyle|strokeStyle|background|color)\s*[=:]\s*[\"'](?!transparent)[a-z]+[\"']", text)
