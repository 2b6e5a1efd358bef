"""What tests in a browser share: a Jupyter server, notebooks that run in its pages, pixels, latency."""

import contextlib
import io
import itertools
import os
import re
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
from nbformat import v4
from PIL import Image

from mixer_utils.widgets.base import signed_colours
from mixer_utils.widgets.page import embedded

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
INTERFACES = ("lab", "notebook")
# Two frames on: what a change asked for has then been drawn.
FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
SECONDS = 60  # the longest wait for anything but a notebook's cells: what takes longer hangs

# Errors in scripts of Notebook 7 itself: it looks for a setting and a command of parts that it leaves out.
ALLOWED = (
    "Cannot read properties of undefined (reading 'schema')",
    "Command 'filebrowser:open-path' not registered.",
)


FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def browser_path():
    """The system's Chromium, or what MIXER_BROWSER=PATH names; None for Playwright's own. Raises FileNotFoundError."""
    asked = os.environ.get("MIXER_BROWSER", "")
    names = ["chromium", "chromium-browser", "google-chrome"] if asked in ("", "required") else [asked]
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None and asked not in ("", "required"):
        raise FileNotFoundError(f"MIXER_BROWSER is {asked}, which is no program")
    return path


# WebGPU by SwiftShader, a GPU played by software.
GPU_FLAGS = "--enable-unsafe-webgpu --use-webgpu-adapter=swiftshader --enable-features=Vulkan".split()


@contextlib.contextmanager
def launched(flags=()):
    """Chromium without a window, driven by Playwright.

    What is missing is told by whatever exception comes of it: no module, no program, no library that it needs.
    """
    path = browser_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *flags])
        yield browser
        browser.close()


# --- pages -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def watched_page(browser, **context):
    """A page of ``browser`` in a new context, made with ``context`` (viewport, color_scheme, …: Playwright's names).

    ``page.outside`` lists the addresses that were asked for outside this machine; those requests are stopped.
    At the end an AssertionError lists the errors in the console and in scripts, if there were any.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    context.set_default_timeout(1000 * SECONDS)
    page = context.new_page()
    page.outside, errors = [], []

    def inside(address):
        address = urllib.parse.urlsplit(address)
        return address.hostname in ("127.0.0.1", "localhost") or address.scheme in ("file", "data", "blob", "about")

    def stop(route):
        page.outside.append(route.request.url)
        route.abort()

    def hear(message):
        where = message.location.get("url", "")
        if message.type == "error" and where not in page.outside:
            errors.append(f"{message.text} ({where})")

    def hear_script(error):
        if not (error.message in ALLOWED and "/static/notebook/" in (error.stack or "")):
            errors.append(str(error))

    context.route(lambda address: not inside(address), stop)
    page.on("console", hear)
    page.on("pageerror", hear_script)
    try:
        yield page
    finally:
        context.close()
    assert not errors, "The page reported errors:\n" + "\n".join(errors)


def show_view(page, view, folder):
    """Opens a page of its own for a view, without a kernel, from a file in ``folder``; returns the view's element."""
    (place,), end = embedded([view.get_state()])
    path = folder / "page.html"
    head = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    path.write_text(f"{head}<title>view</title><body>{place}{end}", encoding="utf-8")
    page.goto(path.as_uri())
    page.wait_for_selector(".mixer-view[data-drawn]")
    return page.locator(".mixer-view")


def start_all(page):
    """Draws all views of a page without a kernel, as if all had been scrolled to; there may be none."""
    page.evaluate("""async () => {
      const all = (await window.mixerViews) || new Map();
      await Promise.all([...all.values()].map((one) => one.start()));
    }""")


