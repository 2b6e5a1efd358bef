"""What the notebooks lean on: shape checks, claims that hold on MNIST alone, and widgets that leave a text behind."""

import sys
import tempfile
from pathlib import Path

from mixer_utils._files import MixerError


def check_shape(tensor, shape):
    """Print the tensor's shape, and stop with one sentence unless it is ``shape``: ``check_shape(x, (B, S, C))``.

    Raises ValueError.
    """
    found = tuple(tensor.shape)
    if found != tuple(shape):
        raise ValueError(f"This tensor has the shape {found}; {tuple(shape)} was expected here.")
    print(" x ".join(map(str, found)) or "a single number")


def claim(text, holds, data=None, only_on="mnist"):
    """Print whether a claim about a measured number holds: ``claim("at least 98.34 %", accuracy >= 0.9834, data)``.

    A claim about MNIST is not checked on other data, and says so. Raises AssertionError where it does not hold.
    """
    if data is not None and data.name != only_on:
        print(f"{text}: not checked ({data.name} instead of {only_on})")
        return
    print(f"{text}: {bool(holds)}")
    if not holds:
        raise AssertionError(f"This was expected to hold and does not: {text}.")


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


def has_kernel():
    """Whether this runs in a notebook. Where it does, IPython is loaded."""
    return "IPython" in sys.modules and hasattr(sys.modules["IPython"].get_ipython(), "kernel")
