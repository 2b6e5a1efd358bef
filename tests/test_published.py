import errno
import hashlib
import json
import os
import urllib.request
import zipfile
from pathlib import Path

import pytest
import torch
from told import assert_told
from web import serving

from mixer_utils import CheckpointError, _files, evaluate, load_official_npz, load_pretrained, published
from mixer_utils.checkpoints import PRETRAINED
from mixer_utils.published import ADDRESS, PUBLISHED, WeightsUnreachable

RESULT = Path(__file__).resolve().parent.parent / "results" / "pretrained-mnist.json"
AUTHORS = Path(__file__).parent / "fixtures" / "authors_tiny.npz"  # random weights, for images of 24 x 18 pixels
WHOLE = AUTHORS.read_bytes()
SIZE, HALF = len(WHOLE), len(WHOLE) // 2
FILE = "imagenet1k/Mixer-B_16.npz"


# --- the model that ships ----------------------------------------------------------------------------------


def test_the_shipped_model_is_small_and_ready_to_use(mnist):
    assert PRETRAINED["mnist"].stat().st_size <= 3_000_000
    model = load_pretrained("mnist")
    assert not model.training
    logits = model(mnist.normalize(mnist.test.images[:500]))
    assert logits.shape == (500, 10)
    assert (logits.argmax(1) == mnist.test.labels[:500]).float().mean() > 0.95
    assert model.about["dataset"] == "mnist" and tuple(model.about["mean"]) == mnist.mean


def test_the_shipped_model_gets_the_result_that_is_stored_beside_it(mnist):
    assert RESULT.is_file(), f"{RESULT} is missing: evaluate the shipped model and store its metrics there"
    stored = json.loads(RESULT.read_text())["metrics"]
    report = evaluate(load_pretrained("mnist"), mnist)
    assert len(report.labels) == 10_000
    assert report.confusion_matrix.tolist() == stored["confusion_matrix"]
    assert report.accuracy == pytest.approx(stored["accuracy"], abs=1e-9)
    assert report.accuracy == pytest.approx(report.confusion_matrix.trace() / 10_000, abs=1e-9)


