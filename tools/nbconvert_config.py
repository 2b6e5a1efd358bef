"""Settings for `jupyter nbconvert --config tools/nbconvert_config.py`; `make tutorial` makes its pages with them.

By itself nbconvert leaves out of pages, slides and Markdown what a figure says to those who cannot see it, and makes
one endless slide of a notebook that was not marked up for it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from running import picture


def with_alt_texts(notebook, resources):
    """A preprocessor: every PNG that has an alt text becomes an <img> that brings it along."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "alt" in output.get("metadata", {}).get("image/png", {}):
                output.data["text/html"] = picture(output)  # all formats below prefer it to the PNG
    return notebook, resources


def as_slides(notebook, resources):
    """A preprocessor: a slide for each heading, and one below it after each cell of code: a question comes without its
    answer. Slide types that somebody has set stay.
    """
    after_code = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith(("# ", "## ")):
            kind = "slide"
        else:
            kind = "subslide" if after_code else "-"
        cell.metadata.setdefault("slideshow", {"slide_type": kind})
        after_code = cell.cell_type == "code"
    return notebook, resources


def with_wrapped_code(notebook, resources):
    """A preprocessor: long lines of code go on in the next line on paper and on slides, where nobody can scroll."""
    style = "white-space: pre-wrap; overflow-wrap: anywhere; padding-right: 1em;"
    rules = f".reveal .jp-InputArea pre {{ {style} }} @media print {{ .jp-InputArea pre {{ {style} }} }}"
    prose = next((cell for cell in notebook.cells if cell.cell_type == "markdown"), None)
    if prose:
        prose.source += f"\n\n<style>{rules}</style>"
    return notebook, resources


c = get_config()  # noqa: F821 (Jupyter defines it)
c.HTMLExporter.preprocessors = [with_alt_texts, with_wrapped_code]  # pages, and webpdf, which prints them
c.MarkdownExporter.preprocessors = [with_alt_texts]
c.SlidesExporter.preprocessors = [with_alt_texts, with_wrapped_code, as_slides]
c.SlidesExporter.reveal_scroll = True  # a slide that is too tall
