"""Tests and notebooks are compared on MNIST: without it the whole run ends here, with one sentence."""

import pytest


def pytest_sessionstart(session):
    if session.config.option.collectonly or hasattr(session.config, "workerinput"):
        return
    from mixer_utils import DataError, load_dataset

    try:
        load_dataset("mnist")
    except DataError as error:
        # Unlike pytest.exit, this leaves the sentence alone on the screen; pytest's exit status is then 4.
        raise pytest.UsageError(str(error)) from None
