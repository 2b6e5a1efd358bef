"""Tests and notebooks are compared on MNIST: without it the whole run ends here, with one sentence.

What takes long starts first, so that neither of two processes has much left to do when the other one is through.
"""

import contextlib
import os

import pytest

# The longest first. They are marked "slow": `make check` leaves them out.
LONG = [
    "notebooks/08_what_mixing_buys.ipynb",
    "notebooks/05_training.ipynb",
    "tests/test_cells_twice.py",
    "notebooks/10_faster_and_bigger.ipynb",
    "notebooks/09_imagenet_mixer.ipynb",
    "tests/browser/",
    "tests/test_colab_rehearsal.py",
    "tests/test_solutions.py",
    "tests/test_survival.py",
    "tests/test_processes.py",
    "tests/test_site.py",
    "notebooks/",
    "tests/test_colab_versions.py",
]

os.environ["MIXER_EXERCISES"] = "0"  # what the tests answer is not the reader's progress
os.environ["MIXER_CLAIMS"] = "strict"  # a claim that does not hold fails here; a reader only sees it
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
    with contextlib.suppress(DataError):  # two notebooks show something else without it
        load_dataset("fashion-mnist")
    os.environ["MIXER_DOWNLOAD"] = "0"  # all that tests and notebooks need is there


def place(item):
    """Where a test stands in LONG; behind all of them where it does not."""
    return next((at for at, start in enumerate(LONG) if item.nodeid.startswith(start)), len(LONG))


def pytest_itemcollected(item):
    if place(item) < len(LONG):
        item.add_marker("slow")  # here, and not below: by then `-m` has chosen


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=place)
