"""An exercise: what is right, what is plausibly wrong, and the sentence that tells which of them an answer is."""

import copy
import dataclasses
import dis
import linecache
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

NOT_YET = "not yet — complete the cell above"
NO_NUMBERS = (TypeError, ValueError, RuntimeError, OverflowError)  # raised where a value makes no tensor


@dataclasses.dataclass(frozen=True)
class Exercise:
    """``reference(*inputs)`` is right for each tuple in ``inputs()``; ``mistakes`` maps sentences to wrong answers.

    An answer is diagnosed by finding the mistake that gives the same result, or stops with the same error. ``hints``
    begin with a nudge and end near the answer. The solution that a student can look up stands in solutions.py.
    """

    reference: Callable
    inputs: Callable[[], list[tuple]]
    mistakes: dict[str, Callable]
    hints: tuple[str, ...] = ()
    tolerance: float = 1e-4


class Finding(NamedTuple):
    """``passed`` is None where nothing was answered yet; ``sentence`` is one line."""

    passed: bool | None
    sentence: str


def diagnose(exercise, answer):
    """The Finding on an answer: a function, or a plain value where the exercise asks for one."""
    if answer is None or answer is ... or is_stub(answer):
        return Finding(None, NOT_YET)
    function = answer if callable(answer) else lambda *inputs: answer
    for inputs in exercise.inputs():
        result = outcome(function, inputs)
        expected = exercise.reference(*inputs)
        if result is ...:
            return Finding(None, NOT_YET)
        if same(result, expected, exercise.tolerance):
            continue
        for sentence, mistake in exercise.mistakes.items():
            if same(result, outcome(mistake, inputs), exercise.tolerance):
                return Finding(False, sentence)
        return Finding(False, describe(result, expected))
    return Finding(True, "right")


def is_stub(answer):
    """Whether a function does nothing but return None: its body is ``...``, ``pass``, or a docstring alone."""
    return hasattr(answer, "__code__") and steps_of(answer) == steps_of(lambda: None)


def steps_of(function):
    return [(step.opname, step.argval) for step in dis.get_instructions(function)]


def outcome(function, inputs):
    """What a function returns for a copy of the inputs, which it may change in place; or the exception it raises."""
    try:
        return function(*copy.deepcopy(inputs))
    except Exception as error:  # a student's code may raise anything; the sentence must still come
        return error


def same(result, expected, tolerance):
    """Whether two results, tensors or numbers, have one shape and agree within ``tolerance``; or are the same error."""
    if isinstance(result, Exception) or isinstance(expected, Exception):
        return type(result) is type(expected) and str(result) == str(expected)
    numbers = as_numbers(result)
    expected_numbers = as_numbers(expected)
    if numbers is None or expected_numbers is None:
        return equal(result, expected)
    if numbers.shape != expected_numbers.shape:
        return False
    return torch.allclose(numbers, expected_numbers, rtol=tolerance, atol=tolerance)


def as_numbers(value):
    """A tensor, array, number or nested list of numbers as a float64 tensor; None for anything else."""
    try:
        return torch.as_tensor(value, dtype=torch.float64)
    except NO_NUMBERS:
        return None


def equal(a, b):
    try:
        return bool(a == b)
    except NO_NUMBERS:  # arrays compare value by value
        return False


def describe(result, expected):
    """One sentence on a wrong result that no mistake of the catalogue gives."""
    if isinstance(result, Exception):
        return describe_error(result)
    if result is None:
        return "your function returns None: it ends without a return"
    numbers = as_numbers(result)
    expected_numbers = as_numbers(expected)
    if numbers is None or expected_numbers is None:
        return f"the answer is {one_line(repr(result))}, which is not what was asked for"
    if numbers.shape != expected_numbers.shape:
        return f"the shape is {tuple(numbers.shape)}, expected {tuple(expected_numbers.shape)}"
    if numbers.isnan().any():
        return "there are numbers that are not defined (nan) in the result: was something divided by zero?"
    if numbers.ndim == 0:
        return f"{numbers.item():g} is not right"
    largest = (numbers - expected_numbers).abs().max().item()
    return f"the shape is right, the values are not: they differ by up to {largest:.3g}"


def describe_error(error):
    """One sentence on an exception: the student's own line, and the message."""
    message = f"{type(error).__name__}: {one_line(error)}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_student_code(frame.filename)]
    if not frames:
        also = "; keep the function's first line as it was" if isinstance(error, TypeError) else ""
        return f"your code stopped: {message}{also}"
    last = frames[-1]
    line = linecache.getline(last.filename, last.lineno).strip()
    where = f"line {last.lineno} of its cell" + (f", {line}" if line else "")
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        message = "it asked for more memory than a check may use; compare sizes with the input's"
    elif "CUDA in forked subprocess" in str(error):
        message = "checks run on the CPU, as their inputs do; leave .to(device) and .cuda() out"
    return f"your code stopped at {where} — {message}"


def is_student_code(filename):
    """Whether a file belongs neither to this package nor to Python and what is installed in it."""
    if filename.startswith("<frozen"):
        return False
    this_package = Path(__file__).parent.parent
    libraries = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    return not any(Path(filename).is_relative_to(folder) for folder in [this_package, *libraries])


def one_line(text):
    """The text on one line, cut after 200 characters."""
    text = " ".join(str(text).split())
    return text if len(text) <= 200 else f"{text[:199]}…"
