"""What the tools share: running a notebook, and writing one whole."""

import os

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