def screenshot(page_or_locator, name):
    """Saves what is seen as build/screenshots/NAME.png; returns that path."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / (re.sub(r"[^\w.-]+", "-", name) + ".png")
    page_or_locator.screenshot(path=path)
    return path


def pixels(locator):
    """What is seen of an element, as uint8 (height, width, 3) in CSS pixels."""
    picture = Image.open(io.BytesIO(locator.screenshot(scale="css", animations="disabled")))
    return np.asarray(picture.convert("RGB"))


def colours_of(element):
    """The 256 colours of signed numbers in which the view that ``element`` lies in is drawn, int (256, 3)."""
    theme = element.first.evaluate("(element) => element.closest('.mixer-view[data-theme]').dataset.theme")
    return signed_colours(theme == "dark").astype(int)


def ink_of(element):
    """The colour of the text of the view that ``element`` lies in, int (3,)."""
    ink = element.first.evaluate("(element) => getComputedStyle(element).getPropertyValue('--mixer-ink')")
    return np.array([int(ink[at : at + 2], 16) for at in (1, 3, 5)])


# --- keys and changed pixels -----------------------------------------------------------------------------------------

# The time runs from the press of a key or button to the first frame in which a canvas holds other pixels than before.
WATCH = """(element, longest) => {
  const canvases = element.matches("canvas") ? [element] : [...element.querySelectorAll("canvas")];
  const hash = () => canvases.map((canvas) => {
    if (!canvas.width || !canvas.height) return 0;
    const bytes = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const words = new Uint32Array(bytes.buffer);
    let sum = 0;
    for (let i = 0; i < words.length; i++) sum = Math.imul(sum ^ words[i], 16777619);
    return sum;
  }).join();
  const before = hash();
  window.changed = new Promise((resolve) => {
    let start = null;
    const look = () => {
      if (start === null) return;
      if (hash() !== before) resolve(performance.now() - start);
      else if (performance.now() - start > longest) resolve(null);
      else requestAnimationFrame(look);
    };
    const begin = () => { start ??= performance.now(); requestAnimationFrame(look); };
    for (const type of ["keydown", "pointerdown"]) window.addEventListener(type, begin, { capture: true, once: true });
    setTimeout(() => resolve(null), longest + 1000);
  });
}"""


def move(control, key, canvas, seconds=SECONDS):
    """Presses ``key`` with the focus on the locator ``control``; waits until the pixels of ``canvas`` have changed.

    Instead of a key, ``key`` can be a function that does something else with ``control``: a click, say.
    ``canvas`` is a locator of a canvas, or of an element with canvases in it. Returns the milliseconds that took.
    Raises AssertionError where nothing has changed after ``seconds``.
    """
    if not callable(key):
        control.wait_for()  # some controls appear a frame after another one is moved, and a hidden one takes no focus
        control.focus()
    canvas.evaluate(WATCH, 1000 * seconds)
    if callable(key):
        key(control)
    else:
        control.page.keyboard.press(key)
    milliseconds = control.page.evaluate("window.changed")
    assert milliseconds is not None, f"{seconds} s after {key} no pixel of the canvas had changed."
    return milliseconds


def presses(control, keys, canvas, times):
    """The milliseconds of ``times`` presses of ``keys`` in turn, as ``move`` measures them."""
    return [move(control, key, canvas) for key in itertools.islice(itertools.cycle(keys), times)]


def latency(control, keys, canvas, name, times=10):
    """The median of ``times`` from a key press to changed pixels, in ms; printed, and again at the end of the run.

    ``keys`` are pressed in turn: ["ArrowRight", "ArrowLeft"] goes forth and back. ``name`` says what was measured.
    Raises AssertionError where a key changes nothing. No test asserts how long it took: machines are shared.
    """
    median = statistics.median(presses(control, keys, canvas, times))
    print(f"latency: {name}: {median:.1f} ms from key press to changed pixels (median of {times})")
    return median


def wait_until(page, condition):
    """Waits for ``condition()``; raises AssertionError after SECONDS."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, page.inner_text("body")
        page.wait_for_timeout(20)


# --- Jupyter ---------------------------------------------------------------------------------------------------------


