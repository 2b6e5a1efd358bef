"""What the notebooks call in their exercises: ``from mixer_utils import exercises as ex``.

``ex.check("02.1", my_function)`` says what is right or wrong, ``ex.hint("02.1")`` gives one hint more at each call,
``ex.solution("02.1")`` shows a solution, ``ex.predict("02.1", guess)`` keeps a guess, ``ex.score("02.1", measured)``
compares it with what was measured, and ``ex.progress()`` tells what is done. The exercises themselves stand in
catalogue/, the solutions in solutions.py: without that file everything but ``solution`` works.
"""

import importlib
import inspect

from mixer_utils.exercises import catalogue, record
from mixer_utils.exercises.exercise import Exercise, Finding, diagnose
from mixer_utils.exercises.shelter import Stopped, sheltered
from mixer_utils.notebook import show_folded, show_widget

__all__ = ["Exercise", "check", "hint", "predict", "progress", "score", "solution"]

HINTS_GIVEN = {}  # how many of each exercise's, in this session
LATEST = {"notebook": None}  # the one whose exercises were last used, "02"


def find_exercise(number):
    """The Exercise called, say, "02.1". Raises ValueError for a number that does not exist."""
    return find(number, "exercise", catalogue.exercises_of)


def find_choices(number):
    """The choices of the prediction called, say, "02.1": range(1, 4). Raises ValueError as ``find_exercise`` does."""
    return range(1, find(number, "prediction", catalogue.predictions_of) + 1)


def find(number, kind, table_of):
    notebook = str(number)[:2]
    known = table_of(notebook) if notebook in catalogue.notebooks() else {}
    if number not in known:
        offered = f"notebook {notebook} has {', '.join(known)}" if known else 'numbers look like "02.1"'
        raise ValueError(f"There is no {kind} {number!r}: {offered}.")
    LATEST["notebook"] = notebook
    return known[number]


def check(number, answer):
    """Try an answer (a function, or a plain value where the exercise asks for one) and print the finding.

    The answer runs in a process of its own where that can be (see shelter.py), for 20 seconds at most.
    """
    exercise = find_exercise(number)
    try:
        finding, printed = sheltered(lambda: diagnose(exercise, answer))
    except Stopped as stopped:
        finding = Finding(False, str(stopped))
        printed = ""
    before = record.read()["exercises"].get(number, {})
    done = bool(finding.passed or before.get("done"))  # once right, it stays done while one plays on
    record.note("exercises", number, **finding._asdict(), done=done)
    show_printed(printed)
    print(f"{number}: {finding.sentence}")
    if finding.passed is False:
        print(f'For a hint: ex.hint("{number}")')


def show_printed(text, most=20):
    """Print what an answer has printed: its first lines, and … for the others."""
    if not text.strip():
        return
    lines = text.rstrip().splitlines()
    print("Your code printed:")
    for line in lines[:most]:
        print(f"  {line}")
    if len(lines) > most:
        print("  …")


def hint(number):
    """Print the exercise's next hint; after the last, all of them again."""
    hints = find_exercise(number).hints
    given = HINTS_GIVEN.get(number, 0)
    all_given = given == len(hints)
    shown = range(len(hints)) if all_given else [given]
    for i in shown:
        print(f"Hint {i + 1} of {len(hints)}: {hints[i]}")
    if all_given:
        print(f'These are all hints. ex.solution("{number}") shows a solution.')
    else:
        HINTS_GIVEN[number] = given + 1


def solution(number):
    """Print the source of a solution: the same code that the tests run."""
    find_exercise(number)
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
    choices = find_choices(number)
    listed = f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"
    if guess is not None and guess not in choices:
        raise ValueError(f"The guess for {number} is {guess!r}: put {listed} there, or None to go on without a guess.")
    if guess is not None:
        record.note("predictions", number, guess=int(guess))
    recorded = record.read()["predictions"].get(number, {}).get("guess")
    if recorded is None:
        text = f"No guess yet: put {listed} in place of None, or go on without."
    else:
        text = f"Your guess: {recorded}."
    show_guess(number, choices, recorded, text)


def show_guess(number, choices, guess, text):
    """A button for each choice where there is a kernel and ipywidgets, else only the text."""

    def build():
        from ipywidgets import ToggleButtons

        options = [(str(choice), choice) for choice in choices] + [("skip", None)]
        buttons = ToggleButtons(
            options=options, value=guess, description=f"Guess {number}", style={"button_width": "5em"}
        )
        buttons.observe(lambda change: record.note("predictions", number, guess=change["new"]), "value")
        return buttons

    show_folded, show_widget(build, text)


def score(number, measured):
    """Show which of the choices was measured, and whether it had been predicted; folded away where it had not.

    Raises ValueError for a measurement that is not among the choices.
    """
    choices = find_choices(number)
    if measured not in choices:
        raise ValueError(f"What was measured for {number} is {measured!r}, which is none of 1 to {choices[-1]}.")
    measured = int(measured)
    guess = record.note("predictions", number, measured=measured).get("guess")
    if guess is None:
        show_folded(f"What was measured for {number}", f"Measured: {measured}.")
    elif guess == measured:
        print(f"Measured: {measured}, as you predicted.")
    else:
        print(f"Measured: {measured}, not {guess}.")


def progress():
    """Print what is done: exercise by exercise in this notebook, and in numbers over the series."""
    recorded = record.read()
    if LATEST["notebook"]:
        for number in catalogue.exercises_of(LATEST["notebook"]):
            print(f"{number} {state_of(recorded['exercises'].get(number, {}))}")
    print("\nnotebook  exercises done  predictions made  of them right")
    for notebook in catalogue.notebooks():
        print(row_of(notebook, recorded))
    if record.file() is None:
        print("This is kept until the kernel stops.")


def state_of(facts):
    """Whether an exercise is "done", "begun" or "open", by what is recorded of it."""
    if facts.get("done"):
        return "done"
    return "begun" if facts.get("passed") is False else "open"


def row_of(notebook, recorded):
    """A notebook's line in the table of ``progress``."""
    exercises = [recorded["exercises"].get(number, {}) for number in catalogue.exercises_of(notebook)]
    predictions = [recorded["predictions"].get(number, {}) for number in catalogue.predictions_of(notebook)]
    done = sum(facts.get("done", False) for facts in exercises)
    made = [facts for facts in predictions if facts.get("guess") is not None]
    right = sum(facts["guess"] == facts.get("measured") for facts in made)
    exercises_done = f"{done} of {len(exercises)}"
    predictions_made = f"{len(made)} of {len(predictions)}" if predictions else "none asked"
    return f"{notebook:8}  {exercises_done:14}  {predictions_made:16}  {right if made else '–'}"
