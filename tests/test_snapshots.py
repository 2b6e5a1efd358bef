"""Snapshots are what the model was at their steps, and taking them changes nothing."""

import dataclasses
import json
import signal
import time

import pytest
import torch
from told import assert_told
from torch import nn

from mixer_utils import (
    RECIPES,
    CheckpointError,
    Recipe,
    Snapshots,
    _run,
    create_mixer,
    load_checkpoint,
    load_recorded_run,
    save_checkpoint,
    train,
    training,
)
from mixer_utils.snapshots import RECORDED_RUN
from mixer_utils.training import hold_out, loss_and_accuracy

TINY = Recipe("tiny", dataset="digits", epochs=3, batch_size=50, validation=60, stochastic_depth=0.2)  # 12 steps


@pytest.fixture
def run(few_digits, tiny_mixer):
    """A function: train() a tiny Mixer of 2 blocks, 4 patches and 5 hidden units on a few digits, on the CPU."""

    def run(snapshots=None, model=None, **options):
        model = model or tiny_mixer(stochastic_depth=TINY.stochastic_depth)
        return train(TINY, data=few_digits, model=model, device="cpu", progress=False, snapshots=snapshots, **options)

    return run


@pytest.fixture
def taken(run):
    """Snapshots of a whole run after every step."""
    snapshots = Snapshots(13)
    run(snapshots)
    return snapshots


def press_ctrl_c_in(step, monkeypatch):
    shift, calls = training.random_shift, []

    def random_shift(*arguments):
        calls.append(arguments)
        if len(calls) == step:
            signal.raise_signal(signal.SIGINT)
        return shift(*arguments)

    monkeypatch.setattr(training, "random_shift", random_shift)


def assert_holds(weights, model):
    """``weights`` (num_blocks, 2, D_S, S) are those of the model's token mixing, unit by unit, in half precision."""
    assert weights.dtype == torch.float16
    assert len(weights) == len(model.blocks)
    for block, (reads, writes) in zip(model.blocks, weights, strict=True):
        mixing = block.token_mixing
        for unit in range(mixing.dense_0.out_features):
            assert torch.equal(reads[unit], mixing.dense_0.weight[unit].half())
            assert torch.equal(writes[unit], mixing.dense_1.weight[:, unit].half())


def content(snapshots):
    """Everything in them, as JSON."""
    return json.dumps({**vars(snapshots), "weights": snapshots.weights.tolist(), "due": None}, sort_keys=True)


# --- what is taken -----------------------------------------------------------------------------------------


def test_the_first_snapshot_is_the_untrained_model_and_the_last_one_the_trained(run, tiny_mixer, few_digits):
    snapshots = Snapshots(4)
    model, history = run(snapshots)
    assert snapshots.weights.shape == (4, 2, 2, 5, 4)
    assert_holds(snapshots.weights[0], tiny_mixer())
    assert_holds(snapshots.weights[-1], model)
    assert not torch.equal(snapshots.weights[0], snapshots.weights[-1])
    _, validation = hold_out(few_digits.train, TINY.validation)
    for at, this in [(0, tiny_mixer()), (-1, model)]:
        assert snapshots.validation_accuracy[at] == loss_and_accuracy(this, validation, few_digits)[1]
    assert snapshots.validation_accuracy[-1] == history.epochs["validation_accuracy"][-1]


def test_a_snapshot_in_the_middle_is_the_model_that_a_run_stopped_there_leaves(taken, run, few_digits, monkeypatch):
    press_ctrl_c_in(7, monkeypatch)
    model, _ = run()
    _, validation = hold_out(few_digits.train, TINY.validation)
    assert_holds(taken.weights[7], model)
    assert taken.validation_accuracy[7] == loss_and_accuracy(model, validation, few_digits)[1]


@pytest.mark.parametrize("count, steps", [
    (2, [0, 12]),
    (4, [0, 1, 5, 12]),
    (5, [0, 1, 3, 7, 12]),  # 12 i^2 / 16
    (13, list(range(13))),
    (60, list(range(13))),  # no more than there are steps, and none twice
])  # fmt: skip
def test_steps_run_from_0_to_the_last_and_lie_closer_together_early_on(count, steps, run):
    snapshots = Snapshots(count)
    run(snapshots)
    assert snapshots.steps == steps
    assert len(snapshots.weights) == len(snapshots.validation_accuracy) == len(steps)


