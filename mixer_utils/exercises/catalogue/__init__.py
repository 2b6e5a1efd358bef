"""The exercises and predictions themselves. This is content, not plumbing: nobody has to read it to use the package.

The module of a notebook is found by its number: ``nb02.py`` belongs to notebook 02, and a new file ``nb12.py`` is all
that a notebook 12 would need. Each module has two tables and nothing else that is used from outside:

    EXERCISES = {"02.1": Exercise(...), ...}     what an Exercise holds stands in mixer_utils/exercises/exercise.py
    PREDICTIONS = {"02.1": 3, ...}               how many choices the question offers
"""

import importlib
import pkgutil


def notebooks():
    """["00", "01", …]: the notebooks that have a module here."""
    return sorted(module.name.removeprefix("nb") for module in pkgutil.iter_modules(__path__))


def exercises_of(notebook):
    """{"02.1": Exercise} of the notebook "02", in the notebook's order."""
    return module_of(notebook).EXERCISES


def predictions_of(notebook):
    """{"02.1": number of choices} of the notebook "02", in the notebook's order."""
    return module_of(notebook).PREDICTIONS


def module_of(notebook):
    return importlib.import_module(f"{__name__}.nb{notebook}")
