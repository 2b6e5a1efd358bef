"""Tests in a real browser. What a test of a view needs is here and in ``helpers.py`` beside this file:

    import pytest
    from helpers import latency, move, open_notebook, pixels, screenshot, watched_page

    CELLS = [
        "from mixer_utils import load_pretrained\nfrom mixer_utils.widgets import explore_mixing",
        "explore_mixing(load_pretrained('mnist')).add_class('mine')",
    ]

    @pytest.fixture(scope="module")  # one notebook for the file
    def mixing(browser, server):
        with watched_page(browser) as page:
            yield open_notebook(page, server, CELLS)  # in JupyterLab; with "notebook" besides, in Notebook 7

    def test_the_arrow_key_moves_the_map(mixing):
        canvas, slider = mixing.locator(".mine canvas"), mixing.locator(".mine input[type=range]")
        before = pixels(canvas)                                # uint8 (H, W, 3), what is on the screen
        move(slider, "ArrowRight", canvas)                     # press the key, wait until the canvas has changed
        # instead of a key, a function: move(slider, lambda slider: slider.click(), canvas)
        assert (pixels(canvas) != before).any()
        latency(slider, ["ArrowRight", "ArrowLeft"], canvas, "block")  # printed at the end of the whole run
        screenshot(mixing.locator(".mine"), "mixing")          # build/screenshots/mixing.png
        assert mixing.outside == []                            # addresses asked for outside this machine: none

A control is checked thoroughly in one place, a page without Jupyter (``opened``, below); JupyterLab, Notebook 7, the
website and the explorer's page each show that a view opens, takes a key and moves a control.

Fixtures:

``browser``   Playwright's, Chromium without a window; one for each test file. Where no browser can be had the tests
              are skipped; with CI or MIXER_BROWSER=required in the environment they fail. MIXER_BROWSER=PATH names one.
``page``      a page in a context of its own for each test. Errors in the console or in a script fail the test at its
              end; requests to other machines are stopped and listed in ``page.outside``.
``new_page``  a function: another such page, ``new_page(viewport={"width": 390, "height": 844})``, say.
``server``    a Jupyter server for the whole run, started at the first notebook, with JupyterLab, Notebook 7 and
              settings of its own. Notebooks lie in ``server.folder``; its kernels see this checkout's data, and
              download nothing.

``gpu_page``  a page that has WebGPU, in a file whose ``browser_flags`` are GPU_FLAGS. Where Chromium gives none all the
              same, its tests are skipped.
``opened``    a function: ``page, element = opened(view)`` shows a view without Jupyter, on a page of its own
              (``show_view(page, view, folder)`` does this on a page that is there).
``watched_page(browser, **context)`` is what ``page`` is made of, for fixtures that live longer than one test.
A test that fails leaves ``build/screenshots/failed-TEST.png``.

Both interfaces take the arrow keys for themselves, unless the very element that has the focus carries the attribute
data-lm-suppress-shortcuts="true".
"""

import contextlib
import os

import pytest
from helpers import GPU_FLAGS, Server, launched, screenshot, show_view, watched_page


@pytest.fixture(scope="module")
def browser_flags():
    """What else Chromium is started with; for a file to state."""
    return []


@pytest.fixture(scope="module")
def browser(browser_flags):
    """For one file, not for the whole run: while Playwright is on, this thread has a running event loop, and the
    notebooks that nbval runs later need one of their own."""
    with contextlib.ExitStack() as stack:
        try:
            browser = stack.enter_context(launched(browser_flags))
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            needed = os.environ.get("CI") or os.environ.get("MIXER_BROWSER")
            (pytest.fail if needed else pytest.skip)(
                f"No browser can be had ({reason}): install Chromium (`apt-get install chromium`, or "
                "`python -m playwright install chromium`), or name one by MIXER_BROWSER."
            )
        yield browser


@pytest.fixture(scope="module")
def gpu_page(browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "page.html"  # about:blank gets no WebGPU
    path.write_text("<!doctype html><title>GPU</title>", encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    if not page.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
        pytest.skip(f"Chromium {browser.version} has no WebGPU with {' '.join(GPU_FLAGS)}: try a newer one.")
    yield page
    page.close()


@pytest.fixture
def new_page(browser):
    with contextlib.ExitStack() as stack:
        yield lambda **context: stack.enter_context(watched_page(browser, **context))


@pytest.fixture
def page(new_page):
    return new_page()


@pytest.fixture
def opened(new_page, tmp_path):
    """A function: a view on a page of its own; returns the page and the view's element."""

    def open_(view, **context):
        page = new_page(**context)
        return page, show_view(page, view, tmp_path)

    return open_


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("jupyter"))
    yield server
    server.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and call.when == "call":
        for value in item.funcargs.values():
            if hasattr(value, "outside"):  # a watched page
                with contextlib.suppress(Exception):  # the page may be what broke
                    screenshot(value, f"failed-{item.name}")
    return report