@pytest.mark.parametrize("count, steps", [(60, 1712), (60, 59), (60, 61), (7, 100_000), (1000, 1712), (60, 1)])
def test_as_many_snapshots_are_planned_as_asked_for_or_as_there_are_steps(count, steps, tiny_mixer):
    snapshots = Snapshots(count)
    snapshots.begin(tiny_mixer(), steps)
    assert len(snapshots.due) == min(count, steps + 1)
    assert (min(snapshots.due), max(snapshots.due)) == (0, steps)
    assert all(isinstance(step, int) for step in snapshots.due)


def test_they_say_what_run_they_are_of_and_how_patches_lie(tiny_mixer, few_digits):
    snapshots, model = Snapshots(2), tiny_mixer(image_size=(28, 56), patch_size=7)
    wide = dataclasses.replace(few_digits.train, images=few_digits.train.images.repeat(1, 1, 1, 2))
    train(TINY, data=dataclasses.replace(few_digits, train=wide), model=model, seed=3, device="cpu", progress=False,
          snapshots=snapshots)  # fmt: skip
    assert snapshots.grid == (4, 8) and snapshots.weights.shape[-1] == 32
    assert snapshots.about == {
        "recipe": dataclasses.asdict(TINY), "seed": 3, "dataset": "digits", "model": model.config, "device": "cpu",
        "steps_per_epoch": 4, "processes": 1, "torch_version": torch.__version__,
    }  # fmt: skip


def test_a_second_run_fills_them_anew(taken, run, tiny_mixer):
    run(taken, model=tiny_mixer(hidden_dim=8, tokens_mlp_dim=3))
    assert taken.steps == list(range(13)) and taken.weights.shape == (13, 2, 2, 3, 4)


# --- what they change: nothing -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 13])
def test_a_run_is_the_same_to_the_last_bit_with_and_without(count, run):
    (model, history), (watched, watched_history) = run(), run(Snapshots(count))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, watched.state_dict()[name]), name
    assert history.steps == watched_history.steps
    for found in (history, watched_history):
        del found.epochs["seconds"]
    assert history.epochs == watched_history.epochs


def test_the_model_trains_on_in_train_mode_and_ends_in_eval_mode(run, tiny_mixer):
    modes, model = [], tiny_mixer()

    def note(module, images):
        if torch.is_grad_enabled():
            modes.append(module.training)

    model.register_forward_pre_hook(note)
    run(Snapshots(13), model=model)
    assert modes == [True] * 12
    assert not model.training


def test_taking_them_is_not_counted_as_training(run, monkeypatch):
    hours, looks = [0.0], []

    def slow(*arguments):
        hours[0] += 3600
        looks.append(arguments)
        return loss_and_accuracy(*arguments)

    now = time.perf_counter
    for module in (training, _run):
        monkeypatch.setattr(module, "loss_and_accuracy", slow)
    monkeypatch.setattr(training.time, "perf_counter", lambda: now() + hours[0])
    _, history = run(Snapshots(13))
    assert len(looks) == 13 + 3  # and one after every epoch, as ever
    assert 0 < history.train_seconds < 600


# --- runs that stop, and go on -----------------------------------------------------------------------------


def test_a_run_stopped_by_hand_ends_with_a_snapshot_of_what_it_keeps(run, monkeypatch):
    press_ctrl_c_in(6, monkeypatch)
    snapshots = Snapshots(4)
    model, _ = run(snapshots)
    assert snapshots.steps == [0, 1, 5, 6]
    assert_holds(snapshots.weights[-1], model)