# --- a server on this machine ------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch):
    with serving() as server:
        server.files[f"/mixer_models/{FILE}"] = WHOLE
        monkeypatch.setattr(published, "ADDRESS", f"{server.address}mixer_models/")
        monkeypatch.delenv("MIXER_DOWNLOAD")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("MIXER_PROGRESS", "0")
        yield server


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where B/16 of imagenet1k is kept; the table lists the tiny file in its place, of which no SHA-256 is known."""
    monkeypatch.setenv("MIXER_DATA", str(tmp_path))
    monkeypatch.delenv("MIXER_WEIGHTS", raising=False)
    monkeypatch.setattr(published, "load_official_npz", lambda path, _: load_official_npz(path, (24, 18)))
    listed(monkeypatch)
    return tmp_path / "weights" / "imagenet1k"


def listed(monkeypatch, size=SIZE, sha256=None):
    monkeypatch.setitem(PUBLISHED, ("B/16", "imagenet1k"), (FILE, size and round(size / 2**20, 2), sha256))


def load():
    return load_pretrained("B/16", "imagenet1k")


def assert_loads():
    expected = load_official_npz(AUTHORS, (24, 18)).state_dict()
    found = load().state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def refusal(kind=CheckpointError):
    with pytest.raises(kind) as error:
        load()
    assert type(error.value) is kind and "\n" not in str(error.value)
    return str(error.value)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def sha256(raw):
    return hashlib.sha256(raw).hexdigest()


KEPT = {"Mixer-B_16.npz": WHOLE, "Mixer-B_16.npz.sha256": f"{sha256(WHOLE)}  Mixer-B_16.npz\n".encode()}


def beginning(folder, raw=WHOLE[:HALF]):
    """What an earlier download left."""
    folder.mkdir(parents=True)
    (folder / "Mixer-B_16.npz.part").write_bytes(raw)


def assert_unreachable(sentence, folder, reason):
    address = f"{published.ADDRESS}{FILE}"
    assert_told(sentence, "Mixer-B_16.npz", folder, f"({reason})", "connect to the internet", f"fetch {address}")


# --- downloads ---------------------------------------------------------------------------------------------


def test_the_addresses_are_the_authors():
    files = [ADDRESS + file for file, _, _ in PUBLISHED.values()]
    start = "https://storage.googleapis.com/mixer_models"
    assert files[:4] == [
        f"{start}/imagenet1k/Mixer-B_16.npz", f"{start}/imagenet1k/Mixer-L_16.npz",
        f"{start}/imagenet21k/Mixer-B_16.npz", f"{start}/imagenet21k/Mixer-L_16.npz"]  # fmt: skip
    assert len(set(files)) == len(PUBLISHED) == 11
    for (name, weights), file in zip(PUBLISHED, files, strict=True):
        assert file == f"{start}/{weights}/Mixer-{name.replace('/', '_')}.npz"


@pytest.mark.parametrize(
    "name, weights, parameters",
    [("B/16", "imagenet1k", 59_880_472), ("L/16", "imagenet1k", 208_196_168),
     ("B/16", "imagenet21k", 59_111_472 + 769 * 21_843), ("L/16", "imagenet21k", 207_171_168 + 1025 * 21_843)],
)  # fmt: skip
def test_listed_sizes_are_those_of_the_numbers_and_a_few_headers(name, weights, parameters):
    _, mebibytes, _ = PUBLISHED[name, weights]
    arrays = 6 + 12 * (12 if name == "B/16" else 24)
    assert 200 < (mebibytes * 2**20 - 4 * parameters) / arrays < 500  # bytes


def test_a_published_file_is_downloaded_once_and_kept_with_its_sha256(server, folder):
    assert_loads()
    assert contents(folder) == KEPT
    assert_loads()
    assert server.asked == [None]


def test_a_file_that_is_there_needs_no_network(folder):
    folder.mkdir(parents=True)
    (folder / "Mixer-B_16.npz").write_bytes(WHOLE)
    assert_loads()  # MIXER_DOWNLOAD is 0 here
    assert contents(folder) == KEPT


def test_a_cut_download_goes_on_where_it_ended(server, folder):
    server.cut = HALF
    reason = f"the connection ended after {HALF:,} of {SIZE:,} bytes"
    assert_unreachable(refusal(WeightsUnreachable), folder, reason)
    assert contents(folder) == {"Mixer-B_16.npz.part": WHOLE[:HALF]}
    server.cut = HALF + 100  # and again
    assert f"ended after {HALF + 100:,} of {SIZE:,} bytes" in refusal(WeightsUnreachable)
    assert contents(folder) == {"Mixer-B_16.npz.part": WHOLE[: HALF + 100]}
    server.cut = None
    assert_loads()
    assert server.asked == [None, f"bytes={HALF}-", f"bytes={HALF + 100}-"]
    assert contents(folder) == KEPT


def test_a_server_without_ranges_sends_all_of_it_anew(server, folder):
    server.ranges = False
    beginning(folder)
    assert_loads()
    assert server.asked == [f"bytes={HALF}-"]
    assert contents(folder) == KEPT


@pytest.mark.parametrize("more", [0, 5])
def test_a_beginning_as_long_as_the_file_or_longer_is_dropped(more, server, folder):
    beginning(folder, bytes(len(WHOLE) + more))
    assert_loads()
    assert server.asked == [f"bytes={len(WHOLE) + more}-", None]
    assert contents(folder) == KEPT


def test_a_beginning_of_another_file_is_noticed_and_dropped(server, folder):
    beginning(folder, bytes(HALF))
    assert refusal().startswith(f"Mixer-B_16.npz came damaged from {published.ADDRESS}{FILE} (")
    assert contents(folder) == {}
    assert_loads()


def test_a_file_of_another_length_than_listed_is_dropped(server, folder, monkeypatch):
    listed(monkeypatch, size=3 * 2**20)
    came = f"Mixer-B_16.npz came damaged from {published.ADDRESS}{FILE} "
    assert_told(refusal(), came, f"({SIZE:,} bytes", "expected 3.0 MiB)", "run again later")
    assert contents(folder) == {}


def test_a_server_that_promises_more_than_it_sends_is_told(server, folder):
    server.claimed = len(WHOLE) + 7
    assert f"ended after {SIZE:,} of {len(WHOLE) + 7:,} bytes" in refusal(WeightsUnreachable)
    assert contents(folder) == {"Mixer-B_16.npz.part": WHOLE}


def test_a_known_sha256_is_checked_before_the_file_has_its_name(server, folder, monkeypatch):
    listed(monkeypatch, sha256=sha256(b"another"))
    assert refusal().endswith(
        f" (SHA-256 {sha256(WHOLE)[:12]}…, expected {sha256(b'another')[:12]}…): run again later."
    )
    assert contents(folder) == {}
    listed(monkeypatch, sha256=sha256(WHOLE))
    assert_loads()
    assert contents(folder) == {"Mixer-B_16.npz": WHOLE}


@pytest.mark.parametrize("content, told", [
    (b"<html>Please log in to this network.</html>", "it is a web page"),
    (WHOLE[:-100], "File is not a zip file"),
    (b"", "it is an empty file"),
])  # fmt: skip
def test_what_is_no_whole_npz_is_dropped(content, told, server, folder, monkeypatch):
    listed(monkeypatch, size=None)
    server.files[f"/mixer_models/{FILE}"] = content
    assert refusal() == f"Mixer-B_16.npz came damaged from {published.ADDRESS}{FILE} ({told}): run again later."
    assert contents(folder) == {}


@pytest.mark.parametrize(
    "status, reason", [(404, "HTTP Error 404: Not Found"), (503, "HTTP Error 503: Service Unavailable")]
)
def test_a_server_that_does_not_have_it_is_told_and_a_beginning_stays(status, reason, server, folder):
    server.status = status
    assert_unreachable(refusal(WeightsUnreachable), folder, reason)
    assert contents(folder) == {}
    (folder / "Mixer-B_16.npz.part").write_bytes(WHOLE[:HALF])
    assert_unreachable(refusal(WeightsUnreachable), folder, reason)
    assert contents(folder) == {"Mixer-B_16.npz.part": WHOLE[:HALF]}


def test_without_a_network_one_sentence_says_what_to_do(server, folder, monkeypatch):
    server.shutdown()
    server.server_close()
    sentence = refusal(WeightsUnreachable)
    assert "refused" in sentence and "<" not in sentence
    assert contents(folder) == {}
    for no in ("0", "false"):
        monkeypatch.setenv("MIXER_DOWNLOAD", no)
        with pytest.raises(WeightsUnreachable) as error:
            load()
        assert error.value.reason == f"MIXER_DOWNLOAD is {no}"
        assert_unreachable(error.value, folder, f"MIXER_DOWNLOAD is {no}")


def test_a_silent_server_is_given_up_after_the_time_it_has(server, folder, monkeypatch):
    real, seen = urllib.request.urlopen, []

    def urlopen(request, timeout):
        seen.append(timeout)
        answer = real(request, timeout=timeout)
        monkeypatch.setattr(answer, "read1", silent)
        return answer

    def silent(_):
        raise TimeoutError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert_unreachable(refusal(WeightsUnreachable), folder, "timed out")
    assert seen == [20] and contents(folder) == {"Mixer-B_16.npz.part": b""}


def test_an_interrupted_download_keeps_its_beginning(server, folder, monkeypatch):
    real = urllib.request.urlopen

    def urlopen(request, timeout):
        answer = real(request, timeout=timeout)
        parts = iter([WHOLE[:10], KeyboardInterrupt])

        def read1(_):
            if (part := next(parts)) is KeyboardInterrupt:
                raise KeyboardInterrupt
            return part

        monkeypatch.setattr(answer, "read1", read1)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(urllib.request, "urlopen", urlopen)
        with pytest.raises(KeyboardInterrupt):
            load()
    assert contents(folder) == {"Mixer-B_16.npz.part": WHOLE[:10]}
    assert_loads()
    assert server.asked == [None, "bytes=10-"]


# --- the disk ----------------------------------------------------------------------------------------------


class Full:
    """A file on a disk that takes one byte more."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.file.write(data[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("left", [b"", WHOLE[:HALF]])