class Server:
    """A Jupyter server with JupyterLab and Notebook 7, started when ``url`` is asked for and it does not run.

    ``folder`` is where its notebooks lie; nothing of the user's settings is read or written.
    """

    def __init__(self, home):
        self.home, self.folder, self.process = home, home / "notebooks", None
        self.folder.mkdir()

    @property
    def url(self):
        if self.process is None or self.process.poll() is not None:  # it ends by itself when nobody asks for long
            self._start()
        return f"http://127.0.0.1:{self.port}"

    def _start(self):
        settings = self.home / "settings"
        for name in ("lab", "notebook"):
            news = settings / name / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
            news.parent.mkdir(parents=True, exist_ok=True)
            news.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.token = secrets.token_hex()
        places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
        environment = {
            **os.environ,
            **{name: str(self.home / name.lower()) for name in places},
            "JUPYTER_TOKEN": self.token,
            "MIXER_DATA": os.environ.get("MIXER_DATA", str(ROOT / "data")),
            "MIXER_DOWNLOAD": "0",
            "MIXER_PROGRESS": "0",
            "OMP_NUM_THREADS": "1",
        }
        self.log = self.home / "log.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
                 f"--port={self.port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.folder}",
                 "--ServerApp.shutdown_no_activity_timeout=300",  # where pytest itself was killed
                 "--MappingKernelManager.cull_idle_timeout=10", "--MappingKernelManager.cull_interval=3",
                 "--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True",
                 f"--LabApp.user_settings_dir={settings / 'lab'}", f"--LabApp.workspaces_dir={self.home / 'lab'}",
                 f"--JupyterNotebookApp.user_settings_dir={settings / 'notebook'}",
                 f"--JupyterNotebookApp.workspaces_dir={self.home / 'notebook'}"],
                env=environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + SECONDS
        while True:
            try:
                return self._ask("api/status")
            except OSError:
                said = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
                assert self.process.poll() is None, f"The Jupyter server ended at its start:\n{said}"
                assert time.monotonic() < end, f"The Jupyter server did not answer within {SECONDS} s:\n{said}"
                time.sleep(0.1)

    def _ask(self, path, method="GET"):
        address = f"http://127.0.0.1:{self.port}/{path}"
        request = urllib.request.Request(address, method=method, headers={"Authorization": f"token {self.token}"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            return answer.read()

    def stop(self):
        if self.process is None:
            return
        try:
            self._ask("api/shutdown", "POST")  # ends the kernels too
            self.process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


# Both interfaces are built of the same parts, and show them to scripts under the same name.
READY = """() => {
  const session = window.jupyterapp?.shell?.currentWidget?.sessionContext;
  return session?.isReady && session.session?.kernel?.status === "idle";
}"""
RUN = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
CELLS = """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON().cells
  .filter((cell) => cell.cell_type === "code" && cell.source.length)"""
DONE = f"""() => {{
  const cells = ({CELLS})();
  const failed = cells.some((cell) => cell.outputs.some((output) => output.output_type === "error"));
  return failed || cells.every((cell) => cell.execution_count !== null);
}}"""


def open_notebook(page, server, notebook, kind="lab", seconds=180):
    """Opens ``notebook`` in JupyterLab (``kind`` "lab") or in Notebook 7 ("notebook") and runs all its cells.

    ``notebook`` is nbformat's object, or a list of the sources of code cells. It is run without the outputs it had.
    Returns the page. Raises AssertionError with the traceback of a cell that failed, or after ``seconds``.
    """
    if isinstance(notebook, list):
        notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in notebook])
    notebook = nbformat.from_dict(notebook)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    url, name = server.url, f"{kind}-{secrets.token_hex(4)}.ipynb"
    nbformat.write(notebook, server.folder / name)
    where = {"lab": f"/doc/tree/{name}?reset&", "notebook": f"/notebooks/{name}?"}[kind]
    page.goto(f"{url}{where}token={server.token}")
    page.wait_for_function(READY)
    page.evaluate(RUN)
    page.wait_for_function(DONE, timeout=1000 * seconds)
    for cell in page.evaluate(CELLS):
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                traceback = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(output["traceback"]))
                raise AssertionError(f"A cell failed in {kind}:\n{''.join(cell['source'])}\n\n{traceback}")
    return page
