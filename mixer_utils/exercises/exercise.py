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
    give = answer if callable(answer) else lambda *inputs: answer
    for inputs in exercise.inputs():
        found, expected = outcome(give, inputs), exercise.reference(*inputs)
        if found is ...:
            return Finding(None, NOT_YET)
        if same(found, expected, exercise.tolerance):
            continue
        for sentence, mistake in exercise.mistakes.items():
            if same(found, outcome(mistake, inputs), exercise.tolerance):
                return Finding(False, sentence)
        return Finding(False, describe(found, expected))
    return Finding(True, "right")


def is_stub(answer):
    """Whether a function does nothing but return None: its body is ``...``, ``pass``, or a docstring alone."""

    def steps(function):
        return [(step.opname, step.argval) for step in dis.get_instructions(function)]

    return hasattr(answer, "__code__") and steps(answer) == steps(lambda: None)


def outcome(give, inputs):
    """What ``give`` returns for a copy of the inputs, which it may change in place; or the exception it stops with."""
    try:
        return give(*copy.deepcopy(inputs))
    except Exception as error:  # a student's code may raise anything; the sentence must still come
        return error


def same(found, expected, tolerance):
    """Whether two results, tensors or numbers, have one shape and agree within ``tolerance``; or are the same error."""
    if isinstance(found, Exception) or isinstance(expected, Exception):
        return type(found) is type(expected) and str(found) == str(expected)
    try:
        found, expected = (torch.as_tensor(value, dtype=torch.float64) for value in (found, expected))
    except (TypeError, ValueError, RuntimeError):
        try:
            return bool(found == expected)
        except (TypeError, ValueError, RuntimeError):  # arrays compare value by value
            return False
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=tolerance, atol=tolerance)


def describe(found, expected):
    """One sentence on a wrong result that no mistake of the catalogue gives."""
    if isinstance(found, Exception):
        return describe_error(found)
    if found is None:
        return "your function returns None: it ends without a return"
    try:
        found, expected = (torch.as_tensor(value, dtype=torch.float64) for value in (found, expected))
    except (TypeError, ValueError, RuntimeError):
        return f"the answer is {one_line(repr(found))}, which is not what was asked for"
    if found.shape != expected.shape:
        return f"the shape is {tuple(found.shape)}, expected {tuple(expected.shape)}"
    if found.isnan().any():
        return "there are numbers that are not defined (nan) in the result: was something divided by zero?"
    if found.ndim == 0:
        return f"{found.item():g} is not right"
    return f"the shape is right, the values are not: they differ by up to {(found - expected).abs().max().item():.3g}"


def describe_error(error):
    """One sentence on an exception: the student's own line, and the message."""
    message = f"{type(error).__name__}: {one_line(error)}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if is_the_student_s(frame.filename)]
    if not own:
        also = "; keep the function's first line as it was" if isinstance(error, TypeError) else ""
        return f"your code stopped: {message}{also}"
    line = linecache.getline(own[-1].filename, own[-1].lineno).strip()
    where = f"line {own[-1].lineno} of its cell" + (f", {line}" if line else "")
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        message = "it asked for more memory than a check may use; compare sizes with the input's"
    elif "CUDA in forked subprocess" in str(error):
        message = "checks run on the CPU, as their inputs do; leave .to(device) and .cuda() out"
    return f"your code stopped at {where} — {message}"


def is_the_student_s(filename):
    libraries = [Path(__file__).parent.parent, *map(sysconfig.get_path, ("stdlib", "purelib", "platlib"))]
    return not filename.startswith("<frozen") and not any(Path(filename).is_relative_to(one) for one in libraries)


def one_line(text):
    text = " ".join(str(text).split())
    return text if len(text) <= 200 else f"{text[:199]}…"
