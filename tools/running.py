"""What the tools share: running a notebook, writing one whole, and showing its figures on a page."""

import html
import os
import urllib.parse

import nbformat
from nbclient import NotebookClient


def run(notebook, folder):
    """Run a notebook's cells from a fresh kernel in ``folder``, without progress bars; changes it in place."""
    os.environ["MIXER_PROGRESS"] = "0"
    NotebookClient(
        notebook,
        timeout=900,
        extra_arguments=["--log-level=ERROR"],
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": folder}},
    ).execute()


def write(notebook, path):
    """Write a notebook under a temporary name, and rename."""
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    os.replace(part, path)


def picture(output):
    """A PNG output as an <img> that says what it shows, and brings its own bytes, unless they lie in a file beside it.

    ``metadata.filenames`` names that file: nbconvert puts it there for Markdown.
    """
    alt = html.escape(output.metadata.get("image/png", {}).get("alt", ""))
    if "image/png" in output.metadata.get("filenames", {}):
        source = urllib.parse.quote(output.metadata.filenames["image/png"].replace(os.sep, "/"))
    else:
        source = f"data:image/png;base64,{''.join(output.data['image/png'].split())}"
    return f'<img src="{source}" alt="{alt}">'
