"""What leaves a notebook: pages, slides and Markdown say what figures show, and a script runs without Jupyter."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter, MarkdownExporter, PythonExporter, ScriptExporter, SlidesExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from told import assert_told
from traitlets.config import PyFileConfigLoader

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIRST, SECOND = ROOT / "notebooks" / "01_patch_embedding.ipynb", ROOT / "notebooks" / "02_token_mixing.ipynb"

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def tool():
    """tools/notebooks.py."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        spec = importlib.util.spec_from_file_location("notebooks_tool", ROOT / "tools" / "notebooks.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def settings():
    """What nbconvert reads of ``--config tools/nbconvert_config.py``."""
    return PyFileConfigLoader("nbconvert_config.py", str(ROOT / "tools")).load_config()


class Images(HTMLParser):
    """``alts`` and ``sources`` of a page's <img>, in order; an alt that is missing is None."""

    def __init__(self, page):
        super().__init__()
        self.alts, self.sources = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.alts.append(dict(attributes).get("alt"))
            self.sources.append(dict(attributes)["src"])


def said(path):
    """The alt texts of a notebook's pictures in order: those of its prose, badges too, and of its outputs."""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            yield from re.findall(r"!\[([^\]]*)\]\(", cell.source)
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield output.metadata["image/png"]["alt"]


# --- metadata ---------------------------------------------------------------------------------------------------------


def test_every_notebook_names_its_language_as_a_kernel_does_but_for_the_version():
    # In a process of its own: where ipykernel is loaded, tqdm takes a test for a notebook.
    ask = "import json; from ipykernel.ipkernel import IPythonKernel; print(json.dumps(IPythonKernel.language_info))"
    said = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True).stdout
    kernel = {key: value for key, value in json.loads(said).items() if key != "version"}
    for path in NOTEBOOKS:
        assert nbformat.read(path, 4).metadata["language_info"] == kernel, path.name


def test_what_was_run_is_saved_with_the_same_metadata_whatever_the_python(tool, tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("1 + 1")]), tmp_path / "one.ipynb")
    notebook = tool.execute(tmp_path / "one.ipynb")
    assert notebook.cells[0].outputs[0].data["text/plain"] == "2"
    assert notebook.metadata["language_info"] == nbformat.read(SECOND, 4).metadata["language_info"]


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@every_notebook
def test_every_image_of_a_page_of_make_tutorial_says_what_it_shows(tool, path, tmp_path):
    tool.write_page(nbformat.read(path, 4), tmp_path / f"{path.stem}.html")
    page = (tmp_path / f"{path.stem}.html").read_text(encoding="utf-8")
    assert Images(page).alts == list(said(path)) != []
    assert "No description has been provided" not in page


def test_quotes_in_an_alt_text_stay_in_it_and_a_figure_without_one_is_left_to_nbconvert():
    metadata = {"image/png": {"alt": 'Maps of "two" & <three> units'}}
    outputs = [
        new_output("display_data", data={"image/png": "QQ==", "text/plain": "Maps"}, metadata=metadata),
        new_output("display_data", data={"image/png": "QUI="}),
    ]
    page, _ = HTMLExporter(config=settings()).from_notebook_node(new_notebook(cells=[new_code_cell(outputs=outputs)]))
    assert Images(page).alts == ['Maps of "two" & <three> units', "No description has been provided for this image"]
    assert Images(page).sources == ["data:image/png;base64,QQ==", "data:image/png;base64,QUI="]


# --- slides -----------------------------------------------------------------------------------------------------------


def shape_of(slides):
    """How many slides lie below each other: [2, 1] for two and then one."""
    depth, shape = 0, []
    for mark in re.findall(r"<section|</section", slides):
        shape += [0] * (depth == 0 and mark == "<section")
        shape[-1] += depth == 1 and mark == "<section"
        depth += 1 if mark == "<section" else -1
    assert depth == 0
    return shape


def test_slides_begin_at_headings_and_after_code():
    prose = ["# Title", "Guess", "It is so because", "## Next", "### Exercise", "Do it"]
    title, guess, because, next_, exercise, task = map(new_markdown_cell, prose)
    predict, measure, try_, check = map(new_code_cell, ["predict()", "print(2)", "print(3)", "check()"])
    cells = [title, guess, predict, measure, because, next_, try_, exercise, task, check]
    slides, resources = SlidesExporter(config=settings()).from_notebook_node(new_notebook(cells=cells))
    assert shape_of(slides) == [3, 2]  # title, guess, predict; measure; because: next, try; exercise, task, check
    assert resources["output_extension"] == ".slides.html"
    because.metadata["slideshow"] = {"slide_type": "slide"}  # a teacher's own mark
    slides, _ = SlidesExporter(config=settings()).from_notebook_node(new_notebook(cells=cells))
    assert shape_of(slides) == [2, 1, 2]