def test_on_a_full_disk_nothing_half_written_is_left(left, server, folder, monkeypatch):
    beginning(folder, left)
    with monkeypatch.context() as patch:
        patch.setattr(_files, "open", lambda path, mode: Full(open(path, mode)), raising=False)
        path = folder / "Mixer-B_16.npz.part"
        assert_told(refusal(), f"Cannot write {path} ", "No space left on device", "free some space", "MIXER_DATA")
    assert contents(folder) == {}
    assert_loads()


def test_a_data_folder_that_is_a_file_is_told(server, folder):
    (folder.parent.parent / "weights").write_text("not a folder")
    assert refusal().startswith(f"Cannot write {folder / 'Mixer-B_16.npz.part'} (")


def test_a_file_in_a_folder_that_cannot_be_written_is_used(folder, monkeypatch):
    def read_only(*_, **__):
        raise CheckpointError("Cannot write")

    folder.mkdir(parents=True)
    (folder / "Mixer-B_16.npz").write_bytes(WHOLE)
    monkeypatch.setattr(published, "write_atomically", read_only)
    assert_loads()
    assert contents(folder) == {"Mixer-B_16.npz": WHOLE}


@pytest.mark.parametrize("known", [False, True])
def test_a_file_that_was_damaged_since_is_noticed_by_one_bit(known, server, folder, monkeypatch):
    listed(monkeypatch, sha256=sha256(WHOLE) if known else None)
    load()
    damaged = bytearray(WHOLE)
    damaged[-30] ^= 1
    path = folder / "Mixer-B_16.npz"
    path.write_bytes(damaged)
    sums = (f"SHA-256 {sha256(damaged)[:12]}…", f"expected {sha256(WHOLE)[:12]}…")
    assert_told(refusal(), f"{path} is damaged", *sums, "delete it and run again")
    assert path.read_bytes() == damaged and server.asked == [None]  # nothing is deleted unasked
    path.unlink()
    assert_loads()
    assert path.read_bytes() == WHOLE


