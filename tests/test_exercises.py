import importlib
import pkgutil

import pytest
import torch

from mixer_utils import exercises
from mixer_utils.exercises import Exercise, check, describe_difference, diagnose, find, same

MODULES = sorted(m.name for m in pkgutil.iter_modules(exercises.__path__) if m.name.startswith("nb"))
ALL = {
    number: exercise
    for module in MODULES
    for number, exercise in importlib.import_module(f"mixer_utils.exercises.{module}").EXERCISES.items()
}
MISTAKES = [(number, sentence) for number, exercise in ALL.items() for sentence in exercise.mistakes]

# --- the machinery, on an exercise of the test's own -------------------------------------------------------

DOUBLE = Exercise(
    reference=lambda x: 2 * x,
    inputs=lambda: [(torch.tensor([0.0, 2.0]),), (torch.tensor([1.0, 3.0]),)],
    mistakes={
        "this squares": lambda x: x * x,
        "this adds up": lambda x: (2 * x).sum(),
    },
)


def test_the_right_answer_is_right():
    assert diagnose(DOUBLE, lambda x: x + x) == "right"
    assert diagnose(DOUBLE, lambda x: (x + x + 1e-6).double()) == "right"


def test_a_mistake_of_the_catalogue_is_told_by_its_sentence_even_where_the_first_input_hides_it():
    assert diagnose(DOUBLE, lambda x: x**2) == "this squares"  # 0 and 2 give 0 and 4 either way
    assert diagnose(DOUBLE, lambda x: x.sum() * 2) == "this adds up"


@pytest.mark.parametrize("stub", [lambda x: None, lambda x: ..., None, ...])
def test_an_untouched_stub_is_not_yet_an_answer(stub):
    assert diagnose(DOUBLE, stub) == "not yet: complete the cell above, then run this one again"


def test_an_answer_that_raises_is_told_in_one_sentence():
    def answer(x):
        raise KeyError("no such\nkey")

    assert diagnose(DOUBLE, answer) == r"your code stopped with KeyError: 'no such\nkey'"
    found = diagnose(DOUBLE, lambda x: torch.nn.Linear(2, 2).load_state_dict({}))
    assert found.startswith("your code stopped with RuntimeError: Error(s) in loading state_dict") and "\n" not in found
    assert diagnose(DOUBLE, lambda: 1).startswith("your code stopped with TypeError: ")


def test_any_other_wrong_answer_is_told_by_its_shape_or_its_distance():
    assert diagnose(DOUBLE, lambda x: x[:1]) == "the shape is (1,), expected (2,)"
    assert diagnose(DOUBLE, lambda x: 2 * x + 0.5) == "the shape is right, the values are not: they differ by up to 0.5"
    assert diagnose(DOUBLE, 3) == "the shape is (), expected (2,)"
    assert "'two'" in diagnose(DOUBLE, "two") and diagnose(DOUBLE, "two").endswith("which is not what was asked for")


@pytest.mark.parametrize(
    "answer", [(torch.ones(9, 9), torch.ones(9, 9)), {"a": 1}, [1, [2]], object(), torch.nn.Linear(2, 2)]
)
def test_an_answer_of_another_kind_is_told_in_one_line(answer):
    found = diagnose(DOUBLE, lambda x: answer)
    assert found.endswith("which is not what was asked for") and "\n" not in found and len(found) < 300


def test_an_answer_that_changes_its_inputs_is_judged_by_what_they_were():
    assert diagnose(DOUBLE, lambda x: x.mul_(2)) == "right"
    assert diagnose(DOUBLE, lambda x: x.mul_(x)) == "this squares"


def test_plain_values_can_be_answers():
    number = Exercise(reference=lambda: 49, inputs=lambda: [()], mistakes={"that is the side": lambda: 7})
    assert diagnose(number, 49) == diagnose(number, torch.tensor(49)) == "right"
    assert diagnose(number, 7) == "that is the side"
    assert diagnose(number, 50) == "50 is not right"
    assert diagnose(number, None).startswith("not yet")


def test_results_are_compared_by_shape_and_within_the_tolerance():
    assert same(torch.ones(2), [1.0, 1.00001], 1e-4) and not same(torch.ones(2), [1.0, 1.001], 1e-4)
    assert not same(torch.ones(2, 1), torch.ones(1, 2), 1e-4)
    assert same(3, 3.0, 1e-4) and same("a", "a", 1e-4) and not same("a", 1, 1e-4)
    assert not same(float("nan"), 1.0, 1e-4)
    assert describe_difference(2.5, 3) == "2.5 is not right"


def test_the_verdict_is_printed_behind_the_number(capsys, monkeypatch):
    monkeypatch.setattr(exercises, "find", lambda number: DOUBLE)
    check("02.1", lambda x: 2 * x)
    check("02.2", lambda x: x * x)
    assert capsys.readouterr().out == "02.1: right\n02.2: this squares\n"


@pytest.mark.parametrize("number", ["99.1", "02.99", "", "two"])
def test_an_exercise_that_does_not_exist_is_told(number):
    with pytest.raises(ValueError) as error:
        find(number)
    assert str(error.value).startswith(f"There is no exercise {number!r}: give the number in the heading above")


# --- the exercises of the notebooks ------------------------------------------------------------------------


def test_every_notebook_of_the_series_has_exercises():
    assert {"nb00", "nb01", "nb02", "nb03", "nb04", "nb05", "nb06", "nb07", "nb10"} <= set(MODULES)
    for module in MODULES:
        assert [number for number in ALL if number.startswith(f"{module[2:]}.")], module
    assert all(find(number) is exercise for number, exercise in ALL.items())


@pytest.mark.parametrize("number", ALL)
def test_the_reference_is_right(number):
    assert diagnose(ALL[number], ALL[number].reference) == "right"


@pytest.mark.parametrize("number", ALL)
def test_the_untouched_stub_is_not_yet_an_answer(number):
    assert diagnose(ALL[number], lambda *inputs: None).startswith("not yet")
    assert diagnose(ALL[number], lambda *inputs: ...).startswith("not yet")


@pytest.mark.parametrize("number", ALL)
def test_there_is_at_least_one_mistake_to_explain_and_something_to_try_it_on(number):
    assert ALL[number].mistakes
    assert len(list(ALL[number].inputs())) >= 1


@pytest.mark.parametrize("number, sentence", MISTAKES)
def test_every_mistake_is_told_by_its_own_sentence(number, sentence):
    assert diagnose(ALL[number], ALL[number].mistakes[sentence]) == sentence
    assert sentence == " ".join(sentence.split()) and len(sentence.split()) >= 4


@pytest.mark.parametrize("number", ALL)
def test_the_inputs_are_the_same_at_every_try(number):
    torch.manual_seed(1)
    first = [ALL[number].reference(*inputs) for inputs in ALL[number].inputs()]
    torch.manual_seed(2)
    second = [ALL[number].reference(*inputs) for inputs in ALL[number].inputs()]
    assert all(same(a, b, ALL[number].tolerance) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("number", ALL)
def test_an_answer_that_raises_never_stops_the_check(number):
    def answer(*inputs):
        raise ZeroDivisionError("division by zero")

    assert diagnose(ALL[number], answer) == "your code stopped with ZeroDivisionError: division by zero"


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize(
    "answer", [0, -1.5, torch.zeros(3), torch.full((2, 3), float("nan")), "seven", [], (1, 2)], ids=str
)
def test_whatever_is_answered_one_sentence_comes_back(number, answer):
    found = diagnose(ALL[number], lambda *inputs: answer)
    assert isinstance(found, str) and found and "\n" not in found
