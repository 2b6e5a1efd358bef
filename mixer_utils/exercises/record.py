"""What was answered and guessed, kept from notebook to notebook in one small file.

The file is ``exercises.json`` in the data folder, or what ``MIXER_EXERCISES`` names; with ``MIXER_EXERCISES=0``, and
where the file cannot be written, everything is kept for this session only.
"""

import contextlib
import json
import os

from mixer_utils._files import CheckpointError, at_home, data_folder, switched_off, write_atomically

SESSION = {"exercises": {}, "predictions": {}}


def file():
    """The Path of the record, or None where none is kept."""
    if switched_off("MIXER_EXERCISES"):
        return None
    named = os.environ.get("MIXER_EXERCISES")
    return at_home(named) if named else data_folder() / "exercises.json"


def read():
    """All that is known: {"exercises": {"02.1": {"passed", …}}, "predictions": {"02.1": {"guess", "measured"}}}."""
    recorded = {kind: {} for kind in SESSION}
    if path := file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            recorded = {kind: dict(stored[kind]) for kind in SESSION}
        except OSError:
            pass  # nothing was written yet
        except (ValueError, KeyError, TypeError):  # damaged: put aside rather than written over
            path.replace(path.with_suffix(".damaged"))
    return {kind: recorded[kind] | SESSION[kind] for kind in SESSION}


def note(kind, number, **facts):
    """Add facts on an exercise or a prediction to what is known of it; returns all that is now known of it."""
    everything = read()
    known = everything[kind].get(number, {}) | facts
    everything[kind][number] = known
    SESSION[kind][number] = known
    if path := file():
        with contextlib.suppress(CheckpointError):  # in a folder that cannot be written, the session still knows it
            write_atomically(path, json.dumps(everything, indent=1, sort_keys=True).encode())
    return known
