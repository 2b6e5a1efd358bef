import pytest
import torch
from told import assert_told

from mixer_utils.notebook import check_shape, claim


def test_a_shape_that_is_as_it_should_be_is_printed(capsys):
    check_shape(torch.zeros(2, 49, 16), (2, 49, 16))
    check_shape(torch.zeros(3), [3])
    check_shape(torch.tensor(1.0), ())
    assert capsys.readouterr().out == "2 x 49 x 16\n3\na single number\n"


@pytest.mark.parametrize("expected", [(2, 16, 49), (2, 49), (49, 16), ()])
def test_another_shape_stops_with_both(expected, capsys):
    with pytest.raises(ValueError) as error:
        check_shape(torch.zeros(2, 49, 16), expected)
    assert_told(error.value, "shape (2, 49, 16);", f"{expected} was expected")
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
