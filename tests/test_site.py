"""The website (`make site`), read from its files. Moving its views in a browser is the part of tests/browser."""

import base64
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
PIXEL = base64.b64encode(b"a picture").decode()

WITHOUT_NETWORK = """
import runpy, socket, sys
def refuse(*arguments, **options):
    raise AssertionError(f"the build asked the network: {arguments}")
socket.socket.connect = socket.getaddrinfo = refuse
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def load_tool():
    spec = importlib.util.spec_from_file_location("site_tool", ROOT / "tools" / "website.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


tool = load_tool()


class Page(HTMLParser):
    """A page's elements, (tag, attributes) in order, its anchors, and the text of its style sheets."""

    def __init__(self, path):
        super().__init__()
        self.path, self.elements, self.anchors, self.styles, self.in_style = path, [], set(), [], False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        self.anchors.update(attributes[name] for name in ("id", "name") if attributes.get(name))
        self.in_style = tag == "style"
        self.styles.append(attributes.get("style") or "")

    def handle_data(self, data):
        if self.in_style:
            self.styles.append(data)

    def found(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built where every connection is refused; no notebook is run for it."""
    folder = tmp_path_factory.mktemp("build")
    command = [sys.executable, "-c", WITHOUT_NETWORK, "tools/website.py", folder, "--no-views"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "warning" not in (run.stdout + run.stderr).lower()
    assert sorted(path.name for path in folder.iterdir()) == ["site"]  # nothing of the work is left
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_notebook_has_a_page_that_the_first_page_and_the_navigation_lead_to(site, pages):
    for path in NOTEBOOKS:
        name = f"notebooks/{path.stem}.html"
        assert site / name in pages
        links = [link for link in pages[site / "index.html"].found("a") if link.get("href") == name]
        assert len(links) >= 2, f"{name}: {len(links)} links, where the table and the navigation have one each"


def test_no_link_inside_the_site_is_broken(site, pages):
    checked = 0
    for path, page in pages.items():
        for link in page.found("a"):
            parts = urlsplit(link.get("href") or "#")
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.relative_to(site)} leads to {link['href']}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, f"{path.relative_to(site)}: {link['href']}"
            checked += 1
    assert checked > 100


def test_every_image_says_what_it_shows(pages):
    for path, page in pages.items():
        for image in page.found("img"):
            assert (image.get("alt") or "").strip(), f"{path.name}: {str(image)[:200]}"


def test_every_figure_of_a_notebook_is_on_its_page(site, pages):
    for path in NOTEBOOKS:
        outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]
        said = [output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})]
        shown = [image["alt"] for image in pages[site / f"notebooks/{path.stem}.html"].found("img")]
        assert [alt for alt in shown if alt in said] == said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_in_colab_and_is_downloaded_as_it_is(site, pages, path):
    page = pages[site / f"notebooks/{path.stem}.html"]
    links = {link["href"] for link in page.found("a") if link.get("href")}
    name = ADDRESS.removeprefix("https://github.com/")
    in_colab = {link for link in links if "colab.research.google.com" in link}
    assert in_colab == {f"https://colab.research.google.com/github/{name}/blob/main/notebooks/{path.name}"}
    assert f"../_sources/notebooks/{path.name}" in links
    assert (site / "_sources" / "notebooks" / path.name).read_bytes() == path.read_bytes()


def test_links_out_of_the_notebooks_go_to_the_repository(pages):
    away = {link.get("href") or "" for page in pages.values() for link in page.found("a")}
    assert f"{ADDRESS}/blob/main/mixer_utils/evaluation.py" in away
    for link in away:
        if link.startswith(f"{ADDRESS}/blob/main/"):
            assert (ROOT / link.removeprefix(f"{ADDRESS}/blob/main/")).exists(), link


def test_the_search_finds_a_word_of_notebook_02(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    found = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))
    pages = found["terms"]["depthwis"]  # the stem of "depthwise"
    names = [found["docnames"][page] for page in (pages if isinstance(pages, list) else [pages])]
    assert "notebooks/02_token_mixing" in names


def outside(address):
    return bool(re.match(r"\s*(https?:)?//", address or "", re.IGNORECASE))


def test_no_page_and_no_style_sheet_loads_anything_from_outside(site, pages):
    links_only = {"canonical", "next", "prev", "search", "index", "author"}  # a browser fetches nothing for these
    for path, page in pages.items():
        for tag, attributes in page.elements:
            loads = ["src", "srcset", "poster", "data"] + ["href"] * (tag in ("link", "image", "use"))
            if tag != "link" or attributes.get("rel") not in links_only:
                assert not any(outside(attributes.get(name)) for name in loads), f"{path.name}: {tag} {attributes}"
    sheets = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    sheets += [style for page in pages.values() for style in page.styles]
    for sheet in sheets:
        for address in re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")\s]+)", sheet):
            assert not outside(address), address


def test_there_is_no_formula_for_which_the_site_would_have_to_bring_a_renderer(pages):
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert "$" not in path.read_text(encoding="utf-8"), path.name
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, 4).cells:
            assert cell.cell_type != "markdown" or "$" not in cell.source, f"{path.name}: {cell.source}"
    assert not any(
        "math" in (attributes.get("class") or "").split() for page in pages.values() for _, attributes in page.elements
    )


# --- the tool itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "folder, text, there",
    [
        ("notebooks", "[x](01_a.ipynb)", "[x](01_a.ipynb)"),
        ("notebooks", "[x](01_a.ipynb#two)", "[x](01_a.ipynb#two)"),
        ("notebooks", "[x](../mixer_utils/data.py)", f"[x]({ADDRESS}/blob/main/mixer_utils/data.py)"),
        ("notebooks", "![x](../figures/a.svg)", "![x](../figures/a.svg)"),
        ("notebooks", "[x](../figures/a.svg)", f"[x]({ADDRESS}/blob/main/figures/a.svg)"),
        ("notebooks", "[x](https://arxiv.org/a) [y](#two)", "[x](https://arxiv.org/a) [y](#two)"),
        (".", "[x](notebooks/01_a.ipynb)", "[x](notebooks/01_a.ipynb)"),
        (".", "[x](LICENSE)", f"[x]({ADDRESS}/blob/main/LICENSE)"),
        (".", "![x](figures/a.svg)", "![x](figures/a.svg)"),
        ("docs", "![x](../figures/a.svg)", "![x](figures/a.svg)"),
        ("docs", "[x](results.md)", "[x](results.md)"),
        ("docs", "[x](../notebooks/01_a.ipynb)", "[x](notebooks/01_a.ipynb)"),
    ],
)
def test_a_link_is_the_one_of_its_place_in_the_site(folder, text, there):
    assert tool.with_links(text, folder) == there


def test_a_broken_link_stops_the_build_and_leaves_the_older_site(tmp_path):
    notebook = new_notebook(cells=[new_markdown_cell("# A title\n\n[nothing](02_nothing.ipynb)")])
    nbformat.write(notebook, tmp_path / "01_alone.ipynb")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "older").touch()
    program = (
        "import importlib.util, pathlib, sys\n"
        "spec = importlib.util.spec_from_file_location('site_tool', 'tools/website.py')\n"
        "tool = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(tool)\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "tool.NOTEBOOKS = [folder / '01_alone.ipynb']\n"
        "sys.exit(tool.build(folder, views=False))\n"
    )
    run = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert re.search(r"01_alone\.ipynb.*02_nothing\.ipynb", run.stderr)
    assert (tmp_path / "site" / "older").exists()


@pytest.mark.parametrize(
    "source, expected",
    [
        ("from mixer_utils.widgets import explore_mixing", True),
        ("from mixer_utils import widgets", True),
        ("from mixer_utils import load_dataset, widgets", True),
        ("import mixer_utils.widgets as views", True),
        ("import ipywidgets as widgets", False),
        ("from mixer_utils.plotting import plot_maps  # no live view", False),
    ],
)
def test_a_notebook_with_views_is_known_by_its_code(tmp_path, source, expected):
    path = tmp_path / "notebook.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("mixer_utils.widgets"), new_code_cell(source)]), path)
    assert tool.has_views(path) is expected


def shown(model_id, **data):
    bundle = {tool.VIEW: {"model_id": model_id}, "text/plain": "View(mixing)", **data}
    return new_output("execute_result", data=bundle, metadata={"image/png": {"alt": "Maps of < 4 units"}})


def run_notebook():
    """What nbclient leaves of a notebook with two views and a slider."""
    weights = base64.b64encode(bytes([1, 2, 3])).decode()
    view = {
        "model_module": "anywidget",
        "model_name": "AnyModel",
        "state": {"_esm": "the front-end", "view": "mixing", "block": 2, "data": {"sides": [{"title": "trained"}]}},
        "buffers": [{"path": ["data", "sides", 0, "bytes"], "data": weights, "encoding": "base64"}],
    }
    slider = {"model_module": "@jupyter-widgets/controls", "model_name": "IntSliderModel", "state": {"value": 1}}
    state = {"aa": view, "bb": view, "cc": slider}
    outputs = [[shown("aa", **{"image/png": PIXEL})], [shown("bb")], [shown("cc")]]
    cells = [new_code_cell("...", outputs=one) for one in outputs]
    return new_notebook(cells=cells, metadata={"widgets": {tool.STATE: {"state": state}}})


def test_live_outputs_puts_each_view_s_traits_in_its_place_and_the_bytes_at_the_end():
    notebook = tool.live_outputs(run_notebook())
    first, second, slider = (cell.outputs[0].data for cell in notebook.cells)
    assert "widgets" not in notebook.metadata
    for page in (first, second):
        (state,) = re.findall(
            r'<div class="mixer-view-here".*?<script type="application/json">(.*?)</script>', page["text/html"]
        )
        assert json.loads(state) == {
            "view": "mixing",
            "block": 2,
            "data": {"sides": [{"title": "trained", "bytes": {"buffer": 0}}]},
        }
    assert "mixer-buffer" not in first["text/html"]
    (buffer,) = re.findall(r'class="mixer-buffer" data-width="1">(.*?)</script>', second["text/html"])
    assert zlib.decompress(base64.b64decode(buffer)) == bytes([1, 2, 3])
    assert slider == {"text/plain": "View(mixing)"}


def test_where_a_view_goes_its_saved_picture_stands_until_scripts_run():
    first, second, _ = (cell.outputs[0].data for cell in tool.live_outputs(run_notebook()).cells)
    picture = f'<img src="data:image/png;base64,{PIXEL}" alt="Maps of &lt; 4 units"></div>'
    assert first["text/html"].endswith(picture)
    assert "<p>View(mixing)</p></div>" in second["text/html"]


def test_a_notebook_without_views_keeps_its_outputs():
    output = new_output("execute_result", data={"image/png": PIXEL, "text/plain": "an alt text"})
    notebook = new_notebook(cells=[new_code_cell("...", outputs=[output])])
    assert tool.live_outputs(notebook).cells[0].outputs == [output]
