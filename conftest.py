"""Tests and notebooks are compared on MNIST: without it the whole run ends here, with one sentence."""

import os

import pytest

os.environ["MIXER_EXERCISES"] = "0"  # what the tests answer is not the reader's progress
os.environ["MIXER_WEIGHTS"] = "build/no-weights"  # notebook 09's saved outputs are those of the model that ships


def pytest_sessionstart(session):
    if session.config.option.collectonly or hasattr(session.config, "workerinput"):
        return
    from mixer_utils import DataError, load_dataset

    try:
        load_dataset("mnist")
    except DataError as error:
        # Unlike pytest.exit, this leaves the sentence alone on the screen; pytest's exit status is then 4.
        raise pytest.UsageError(str(error)) from None
    os.environ["MIXER_DOWNLOAD"] = "0"  # all that tests and notebooks need is there
