"""What was answered and guessed, kept from notebook to notebook in one small file.

The file is ``exercises.json`` in the data folder, or what ``MIXER_EXERCISES`` names; with ``MIXER_EXERCISES=0``, and
where the file cannot be written, everything is kept for this session only.
"""

import json
import os
from pathlib import Path

from mixer_utils.data import data_folder

SESSION = {"exercises": {}, "predictions": {}}


def file():
    """The Path of the record, or None where none is kept."""
    named = os.environ.get("MIXER_EXERCISES")
    return None if named == "0" else Path(named).expanduser() if named else data_folder() / "exercises.json"


def read():
    """All kept so far: {"exercises": {"02.1": {"passed", …}}, "predictions": {"02.1": {"guess", "measured"}}}."""
    kept = {kind: {} for kind in SESSION}
    if path := file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            kept = {kind: dict(stored[kind]) for kind in SESSION}
        except OSError:
            pass  # nothing was kept yet
        except (ValueError, KeyError, TypeError):  # damaged: put aside rather than written over
            path.replace(path.with_suffix(".damaged"))
    return {kind: kept[kind] | SESSION[kind] for kind in SESSION}


def note(kind, number, **facts):
    """Keep facts about an exercise or a prediction beside what is known of it; True if they reached the file."""
    everything = read()
    SESSION[kind][number] = everything[kind].get(number, {}) | facts
    everything[kind][number] = SESSION[kind][number]
    path = file()
    if path is None:
        return False
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(everything, indent=1, sort_keys=True), encoding="utf-8")
        os.replace(part, path)
    except OSError:
        return False
    return True
