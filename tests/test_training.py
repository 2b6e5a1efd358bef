import dataclasses
import json
import math
import os
import signal
import sys
import tempfile
import threading
import types

import numpy as np
import pytest
import torch
from PIL import Image
from told import assert_told
from torch import nn
from torch.nn import functional as F

from mixer_utils import (
    CONFIGS,
    RECIPES,
    CheckpointError,
    Dataset,
    MlpMixer,
    Recipe,
    Split,
    _image_folder,
    _run,
    devices,
    load_checkpoint,
    load_image_folder,
    save_checkpoint,
    train,
    training,
)
from mixer_utils._processes import Processes
from mixer_utils._run import at_the_same_step
from mixer_utils.augmentation import random_erase, random_flip
from mixer_utils.checkpoints import read_tensors
from mixer_utils.data import DataError
from mixer_utils.training import TrainingError, changed, hold_out, loss_and_accuracy

TINY = Recipe("tiny", dataset="digits", epochs=3, batch_size=50, validation=60)  # 4 steps an epoch on few_digits


@pytest.fixture
def run(few_digits):
    """A function: train() on a few digits, on the CPU and without a bar, with changes to the TINY recipe."""

    def run(recipe=TINY, seed=0, out=None, resume=False, model=None, data=few_digits, tensorboard=None, save_every=10,
            **changes):  # fmt: skip
        recipe = dataclasses.replace(recipe, **changes)
        return train(recipe, data=data, model=model, seed=seed, device="cpu", out=out, resume=resume, progress=False,
                     tensorboard=tensorboard, save_every=save_every)  # fmt: skip

    return run


def stop_at(monkeypatch, step, error=None, presses=1):
    """Make a run stop with ``error`` in that step (from 1), else by pressing Ctrl-C so often."""
    shift, calls = training.random_shift, []

    def random_shift(*arguments):
        calls.append(arguments)
        if len(calls) == step:
            if error is not None:
                raise error
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)
        return shift(*arguments)

    monkeypatch.setattr(training, "random_shift", random_shift)


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def without_seconds(history):
    return history.steps, {name: values for name, values in history.epochs.items() if name != "seconds"}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# --- a toy whose images are numbers ------------------------------------------------------------------------


def numbered(count=50):
    """A Dataset of 4 x 4 images; every pixel of image i is i, and after normalisation still is. Reading test fails."""

    class Closed(Dataset):
        def __getattribute__(self, name):
            if name == "test":
                raise AssertionError("training read the test images")
            return super().__getattribute__(name)

    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 4, 4).contiguous()
    split = Split(images, torch.arange(count) % 3)
    return Closed("numbered", split, None, ("a", "b", "c"), (0.0,), (1 / 255,))


