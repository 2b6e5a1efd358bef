"""What several test files share. That MNIST is there at all is checked by the conftest.py one folder up."""

import dataclasses

import pytest
import torch

from mixer_utils import MlpMixer, load_dataset

# What a passed test prints in lines that begin so is told at the end of the run, under this title.
TOLD = {"latency": "latency in the browser", "once": "cells run once, not twice"}

torch.set_num_threads(1)  # networks this small lose time to a second thread, and two workers may share the machine


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    """A test that wants a source to be asked brings a made-up one and takes this back."""
    monkeypatch.setenv("MIXER_DOWNLOAD", "0")


@pytest.fixture(scope="session")
def mnist():
    return load_dataset("mnist")


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="session")
def few_digits(digits):
    """260 training and 40 test digits: an epoch takes a few hundredths of a second."""
    return dataclasses.replace(digits, train=digits.train[:260], test=digits.test[:40])


@pytest.fixture
def tiny_mixer():
    """A function: a Mixer for 28 x 28 images with every weight drawn from ``seed``, the head's too."""

    def build(seed=0, **changes):
        torch.manual_seed(seed)
        sizes = dict(patch_size=14, num_blocks=2, hidden_dim=12, tokens_mlp_dim=5, channels_mlp_dim=20)
        model = MlpMixer(**{**sizes, **changes})
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return model

    return build


def pytest_terminal_summary(terminalreporter):
    """Repeat what pytest shows of failed tests alone."""
    reports = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    printed = [line for report in reports for line in report.capstdout.splitlines()]
    for name, title in TOLD.items():
        lines = [line for line in printed if line.startswith(f"{name}: ")]
        if lines:
            terminalreporter.section(title)
            terminalreporter.write_line("\n".join(lines))