def test_a_resumed_run_has_the_whole_run_s_snapshots_from_there_on(taken, run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        press_ctrl_c_in(6, patch)
        run(Snapshots(), out=tmp_path)
    snapshots = Snapshots(13)
    run(snapshots, out=tmp_path, resume=True)
    assert snapshots.steps == list(range(6, 13))  # resumed where it was stopped
    assert torch.equal(snapshots.weights, taken.weights[6:])
    assert snapshots.validation_accuracy == taken.validation_accuracy[6:]


# --- on disk -----------------------------------------------------------------------------------------------


def test_snapshots_come_back_as_they_were_saved(taken, tmp_path):
    taken.save(tmp_path / "runs" / "run.safetensors")
    again = Snapshots.load(tmp_path / "runs" / "run.safetensors")
    assert content(again) == content(taken)
    assert again.weights.dtype == torch.float16 and again.grid == (2, 2) and again.count == 13


def test_a_damaged_or_missing_file_is_told(taken, tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(CheckpointError, match="^There is no checkpoint .*run.safetensors: "):
        Snapshots.load(path)
    taken.save(path)
    whole = path.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    for damaged, told in [(whole[:-1], "is a safetensors file, but cannot be read"), (flipped, "is damaged")]:
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=told):
            Snapshots.load(path)


def test_a_model_is_not_taken_for_snapshots_nor_snapshots_for_a_model(taken, tiny_mixer, tmp_path):
    model, run = tmp_path / "model.safetensors", tmp_path / "run.safetensors"
    save_checkpoint(tiny_mixer(), model)
    taken.save(run)
    with pytest.raises(CheckpointError) as error:
        Snapshots.load(model)
    assert_told(error.value, f"{model} holds no snapshots", "(it has model)", "Snapshots.save")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(run)
    assert_told(error.value, f"{run} holds no model", "(it has snapshots)", "give a model.safetensors")


def test_empty_snapshots_are_not_saved(tmp_path):
    with pytest.raises(ValueError) as error:
        Snapshots().save(tmp_path / "run.safetensors")
    assert_told(error.value, "snapshots are empty", "train(snapshots=...)")
    assert list(tmp_path.iterdir()) == []


# --- what cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 0, -3, 2.5, "60", None, True])
def test_a_count_that_cannot_be_is_refused(count):
    with pytest.raises(ValueError) as error:
        Snapshots(count)
    assert_told(error.value, f"count is {count!r}:", "whole number", "2 or more")


def test_another_model_than_a_mixer_is_refused_before_it_is_trained(run):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    before = model[1].weight.clone()
    with pytest.raises(ValueError) as error:
        run(Snapshots(), model=model)
    assert_told(error.value, "MlpMixer", "is a Sequential", "leave snapshots= away")
    assert torch.equal(model[1].weight, before)


# --- the run that ships ------------------------------------------------------------------------------------


def test_the_shipped_run_is_today_s_recipe_and_stays_small():
    recorded = load_recorded_run()
    assert Recipe(**recorded.about["recipe"]) == RECIPES["mixing"]
    assert (recorded.about["seed"], recorded.about["dataset"], recorded.grid) == (0, "mnist", (14, 14))
    assert RECORDED_RUN.stat().st_size <= 2e6


def test_the_shipped_run_starts_from_the_untrained_weights_of_its_seed():
    recorded = load_recorded_run()
    torch.manual_seed(0)
    model = create_mixer(RECIPES["mixing"].model)
    # Another processor may draw another last bit, and round it to another half.
    for block, (reads, writes) in zip(model.blocks, recorded.weights[0].float(), strict=True):
        torch.testing.assert_close(reads, block.token_mixing.dense_0.weight.detach(), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(writes, block.token_mixing.dense_1.weight.T.detach(), rtol=1e-3, atol=1e-6)


def test_the_shipped_run_ends_with_a_good_model():
    recorded = load_recorded_run()
    config = create_mixer(RECIPES["mixing"].model).config | {"image_size": [28, 28]}
    assert recorded.weights.shape == (24, 3, 2, 32, 196) and recorded.about["model"] == config
    assert recorded.steps[0] == 0
    assert recorded.steps[-1] == 30 * recorded.about["steps_per_epoch"] == 30 * (55_000 // 128)
    assert recorded.steps == sorted(set(recorded.steps))
    assert recorded.validation_accuracy[0] < 0.2
    assert recorded.validation_accuracy[-1] >= 0.99


def test_something_else_than_snapshots_is_refused_in_one_sentence(few_digits):
    with pytest.raises(ValueError, match="^snapshots is 60: it must be a Snapshots"):
        train("digits", data=few_digits, snapshots=60, progress=False)
