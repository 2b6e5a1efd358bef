"""The notebook series as a website, from the notebooks' saved outputs: `make site`.

    python tools/website.py [build] [--no-views]

Writes build/site; open build/site/index.html, no server is needed. No page asks the network for anything, and neither
does building. Views are alive without a kernel: the notebooks that have some, and no others, are run again for the
views' state, which build/site-views keeps until the notebook or the package changes. With `--no-views` nothing is run,
views stay the saved pictures, and the first page has no explorer.
"""

import argparse
import base64
import copy
import hashlib
import html
import os
import posixpath
import re
import shutil
import sys
import tomllib
from pathlib import Path

import nbformat
from sphinx.cmd.build import main as sphinx

sys.path.insert(0, str(Path(__file__).parent))

import running

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
COLAB = ADDRESS.replace("https://github.com", "https://colab.research.google.com/github")
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"


def build(folder=ROOT / "build", views=True):
    """Write the site into ``folder``/site, whole or not at all; returns Sphinx's exit status: warnings are errors."""
    work = folder / "site-work"
    shutil.rmtree(work, ignore_errors=True)
    source, pages = work / "source", work / "html"
    shutil.copytree(ROOT / "figures", source / "figures", ignore=shutil.ignore_patterns("*.py"))
    for path in [ROOT / "README.md", *DOCS.glob("*.md")]:
        text = with_links(path.read_text(encoding="utf-8"), path.parent.relative_to(ROOT).as_posix())
        (source / path.name).write_text(text, encoding="utf-8")
    (source / "notebooks").mkdir()
    for path in NOTEBOOKS:
        alive = views and has_views(path)
        notebook = with_state(path, folder / "site-views") if alive else nbformat.read(path, as_version=4)
        nbformat.write(page(live_outputs(notebook), path.name), source / "notebooks" / path.name)
    (source / "explorer.html").write_text(explorer() if views else "", encoding="utf-8")
    tags = ["-t", "explorer"] if views else []
    options = ["-b", "html", "-c", DOCS, "-d", work / "doctrees", "-W", "--keep-going", "-q", *tags]
    if status := sphinx([str(option) for option in [*options, source, pages]]):
        return status
    for template in (pages / "_static").glob("*.html"):  # the theme leaves two, which are no pages
        template.unlink()
    for path in NOTEBOOKS:  # what is downloaded is the notebook itself, not the copy made for its page
        shutil.copyfile(path, pages / "_sources" / "notebooks" / path.name)
    shutil.rmtree(folder / "site", ignore_errors=True)
    os.replace(pages, folder / "site")
    shutil.rmtree(work)
    return 0


# --- pages ------------------------------------------------------------------------------------------------------------


def with_links(text, folder):
    """Markdown from the repository's ``folder`` ("." , "docs" or "notebooks") with the links of its place in the site.

    The site holds notebooks/ and figures/ as the repository does, and docs/ at its root. A link to anything else
    goes to the repository's address.
    """

    def link(found):
        mark, label, target, anchor = found.groups()
        target = posixpath.normpath(posixpath.join(folder, target))
        if target.startswith(("docs/", "notebooks/")) or mark and target.startswith("figures/"):
            there = posixpath.relpath(target.removeprefix("docs/"), "notebooks" if folder == "notebooks" else ".")
        else:
            there = f"{ADDRESS}/blob/main/{target}"
        return f"{mark}[{label}]({there}{anchor})"

    return re.sub(r"(!?)\[([^\]\[]*)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*|)\)", link, text)


def page(notebook, name):
    """The notebook as its page shows it, changed in place: buttons for Colab's badge, alt text on every figure."""
    buttons = (
        f'<a class="mixer-button" href="{COLAB}/blob/main/notebooks/{name}">Open in Colab</a>\n'
        f'<a class="mixer-button" href="../_sources/notebooks/{name}" download>Download the notebook</a>'
    )
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)", lambda _: buttons, cell.source)
            cell.source = with_links(cell.source, "notebooks")
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):  # myst-nb has one alt text a cell, we have one a picture
                output.data = {"text/html": running.picture(output)}
    return notebook


def explorer():
    """The explorer as a part of the first page: docs/index.md takes it in."""
    from mixer_utils import load_pretrained
    from mixer_utils.widgets.page import explorer_parts

    return "\n".join(explorer_parts(load_pretrained("mnist-14x14")))


# --- views ------------------------------------------------------------------------------------------------------------


def has_views(path):
    """Whether the notebook's code names the views' module or one of its calls."""
    cells = nbformat.read(path, as_version=4).cells
    names = r"\b(mixer_utils\.widgets|import (\w+, )*widgets|explore_\w+|draw_digit)\b"
    return any(cell.cell_type == "code" and re.search(names, cell.source) for cell in cells)


def with_state(path, cache):
    """The notebook, run from its first cell to its last, with its widgets' state; ``cache`` keeps the last such run."""
    package = (part for part in (ROOT / "mixer_utils").rglob("*.*") if part.is_file() and part.suffix != ".pyc")
    digest = hashlib.sha256(b"".join(part.read_bytes() for part in [path, *sorted(package)])).hexdigest()[:16]
    kept = cache / f"{path.stem}-{digest}.ipynb"
    if not kept.exists():
        print(f"{path.name} has views: running it for their state", flush=True)
        notebook = nbformat.read(path, as_version=4)
        running.run(notebook, path.parent)
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob(f"{path.stem}-*"):
            old.unlink()
        running.write(notebook, kept)
    return nbformat.read(kept, as_version=4)


def live_outputs(notebook):
    """Make the views of a run notebook live on a page without a kernel; changes the notebook in place and returns it.

    Reads the state that nbclient leaves in ``metadata.widgets`` and removes it. An output that shows an anywidget
    becomes the place that ``mixer_utils.widgets.page.embedded`` makes of its traits; the saved picture, or text, stands
    there until the browser has drawn the view. The last one brings the data, the style and the script of all. What
    shows any other widget keeps its picture or text alone.
    """
    models = notebook.metadata.pop("widgets", {}).get(STATE, {}).get("state", {})
    shown = []  # pairs of an output and its model
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            model = models.get(output.get("data", {}).pop(VIEW, {}).get("model_id"), {})
            if model.get("model_module") == "anywidget":
                shown.append((output, model))
    if shown:
        from mixer_utils.widgets.page import embedded

        places, end = embedded([traits(model) for _, model in shown])
        for (output, _), place in zip(shown, places, strict=True):
            text = f"<p>{html.escape(output.data.get('text/plain', ''))}</p>"
            instead = running.picture(output) if "image/png" in output.data else text
            output.data = {"text/html": f"{place.removesuffix('</div>')}{instead}</div>"}
        shown[-1][0].data["text/html"] += f"\n{end}"
    return notebook


def traits(model):
    """A widget's traits from its saved state, bytes back in their places."""
    state = copy.deepcopy(dict(model["state"]))
    for buffer in model.get("buffers", []):
        *path, last = buffer["path"]
        holder = state
        for key in path:
            holder = holder[key]
        holder[last] = base64.b64decode(buffer["data"])
    return state


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", nargs="?", type=Path, default=ROOT / "build", help="where `site` is written")
    parser.add_argument("--no-views", action="store_true", help="run no notebook: views stay pictures, no explorer")
    options = parser.parse_args()
    status = build(options.build.resolve(), views=not options.no_views)
    if status == 0:
        print(f"Open {os.path.relpath(options.build / 'site' / 'index.html')}")
    sys.exit(status)


if __name__ == "__main__":
    main()
