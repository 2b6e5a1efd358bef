"""What the notebooks call in their exercises: ``from mixer_utils import exercises as ex``.

``ex.check("02.1", my_function)`` says what is right or wrong, ``ex.hint("02.1")`` gives one hint more at each call,
``ex.solution("02.1")`` shows a solution, ``ex.predict("02.1", guess)`` keeps a guess, ``ex.score("02.1", measured)``
compares it with what was measured, and ``ex.progress()`` tells what is done. The catalogue of exercises stands in
nb00.py, nb01.py and so on, the solutions in solutions.py: without that file everything but ``solution`` works.
"""

import importlib
import inspect
import pkgutil
import sys

from mixer_utils.exercises import record
from mixer_utils.exercises.exercise import Exercise, Finding, diagnose
from mixer_utils.exercises.shelter import Stopped, sheltered

__all__ = ["Exercise", "check", "hint", "predict", "progress", "score", "solution"]

HINTS_GIVEN = {}  # how many of each exercise's, in this session
LATEST = []  # the notebook that was last used: ["02"]


def notebooks():
    """["00", "01", …]: the notebooks that have exercises."""
    return sorted(module.name[2:] for module in pkgutil.iter_modules(__path__) if module.name.startswith("nb"))


def catalogue(notebook):
    """The exercises of a notebook, {"02.1": Exercise}, and its predictions, {"02.1": how many choices}."""
    module = importlib.import_module(f"mixer_utils.exercises.nb{notebook}")
    return module.EXERCISES, module.PREDICTIONS


def find(number, prediction=False):
    """The Exercise called, say, "02.1", or the number of choices of that prediction.

    Raises ValueError for a number that does not exist.
    """
    notebook = str(number)[:2]
    kind = "prediction" if prediction else "exercise"
    known = catalogue(notebook)[prediction] if notebook in notebooks() else {}
    if number not in known:
        offered = f"notebook {notebook} has {', '.join(known)}" if known else 'numbers look like "02.1"'
        raise ValueError(f"There is no {kind} {number!r}: {offered}.")
    LATEST[:] = [notebook]
    return known[number]


def check(number, answer):
    """Try an answer (a function, or a plain value where the exercise asks for one) and print what was found.

    The answer runs in a process of its own where that can be (see shelter.py), for 20 seconds at most.
    """
    exercise = find(number)
    try:
        finding, printed = sheltered(lambda: diagnose(exercise, answer))
    except Stopped as stopped:
        finding, printed = Finding(False, str(stopped)), ""
    known = record.read()["exercises"].get(number, {})
    record.note("exercises", number, **finding._asdict(), done=bool(finding.passed or known.get("done")))
    if printed.strip():
        lines = printed.rstrip().splitlines()
        print("Your code printed:", *lines[:20], *["…"] * (len(lines) > 20), sep="\n  ")
    print(f"{number}: {finding.sentence}")
    if finding.passed is False:
        print(f'For a hint: ex.hint("{number}")')


def hint(number):
    """Print the exercise's next hint; after the last, all of them again."""
    hints = find(number).hints
    given = HINTS_GIVEN[number] = min(HINTS_GIVEN.get(number, 0) + 1, len(hints) + 1)
    first = given - 1 if given <= len(hints) else 0
    for i in range(first, min(given, len(hints))):
        print(f"Hint {i + 1} of {len(hints)}: {hints[i]}")
    if given > len(hints):
        print(f'These are all hints. ex.solution("{number}") shows a solution.')


def solution(number):
    """Print the source of a solution: the same code that the tests run."""
    find(number)
    try:
        solutions = importlib.import_module("mixer_utils.exercises.solutions").SOLUTIONS
    except ModuleNotFoundError:
        print(f"{number}: this copy comes without solutions; ask whoever gave it to you.")
        return
    print(inspect.getsource(solutions[number]).rstrip())


def predict(number, guess=None):
    """Keep a guess, 1, 2, …, until ``score``; None is no guess. In a notebook with widgets, a click will do.

    Raises ValueError for a guess that is not among the choices.
    """
    choices = range(1, find(number, prediction=True) + 1)
    listed = f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"
    if guess is not None and guess not in choices:
        raise ValueError(f"The guess for {number} is {guess!r}: put {listed} there, or None to go on without a guess.")
    if guess is not None:
        record.note("predictions", number, guess=guess)
    kept = record.read()["predictions"].get(number, {}).get("guess")
    if kept is None:
        told = f"No guess yet: put {listed} in place of None, or go on without."
    else:
        told = f"Your guess: {kept}."
    show_buttons(number, choices, kept, told)


def show_buttons(number, choices, kept, told):
    """A button for each choice where there is a kernel and ipywidgets, else only the text."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    try:
        if not hasattr(shell, "kernel"):
            raise ImportError
        from IPython.display import display
        from ipywidgets import ToggleButtons
    except ImportError:
        print(told)
        return
    options = [(str(choice), choice) for choice in choices] + [("skip", None)]
    buttons = ToggleButtons(options=options, value=kept, description=f"Guess {number}", style={"button_width": "5em"})
    buttons.observe(lambda change: record.note("predictions", number, guess=change["new"]), "value")
    view = {"version_major": 2, "version_minor": 0, "model_id": buttons.model_id}
    # Where no widget can be shown (GitHub, a plain page), the text is left.
    display({"application/vnd.jupyter.widget-view+json": view, "text/plain": told}, raw=True)


def score(number, measured):
    """Print which of the choices was measured, and whether it had been predicted."""
    choices = range(1, find(number, prediction=True) + 1)
    if measured not in choices:
        raise ValueError(f"What was measured for {number} is {measured!r}, which is none of 1 to {choices[-1]}.")
    measured = int(measured)
    guess = record.note("predictions", number, measured=measured).get("guess")
    compared = "" if guess is None else ", as you predicted" if guess == measured else f", not {guess}"
    print(f"Measured: {measured}{compared}.")


def progress():
    """Print what is done: exercise by exercise in this notebook, and in numbers over the series."""
    kept = record.read()
    if LATEST:
        (notebook,) = LATEST
        for number in catalogue(notebook)[0]:
            facts = kept["exercises"].get(number, {})
            state = "done" if facts.get("done") else "begun" if facts.get("passed") is False else "open"
            print(f"{number} {state}")
    print("\nnotebook  exercises done  predictions made  of them right")
    for notebook in notebooks():
        exercises, predictions = catalogue(notebook)
        done = sum(kept["exercises"].get(number, {}).get("done", False) for number in exercises)
        made = [kept["predictions"].get(number, {}) for number in predictions]
        made = [facts for facts in made if facts.get("guess") is not None]
        right = sum(facts["guess"] == facts.get("measured") for facts in made)
        of_all = f"{len(made)} of {len(predictions)}" if predictions else "none asked"
        print(f"{notebook:8}  {f'{done} of {len(exercises)}':14}  {of_all:16}  {right if made else '–'}")
    if record.file() is None:
        print("This is kept until the kernel stops.")
