import datetime

import pytest
import torch
from told import assert_told

from mixer_utils import DataError, notebook
from mixer_utils.notebook import ask_for_picture, check_shape, claim, contents_of


def test_a_shape_that_is_as_it_should_be_is_printed(capsys):
    check_shape(torch.zeros(2, 49, 16), (2, 49, 16))
    check_shape(torch.zeros(3), [3])
    check_shape(torch.tensor(1.0), ())
    assert capsys.readouterr().out == "2 x 49 x 16\n3\na single number\n"


def test_a_shape_is_printed_with_the_names_of_its_axes(capsys):
    check_shape(torch.zeros(2, 49, 16), "tokens", B=2, S=49, C=16)
    assert capsys.readouterr().out == "tokens: B 2 x S 49 x C 16\n"
    with pytest.raises(ValueError) as error:
        check_shape(torch.zeros(2, 49, 16), "tokens", B=2, C=16, S=49)
    assert_told(error.value, "shape (2, 49, 16);", "(2, 16, 49) was expected")


@pytest.mark.parametrize("expected", [(2, 16, 49), (2, 49), (49, 16), ()])
def test_another_shape_stops_with_both(expected, capsys):
    with pytest.raises(ValueError) as error:
        check_shape(torch.zeros(2, 49, 16), expected)
    assert_told(error.value, "shape (2, 49, 16);", f"{expected} was expected")
    assert capsys.readouterr().out == ""


def test_a_claim_that_holds_says_true(capsys, mnist):
    claim("at least 98.34 %", torch.tensor(0.99) >= 0.9834, mnist)
    claim("two and two make four", True)
    claim("at least 98.34 %", True, mnist, measured=f"{0.99:.2%}")
    assert capsys.readouterr().out == (
        "at least 98.34 %: True\ntwo and two make four: True\nat least 98.34 %: True (measured: 99.00%)\n"
    )


def test_a_claim_that_does_not_hold_is_told_to_a_reader_and_stops_nothing(capsys, mnist, monkeypatch):
    monkeypatch.delenv("MIXER_CLAIMS")
    claim("at least 98.34 %", False, mnist, measured="98.00%")
    first, second = capsys.readouterr().out.splitlines()
    assert first == "at least 98.34 %: False (measured: 98.00%)"
    assert_told(second, "If you changed nothing", "report it")


def test_in_the_tests_a_claim_that_does_not_hold_stops(capsys, mnist):
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


# --- the upload button ----------------------------------------------------------------------------------------------


def test_the_bytes_of_an_upload_are_found_in_old_and_new_ipywidgets():
    assert contents_of({"a.png": {"metadata": {"name": "a.png"}, "content": b"seven"}}) == b"seven"  # 7, as on Colab
    assert contents_of(({"name": "a.png", "content": memoryview(b"eight")},)) == b"eight"


@pytest.fixture
def upload(monkeypatch):
    """A function: the contents of a file are uploaded to ask_for_picture(answer)."""

    def given(answer, content):
        made = []
        monkeypatch.setattr(notebook, "show_widget", lambda build, text: made.append(build()))
        ask_for_picture(answer)
        button, below = made[0].children
        now = datetime.datetime.now(datetime.UTC)
        file = {"name": "a.png", "type": "image/png", "size": 1, "content": memoryview(content), "last_modified": now}
        button.value = (file,)
        return below

    return given


def test_an_uploaded_picture_is_answered(upload):
    read = []
    upload(lambda path: read.append(path.read_bytes()), b"a picture")
    assert read == [b"a picture"]


def test_a_picture_that_cannot_be_used_gets_its_sentence_and_other_errors_stay_errors(upload, capsys):
    def refused(path):
        raise DataError(f"{path}: nothing is drawn.")

    upload(refused, b"")
    assert capsys.readouterr().out.endswith("nothing is drawn.\n")
    with pytest.raises(ZeroDivisionError):
        upload(lambda path: 1 / 0, b"")


def test_without_a_kernel_a_text_stands_for_the_button(capsys):
    ask_for_picture(None)
    assert "upload button" in capsys.readouterr().out


def test_what_is_folded_is_the_bare_text_outside_a_notebook_and_opens_by_a_click_within(capsys, monkeypatch):
    notebook.show_folded("What was measured", "Measured: 2.")
    assert capsys.readouterr().out == "Measured: 2.\n"
    monkeypatch.setattr(notebook, "has_kernel", lambda: True)
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    notebook.show_folded("What was <measured>", "Measured: 2.")
    assert shown == [
        {
            "text/html": "<details><summary>What was &lt;measured&gt;</summary>Measured: 2.</details>",
            "text/plain": "Measured: 2.",
        }
    ]