class Probe(nn.Module):
    """Any module at all: a linear layer that notes what it is shown while training and while being judged."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 3)
        self.trained_on, self.judged_on, self.dtypes = [], [], []

    def forward(self, x):
        (self.trained_on if self.training else self.judged_on).append(x.detach().clone())
        logits = self.linear(x.flatten(1) / 50)
        self.dtypes.append((self.training, logits.dtype))
        return logits


def numbers(batches):
    """Which images of ``numbered`` these are."""
    return torch.cat(batches)[:, 0, 0, 0].round().int().tolist()


NUMBERED = Recipe("numbered", epochs=3, batch_size=8, validation=11, shift=0)  # 39 train: 4 batches of 8, 7 left over


def probe(seed=0, **changes):
    model = Probe()
    recipe = dataclasses.replace(NUMBERED, **changes)
    train(recipe, data=numbered(), model=model, seed=seed, device="cpu", progress=False)
    model.judged_on.pop(0)  # the one image on which the model's classes were counted before the run
    return model


# --- the same numbers again --------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_one_seed_twice_gives_the_same_losses_and_weights_to_the_last_bit(optimizer, run):
    (model, history), (again, history_again) = (
        run(optimizer=optimizer, stochastic_depth=0.2, seed=3) for _ in range(2)
    )
    assert len(history.steps["loss"]) == 12
    assert without_seconds(history) == without_seconds(history_again)
    assert same_weights(model, again)


def test_what_was_drawn_before_a_run_does_not_matter(run):
    _, history = run(epochs=1)
    torch.manual_seed(99)
    torch.rand(7)
    assert without_seconds(run(epochs=1)[1]) == without_seconds(history)


def test_another_seed_gives_another_run(run):
    (model, history), (other, other_history) = (run(epochs=1, seed=seed) for seed in (0, 1))
    assert not same_weights(model, other)
    assert history.steps["loss"][1:] != other_history.steps["loss"][1:]


# --- resume ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("step", [6, 8])  # in the middle of an epoch, and at its last step
def test_a_run_stopped_by_hand_and_resumed_ends_as_if_never_stopped(optimizer, step, run, tmp_path, monkeypatch):
    options = dict(optimizer=optimizer, stochastic_depth=0.2, seed=5)
    whole, whole_history = run(**options)
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        stopped, history = run(out=tmp_path, **options)
    assert len(history.steps["loss"]) == step
    assert history.steps["loss"] == whole_history.steps["loss"][:step]
    assert not same_weights(stopped, whole)
    model, history = run(out=tmp_path, resume=True, **options)
    assert without_seconds(history) == without_seconds(whole_history)
    assert same_weights(model, whole)
    assert same_weights(load_checkpoint(tmp_path / "model.safetensors"), whole)


def test_a_run_that_dies_can_be_resumed_from_its_last_epoch(run, tmp_path, monkeypatch):
    whole, whole_history = run()
    with monkeypatch.context() as patch:
        stop_at(patch, 10, RuntimeError("the power went off"))
        with pytest.raises(RuntimeError, match="the power went off"):
            run(out=tmp_path)
    assert files(tmp_path) == ["resume-previous.safetensors", "resume.safetensors"]
    with monkeypatch.context() as patch:
        stop_at(patch, 5, AssertionError("more than one epoch was trained again"))
        model, history = run(out=tmp_path, resume=True)
    assert without_seconds(history) == without_seconds(whole_history)
    assert same_weights(model, whole)


def test_resuming_a_finished_run_changes_nothing(run, tmp_path, monkeypatch):
    model, history = run(out=tmp_path)
    stop_at(monkeypatch, 1, AssertionError("trained on"))
    again, history_again = run(out=tmp_path, resume=True)
    assert same_weights(model, again) and history_again == history


@pytest.mark.parametrize(
    "other, told",
    [
        (dict(seed=1), "seed 0, not 1"),
        (dict(batch_size=40), "batch_size 50, not 40"),
        (dict(learning_rate=0.1, epochs=9), "epochs 3, not 9; learning_rate 0.015, not 0.1"),
    ],
)
def test_a_run_by_another_recipe_or_seed_is_not_resumed(other, told, run, tmp_path):
    recipe = dataclasses.replace(TINY, learning_rate=0.015)
    run(recipe, out=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TrainingError) as error:
        run(recipe, out=tmp_path, resume=True, **other)
    path = tmp_path / "resume.safetensors"
    assert_told(error.value, f"{path} is of another run", f"({told})", "same recipe, seed and data", "another out")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_on_other_data_is_not_resumed(run, tmp_path, few_digits):
    run(out=tmp_path, epochs=1)
    relabelled = dataclasses.replace(few_digits.train, labels=few_digits.train.labels.roll(1))
    for other in (dataclasses.replace(few_digits, name="letters"), dataclasses.replace(few_digits, train=relabelled)):
        with pytest.raises(
            TrainingError, match=r"is of another run \(data 'digits, \w{16}', not '\w+, \w{16}'\): give"
        ):
            run(out=tmp_path, epochs=1, resume=True, data=other)


def test_a_run_with_another_model_is_not_resumed(run, tmp_path, tiny_mixer):
    run(out=tmp_path, model=tiny_mixer(), epochs=1)
    with pytest.raises(TrainingError, match="does not hold the model to train"):
        run(out=tmp_path, model=tiny_mixer(hidden_dim=13), epochs=1, resume=True)
    (tmp_path / "resume.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
    with pytest.raises(TrainingError, match=r"resume\.safetensors holds no run to go on with: give another out\.$"):
        run(out=tmp_path, model=tiny_mixer(), epochs=1, resume=True)


def test_resuming_needs_a_folder(run):
    with pytest.raises(TrainingError) as error:
        run(resume=True)
    assert_told(error.value, "resume=True", "needs out=")


def test_where_there_is_no_state_yet_a_resumed_run_begins_and_says_so(run, tmp_path, monkeypatch, capsys):
    whole, whole_history = run()
    with monkeypatch.context() as patch:
        stop_at(patch, 3, RuntimeError("the power went off"))
        with pytest.raises(RuntimeError, match="the power went off"):
            run(resume=True, out=tmp_path / "run")
    assert files(tmp_path / "run") == []  # killed in its first epoch: started again, it begins again
    model, history = run(resume=True, out=tmp_path / "run")
    assert same_weights(model, whole) and without_seconds(history) == without_seconds(whole_history)
    assert capsys.readouterr().out == "There is no state to resume from yet: the run begins at its first step.\n" * 2


@pytest.mark.parametrize("resume", [True, False])
def test_a_trained_model_whose_states_are_gone_is_not_written_over(resume, run, tmp_path):
    run(out=tmp_path, epochs=1)
    for name in ("resume.safetensors", "resume-previous.safetensors"):
        (tmp_path / name).unlink(missing_ok=True)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TrainingError) as error:
        run(out=tmp_path, epochs=1, resume=resume)
    assert_told(error.value, f"{tmp_path} already holds a trained model", "no resume.safetensors", "another folder")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_processes_that_find_a_run_at_different_steps_are_told(tmp_path):
    class OneOfTwo(Processes):
        def mean(self, values):
            return [value / 2 for value in values.tolist()]  # the other one has found nothing

    state = types.SimpleNamespace(processes=OneOfTwo(0, 2), step=8, device=torch.device("cpu"), out=tmp_path)
    with pytest.raises(TrainingError) as error:
        at_the_same_step(state)
    assert_told(error.value, "Process 0", f"{tmp_path} at step 8", "one and the same folder")
    state.step = 0
    at_the_same_step(state)


# --- resume in the middle of an epoch ----------------------------------------------------------------------

OFTEN = 1e-9  # minutes: after every step


@pytest.mark.parametrize("changes", [
    dict(optimizer="adamw", stochastic_depth=0.3),
    dict(optimizer="muon", stochastic_depth=0.3, mixup=0.4),
    dict(rotation=15, scale=0.15, shear=0.15, translation=2, elastic=1.2),
    dict(shift=2, rotation=10, mixup=0.2, label_smoothing=0.1),
], ids=lambda changes: "-".join(changes))  # fmt: skip
@pytest.mark.parametrize("step", [2, 7, 9])  # the first steps of an epoch, its middle, its last: 4 steps an epoch
def test_a_run_that_dies_in_an_epoch_goes_on_from_the_step_that_was_kept(changes, step, run, tmp_path, monkeypatch):
    whole, whole_history = run(**changes)
    with monkeypatch.context() as patch:
        stop_at(patch, step, RuntimeError("the power went off"))
        with pytest.raises(RuntimeError, match="the power went off"):
            run(out=tmp_path, save_every=OFTEN, **changes)
    with monkeypatch.context() as patch:
        stop_at(patch, 12 - (step - 1) + 1, AssertionError("a step was done again"))
        model, history = run(out=tmp_path, resume=True, **changes)
    assert len(history.steps["loss"]) == 12
    assert without_seconds(history) == without_seconds(whole_history)
    assert same_weights(model, whole)
    assert same_weights(load_checkpoint(tmp_path / "model.safetensors"), whole)


def test_a_run_stopped_by_hand_goes_on_from_the_step_where_it_was_stopped(run, tmp_path, monkeypatch):
    whole, whole_history = run(stochastic_depth=0.2)
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        run(out=tmp_path, stochastic_depth=0.2)
    _, about = read_tensors(tmp_path / "resume.safetensors")
    assert len(about["history"]["steps"]["loss"]) == 6
    with monkeypatch.context() as patch:
        stop_at(patch, 7, AssertionError("a step was done again"))
        model, history = run(out=tmp_path, resume=True, stochastic_depth=0.2)
    assert same_weights(model, whole) and without_seconds(history) == without_seconds(whole_history)


def test_the_seconds_of_an_epoch_are_those_before_and_after_an_interruption(run, tmp_path, monkeypatch):
    clock = types.SimpleNamespace(now=0.0)

    def ticking():
        clock.now += 1
        return clock.now

    monkeypatch.setattr(training.time, "perf_counter", ticking)
    _, whole = run(out=tmp_path / "whole", save_every=OFTEN)
    with monkeypatch.context() as patch:
        stop_at(patch, 7, RuntimeError("the power went off"))
        with pytest.raises(RuntimeError, match="the power went off"):
            run(out=tmp_path / "halved", save_every=OFTEN)
    _, halved = run(out=tmp_path / "halved", resume=True, save_every=OFTEN)
    assert halved.epochs["seconds"] == pytest.approx(whole.epochs["seconds"], abs=1)
    assert min(whole.epochs["seconds"]) > 3


def test_a_state_is_kept_every_so_many_minutes_of_an_epoch_and_after_each(run, tmp_path, monkeypatch):
    clock, kept = types.SimpleNamespace(now=0.0), []
    monkeypatch.setattr(_run.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(_run, "save_state", lambda run: kept.append(run.step))
    shift = training.random_shift

    def slow(*arguments):
        clock.now += 4 * 60
        return shift(*arguments)

    monkeypatch.setattr(training, "random_shift", slow)
    for minutes, expected in [(None, [3, 4, 7, 8, 11, 12]), (5, [2, 4, 6, 8, 10, 12]), (math.inf, [4, 8, 12])]:
        kept.clear()
        run(out=tmp_path, **({} if minutes is None else {"save_every": minutes}))
        (tmp_path / "model.safetensors").unlink()
        assert sorted(set(kept)) == expected


@pytest.mark.parametrize("minutes", [0, -1, math.nan, "ten", None])
def test_minutes_that_are_none_are_refused_before_anything_is_made(minutes, run, tmp_path):
    with pytest.raises(ValueError) as error:
        run(out=tmp_path / "run", save_every=minutes)
    assert_told(error.value, f"save_every is {minutes!r}:", "number of minutes above 0", "inf for never")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def pictures(tmp_path):
    """A Dataset of 24 training and 2 validation pictures in a folder, RandAugment and all."""
    random = np.random.default_rng(0)
    for part, count in {"train": 12, "val": 1}.items():
        for name in ("cat", "dog"):
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pictures" / part / name / f"{i}.png")
    return load_image_folder(tmp_path / "pictures", size=8)


def test_a_run_on_a_folder_goes_on_in_an_epoch_without_decoding_what_it_is_through_with(
    run, pictures, tmp_path, monkeypatch
):
    options = dict(data=pictures, epochs=2, batch_size=5, validation=4, shift=0, mixup=0.3, stochastic_depth=0.2)

    def model():
        torch.manual_seed(0)
        return MlpMixer(image_size=8, in_channels=3, patch_size=4, num_classes=2, num_blocks=2, hidden_dim=8,
                        tokens_mlp_dim=4, channels_mlp_dim=16, stochastic_depth=0.2)  # fmt: skip

    whole, whole_history = run(model=model(), **options)
    out = tmp_path / "run"
    save_state = _run.save_state

    def dying(state):
        save_state(state)
        if state.step == 6:  # of 8, 4 an epoch
            raise RuntimeError("the power went off")

    with monkeypatch.context() as patch:
        patch.setattr(_run, "save_state", dying)
        with pytest.raises(RuntimeError, match="the power went off"):
            run(model=model(), out=out, save_every=OFTEN, **options)
    decoded, read_rgb = [], _image_folder.read_rgb
    monkeypatch.setattr(_image_folder, "read_rgb", lambda path: decoded.append(path) or read_rgb(path))
    again, history = run(model=model(), out=out, resume=True, **options)
    assert same_weights(again, whole) and without_seconds(history) == without_seconds(whole_history)
    assert len(decoded) == 2 * 5 + 4  # two steps and the validation


# --- stopping ----------------------------------------------------------------------------------------------


def test_stopping_by_hand_keeps_what_was_learned(run, tmp_path, monkeypatch, capsys, few_digits):
    torch.manual_seed(0)
    start = training.mixer_for(TINY, few_digits)
    stop_at(monkeypatch, 6)
    model, history = run(out=tmp_path)
    assert capsys.readouterr().out == ("Stopped by hand after step 6 of 12: the model keeps what it has learned.\n")
    assert {len(values) for values in history.steps.values()} == {6}
    assert {len(values) for values in history.epochs.values()} == {1}
    assert not model.training
    assert not same_weights(model, start)
    saved = load_checkpoint(tmp_path / "model.safetensors")
    assert same_weights(saved, model) and saved.about["steps"] == 6
    assert json.loads((tmp_path / "history.json").read_text())["steps"] == history.steps


def test_stopping_by_hand_before_the_first_epoch_is_over_still_gives_a_model(run, tmp_path, monkeypatch):
    stop_at(monkeypatch, 1)
    model, history = run(out=tmp_path)
    assert (len(history.steps["loss"]), history.epochs["seconds"]) == (1, [])
    assert (history.train_seconds, history.images_per_second) == (0, 0)
    assert same_weights(load_checkpoint(tmp_path / "model.safetensors"), model)


def test_a_second_ctrl_c_does_not_wait_for_the_step(run, tmp_path, monkeypatch):
    stop_at(monkeypatch, 6, presses=2)
    with pytest.raises(KeyboardInterrupt):
        run(out=tmp_path)
    assert files(tmp_path) == ["resume.safetensors"]  # of the first epoch


def test_ctrl_c_means_after_a_run_what_it_meant_before(run, monkeypatch):
    def mine(number, frame):
        raise AssertionError("pressed")

    before = signal.signal(signal.SIGINT, mine)
    try:
        run(epochs=1)
        assert signal.getsignal(signal.SIGINT) is mine
        for error in (RuntimeError("the power went off"), KeyboardInterrupt()):
            with monkeypatch.context() as patch:
                stop_at(patch, 2, error)
                with pytest.raises(type(error)):
                    run(epochs=1)
            assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_in_another_thread_is_the_same_and_leaves_ctrl_c_alone(run):
    model, history = run(epochs=1)
    before, found = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: found.append(run(epochs=1)))
    thread.start()
    thread.join(timeout=60)
    assert signal.getsignal(signal.SIGINT) is before
    (again, history_again) = found[0]
    assert without_seconds(history_again) == without_seconds(history) and same_weights(again, model)


@dataclasses.dataclass(frozen=True)
class Exploding(Recipe):
    """Its learning rate is far too high from step ``after`` on."""

    after: int = 0

    def learning_rate_at(self, step, steps):
        return 1e-3 if step < self.after else 1e30


def exploding(after):
    return Exploding(**{**dataclasses.asdict(TINY), "optimizer": "adamw", "after": after})


def test_a_loss_that_is_not_finite_is_told_with_step_learning_rate_and_checkpoint(run, tmp_path):
    with pytest.raises(TrainingError) as error:
        run(exploding(after=5), out=tmp_path)
    sentence = str(error.value)
    assert sentence.startswith(("The loss became nan at step 7, ", "The loss became inf at step 7, "))
    assert sentence.endswith(
        "at learning rate 1e+30: lower the recipe's learning_rate or raise its warmup. "
        f"Last state kept: {tmp_path / 'resume.safetensors'} (epoch 1)."
    )
    assert files(tmp_path) == ["resume.safetensors"]  # and no model that is no good


def test_the_last_state_may_be_one_within_an_epoch(run, tmp_path):
    with pytest.raises(TrainingError) as error:
        run(exploding(after=5), out=tmp_path, save_every=OFTEN)
    assert_told(error.value, "at step 7", f"Last state kept: {tmp_path / 'resume.safetensors'} (step 6)")


@pytest.mark.parametrize("with_out", [True, False])
def test_a_loss_that_is_not_finite_in_the_first_epoch_leaves_no_checkpoint(with_out, run, tmp_path):
    with pytest.raises(TrainingError, match=r"at step 2, .* Last state kept: none\.$"):
        run(exploding(after=0), out=tmp_path if with_out else None)
    assert files(tmp_path) == []


def test_a_batch_that_does_not_fit_into_memory_is_told_with_the_one_tried_and_the_one_to_try(run):
    class Greedy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(784, 10)

        def forward(self, x):
            if self.training:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return self.linear(x.flatten(1))

    with pytest.raises(TrainingError) as error:
        run(model=Greedy())
    remedies = ("try batch_size=25", "dataclasses.replace(recipe, batch_size=25)", "--set batch_size=25")
    assert_told(error.value, "50 images", "memory of cpu", *remedies)


# --- which images are seen ---------------------------------------------------------------------------------


def test_validation_images_are_never_trained_on_and_the_same_for_every_seed():
    trained_on, judged_on = [], []
    for seed in (0, 1):
        model = probe(seed, epochs=8)
        trained_on.append(set(numbers(model.trained_on)))
        judged_on.append(numbers(model.judged_on))
    assert len(judged_on[0]) == 8 * 11 and len(set(judged_on[0])) == 11
    assert judged_on[0] == judged_on[1]
    assert trained_on[0] | set(judged_on[0]) == set(range(50))  # in eight epochs every image has its turn
    assert not trained_on[0] & set(judged_on[0]) and not trained_on[1] & set(judged_on[1])


def test_an_epoch_shows_an_image_at_most_once_in_an_order_of_its_own():
    shown = np.array(numbers(probe().trained_on)).reshape(3, 4, 8)
    assert all(len(set(epoch.ravel())) == 32 for epoch in shown)
    assert len({tuple(epoch.ravel()) for epoch in shown}) == 3
    assert len({frozenset(epoch.ravel()) for epoch in shown}) == 3  # nor are the same seven always left out


def test_training_images_are_shifted_and_validation_images_are_not():
    model = probe(shift=1)
    trained_on, judged_on = torch.cat(model.trained_on), torch.cat(model.judged_on)
    moved = (trained_on.flatten(1).amin(1) == 0).float().mean().item()  # zeros have come in
    assert moved == pytest.approx(8 / 9, abs=0.12)
    assert torch.equal(judged_on, judged_on[:, :, :1, :1].expand_as(judged_on))


def test_the_images_are_normalized_as_the_data_set_says(few_digits):
    shown = []

    class Watching(nn.Sequential):
        def forward(self, x):
            shown.append(x.detach())
            return super().forward(x)

    model = Watching(nn.Flatten(), nn.Linear(784, 10))
    recipe = dataclasses.replace(TINY, epochs=1, batch_size=200, shift=0)
    train(recipe, data=few_digits, model=model, device="cpu", progress=False)
    everything = torch.cat(shown[1:])
    assert len(everything) == 260
    expected = few_digits.normalize(few_digits.train.images)
    assert torch.equal(everything.flatten(1).sort(0).values, expected.flatten(1).sort(0).values)


@pytest.mark.parametrize("count", [0, 50, 51, -1])
def test_there_must_be_images_left_to_train_on_and_some_to_judge_by(count):
    with pytest.raises(ValueError) as error:
        hold_out(numbered().train, count)
    assert_told(error.value, f"validation is {count}:", "between 1 and 49", "50 images")


# --- learning rate and loss -----------------------------------------------------------------------------------


def test_the_learning_rate_rises_linearly_to_its_peak_and_falls_linearly_to_nearly_zero():
    recipe = Recipe("r", learning_rate=0.02, warmup=0.25)
    rates = np.array([recipe.learning_rate_at(step, 40) for step in range(40)])
    np.testing.assert_allclose(rates[:10], 0.02 * np.arange(1, 11) / 10)
    np.testing.assert_allclose(rates[10:], 0.02 * np.arange(30, 0, -1) / 30)
    assert rates.max() == 0.02 and rates[-1] == pytest.approx(0.02 / 30)


@pytest.mark.parametrize("warmup, steps", [(0.0, 5), (0.1, 1), (1.0, 5), (0.1, 2)])
def test_the_learning_rate_reaches_its_peak_and_stays_above_zero_in_the_shortest_runs(warmup, steps):
    rates = [Recipe("r", learning_rate=3.0, warmup=warmup).learning_rate_at(step, steps) for step in range(steps)]
    assert max(rates) == 3 and min(rates) > 0


class Recorder(torch.optim.SGD):
    def __init__(self, parameters):
        super().__init__(parameters, lr=0)
        self.rates, self.norms = [], []

    def step(self):
        (group,) = self.param_groups
        self.rates.append(group["lr"])
        self.norms.append(math.sqrt(sum(p.grad.square().sum().item() for p in group["params"])))
        super().step()


def test_every_optimiser_follows_the_schedule_and_history_tells_it(run, monkeypatch):
    made = []

    def two(model, recipe):
        first, *rest = model.parameters()
        made.extend([Recorder([first]), Recorder(rest)])
        return made

    monkeypatch.setattr(training, "make_optimizers", two)
    _, history = run(learning_rate=0.01, warmup=0.5)
    expected = [Recipe("r", learning_rate=0.01, warmup=0.5).learning_rate_at(step, 12) for step in range(12)]
    assert history.steps["learning_rate"] == made[0].rates == made[1].rates == expected
    assert history.epochs["learning_rate"] == [expected[3], expected[7], expected[11]]


def test_gradients_are_clipped_to_the_recipes_norm_and_start_from_zero_at_every_step(run, monkeypatch):
    made = []
    monkeypatch.setattr(
        training, "make_optimizers", lambda model, _: made.append(Recorder(model.parameters())) or made[-1:]
    )
    run(learning_rate=1e-9, clip_norm=1e9)
    run(learning_rate=1e-9, clip_norm=1e-3)
    free, clipped = (np.array(recorder.norms) for recorder in made)
    np.testing.assert_allclose(clipped, 1e-3, rtol=1e-3)
    # The weights hardly move, so neither do the gradients: left to add up, they would grow twelvefold.
    assert free.min() > 1e-2 and free.max() < 3 * free.min()


def test_label_smoothing_enters_the_training_loss_alone(run):
    (_, sharp), (_, smooth) = (run(label_smoothing=s, batch_size=200, epochs=1) for s in (0.0, 0.2))
    assert sharp.steps["loss"][0] == smooth.steps["loss"][0] == pytest.approx(math.log(10))  # all logits are zero
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    nn.init.zeros_(model[1].weight)
    model[1].bias.data = torch.arange(10.0)
    frozen = dict(batch_size=200, epochs=1, learning_rate=0.0, weight_decay=0.0, model=model)
    (_, sharp), (_, smooth) = (run(label_smoothing=s, **frozen) for s in (0.0, 0.2))
    everything = -torch.arange(10.0).log_softmax(0).mean().item()
    assert smooth.steps["loss"][0] == pytest.approx(0.8 * sharp.steps["loss"][0] + 0.2 * everything, rel=1e-3)
    assert smooth.epochs["validation_loss"] == sharp.epochs["validation_loss"]


# --- what is learned ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer, learning_rate", [("muon", 6e-3), ("adamw", 3e-3)])
def test_one_batch_can_be_learned_by_heart_in_60_steps(optimizer, learning_rate, digits):
    data = dataclasses.replace(digits, train=digits.train[:33])
    recipe = Recipe("heart", epochs=60, batch_size=32, validation=1, shift=0, optimizer=optimizer,
                    learning_rate=learning_rate)  # fmt: skip
    _, history = train(recipe, data=data, device="cpu", progress=False)
    assert len(history.steps["loss"]) == 60
    assert history.steps["loss"][0] == pytest.approx(math.log(10), abs=1e-3)
    assert history.steps["loss"][-1] < 0.01 and history.steps["accuracy"][-1] == 1


def test_any_module_that_gives_one_logit_a_class_can_be_trained(few_digits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    before = [parameter.clone() for parameter in model.parameters()]
    recipe = Recipe("any", epochs=8, batch_size=50, validation=60, shift=0)
    trained, history = train(recipe, data=few_digits, model=model, device="cpu", progress=False)
    assert trained is model and not model.training
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert history.epochs["train_loss"][-1] < 0.5 * history.epochs["train_loss"][0]
    assert history.epochs["validation_accuracy"][-1] > 0.7


def test_a_mixer_is_made_to_fit_the_data(few_digits):
    images = F.pad(few_digits.train.images, (0, 7)).expand(-1, 3, -1, -1)  # 28 x 35, colour
    odd = dataclasses.replace(few_digits, train=Split(images, few_digits.train.labels % 4), class_names=tuple("abcd"),
                              mean=(0.3,) * 3, std=(0.3,) * 3)  # fmt: skip
    recipe = dataclasses.replace(TINY, epochs=1, stochastic_depth=0.1)
    model, _ = train(recipe, data=odd, device="cpu", progress=False)
    assert (model.image_shape, model.head.out_features) == ((3, 28, 35), 4)
    assert model.blocks[-1].drop == 0.1 and model.config["gelu"] == "erf"


def resized(digits, height, width, channels=3):
    """Digits as images of another size."""
    images = torch.zeros(len(digits.train), channels, height, width, dtype=torch.uint8)
    return dataclasses.replace(digits, train=Split(images, digits.train.labels), mean=(0.5,) * channels,
                               std=(0.5,) * channels)  # fmt: skip


@pytest.mark.parametrize("recipe", ["minute", "digits"])
def test_images_that_the_recipes_patches_do_not_divide_are_told_with_the_configurations_that_fit(recipe, few_digits):
    data = resized(few_digits, 32, 32)
    with pytest.raises(ValueError) as error:
        train(dataclasses.replace(RECIPES[recipe], validation=60), data=data, device="cpu", progress=False)
    choices = "choose cifar/4 or mnist/mixing or mnist/4,"
    told = ["mnist/7", f"recipe {recipe}", "7 x 7", "32 x 32 images of digits", choices]
    assert_told(error.value, *told, '["model=cifar/4"]', "--set model=cifar/4 on the command line")
    assert "patch_size" not in str(error.value)  # a recipe has none
    for name in ("cifar/4", "mnist/4"):
        model = training.mixer_for(changed(recipe, [f"model={name}"]), data)
        assert (model.image_shape, model.num_tokens) == ((3, 32, 32), 64)


@pytest.mark.parametrize("height, width, told", [
    (64, 96, "choose cifar/4 or mnist/mixing or mnist/4 or S/16 or B/16 or L/16,"),
    (42, 70, None),  # mnist/7's own patches divide them
    (32, 30, "choose mnist/mixing,"),
    (32, 31, "resize the images, to 32 x 32 say"),
    (6, 6, "no configuration cuts them into 4 x 4 patches or more"),
])  # fmt: skip
def test_only_configurations_that_cut_the_images_into_several_patches_are_named(height, width, told, few_digits):
    data = resized(few_digits, height, width)
    if told is None:
        assert training.mixer_for(RECIPES["minute"], data).num_tokens == 6 * 10
    else:
        with pytest.raises(ValueError) as error:
            training.mixer_for(RECIPES["minute"], data)
        assert_told(error.value, f"{height} x {width}", told)


def test_a_recipe_with_a_model_that_does_not_exist_is_refused_with_those_that_do(few_digits):
    with pytest.raises(ValueError) as error:
        training.mixer_for(changed("minute", ["model=mnist/5"]), resized(few_digits, 32, 32))
    assert_told(error.value, "'mnist/5'", f"choose one of {', '.join(CONFIGS)}.")


# --- what is recorded --------------------------------------------------------------------------------------


def test_history_has_an_entry_a_step_and_an_entry_an_epoch_that_agree(run, few_digits):
    model, history = run()
    assert {name: len(values) for name, values in history.steps.items()} == dict(loss=12, accuracy=12, learning_rate=12)
    assert set(history.epochs) == {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy",
                                   "learning_rate", "seconds", "images"}  # fmt: skip
    assert {len(values) for values in history.epochs.values()} == {3}
    for name in ("loss", "accuracy"):
        means = np.reshape(history.steps[name], (3, 4)).mean(axis=1)
        np.testing.assert_allclose(history.epochs[f"train_{name}"], means, rtol=1e-12)
    assert history.epochs["images"] == [200, 200, 200]
    assert all(seconds > 0 for seconds in history.epochs["seconds"])
    assert history.train_seconds == sum(history.epochs["seconds"])
    assert history.images_per_second == pytest.approx(600 / history.train_seconds)

    _, validation = hold_out(few_digits.train, 60)
    logits = model(few_digits.normalize(validation.images))
    assert history.epochs["validation_loss"][-1] == pytest.approx(
        F.cross_entropy(logits, validation.labels).item(), abs=1e-5
    )
    right = (logits.argmax(1) == validation.labels).sum().item()
    assert history.epochs["validation_accuracy"][-1] == pytest.approx(right / 60)


def test_loss_and_accuracy_are_those_of_all_images_however_they_are_batched(few_digits, tiny_mixer):
    model = tiny_mixer()
    logits = model(few_digits.normalize(few_digits.test.images))
    loss, accuracy = loss_and_accuracy(model, few_digits.test, few_digits)
    assert loss == pytest.approx(F.cross_entropy(logits, few_digits.test.labels).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == few_digits.test.labels).sum().item() / 40)
    in_sevens = training.predict_logits(model.train(), few_digits.test.images, few_digits, batch_size=7)
    torch.testing.assert_close(in_sevens, logits, rtol=0, atol=1e-5)
    assert not model.training


def test_a_run_leaves_its_model_its_history_and_what_it_needs_to_go_on(run, tmp_path):
    model, history = run(out=tmp_path / "runs" / "first", seed=4)
    folder = tmp_path / "runs" / "first"
    assert files(folder) == [
        "history.json",
        "model.safetensors",
        "resume-previous.safetensors",
        "resume.safetensors",
    ]
    assert json.loads((folder / "history.json").read_text()) == dataclasses.asdict(history)
    saved = load_checkpoint(folder / "model.safetensors")
    assert same_weights(saved, model)
    expected = dict(recipe=dataclasses.asdict(TINY), seed=4, device="cpu", steps=12, dataset="digits",
                    class_names=list("0123456789"), torch_version=torch.__version__,
                    train_seconds=history.train_seconds, images_per_second=history.images_per_second)  # fmt: skip
    assert {key: saved.about[key] for key in expected} == expected
    assert saved.about["mean"] == [0.3054] and saved.about["std"] == [0.3238]


def refuse_temporary_files(monkeypatch):
    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)


def test_a_folder_is_found_from_home(run, tmp_path, monkeypatch, tiny_mixer):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model, _ = run(out="~/run", epochs=1, tensorboard="~/logs")
    assert {"model.safetensors", "resume.safetensors"} < set(files(tmp_path / "run"))
    assert files(tmp_path) == ["logs", "run"]  # and no folder that is called ~
    assert same_weights(load_checkpoint("~/run/model.safetensors"), model)
    run(out="~/run", epochs=1, resume=True)
    save_checkpoint(tiny_mixer(), "~/mine.safetensors")
    assert same_weights(load_checkpoint(tmp_path / "mine.safetensors"), tiny_mixer())
    with pytest.raises(ValueError) as error:
        run(out="~nobody of that name/run")
    assert_told(error.value, "~nobody of that name/run begins with ~", "write the folder out")


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(run, tmp_path, monkeypatch):
    stop_at(monkeypatch, 1, AssertionError("trained"))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(TrainingError, match=r"^The folder .*file.run cannot be written \(.+\): give another one\.$"):
        run(out=tmp_path / "file" / "run")
    refuse_temporary_files(monkeypatch)
    with pytest.raises(TrainingError) as error:
        run(out=tmp_path / "run")
    assert_told(error.value, f"{tmp_path / 'run'} cannot be written", "Read-only file system", "give another")


def test_a_disk_that_is_full_after_the_first_epoch_is_told(run, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError) as error:
        run(out=tmp_path)
    path = tmp_path / "resume.safetensors"
    assert_told(error.value, f"Cannot write {path}", "No space left on device", "free some space", "another folder")
    assert files(tmp_path) == []


def test_a_run_is_not_overwritten_by_another(run, tmp_path):
    run(out=tmp_path, epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TrainingError) as error:
        run(out=tmp_path, epochs=1)
    assert_told(error.value, f"{tmp_path} already holds a run", "resume=True", "--resume", "another folder")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_tensorboard_gets_the_numbers_of_history(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, history = run(tensorboard=tmp_path / "logs")
    log = EventAccumulator(str(tmp_path / "logs"), size_guidance={"scalars": 0}).Reload()
    assert len(log.Tags()["scalars"]) == 3 + 7
    for prefix, columns in [("step", history.steps), ("epoch", history.epochs)]:
        for name, values in columns.items():
            events = log.Scalars(f"{prefix}/{name}")
            assert [event.step for event in events] == list(range(1, len(values) + 1))
            np.testing.assert_array_equal([event.value for event in events], np.float32(values))


def test_where_tensorboard_is_not_installed_one_sentence_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError) as error:
        run(tensorboard=tmp_path / "logs")
    assert_told(error.value, "tensorboard is not installed", "`pip install tensorboard`", "leave it out")
    assert files(tmp_path) == []


def test_the_bar_is_on_stderr_where_it_is_asked_for_and_nowhere_else(few_digits, monkeypatch, capsys):
    monkeypatch.delenv("MIXER_PROGRESS", raising=False)  # notebooks are tested with "0"
    recipe = dataclasses.replace(TINY, epochs=2)
    train(recipe, data=few_digits, device="cpu", progress=False)
    monkeypatch.setenv("MIXER_PROGRESS", "false")
    train(recipe, data=few_digits, device="cpu", progress=True)
    monkeypatch.delenv("MIXER_PROGRESS")
    assert capsys.readouterr() == ("", "")
    train(recipe, data=few_digits, device="cpu", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "training:   0%" in err and "/8 [" in err and "validation accuracy " in err
    assert err.rsplit("\r", 1)[-1].strip() == ""  # and at the end it goes away


# --- precision ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gains", [True, False])
def test_matrix_products_are_in_bfloat16_only_while_training_where_that_is_a_gain(gains, monkeypatch):
    monkeypatch.setattr(devices, "gains_from_bf16", lambda device: gains)
    model = probe()
    expected = torch.bfloat16 if gains else torch.float32
    assert set(model.dtypes) == {(True, expected), (False, torch.float32)}
    assert model.linear.weight.dtype == torch.float32


# --- recipes, and what does not fit together ---------------------------------------------------------------


def test_the_recipes_are_called_what_they_are_listed_as_and_name_what_exists():
    assert {"minute", "digits"} <= set(RECIPES)
    assert (RECIPES["minute"].dataset, RECIPES["digits"].dataset) == ("mnist", "digits")
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.model in CONFIGS


def test_a_recipe_is_found_by_name_with_the_data_it_names(monkeypatch, few_digits):
    asked = []
    monkeypatch.setitem(RECIPES, "tiny", dataclasses.replace(TINY, epochs=1))
    monkeypatch.setattr(training, "load_dataset", lambda name: asked.append(name) or few_digits)
    _, history = train("tiny", device="cpu", progress=False)
    assert asked == ["digits"] and len(history.steps["loss"]) == 4


def test_data_that_cannot_be_had_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXER_DATA", str(tmp_path))
    with pytest.raises(DataError, match="^mnist is not in "):
        train("minute", device="cpu")


@pytest.mark.parametrize("change, told", [
    ({"epochs": 0}, ("epochs is 0", "at least 1")),
    ({"batch_size": -1}, ("batch_size is -1", "at least 1")),
    ({"learning_rate": -0.1}, ("learning_rate is -0.1", "at least 0")),
    ({"elastic": math.nan}, ("elastic is nan", "at least 0")),
])  # fmt: skip
def test_a_recipe_that_cannot_be_followed_is_refused_with_the_value_named(change, told):
    with pytest.raises(ValueError) as error:
        dataclasses.replace(TINY, **change)
    assert_told(error.value, *told)


@pytest.mark.parametrize("setting, told", [
    ("epochs=two", "epochs is 'two': it must be a whole number."),
    ("scale=wide", "scale is 'wide': it must be a number."),
    ("epochs=0", "epochs is 0: it must be at least 1."),
    ("pochs=2", "A recipe has no 'pochs': choose one of name, dataset, model, epochs,"),
])  # fmt: skip
def test_a_setting_that_does_not_fit_is_refused_in_one_sentence(setting, told):
    with pytest.raises(ValueError) as error:
        training.changed("digits", [setting])
    assert str(error.value).startswith(told)


def test_settings_change_a_recipe_and_nothing_else():
    settings = ["epochs=3", "learning_rate=0.5", "model=mnist/4"]
    expected = dataclasses.replace(RECIPES["digits"], epochs=3, learning_rate=0.5, model="mnist/4")
    assert training.changed("digits", settings) == expected


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(ValueError) as error:
        train("hour")
    assert_told(error.value, "'hour'", f"choose one of {', '.join(RECIPES)}.")


def test_a_model_with_other_classes_than_the_data_is_refused_at_once(run):
    with pytest.raises(ValueError) as error:
        run(model=MlpMixer(num_classes=7))
    assert_told(error.value, "shape (1, 7)", "digits has 10 classes", "build it with num_classes=10.")


def test_a_model_for_other_images_than_the_data_is_refused_at_once(run):
    with pytest.raises(
        ValueError, match=r"^MlpMixer got images of shape \(1, 1, 28, 28\) but was built for \(B, 3, 32, 32\)"
    ):
        run(model=MlpMixer(image_size=32, in_channels=3))


def test_a_folder_is_refused_for_a_model_that_cannot_be_saved_before_it_is_trained(run, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(ValueError, match="^out= saves an MlpMixer, and this model is a Sequential: "):
        run(model=model, out=tmp_path)
    assert files(tmp_path) == []


def test_flips_and_erased_squares_leave_the_other_random_numbers_as_they_are(mnist):
    images, labels = mnist.train.images[:64], mnist.train.labels[:64]
    recipe = dataclasses.replace(RECIPES["full"], shift=2)
    more = dataclasses.replace(recipe, flip=0.5, erase=8)
    torch.manual_seed(0)
    numbers = training.random_numbers(64, recipe)
    torch.manual_seed(0)
    with_more = training.random_numbers(64, more)
    assert torch.equal(with_more[:, : numbers.shape[1]], numbers)
    plain, _ = training.augment(images, labels, numbers, recipe, mnist, 0)
    found, _ = training.augment(images, labels, with_more, more, mnist, 0)
    own = with_more[:, numbers.shape[1] :]
    zero = mnist.normalize(torch.zeros(1, 1, 1, 1, dtype=torch.uint8)).item()
    expected = random_flip(plain, 0.5, own[:, :1])
    square = random_erase(torch.ones_like(expected), 8, own[:, 1:]) == 0
    assert torch.equal(found, expected.masked_fill(square, zero))
    assert 0.3 < (own[:, 0] < 0.5).float().mean() < 0.7
