import re
import sys

import pytest
import torch

from mixer_utils import __version__, notebook
from mixer_utils.notebook import check_shape, claim, start


def test_a_shape_that_is_as_it_should_be_is_printed(capsys):
    check_shape(torch.zeros(2, 49, 16), (2, 49, 16))
    check_shape(torch.zeros(3), [3])
    check_shape(torch.tensor(1.0), ())
    assert capsys.readouterr().out == "2 x 49 x 16\n3\na single number\n"


@pytest.mark.parametrize("expected", [(2, 16, 49), (2, 49), (49, 16), ()])
def test_another_shape_stops_with_both(expected, capsys):
    with pytest.raises(ValueError) as error:
        check_shape(torch.zeros(2, 49, 16), expected)
    assert str(error.value) == f"This tensor has the shape (2, 49, 16); {expected} was expected here."
    assert capsys.readouterr().out == ""


def test_a_claim_that_holds_says_true(capsys, mnist):
    claim("at least 98.34 %", torch.tensor(0.99) >= 0.9834, mnist)
    claim("two and two make four", True)
    assert capsys.readouterr().out == "at least 98.34 %: True\ntwo and two make four: True\n"


def test_a_claim_that_does_not_hold_says_false_and_stops(capsys, mnist):
    for data in (mnist, None):
        with pytest.raises(AssertionError) as error:
            claim("at least 98.34 %", torch.tensor(0.98) >= 0.9834, data)
        assert str(error.value) == "This was expected to hold and does not: at least 98.34 %."
    assert capsys.readouterr().out == "at least 98.34 %: False\n" * 2


def test_a_claim_about_mnist_is_not_checked_on_digits_and_says_so(capsys, digits, mnist):
    for holds in (True, False):
        claim("at least 98.34 %", holds, digits)
    assert capsys.readouterr().out == "at least 98.34 %: not checked (digits instead of mnist)\n" * 2
    claim("about digits", True, digits, only_on="digits")
    claim("about digits", False, mnist, only_on="digits")
    assert capsys.readouterr().out == "about digits: True\nabout digits: not checked (mnist instead of digits)\n"


def on_a_machine(monkeypatch, cuda=False, mps=False, bf16=False, colab=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(notebook, "gains_from_bf16", lambda device: bf16)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", object())


@pytest.mark.parametrize(
    "machine, device, told",
    [
        (dict(), "cpu", r"CPU\b.*\b1\b.*, float32"),
        (dict(bf16=True), "cpu", r"CPU\b.*\b1\b.*, bfloat16"),
        (dict(cuda=True, bf16=True, colab=True), "cuda", "Tesla T4, bfloat16"),
        (dict(mps=True), "mps", "Apple GPU, float32"),
    ],
)
def test_start_prints_one_line_of_versions_device_and_expected_minutes(machine, device, told, monkeypatch, capsys):
    on_a_machine(monkeypatch, **machine)
    assert start() == torch.device(device)
    torch_version = ".".join(re.findall(r"\d+", torch.__version__)[:3])
    *versions, where, minutes = capsys.readouterr().out.split(" · ")
    assert versions == [
        f"mixer_utils {__version__}",
        f"torch {torch_version}",
        f"Python {sys.version_info[0]}.{sys.version_info[1]}",
    ]
    assert re.fullmatch(told, where)
    assert re.fullmatch(r".*\d min.*\n", minutes)


def test_on_colab_without_a_gpu_a_second_line_says_how_to_get_one(monkeypatch, capsys):
    on_a_machine(monkeypatch, colab=True)
    assert start() == torch.device("cpu")
    _, second = capsys.readouterr().out.splitlines()
    assert second.startswith("For a GPU: Runtime > Change runtime type > T4 GPU")


def test_start_seeds_everything(monkeypatch, capsys):
    on_a_machine(monkeypatch)
    drawn = []
    for seed in (7, 7, 8):
        start(seed)
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    start()
    first = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(first, torch.rand(3))
