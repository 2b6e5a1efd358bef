"""Tests and notebooks are compared on MNIST: without it the whole run ends here, in one sentence."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before the terminal prints anything
def pytest_sessionstart(session):
    if session.config.option.collectonly or hasattr(session.config, "workerinput"):
        return
    from mixer_utils import DataError, load_dataset

    try:
        load_dataset("mnist")
    except DataError as error:
        pytest.exit(str(error), returncode=1)