def test_a_notebook_s_slides_hold_all_its_figures():
    slides, _ = SlidesExporter(config=settings()).from_filename(str(SECOND))
    headings = [cell for cell in nbformat.read(SECOND, 4).cells if re.match("##? ", cell.source)]
    assert len(shape_of(slides)) == len([cell for cell in headings if cell.cell_type == "markdown"])
    assert Images(slides).alts == list(said(SECOND))


# --- Markdown ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_for_markdown_writes_pictures_beside_it_that_say_what_they_show(tmp_path):
    command = [sys.executable, "-m", "nbconvert", "--config", "tools/nbconvert_config.py", "--to", "markdown"]
    subprocess.run([*command, "--output-dir", tmp_path, SECOND], cwd=ROOT, check=True, capture_output=True)
    page = Images((tmp_path / "02_token_mixing.md").read_text(encoding="utf-8"))
    assert page.alts == list(said(SECOND))[-len(page.alts) :]  # the first, the badge, is Markdown's own
    assert len(page.alts) == len(list(said(SECOND))) - 1
    for source in page.sources:
        assert (tmp_path / source).read_bytes().startswith(b"\x89PNG"), source


def test_a_name_with_a_blank_and_an_umlaut_is_written_as_an_address():
    metadata = {"image/png": {"alt": "Two maps"}}
    output = new_output("display_data", data={"image/png": "QQ=="}, metadata=metadata)
    notebook = new_notebook(cells=[new_code_cell(outputs=[output])])
    resources = {"unique_key": "für alle", "output_files_dir": "für alle_files"}
    page, resources = MarkdownExporter(config=settings()).from_notebook_node(notebook, resources=resources)
    assert Images(page).sources == ["f%C3%BCr%20alle_files/f%C3%BCr%20alle_0_0.png"]
    assert list(resources["outputs"]) == [str(Path("für alle_files/für alle_0_0.png"))]


# --- scripts ----------------------------------------------------------------------------------------------------------


@every_notebook
def test_a_notebook_becomes_plain_python_by_either_name_of_the_format(path):
    scripts = [exporter().from_filename(str(path)) for exporter in (ScriptExporter, PythonExporter)]
    assert [resources["output_extension"] for _, resources in scripts] == [".py", ".py"]
    assert scripts[0][0] == scripts[1][0]
    assert "get_ipython" not in scripts[0][0]
    compile(scripts[0][0], f"{path.stem}.py", "exec")


@pytest.mark.slow
def test_a_script_prints_what_its_notebook_prints(tmp_path):
    script, _ = ScriptExporter().from_filename(str(FIRST))
    (tmp_path / "01_patch_embedding.py").write_text(script, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, tmp_path / "01_patch_embedding.py"],
        cwd=ROOT / "notebooks",
        env=os.environ | {"MIXER_EXERCISES": "0", "MIXER_DOWNLOAD": "0", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert run.returncode == 0, run.stderr
    at = 0
    for cell in nbformat.read(FIRST, 4).cells:
        if cell.cell_type == "code" and "nbval-ignore-output" not in cell.metadata.get("tags", []):
            printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
            at = run.stdout.find(printed, at) + len(printed)
            assert at >= len(printed), f"not printed, or not in its place: {printed}"
    assert at > 1000


# --- what is saved ---


@pytest.mark.parametrize("seconds, said", [(46, None), (2405, "2405 s"), (3, "3 s")])
def test_seconds_far_off_the_measured_ones_are_not_saved(seconds, said, tool):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output(
        "stream", text=f"so about {seconds} s for the run in notebook 05\n")])])  # fmt: skip
    problem = tool.off(notebook, "00_start_here")
    if said is None:
        assert problem is None
    else:
        assert_told(problem, said, "results/minute.json", "close other programs")
    assert tool.off(notebook, "01_patch_embedding") is None


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))])
def test_what_is_saved_was_run_on_an_idle_machine_with_seconds_near_the_measured_ones(name, tool):
    assert tool.off(nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4), name) is None
