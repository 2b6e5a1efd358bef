"""Checks for the notebooks' exercises: they run a student's answer and, when it is wrong, say what went wrong.

An exercise is a reference, the inputs to try it on, and a catalogue of plausible wrong answers, each with the sentence
that explains it. A wrong answer is diagnosed by finding the one in the catalogue that gives the same result.
"""

import copy
import dataclasses
import importlib
from collections.abc import Callable

import torch


@dataclasses.dataclass(frozen=True)
class Exercise:
    """``reference(*inputs)`` is right for each tuple in ``inputs()``; ``mistakes`` maps sentences to wrong answers."""

    reference: Callable
    inputs: Callable[[], list[tuple]]
    mistakes: dict[str, Callable] = dataclasses.field(default_factory=dict)
    tolerance: float = 1e-4


def find(number):
    """The Exercise called, say, "02.1". Raises ValueError for a number that does not exist."""
    try:
        return importlib.import_module(f"mixer_utils.exercises.nb{number[:2]}").EXERCISES[number]
    except (ImportError, KeyError):
        raise ValueError(
            f'There is no exercise {number!r}: give the number in the heading above, such as "02.1".'
        ) from None


def check(number, answer):
    """Try an answer (a function, or a plain value where the exercise asks for one) and print what was found."""
    print(f"{number}: {diagnose(find(number), answer)}")


def diagnose(exercise, answer):
    """One sentence on an answer: right, not yet begun, or what is wrong with it."""
    give = answer if callable(answer) else lambda *inputs: answer
    for inputs in exercise.inputs():
        try:
            found = give(*copy.deepcopy(inputs))  # an answer may change its inputs in place
        except Exception as error:  # a student's code may raise anything; the sentence must still come
            return f"your code stopped with {type(error).__name__}: {one_line(error)}"
        if found is None or found is ...:
            return "not yet: complete the cell above, then run this one again"
        expected = exercise.reference(*inputs)
        if same(found, expected, exercise.tolerance):
            continue
        for sentence, mistake in exercise.mistakes.items():
            if same(found, mistake(*inputs), exercise.tolerance):
                return sentence
        return describe_difference(found, expected)
    return "right"


def same(found, expected, tolerance):
    """Whether two results, tensors or numbers, have one shape and agree within ``tolerance``."""
    try:
        found, expected = (torch.as_tensor(value, dtype=torch.float64) for value in (found, expected))
    except (TypeError, ValueError, RuntimeError):
        try:
            return bool(found == expected)
        except (TypeError, ValueError, RuntimeError):  # arrays compare value by value
            return False
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=tolerance, atol=tolerance)


def one_line(text):
    return " ".join(str(text).split())[:200]


def describe_difference(found, expected):
    try:
        found, expected = (torch.as_tensor(value, dtype=torch.float64) for value in (found, expected))
    except (TypeError, ValueError, RuntimeError):
        return f"the answer is {one_line(repr(found))}, which is not what was asked for"
    if found.shape != expected.shape:
        return f"the shape is {tuple(found.shape)}, expected {tuple(expected.shape)}"
    if found.ndim == 0:
        return f"{found.item():g} is not right"
    return f"the shape is right, the values are not: they differ by up to {(found - expected).abs().max().item():.3g}"
