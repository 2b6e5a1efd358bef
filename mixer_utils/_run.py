"""What goes with a run but is not training: its folder, going on after an interruption, and those who look on.

An observer is told when the loop begins, after every step, after every epoch and when it ends. (The idea, and a loop
that stays readable by it, is minGPT's: https://github.com/karpathy/minGPT, ``mingpt/trainer.py``.)
"""

import contextlib
import dataclasses
import hashlib
import json
import numbers
import os
import signal
import time
from pathlib import Path

import torch

from mixer_utils._files import (
    CheckpointError,
    MixerError,
    at_home,
    make_folder,
    one_line,
    reason_of,
    switched_off,
    write_atomically,
)
from mixer_utils.checkpoints import read_tensors, save_checkpoint, write_tensors
from mixer_utils.evaluation import loss_and_accuracy
from mixer_utils.recipes import Recipe
from mixer_utils.snapshots import Snapshots


class TrainingError(MixerError):
    """A run that cannot start or go on. The message says why and what to do."""


# --- observers --------------------------------------------------------------------------------------------------------


class Observer:
    """Looks on and does nothing; ``end`` is called whatever has ended the run."""

    def begin(self, run):
        """Before the first step."""

    def after_step(self, run, record):
        """``record`` is what the history keeps of the step."""

    def after_epoch(self, run, record):
        """``record`` is what the history keeps of the epoch."""

    def end(self, run):
        """After the last step, or after an exception."""


def observers_of(run, progress, tensorboard, snapshots, saver):
    """Those who look on at a run, in the order in which they are told. In all processes but the first, fewer."""
    first = run.processes.first
    observers = [ProgressBar(progress and first)]
    if tensorboard is not None and first:
        observers.append(TensorBoard(tensorboard))
    observers.append(Interrupts())
    if snapshots is not None:
        observers.append(SnapshotTaker(snapshots))  # in every process: each measures its share of the validation images
    if run.out is not None and first:
        observers.append(saver)
    return observers


class ProgressBar(Observer):
    """tqdm's bar, in a notebook or a terminal; it goes away when the run ends, since its numbers are in the history."""

    def __init__(self, show):
        self.show = show and not switched_off("MIXER_PROGRESS")  # so that saved notebooks hold no bars
        self.bar = None

    def begin(self, run):
        from tqdm.auto import tqdm

        self.bar = tqdm(total=run.steps, initial=run.step, desc="training", unit="step", leave=False,
                        disable=not self.show)  # fmt: skip

    def after_step(self, run, record):
        self.bar.update()

    def after_epoch(self, run, record):
        self.bar.set_postfix_str(f"validation accuracy {record['validation_accuracy']:.2%}")

    def end(self, run):
        if self.bar is not None:
            self.bar.close()


class TensorBoard(Observer):
    """Writes every record to TensorBoard's logs. Raises TrainingError where it is not installed."""

    def __init__(self, folder):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrainingError(
                "tensorboard is not installed: run `pip install tensorboard`, or leave it out."
            ) from error
        self.writer = SummaryWriter(at_home(folder))

    def write(self, prefix, record, step):
        for name, value in record.items():
            self.writer.add_scalar(f"{prefix}/{name}", value, step)

    def after_step(self, run, record):
        self.write("step", record, run.step)

    def after_epoch(self, run, record):
        self.write("epoch", record, len(run.history.epochs["seconds"]))

    def end(self, run):
        self.writer.close()


class Interrupts(Observer):
    """Ctrl-C ends the run after the step under way; a second one interrupts at once."""

    before = None  # who heard of it before

    def begin(self, run):
        def note(number, frame):
            if run.interrupted:
                raise KeyboardInterrupt
            run.interrupted = True

        with contextlib.suppress(ValueError):  # not in the main thread, which alone is interrupted
            self.before = signal.signal(signal.SIGINT, note)

    def after_step(self, run, record):
        if run.stopped and run.processes.first:
            print(f"Stopped by hand after step {run.step} of {run.steps}: the model keeps what it has learned.")

    def end(self, run):
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)


