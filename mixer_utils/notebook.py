"""What the notebooks lean on: shape checks, claims that hold on MNIST alone, and widgets that leave a text behind."""

import html
import os
import sys
import tempfile
from pathlib import Path

from mixer_utils._files import MixerError


def check_shape(tensor, shape, **sizes):
    """Print the tensor's shape, and stop with one sentence unless it is as it should be.

    ``check_shape(x, "tokens", B=2, S=16, C=8)`` says what the tensor holds and gives every axis its letter, and prints
    "tokens: B 2 x S 16 x C 8"; ``check_shape(x, (2, 16, 8))`` prints the numbers alone. Raises ValueError.
    """
    found = tuple(tensor.shape)
    name, expected = (f"{shape}: ", tuple(sizes.values())) if isinstance(shape, str) else ("", tuple(shape))
    if found != expected:
        raise ValueError(f"This tensor has the shape {found}; {expected} was expected here.")
    axes = [f"{letter} {size}" for letter, size in sizes.items()] or map(str, found)
    print(name + (" x ".join(axes) or "a single number"))


def claim(text, holds, data=None, only_on="mnist", measured=None):
    """Print whether a claim about a measured number holds, and the number.

    ``claim("at least 98.34 %", accuracy >= 0.9834, data, measured=f"{accuracy:.2%}")``. A claim about MNIST is not
    checked on other data, and says so. One that does not hold is told and stops nothing, so that a reader can change
    what is above it; in the tests, where MIXER_CLAIMS is "strict", it raises AssertionError.
    """
    if data is not None and data.name != only_on:
        print(f"{text}: not checked ({data.name} instead of {only_on})")
        return
    print(f"{text}: {bool(holds)}" + (f" (measured: {measured})" if measured is not None else ""))
    if holds:
        return
    if os.environ.get("MIXER_CLAIMS") == "strict":
        raise AssertionError(f"This was expected to hold and does not: {text}.")
    print("It holds with the notebook as it came. If you changed nothing, this is worth an issue: please report it.")


def ask_for_picture(answer):
    """Show an upload button; what ``answer(path)`` returns of a picture that is uploaded is shown below it.

    A picture that cannot be used (MixerError) gets its sentence instead.
    """

    def build():
        from IPython.display import display
        from ipywidgets import FileUpload, Output, VBox

        button = FileUpload(accept="image/*", description="Upload a picture", layout={"width": "max-content"})
        below = Output()

        def look(change):
            path = Path(tempfile.mkdtemp()) / "uploaded"
            path.write_bytes(contents_of(change["new"]))
            below.clear_output()
            with below:
                try:
                    display(answer(path))
                except MixerError as error:
                    print(str(error).removeprefix(f"{path}: "))

        button.observe(look, "value")
        return VBox([button, below])

    show_widget(build, "Here is an upload button while this notebook runs.")


def contents_of(value):
    """The bytes of the first file of a FileUpload's ``value``: a dict in ipywidgets 7 (Colab), a tuple from 8 on."""
    files = value.values() if isinstance(value, dict) else value
    return bytes(next(iter(files))["content"])


def show_widget(build, text):
    """Show the widget that ``build()`` makes; only the text where there is no kernel, or no ipywidgets."""
    if not has_kernel():
        print(text)
        return
    try:
        from IPython.display import display

        widget = build()
    except ImportError:
        print(text)
        return
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    # Where no widget can be shown (GitHub, a plain page), the text is left.
    display({"application/vnd.jupyter.widget-view+json": view, "text/plain": text}, raw=True)


def show_folded(title, text):
    """Show a text that opens by a click on its title; the bare text where this is not a notebook."""
    if not has_kernel():
        print(text)
        return
    from IPython.display import display

    page = f"<details><summary>{html.escape(title)}</summary>{html.escape(text)}</details>"
    display({"text/html": page, "text/plain": text}, raw=True)


def has_kernel():
    """Whether this runs in a notebook. Where it does, IPython is loaded."""
    return "IPython" in sys.modules and hasattr(sys.modules["IPython"].get_ipython(), "kernel")
