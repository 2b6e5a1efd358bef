"""A notebook on paper: nbconvert's ``webpdf``, printed by the browser that drives the views."""

import base64
import re
import struct

import nbformat
from helpers import FLAGS, ROOT, browser_path
from nbconvert import HTMLExporter, WebPDFExporter
from traitlets.config import PyFileConfigLoader

NOTEBOOK = ROOT / "notebooks" / "02_token_mixing.ipynb"
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"
CUT_OFF = "() => [...document.querySelectorAll('pre')].filter((pre) => pre.scrollWidth > pre.clientWidth + 1).length"


def settings():
    """What nbconvert reads of ``--config tools/nbconvert_config.py``."""
    return PyFileConfigLoader("nbconvert_config.py", str(ROOT / "tools")).load_config()


def sizes_of_pictures():
    """(width, height) in pixels of the notebook's PNG outputs, in order."""
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield struct.unpack(">II", base64.b64decode(output.data["image/png"])[16:24])


def test_a_notebook_prints_as_a_pdf_with_its_figures(browser, monkeypatch):
    from playwright.async_api import BrowserType

    launch = BrowserType.launch

    async def launch_ours(self, **options):  # nbconvert itself takes Playwright's own Chromium alone
        return await launch(self, executable_path=browser_path(), **options)

    monkeypatch.setattr(BrowserType, "launch", launch_ours)
    exporter = WebPDFExporter(config=settings(), browser_args=[*FLAGS, OFFLINE])
    pdf, resources = exporter.from_filename(str(NOTEBOOK))
    assert pdf.startswith(b"%PDF") and resources["output_extension"] == ".pdf"
    printed = re.findall(rb"/Subtype /Image\s/Width (\d+)\s/Height (\d+)", pdf)
    printed = [(int(width), int(height)) for width, height in printed]
    assert [size for size in printed if min(size) > 50] == list(sizes_of_pictures())  # smaller ones are icons


def test_no_line_of_code_is_cut_off_on_paper(page, tmp_path):
    body, _ = HTMLExporter(config=settings()).from_filename(str(NOTEBOOK))
    (tmp_path / "page.html").write_text(body, encoding="utf-8")
    page.set_viewport_size({"width": 700, "height": 900})  # less than A4
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate(CUT_OFF) > 0  # on the screen such a line scrolls
    page.emulate_media(media="print")
    assert page.evaluate(CUT_OFF) == 0
