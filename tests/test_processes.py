"""Two processes train one model: torchrun starts them, gloo connects them over the loopback interface.

This file is also the program that they run, with the name of an act and a folder as arguments.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from mixer_utils import MlpMixer, Recipe, devices, load_checkpoint, load_dataset, optimizers, train, training
from mixer_utils.__main__ import main

ROOT = Path(__file__).resolve().parent.parent
TINY = Recipe("tiny", dataset="digits", model="mnist/quick", epochs=3, batch_size=50, validation=61)  # 3 steps an epoch
# A low learning rate: a high one makes the last bit of a sum, taken in another order, a thousand times larger.
SETTINGS = ["epochs=2", "batch_size=100", "learning_rate=0.003"]
COMMAND = ["train", "--recipe", "digits", *(f"--set={s}" for s in SETTINGS), "--device", "cpu", "--out"]
MEET = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT)}  # fmt: skip
HANGS = 300  # seconds: who takes longer waits for somebody who will not come

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs libuv, which torch lacks on Windows")


def in_float32():
    """One process and two round differently; in float32 the difference stays small enough to tell it from a mistake."""
    devices.gains_from_bf16 = optimizers.gains_from_bf16 = lambda device: False


def few():
    """221 training digits; 61 of them are for validation, of which two processes have unequal shares."""
    digits = load_dataset("digits")
    return dataclasses.replace(digits, train=digits.train[:221])


def tiny_run(out, interrupted_in=None, **options):
    """train() on few digits; Ctrl-C is pressed in the step of that number (from 1), in this process alone."""
    shift, calls = training.random_shift, []

    def random_shift(*arguments):
        calls.append(arguments)
        if len(calls) == interrupted_in:
            signal.raise_signal(signal.SIGINT)
        return shift(*arguments)

    training.random_shift = random_shift
    try:
        return train(TINY, data=few(), device="cpu", out=out, progress=False, **options)
    finally:
        training.random_shift = shift


def digest(model):
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())).hexdigest()


# --- what each of the two processes does -------------------------------------------------------------------


def play(act, folder):
    torch.set_num_threads(1)
    in_float32()
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", DeprecationWarning)
    rank = int(os.environ["RANK"])
    if act == "lose one":
        return lose_one(rank, folder)
    main([*COMMAND, str(folder / "two")])
    first, _ = tiny_run(folder / "one, then two", resume=True)
    second, history = tiny_run(folder / "two, then one", interrupted_in=4 if rank == 1 else None)
    found = {"digests": [digest(first), digest(second)], "steps": len(history.steps["loss"])}
    try:
        train(dataclasses.replace(TINY, batch_size=33), data=few(), device="cpu", progress=False)
    except ValueError as error:
        found["refusal"] = str(error)
    (folder / f"{rank}.json").write_text(json.dumps(found))


def lose_one(rank, folder):
    forward, calls = MlpMixer.forward, []

    def deadly(self, images):
        calls.append(self.training)
        if rank == 1 and sum(calls) == 5:
            os._exit(3)
        return forward(self, images)

    MlpMixer.forward = deadly
    main([*COMMAND, str(folder / "lost")])


# --- what comes of it --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def float32():
    with pytest.MonkeyPatch.context() as patch:
        for module in (devices, optimizers):
            patch.setattr(module, "gains_from_bf16", lambda device: False)
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder of the same runs by one process: whole ones, and one that was interrupted after its first epoch."""
    folder = tmp_path_factory.mktemp("processes")
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        main([*COMMAND, str(folder / "one")])
        tiny_run(folder / "one, whole")
        tiny_run(folder / "one, then two", interrupted_in=4)
    return folder


@pytest.fixture(scope="module")
def played(alone):
    """The folder after two processes have worked in it, and what torchrun printed."""
    env = {**os.environ, **MEET}
    env.pop("MIXER_PROGRESS", None)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, "play", str(alone)]
    done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    return alone, done


def curves(folder):
    """Losses, accuracies and learning rates, by step and by epoch."""
    history = json.loads((folder / "history.json").read_text())
    history["epochs"].pop("seconds")
    return {(kind, name): torch.tensor(values, dtype=torch.float64) for kind, columns in history.items()
            for name, values in columns.items()}  # fmt: skip


def assert_same_curves(a, b, steps):
    ours, theirs = curves(a), curves(b)
    assert len(ours["steps", "loss"]) == steps and set(ours) == set(theirs)
    for (kind, name), values in ours.items():
        tolerance = 0.021 if "accuracy" in name else 1e-4  # one image of 50 may be called otherwise
        difference = (values - theirs[kind, name]).abs().max().item()
        assert difference <= tolerance, f"{kind} {name}"


def test_two_processes_have_the_loss_curve_of_one_at_the_same_batch_size(played):
    folder, _ = played
    assert_same_curves(folder / "two", folder / "one", steps=24)
    one, two = (load_checkpoint(folder / name / "model.safetensors") for name in ("one", "two"))
    assert (one.about["processes"], two.about["processes"]) == (1, 2)
    assert (one.about["steps"], two.about["steps"]) == (24, 24)


def test_only_the_first_process_writes_and_prints(played):
    folder, done = played
    assert sorted(os.listdir(folder / "two")) == sorted(os.listdir(folder / "one"))
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["epoch  1", "epoch  2"]
    assert lines[2].endswith(f"Next: python -m mixer_utils evaluate {folder / 'two'}")
    assert lines[3:] == ["Stopped by hand after step 4 of 9: the model keeps what it has learned."]
    assert done.stderr.count("training:   0%") == 1


def test_both_processes_end_with_the_same_model(played):
    folder, _ = played
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0]["digests"] == found[1]["digests"]
    saved = [load_checkpoint(folder / name / "model.safetensors") for name in ("one, then two", "two, then one")]
    assert found[0]["digests"] == [digest(model) for model in saved]


def test_a_run_goes_on_with_another_number_of_processes(played):
    folder, _ = played
    assert_same_curves(folder / "one, then two", folder / "one, whole", steps=9)
    tiny_run(folder / "two, then one", resume=True)
    assert_same_curves(folder / "two, then one", folder / "one, whole", steps=9)


def test_ctrl_c_in_one_process_stops_both_after_the_same_step(played):
    folder, _ = played
    assert [json.loads((folder / f"{rank}.json").read_text())["steps"] for rank in (0, 1)] == [4, 4]


def test_a_batch_that_two_processes_cannot_share_is_refused_by_both(played):
    folder, _ = played
    for rank in (0, 1):
        assert json.loads((folder / f"{rank}.json").read_text())["refusal"] == (
            "A batch of 33 cannot be shared equally by 2 processes: choose a batch_size that is a multiple of 2."
        )


def test_a_process_that_dies_ends_the_other_one_with_a_sentence(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in (0, 1):
        env = {**os.environ, **MEET, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
               "RANK": str(rank), "LOCAL_RANK": str(rank), "MIXER_PROGRESS": "0"}  # fmt: skip
        command = [sys.executable, __file__, "lose one", str(tmp_path)]
        processes.append(subprocess.Popen(command, env=env, stdout=-1, stderr=-1, text=True))
    try:
        (out, err), _ = [process.communicate(timeout=HANGS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [1, 3]
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert sentence.startswith("error: Process 0 of 2 lost the others (")
    assert sentence.endswith("start all again with --resume to go on from the last state that was kept.")
    assert "Traceback" not in err and out == ""
    assert os.listdir(tmp_path / "lost") == []  # the first epoch was not over


if __name__ == "__main__":
    play(sys.argv[1], Path(sys.argv[2]))