def test_a_truncated_file_is_told_by_its_size(folder, monkeypatch):
    folder.mkdir(parents=True)
    path = folder / "Mixer-B_16.npz"
    path.write_bytes(WHOLE[:HALF])
    other = f"{path} is not the published file"
    assert_told(refusal(), other, f"({HALF:,} bytes, expected 0.03 MiB)", "move it away and run again")
    listed(monkeypatch, size=None)
    assert_told(refusal(), other, "not a zip file", "move it away and run again")
    assert list(contents(folder)) == ["Mixer-B_16.npz"]  # no SHA-256 of a damaged file is kept


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("content, told", [
    (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
    (b"<!doctype html><title>404</title>", "it is a web page"),
])  # fmt: skip
def test_a_sound_file_of_another_kind_in_its_place_is_called_what_it_is(content, told, known, folder, monkeypatch):
    listed(monkeypatch, sha256=sha256(WHOLE) if known else None)
    folder.mkdir(parents=True)
    path = folder / "Mixer-B_16.npz"
    path.write_bytes(content)
    assert_told(refusal(), f"{path} is not the published file ({told})", "move it away and run again")
    assert contents(folder) == {"Mixer-B_16.npz": content}


def test_a_file_whose_own_checksum_is_wrong_is_damaged_where_no_other_is_known(folder):
    folder.mkdir(parents=True)
    path = folder / "Mixer-B_16.npz"
    damaged = bytearray(WHOLE)
    with zipfile.ZipFile(AUTHORS) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    damaged[largest.header_offset + len(largest.filename) + 200] ^= 1  # behind the array's header
    path.write_bytes(damaged)
    assert_told(refusal(), f"{path} is damaged", f"checksum of {largest.filename}", "delete it and run again")
    assert list(contents(folder)) == ["Mixer-B_16.npz"]  # no SHA-256 of a damaged file is kept


def test_a_file_published_anew_takes_the_place_of_one_that_was_deleted(server, folder):
    folder.mkdir(parents=True)
    (folder / "Mixer-B_16.npz.sha256").write_text(f"{sha256(b'the old one')}  Mixer-B_16.npz\n")
    assert_loads()
    assert contents(folder) == KEPT


# --- names, and the bar ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked, printed",
    [
        (("imagenet",), "'imagenet'"),
        (("B/16",), "'B/16'"),
        (("H/14", "imagenet1k"), "'H/14' with 'imagenet1k'"),
        (("B/16", "jft"), "'B/16' with 'jft'"),
        (("mnist", "imagenet1k"), "'mnist' with 'imagenet1k'"),
    ],
)
def test_a_model_that_there_is_not_is_refused_with_those_there_are(asked, printed):
    with pytest.raises(ValueError) as error:
        load_pretrained(*asked)
    assert str(error.value) == (
        f"There is no pretrained model {printed}: choose 'mnist'; 'mnist-14x14'; 'mnist-14x14-seed-1'; "
        "'mnist-14x14-seed-2'; 'fashion-mnist-14x14'; 'B/16', 'L/16' with 'imagenet1k'; 'B/16', 'L/16' with "
        "'imagenet21k'; 'B/16', 'B/32' with 'sam'; 'B/16', 'B/32', 'S/16', 'S/32', 'S/8' with 'gsam'."
    )


def test_a_bar_shows_what_came_unless_mixer_progress_is_0(server, folder, monkeypatch, capsys):
    load()
    assert capsys.readouterr() == ("", "")
    (folder / "Mixer-B_16.npz").unlink()
    (folder / "Mixer-B_16.npz.part").write_bytes(WHOLE[:HALF])
    monkeypatch.delenv("MIXER_PROGRESS")
    load()
    shown = capsys.readouterr().err
    assert "Mixer-B_16.npz:  50%" in shown and "14.1k/28.2k" in shown


def test_the_weights_can_be_kept_in_a_folder_of_their_own(server, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MIXER_WEIGHTS", str(tmp_path / "elsewhere"))
    assert published.published_file("B/16", "imagenet1k").parent == tmp_path / "elsewhere" / "imagenet1k"
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("MIXER_WEIGHTS", "~/elsewhere")
    assert published.published_file("B/16", "imagenet1k").parent == tmp_path / "elsewhere" / "imagenet1k"
