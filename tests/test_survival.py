"""What a run survives: being killed at any moment, and damage to what it wrote."""

import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch

from mixer_utils import CheckpointError, Recipe, load_dataset, train, training
from mixer_utils._run import STATES, TrainingError
from mixer_utils.checkpoints import read_tensors

ROOT = Path(__file__).resolve().parent.parent
TINY = Recipe("tiny", dataset="digits", model="mnist/quick", epochs=4, batch_size=50, validation=60)
LATEST, PREVIOUS = STATES


def go_on(out, few_digits, save_every=10):
    """What a scheduler does after a run has ended in whatever way: start it again, with the same command."""
    return train(TINY, data=few_digits, device="cpu", out=out, resume=True, progress=False, save_every=save_every)


def ending(out):
    """All that a finished run leaves, but for its seconds: weights, as bytes, and history."""
    tensors, _ = read_tensors(out / "model.safetensors")
    history = json.loads((out / "history.json").read_text())
    assert len(history["epochs"].pop("seconds")) == TINY.epochs
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, history


def files(folder):
    return sorted(path.name for path in folder.iterdir())


FINISHED = sorted(["model.safetensors", "history.json", *STATES])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, few_digits):
    """The ending of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed")
    go_on(out, few_digits)
    assert files(out) == FINISHED
    return ending(out)


# --- killed ------------------------------------------------------------------------------------------------


def nursery():
    """Train in a child process for every line of JSON on stdin, kill it as the line says, and print how it ended.

    A line has the folder ``out``, the minutes ``save_every``, and either ``delay``, in seconds, or ``trap``: [name of a
    function of os, "before" or "after", the number of the call]. torch is imported once; a fork of it starts in a few
    milliseconds.
    """
    for name in ("safetensors.torch", "tqdm.auto", "torch._dynamo"):  # the last one comes with the first step
        importlib.import_module(name)
    torch.set_num_threads(1)  # a fork takes none of the other threads along
    digits = load_dataset("digits")
    few = type(digits)(**{**vars(digits), "train": digits.train[:260]})
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                if order.get("trap"):
                    lay(*order["trap"])
                with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                    go_on(Path(order["out"]), few, order["save_every"])
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        if order.get("delay") is not None:
            time.sleep(order["delay"])
            os.kill(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def lay(name, when, number):
    """Have this process killed before or after its call of that number (from 1) of a function of os."""
    function, calls = getattr(os, name), []

    def trapped(*arguments):
        calls.append(arguments)
        if when == "before" and len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments)
        if when == "after" and len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(os, name, trapped)


@pytest.fixture(scope="module")
def attempt():
    """A function: start or resume the run in ``out``, and whether it was killed before it ended."""
    if not hasattr(os, "fork"):
        pytest.skip("processes cannot be forked here")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, __file__], stdin=-1, stdout=-1, text=True, bufsize=1, env=env) as process:

        def attempt(out, delay=None, trap=None, save_every=10):
            order = {"out": str(out), "delay": delay, "trap": trap, "save_every": save_every}
            process.stdin.write(json.dumps(order) + "\n")
            status = int(process.stdout.readline())
            assert status in (0, -signal.SIGKILL)
            return status != 0

        assert process.stdout.readline() == "ready\n"
        yield attempt
        process.stdin.close()


def test_a_run_killed_twenty_times_at_any_moment_ends_as_if_undisturbed(attempt, undisturbed, tmp_path):
    start = time.perf_counter()
    assert not attempt(tmp_path / "whole")
    seconds = time.perf_counter() - start

    draw, kills, trial, states = random.Random(0), 0, 0, set()
    while kills < 20:
        trial += 1
        out = tmp_path / str(trial)
        while kills < 20 and attempt(out, delay=draw.uniform(0, seconds)):
            kills += 1
            states.add(out.exists() and LATEST in files(out))
        attempt(out)
        assert files(out) == FINISHED
        assert ending(out) == undisturbed
    assert states == {True, False}  # some before the first epoch was over, some later


# An epoch's os.replace: the state so far becomes the previous one (not in the first epoch), the new one gets its name.
# Over four epochs these are calls 1; 2, 3; 4, 5; 6, 7; then 8 for the model and 9 for the history.
@pytest.mark.parametrize(
    "trap, left",
    [
        (["fsync", "before", 1], ["part"]),
        (["replace", "before", 1], ["part"]),
        (["replace", "after", 1], [LATEST]),
        (["replace", "before", 2], [LATEST]),
        (["replace", "after", 2], [PREVIOUS]),
        (["fsync", "before", 2], ["part", PREVIOUS]),
        (["replace", "before", 3], ["part", PREVIOUS]),
        (["replace", "after", 3], [PREVIOUS, LATEST]),
        (["replace", "after", 4], [PREVIOUS]),
        (["replace", "before", 5], ["part", PREVIOUS]),
        (["replace", "before", 8], ["part", PREVIOUS, LATEST]),
        (["replace", "before", 9], ["part", "model.safetensors", PREVIOUS, LATEST]),
    ],
)
def test_a_run_killed_while_writing_ends_as_if_undisturbed_and_leaves_nothing_half_written(
    trap, left, attempt, undisturbed, tmp_path
):
    assert attempt(tmp_path, trap=trap)
    assert ["part" if name.startswith(".") else name for name in files(tmp_path)] == left
    assert not attempt(tmp_path)
    assert files(tmp_path) == FINISHED
    assert ending(tmp_path) == undisturbed


# With a state after every step these are calls 1; 2, 3; 4, 5; …: four steps an epoch, and one more state after each.
@pytest.mark.parametrize("trap", [["replace", "after", 3], ["replace", "after", 6], ["fsync", "before", 8],
                                  ["replace", "before", 20]])  # fmt: skip
def test_a_run_killed_within_an_epoch_goes_on_from_the_step_before(trap, attempt, undisturbed, tmp_path):
    assert attempt(tmp_path, trap=trap, save_every=1e-9)
    path = next(tmp_path / name for name in STATES if name in files(tmp_path))
    kept = len(read_tensors(path)[1]["history"]["steps"]["loss"])
    _, number = trap[1:]
    assert kept == {3: 2, 6: 3, 8: 6, 20: 8}[number]
    assert not attempt(tmp_path, save_every=1e-9)
    assert files(tmp_path) == FINISHED
    assert ending(tmp_path) == undisturbed


def test_what_other_programs_keep_in_the_folder_is_left_alone(few_digits, tmp_path):
    (tmp_path / ".notes-of-mine").write_text("keep")
    (tmp_path / "a.safetensors-b").write_text("keep")
    go_on(tmp_path, few_digits)
    assert files(tmp_path) == sorted([".notes-of-mine", "a.safetensors-b", *FINISHED])


# --- damaged -----------------------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """One bit of the last tensor, which no reader of the format would notice."""
    raw = bytearray(path.read_bytes())
    raw[-7] ^= 16
    path.write_bytes(raw)


def empty(path):
    path.write_bytes(b"")


@pytest.fixture
def broken_off(tmp_path, few_digits, monkeypatch):
    """The folder of a run that died in its fourth epoch: the states of epochs 3 and 2 are there."""
    with monkeypatch.context() as patch:
        judge, calls = training.loss_and_accuracy, []

        def power_cut(*arguments):
            calls.append(arguments)
            if len(calls) == 4:
                raise RuntimeError("the power went off")
            return judge(*arguments)

        patch.setattr(training, "loss_and_accuracy", power_cut)
        with pytest.raises(RuntimeError, match="the power went off"):
            go_on(tmp_path, few_digits)
    assert files(tmp_path) == sorted(STATES)
    return tmp_path


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_where_the_last_state_is_damaged_the_one_before_it_is_offered_and_is_good(
    damage, broken_off, few_digits, undisturbed
):
    damage(broken_off / LATEST)
    before = {path: path.read_bytes() for path in broken_off.iterdir()}
    with pytest.raises(TrainingError) as error:
        go_on(broken_off, few_digits)
    assert f"{broken_off / LATEST} cannot be read, but {PREVIOUS} beside it" in str(error.value)
    assert f"move {LATEST} away and resume again" in str(error.value)
    assert {path: path.read_bytes() for path in broken_off.iterdir()} == before
    (broken_off / LATEST).unlink()
    go_on(broken_off, few_digits)
    assert files(broken_off) == FINISHED
    assert ending(broken_off) == undisturbed


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_where_both_states_are_damaged_one_sentence_says_so(damage, broken_off, few_digits):
    for name in STATES:
        damage(broken_off / name)
    with pytest.raises(CheckpointError) as error:
        go_on(broken_off, few_digits)
    sentence = str(error.value)
    assert sentence.startswith(f"{broken_off / LATEST} is ") and sentence.endswith(".") and "\n" not in sentence
    assert ("delete it" in sentence) == (damage is flip)  # which alone a checksum proves


def test_a_damaged_state_before_the_last_one_harms_nothing(broken_off, few_digits, undisturbed):
    flip(broken_off / PREVIOUS)
    go_on(broken_off, few_digits)
    assert ending(broken_off) == undisturbed
    for name in STATES:
        read_tensors(broken_off / name)  # both are good again


if __name__ == "__main__":
    nursery()
