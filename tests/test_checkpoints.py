import errno
import json
import os
import pickle
import subprocess
import sys
import tempfile

import pytest
import safetensors.torch
import torch
from told import assert_told
from torch import nn

from mixer_utils import CheckpointError, load_checkpoint, save_checkpoint
from mixer_utils.checkpoints import digest_of, read_tensors, write_atomically, write_tensors


@pytest.fixture
def saved(tiny_mixer, tmp_path):
    """The path of a Mixer saved on its own in a folder."""
    path = tmp_path / "run" / "model.safetensors"
    save_checkpoint(tiny_mixer(), path, recipe={"name": "digits", "epochs": 3}, mean=(0.5,), note="Zürich, 東京")
    return path


def alone(path):
    return list(path.parent.iterdir()) == [path]


def refusal(path):
    """The sentence with which a checkpoint is refused."""
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    return str(error.value)


# --- there and back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, dict(image_size=(12, 20), in_channels=3, patch_size=4, gelu="erf")])
def test_a_model_comes_back_exactly_with_what_was_said_about_it(changes, tiny_mixer, tmp_path):
    model = tiny_mixer(stochastic_depth=0.1, **changes)
    save_checkpoint(model, tmp_path / "model.safetensors", seed=3, recipe={"name": "digits"}, note="Zürich, 東京")
    again = load_checkpoint(tmp_path / "model.safetensors")
    weights = again.state_dict()
    assert list(weights) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    images = torch.randn(3, *model.image_shape)
    assert torch.equal(again(images), model.eval()(images))
    assert not again.training and not any(module.training for module in again.modules())
    assert again.about["seed"] == 3 and again.about["recipe"] == {"name": "digits"}
    assert again.about["note"] == "Zürich, 東京"
    assert again.about["model"] == json.loads(json.dumps(model.config))
    assert again.image_shape == model.image_shape and again.blocks[1].drop == 0.1


def test_a_saved_model_is_one_plain_file_that_everybody_may_read(saved):
    assert alone(saved)
    assert saved.stat().st_mode & 0o777 == 0o644 or os.name == "nt"
    assert safetensors.torch.load_file(saved)["head.weight"].shape == (10, 12)


def test_saving_again_replaces_the_old_file(saved, tiny_mixer):
    other = tiny_mixer(seed=1)
    save_checkpoint(other, saved)
    assert torch.equal(load_checkpoint(saved).head.weight, other.head.weight)
    assert alone(saved)


def test_tensors_of_every_kind_come_back_exactly(tmp_path):
    tensors = {
        "scalar": torch.tensor(3.0),
        "whole": torch.arange(5),
        "half": torch.randn(2, 3).bfloat16(),
        "transposed": torch.randn(3, 4).t(),
        "yes or no": torch.tensor([True, False]),
        "none": torch.zeros(0, 4),
    }
    write_tensors(tmp_path / "t.safetensors", tensors, {"list": [1, 2.5, None]})
    found, about = read_tensors(tmp_path / "t.safetensors")
    assert about == {"list": [1, 2.5, None]} and set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


