"""The tests of the views see what they should: shown on the smallest view there can be, a bar as long as a number."""

import pytest
from helpers import latency, move, open_notebook, pixels, screenshot, watched_page

CELLS = [
    """
import anywidget, ipywidgets, traitlets

class Bar(anywidget.AnyWidget):
    _esm = '''
    export default {
      render({ model, el }) {
        const canvas = document.createElement("canvas");
        canvas.width = 100; canvas.height = 20; canvas.tabIndex = 0;
        canvas.style.outline = "none"; canvas.dataset.lmSuppressShortcuts = true;  // the arrow keys are ours
        const draw = () => {
          const pen = canvas.getContext("2d", { willReadFrequently: true });
          pen.fillStyle = "rgb(0, 0, 255)"; pen.fillRect(0, 0, 100, 20);
          pen.fillStyle = "rgb(255, 0, 0)"; pen.fillRect(0, 0, model.get("length"), 20);
        };
        canvas.addEventListener("keydown", (event) => {
          event.stopPropagation();
          const step = { ArrowRight: 10, ArrowLeft: -10 }[event.key];
          if (step) { model.set("length", model.get("length") + step); model.save_changes(); }
        });
        model.on("change:length", draw);
        draw(); el.append(canvas);
      },
    };
    '''
    length = traitlets.Int(30).tag(sync=True)
""",
    """
bar = Bar().add_class("bar")
slider = ipywidgets.IntSlider(30, 0, 100).add_class("length")
ipywidgets.jslink((slider, "value"), (bar, "length"))
ipywidgets.VBox([slider, bar])
""",
    """
from mixer_utils import load_pretrained
from mixer_utils.widgets import explore_mixing
view, block = explore_mixing(load_pretrained("mnist")), ipywidgets.IntSlider(0, 0, 3).add_class("block")
ipywidgets.jslink((block, "value"), (view, "block"))
ipywidgets.VBox([block, view])
""",
]


@pytest.fixture(scope="module")
def shown(browser, server):
    with watched_page(browser) as page:
        yield open_notebook(page, server, CELLS)


def red_columns(canvas):
    return int((pixels(canvas)[10] == [255, 0, 0]).all(axis=1).sum())


def test_a_canvas_is_seen_a_key_changes_it_and_so_does_a_linked_slider(shown):
    page = shown
    canvas, slider = page.locator(".bar canvas"), page.locator(".length .noUi-base")
    assert red_columns(canvas) == 30
    move(canvas, "ArrowRight", canvas)
    assert red_columns(canvas) == 40
    move(slider, lambda slider: slider.click(), canvas)
    assert red_columns(canvas) == 50
    assert screenshot(page, "toolchain").is_file()
    assert page.outside == []


def test_a_latency_is_measured_and_printed(shown, capsys):
    canvas = shown.locator(".bar canvas")
    median = latency(canvas, ["ArrowRight", "ArrowLeft"], canvas, "the smallest view in JupyterLab")
    line = capsys.readouterr().out
    assert line.startswith(f"latency: the smallest view in JupyterLab: {median:.1f} ms")
    print(line)


def test_a_view_of_a_mixer_follows_ipywidgets_own_controls_without_the_kernel(shown):
    view = shown.locator(".mixer-view")
    move(shown.locator(".block .noUi-base"), lambda block: block.click(), view.locator("canvas").first)  # the middle: 2
    assert view.locator("[data-trait=block]").input_value() == "2"


def test_a_key_that_changes_nothing_is_found(page):
    page.set_content("<canvas tabindex='0'></canvas>")
    canvas = page.locator("canvas")
    with pytest.raises(AssertionError, match="0.2 s after a no pixel of the canvas had changed"):
        move(canvas, "a", canvas, seconds=0.2)


def test_a_cell_that_fails_is_found(page, server):
    with pytest.raises(AssertionError, match="A cell failed in notebook:\n1 / 0\n\n(.|\n)*ZeroDivisionError"):
        open_notebook(page, server, ["1 / 0"], "notebook")


def test_requests_to_other_machines_are_stopped_and_listed(page):
    page.set_content("<img src='https://example.org/picture.png' alt=''>")
    page.wait_for_load_state()
    assert page.outside == ["https://example.org/picture.png"]


@pytest.mark.parametrize("script", ["missing()", "console.error('missing')"])
def test_an_error_in_a_script_or_in_the_console_is_found(browser, script):
    with pytest.raises(AssertionError, match="The page reported errors:\nmissing"), watched_page(browser) as page:
        page.set_content(f"<script>{script}</script>")
