"""A sound file of another kind is called what it is, by every reader; "damaged" and "delete it" want a proof."""

import gzip
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from told import assert_told

from mixer_utils import (
    CheckpointError,
    Snapshots,
    load_checkpoint,
    load_official_npz,
    load_timm,
    save_checkpoint,
    train,
)
from mixer_utils._file_kinds import kind_of, wrong_checksum
from mixer_utils._files import one_line
from mixer_utils.checkpoints import read_tensors

AUTHORS = Path(__file__).parent / "fixtures" / "authors_tiny.npz"
READERS = {
    "load_checkpoint": load_checkpoint,
    "read_tensors": read_tensors,
    "Snapshots.load": Snapshots.load,
    "load_official_npz": lambda path: load_official_npz(path, (24, 18)),
    "load_timm": lambda path: load_timm(path, 28),
}


def tar(path):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("weights.bin"))


def zipped(*names):
    """A function that writes a zip archive with files of these names."""

    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, name)

    return write


def by_numpy(save):
    """A function that writes two zeros with a function of NumPy's, under exactly the given name."""

    def write(path):
        with open(path, "wb") as file:
            save(file, np.zeros(2, np.float16))

    return write


# How such a file is written, what it is called, and what is said to do with it.
FILES = {
    "empty": (lambda path: path.write_bytes(b""), "an empty file", "make or fetch it anew"),
    "safetensors": (
        lambda path: safetensors.torch.save_file({"a": torch.zeros(2)}, path), "a safetensors file", "load_timm"),
    "npz": (by_numpy(np.savez), "an .npz file", "load_official_npz"),
    "npy": (by_numpy(np.save), "(.npy)", "numpy.load reads it"),
    "torch": (lambda path: torch.save({"a": torch.zeros(2)}, path), "torch.save wrote", "load_timm"),
    "torch, before 1.6": (
        lambda path: torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False),
        "torch.save wrote", "torch.load(path, weights_only=True)"),
    "TorchScript": (zipped("net/data.pkl", "net/constants.pkl"), "a TorchScript archive", "torch.jit.load"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": [1.5] * 9})), "a pickle", "is not unpickled here"),
    "zip": (zipped("read me.txt"), "a zip archive", "unpack it"),
    "tar": (tar, "a tar archive", "tar -xf"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"a" * 99)), "a compressed file", "unpack it"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "an HDF5 file", "h5py or Keras"),
    "image": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "an image", "predict"),
    "web page": (
        lambda path: path.write_text("\n<!DOCTYPE html>\n<title>Sign in</title>" * 40), "a web page",
        "download the file itself"),
    "pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
        "Git LFS", "git lfs pull"),
    "text": (lambda path: path.write_text("Zürich: the weights are in the other folder.\n" * 40), "a text file",
             "give a file of weights"),
}  # fmt: skip
READS = {"load_official_npz": {"npz"}, "load_timm": {"torch", "torch, before 1.6", "safetensors"}}


def refusal(reader, path):
    with pytest.raises(CheckpointError) as error:
        READERS[reader](path)
    return str(error.value)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("reader", READERS)
def test_a_sound_file_of_another_kind_is_called_what_it_is(reader, kind, tmp_path):
    write, what, remedy = FILES[kind]
    path = tmp_path / "weights.bin"
    write(path)
    before = path.read_bytes()
    sentence = refusal(reader, path)
    assert "damaged" not in sentence and "delete" not in sentence and "\x1b" not in sentence
    if kind in READS.get(reader, {"safetensors"}):  # its own format, and other tensors than it expects
        assert_told(sentence, path)
    else:
        assert_told(sentence, f"{path} is", what, remedy)
    assert path.read_bytes() == before


def test_what_begins_with_none_of_the_known_marks_has_no_kind(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(range(1, 200)))
    assert kind_of(path) is None
    for reader in READERS:
        sentence = refusal(reader, path)
        assert_told(sentence, f"{path} is damaged, or not", "give another path")
        assert "delete" not in sentence