# --- damage ------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_noticed(saved):
    raw = saved.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    assert header < 0.5 * len(raw)
    positions = [*range(8), *range(8, header, header // 80), *range(header, len(raw), len(raw) // 80), len(raw) - 1]
    assert len(positions) > 120
    for number, position in enumerate(positions):
        damaged = bytearray(raw)
        damaged[position] ^= 1 << number % 8
        saved.write_bytes(damaged)
        sentence = refusal(saved)
        assert str(saved) in sentence and "\n" not in sentence, position
        told = ("is damaged", "not written by mixer_utils", "is a safetensors file, but cannot be read")
        assert any(part in sentence for part in told), position


def test_a_flipped_bit_in_a_weight_is_told_with_both_sums(saved):
    raw = bytearray(saved.read_bytes())
    raw[-1] ^= 1
    saved.write_bytes(raw)
    with safetensors.safe_open(saved, framework="pt") as file:
        expected = file.metadata()["sha256"]
    sentence = refusal(saved)
    assert sentence.startswith(f"{saved} is damaged (SHA-256 ")
    assert f"expected {expected[:12]}…): delete it and make it anew." in sentence


def test_a_changed_description_is_noticed(saved):
    raw = saved.read_bytes()
    assert raw.count(b"epochs") == 1
    saved.write_bytes(raw.replace(b"epochs", b"epochz"))
    assert "is damaged (SHA-256 " in refusal(saved)


def test_a_truncated_or_lengthened_file_is_noticed(saved):
    raw = saved.read_bytes()
    for content in [raw[:9], raw[:200], raw[: len(raw) // 4], raw[: len(raw) // 2], raw[:-4], raw[:-1], raw + b"\0"]:
        saved.write_bytes(content)
        sentence = refusal(saved)
        assert sentence.startswith(f"{saved} is a safetensors file, but cannot be read ("), len(content)
        assert sentence.endswith("): make it anew, or give another path.")
    for length in [1, 7, 8]:
        saved.write_bytes(raw[:length])
        assert refusal(saved).startswith(f"{saved} is damaged, or not a safetensors file ("), length
    saved.write_bytes(b"")
    assert_told(refusal(saved), f"{saved} is an empty file", "make or fetch it anew")


# --- other files -------------------------------------------------------------------------------------------


def test_a_missing_checkpoint_is_told(tmp_path):
    for path in (tmp_path / "model.safetensors", tmp_path):
        assert_told(refusal(path), f"no checkpoint {path}", "check the path")


def test_a_text_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("The weights are in the other folder, and this text is longer than eight bytes.\n")
    assert_told(refusal(path), f"{path} is a text file, expected a safetensors file", "give a file of weights")


def test_anothers_safetensors_file_is_refused(tmp_path, tiny_mixer):
    path = tmp_path / "model.safetensors"
    for metadata in (None, {"format": "pt"}, {"about": "{}"}):
        safetensors.torch.save_file(tiny_mixer().state_dict(), path, metadata)
        assert_told(refusal(path), path, "not written by mixer_utils", "'about'", "'sha256'", "load_timm")


def test_tensors_without_a_model_are_refused(tmp_path):
    path = tmp_path / "resume.safetensors"
    write_tensors(path, {"x": torch.zeros(2)}, {"history": {}, "seed": 0})
    assert_told(refusal(path), path, "no model", "history, seed", "give a model.safetensors")


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda tensors, config: tensors.pop("head.bias"), "head.bias"),
        (lambda tensors, config: tensors.update(extra=torch.zeros(1)), "extra"),
        (lambda tensors, config: tensors.update({"head.bias": torch.zeros(11)}), "head.bias"),
        (lambda tensors, config: config.update(hidden_dim=13), "size mismatch"),
        (lambda tensors, config: config.update(patch_size=5), "patch_size 5 does not divide"),
        (lambda tensors, config: config.update(dropout=0.1), "dropout"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_with_what_differs(change, named, tmp_path, tiny_mixer):
    model, path = tiny_mixer(), tmp_path / "model.safetensors"
    tensors, config = dict(model.state_dict()), dict(model.config)
    change(tensors, config)
    write_tensors(path, tensors, {"model": config})
    sentence = refusal(path)
    assert sentence.startswith(f"{path} is a checkpoint of another model than MlpMixer here: ")
    assert named in sentence and "\n" not in sentence


def test_a_checkpoint_of_an_mlp_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    write_tensors(path, nn.Linear(4, 2).state_dict(), {"model": "Linear(4, 2)"})
    assert "another model than MlpMixer" in refusal(path)


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("about", ["3", "{", "[" * 100_000])
def test_a_description_that_is_no_json_object_is_refused(about, tmp_path):
    path, tensors = tmp_path / "model.safetensors", {"x": torch.zeros(2)}
    safetensors.torch.save_file(tensors, path, {"about": about, "sha256": digest_of(tensors, about)})
    assert refusal(path).startswith(f"{path} is a safetensors file, but cannot be read (")


def test_nothing_is_ever_unpickled(tmp_path):
    path, sprung = tmp_path / "model.safetensors", tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.is_dir()  # the trap works
    sprung.rmdir()
    torch.save({"weights": torch.zeros(3), "trap": Trap(sprung)}, path)
    assert "is a file that torch.save wrote, expected a safetensors file" in refusal(path)
    path.write_bytes(pickle.dumps(Trap(sprung)))
    assert "is a pickle, expected a safetensors file" in refusal(path)
    assert not sprung.exists()


# --- writing that fails ------------------------------------------------------------------------------------


def fail_with(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


def fill_disk_half_way(monkeypatch):
    real = os.fdopen

    def fdopen(handle, mode):
        file = real(handle, mode, buffering=0)

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, data):
                file.write(data[: len(data) // 2])
                fail_with(errno.ENOSPC)()

        return Full()

    monkeypatch.setattr(os, "fdopen", fdopen)


BROKEN = {
    "the disk fills up while it is written": (fill_disk_half_way, errno.ENOSPC),
    "the disk turns out to be full at the end": (
        lambda monkeypatch: monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC)), errno.ENOSPC),
    "the folder is read-only": (
        lambda monkeypatch: monkeypatch.setattr(tempfile, "mkstemp", fail_with(errno.EACCES)), errno.EACCES),
    "the file cannot be replaced": (
        lambda monkeypatch: monkeypatch.setattr(os, "replace", fail_with(errno.EPERM)), errno.EPERM),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_a_file_that_cannot_be_written_is_told_and_the_old_one_stays(how, saved, tiny_mixer, monkeypatch):
    before = saved.read_bytes()
    break_it, number = BROKEN[how]
    with monkeypatch.context() as patch:
        break_it(patch)
        with pytest.raises(CheckpointError) as error:
            save_checkpoint(tiny_mixer(seed=1), saved)
    assert_told(error.value, f"Cannot write {saved}", os.strerror(number), "free some space", "another folder")
    assert alone(saved) and saved.read_bytes() == before
    new = saved.parent / "new" / "model.safetensors"
    with monkeypatch.context() as patch:
        break_it(patch)
        with pytest.raises(CheckpointError, match="^Cannot write "):
            save_checkpoint(tiny_mixer(), new)
    assert list(new.parent.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path, tiny_mixer):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match="^Cannot write .*: free some space or choose another folder.$"):
        save_checkpoint(tiny_mixer(), tmp_path / "file" / "run" / "model.safetensors")
    assert (tmp_path / "file").read_text() == "not a folder"


def test_an_interrupted_write_leaves_the_old_file_alone(saved, tiny_mixer, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    before = saved.read_bytes()
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tiny_mixer(seed=1), saved)
    assert alone(saved) and saved.read_bytes() == before


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path, tiny_mixer):
    with pytest.raises(TypeError):
        save_checkpoint(tiny_mixer(), tmp_path / "model.safetensors", note=object())
    assert list(tmp_path.iterdir()) == []


def test_bytes_are_written_into_folders_that_are_made_for_them(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "history.json", b"{}")
    assert (tmp_path / "a" / "b" / "history.json").read_bytes() == b"{}"
    assert alone(tmp_path / "a" / "b" / "history.json")


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from mixer_utils.checkpoints import write_atomically

path = Path(sys.argv[1])
versions = [bytes([65 + n]) * (1_000_000 + n) for n in range(2)]
start = time.perf_counter()
write_atomically(path, versions[0])
took = time.perf_counter() - start  # on a busy disk a write takes long: kills come within a few of them
random.seed(0)
found = []
while len(found) < 10 or set(found) != {0, 1} or len(list(path.parent.iterdir())) == 1:
    writer = os.fork()
    if writer == 0:
        while True:
            for data in reversed(versions):
                write_atomically(path, data)
    time.sleep(random.uniform(0.2, 4) * took)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    found.append(versions.index(path.read_bytes()))  # whole, or this raises
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_write_that_is_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "model.safetensors"
    # It ends when it has seen both versions, and something left of a write that was killed.
    run = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert path.read_bytes()[:1] in (b"A", b"B") and path.stat().st_size >= 1_000_000
    left = [file.name for file in tmp_path.iterdir() if file != path]
    assert left and all(name.startswith(".model.safetensors-") for name in left)  # some kills came in mid-write