class SnapshotTaker(Observer):
    """Takes a snapshot where one is due, and where a run is stopped."""

    def __init__(self, snapshots):
        if not isinstance(snapshots, Snapshots):
            raise ValueError(f"snapshots is {snapshots!r}: it must be a Snapshots, as in train(snapshots=Snapshots()).")
        self.snapshots = snapshots

    def begin(self, run):
        self.snapshots.begin(run.model, run.steps, **run.about)
        self.after_step(run, None)

    def after_step(self, run, record):
        if run.step in self.snapshots.due or run.stopped:
            _, accuracy = loss_and_accuracy(run.model, run.validation, run.data, run.processes)
            self.snapshots.add(run.step, run.model, accuracy)
            run.model.train()


class Saver(Observer):
    """Keeps what ``resume=True`` goes on from: after every epoch, every so many minutes in one, and at a stop by hand.

    Raises ValueError for a number of minutes that is none.
    """

    def __init__(self, minutes):
        if not isinstance(minutes, numbers.Real) or not minutes > 0:
            raise ValueError(f"save_every is {minutes!r}: it must be a number of minutes above 0, or inf for never.")
        self.minutes = minutes
        self.last = None  # when a state was written, in seconds of the monotonic clock

    def begin(self, run):
        self.last = time.monotonic()

    def after_step(self, run, record):
        if run.stopped or time.monotonic() - self.last >= 60 * self.minutes:
            self.save(run)

    def after_epoch(self, run, record):
        self.save(run)

    def save(self, run):
        save_state(run)
        self.last = time.monotonic()


# --- the folder of a run ----------------------------------------------------------------------------------------------

STATES = ("resume.safetensors", "resume-previous.safetensors")  # the last state that was kept, and the one before it


def has_state(out):
    """Whether there is something to go on from in the folder of a run."""
    return any((Path(out) / name).exists() for name in STATES)


def prepare_folder(out, resume):
    """Make the run's folder. One that holds a run or cannot be written is refused now, not after an hour."""
    if not resume and has_state(out):
        raise TrainingError(
            f"{out} already holds a run: go on with it (resume=True, or --resume), or give another folder."
        )
    if not has_state(out) and (Path(out) / "model.safetensors").exists():
        raise TrainingError(
            f"{out} already holds a trained model, and no {STATES[0]} from which its run could go on: give another "
            f"folder, or move that model away."
        )
    try:
        make_folder(out)
        for name in (*STATES, "model.safetensors", "history.json"):
            for unfinished in Path(out).glob(f".{name}-*"):  # left by a process that was killed while writing
                unfinished.unlink()
    except OSError as error:
        raise TrainingError(f"The folder {out} cannot be written ({reason_of(error)}): give another one.") from error


def fingerprint(data):
    """A short text that differs where the training images' classes or order do."""
    return f"{data.name}, {hashlib.sha256(data.train.labels.numpy().tobytes()).hexdigest()[:16]}"


def about_model(run):
    """What is known of the model that a run leaves."""
    return run.about | {
        "steps": run.step, "mean": run.data.mean, "std": run.data.std, "class_names": run.data.class_names,
        "pictures": run.data.pictures,
        "train_seconds": run.history.train_seconds, "images_per_second": run.history.images_per_second,
    }  # fmt: skip


def save_model(run):
    """What a run leaves when it ends: model.safetensors and history.json."""
    save_checkpoint(run.model, Path(run.out) / "model.safetensors", **about_model(run))
    write_atomically(Path(run.out) / "history.json", json.dumps(dataclasses.asdict(run.history)).encode())


def save_state(run):
    """Everything a run needs to go on after any of its steps, as one file of tensors and one JSON text.

    The file before it is kept beside it: at every moment one of the two is whole.
    """
    latest, previous = (Path(run.out) / name for name in STATES)
    tensors = {f"model.{name}": tensor for name, tensor in run.model.state_dict().items()}
    for i, optimizer in enumerate(run.optimizers):
        for key, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{key}.{name}": value for name, value in values.items()}
    if latest.exists():
        os.replace(latest, previous)
    about = {**run.identity, "history": dataclasses.asdict(run.history), "seconds": run.seconds,
             "threads": torch.get_num_threads()}  # fmt: skip
    write_tensors(latest, tensors, about)
    run.saved_step = run.step


def load_state(run):
    """Fill the run with what ``save_state`` wrote, if it has written anything. Raises TrainingError or CheckpointError.

    A job that is started again and again until it is done always asks to resume, the first time too.
    """
    if run.out is None:
        raise TrainingError("resume=True needs out=, the folder of the run to go on with.")
    if has_state(run.out):
        fill(run)
    elif run.processes.first:
        print("There is no state to resume from yet: the run begins at its first step.")
    at_the_same_step(run)