def test_whose_file_it_is_decides_who_reads_it_not_its_name(tiny_mixer, tmp_path):
    ours = tmp_path / "ours.safetensors"
    save_checkpoint(tiny_mixer(), ours)
    assert_told(refusal("load_timm", ours), ours, "written by mixer_utils", "load_checkpoint reads it")
    assert_told(refusal("load_official_npz", ours), f"{ours} is a safetensors file", "load_checkpoint")
    torch.save(tiny_mixer().state_dict(), tmp_path / "ours.pth")
    assert_told(refusal("load_timm", tmp_path / "ours.pth"), "this project's MlpMixer", "load_state_dict")


def test_a_whole_model_that_was_pickled_is_told_without_a_terminal_s_colours(tiny_mixer, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(tiny_mixer(), path)
    sentence = refusal("load_timm", path)
    told = ("mixer_utils.model.MlpMixer", "nothing is unpickled", "torch.save(model.state_dict(), path)")
    assert_told(sentence, path, *told)
    assert sentence.isprintable() and len(sentence) < 400


# --- proofs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader, write", [
    ("load_official_npz", lambda path: path.write_bytes(AUTHORS.read_bytes())),
    ("load_timm", lambda path: torch.save({"head.weight": torch.randn(50, 50)}, path)),
])  # fmt: skip
def test_a_zip_archive_s_own_checksum_proves_damage(reader, write, tmp_path):
    path = tmp_path / "weights"
    write(path)
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    raw[largest.header_offset + 200 + len(largest.filename)] ^= 1
    path.write_bytes(raw)
    assert wrong_checksum(path) == largest.filename
    if reader == "load_official_npz":  # torch.load compares no checksum: one bit in a weight is a weight to it
        sentence = refusal(reader, path)
        assert_told(sentence, f"{path} is damaged", largest.filename, "delete it and fetch it anew")


@pytest.mark.parametrize("reader, write", [
    ("load_official_npz", lambda path: path.write_bytes(AUTHORS.read_bytes())),
    ("load_timm", lambda path: torch.save({"head.weight": torch.randn(50, 50)}, path)),
    ("load_checkpoint", lambda path: safetensors.torch.save_file({"a": torch.zeros(99)}, path)),
])  # fmt: skip
def test_a_file_that_was_cut_off_is_to_be_fetched_again_and_not_deleted(reader, write, tmp_path):
    path = tmp_path / "weights"
    write(path)
    raw = path.read_bytes()
    for length in (len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        sentence = refusal(reader, path)
        assert_told(sentence, f"{path} is ", "but cannot be read", "anew")
        assert "delete" not in sentence and "damaged" not in sentence


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    path.write_bytes(AUTHORS.read_bytes())

    def forbidden(*_, **__):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(zipfile, "ZipFile", forbidden)
    assert_told(refusal("load_official_npz", path), f"{path} cannot be read", "(Permission denied)", "allow it")


def test_a_training_state_of_another_kind_is_told_by_resume(few_digits, tmp_path):
    torch.save({"epoch": 3}, tmp_path / "resume.safetensors")
    with pytest.raises(CheckpointError) as error:
        train("digits", data=few_digits, out=tmp_path, resume=True, device="cpu", progress=False)
    assert_told(error.value, "resume.safetensors is a file that torch.save wrote", "expected a safetensors file")
    assert "delete" not in str(error.value)


def test_a_reason_is_one_line_without_colours_and_never_empty():
    assert one_line(ValueError("\x1b[1;31mno\x1b[0m\n\tgood\x07.")) == "no good"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line("long " * 200)) <= 300


# --- other floating kinds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, step", [(np.float16, 2**-10), (np.float64, 0), (">f4", 0)])
def test_the_authors_arrays_in_another_floating_kind_are_the_same_numbers(kind, step, tmp_path):
    path = tmp_path / "other.npz"
    with np.load(AUTHORS) as arrays:
        np.savez(path, **{name: array.astype(kind) for name, array in arrays.items()})
    expected = load_official_npz(AUTHORS, (24, 18)).state_dict()
    found = load_official_npz(path, (24, 18)).state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], tensor, rtol=step, atol=1e-7 if step else 0)