def at_the_same_step(run):
    """Raise TrainingError unless all processes of the run are where this one is."""
    (mean,) = run.processes.mean(torch.tensor([float(run.step)], device=run.device))
    if mean != run.step:
        raise TrainingError(
            f"Process {run.processes.rank} found the run in {run.out} at step {run.step}, and others found it at "
            f"another: give an out that is one and the same folder for all processes."
        )


def fill(run):
    """Fill the run with what ``save_state`` wrote."""
    path, tensors, about = read_state(run.out)
    if "recipe" not in about or "history" not in about:
        raise TrainingError(f"{path} holds no run to go on with: give another out.")
    asked = {**run.identity["recipe"], **{key: run.identity[key] for key in ("seed", "data")}}
    before = dataclasses.asdict(Recipe(""))  # what the recipes of an older version do not name
    saved = {**before, **about["recipe"], **{key: about.get(key) for key in ("seed", "data")}}
    other = [f"{key} {saved.get(key)!r}, not {value!r}" for key, value in asked.items() if saved.get(key) != value]
    if other:
        longer = (
            "; --more-epochs N trains a finished run for longer" if asked["epochs"] > saved.get("epochs", 0) else ""
        )
        raise TrainingError(
            f"{path} is of another run ({'; '.join(other)}): give the same recipe, seed and data, or another "
            f"out{longer}."
        )
    try:
        run.model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    except RuntimeError as error:
        raise TrainingError(f"{path} does not hold the model to train: give that one, or another out.") from error
    for i, optimizer in enumerate(run.optimizers):
        state = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer.{i}."):
                *_, parameter, name = key.split(".", 3)
                state.setdefault(int(parameter), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    run.threads = about.get("threads")
    run.history.steps = about["history"]["steps"]
    run.history.epochs = about["history"]["epochs"]
    run.first_epoch = len(run.history.epochs["seconds"])
    run.seconds = about.get("seconds", 0.0)
    run.step = run.saved_step = len(run.history.steps["loss"])


def read_state(out):
    """Path, tensors and about of the last state; of the one before it, where a run was killed between the two."""
    latest, previous = (Path(out) / name for name in STATES)
    if previous.exists() and not latest.exists():
        return previous, *read_tensors(previous)
    try:
        return latest, *read_tensors(latest)
    except CheckpointError as error:
        with contextlib.suppress(CheckpointError):
            _, about = read_tensors(previous)
            step = len(about["history"]["steps"]["loss"])
            raise TrainingError(
                f"{latest} cannot be read, but {previous.name} beside it, of step {step}, is good: move "
                f"{latest.name} away and resume again to go on from there."
            ) from error
        raise


# --- what is said when a run cannot go on -----------------------------------------------------------------------------


@contextlib.contextmanager
def out_of_memory_explained(batch_size, device):
    """Say which batch size was tried and which to try, where the GPU's memory is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        less = max(1, batch_size // 2)
        raise TrainingError(
            f"{batch_size} images a step do not fit into the memory of {device}: try batch_size={less}, or a smaller "
            f"model (dataclasses.replace(recipe, batch_size={less}), or --set batch_size={less})."
        ) from error


@contextlib.contextmanager
def compiler_explained():
    """Say why torch.compile does not work here, and what to do: its own errors are a page long."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = one_line(getattr(error, "inner_exception", error))[:160]
        raise TrainingError(
            f"torch.compile does not work here ({reason}): install a C++ compiler (g++ or clang), or leave "
            "compile=True (--compile) away."
        ) from error


def not_finite(run, record, epoch):
    """What to say when a loss is infinite or not a number, and where the last state is."""
    kept = max(run.saved_step, epoch * run.steps_per_epoch)  # processes that write nothing know of whole epochs alone
    when = f"step {kept}" if kept % run.steps_per_epoch else f"epoch {kept // run.steps_per_epoch}"
    state = f"{Path(run.out) / STATES[0]} ({when})" if run.out is not None and kept else "none"
    return (
        f"The loss became {record['loss']} at step {run.step}, at learning rate {record['learning_rate']:.2g}: lower "
        f"the recipe's learning_rate or raise its warmup. Last state kept: {state}."
    )
