"""Folders of image files: which images there are, and how they are read, one batch at a time."""

import dataclasses
import os
import shutil

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from mixer_utils._files import DataError, reason_of
from mixer_utils._threads import usable_cores


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
        for batch in shared_memory_explained(loader):
            if isinstance(batch, DataError):
                raise batch
            images, index = batch
            yield images.to(device, non_blocking=True), self.labels[torch.tensor(index, device=device)]


def image_files(folder, size, randaugment):
    """The FolderSplit of ``folder``, and the names of its classes. Raises DataError where there are none."""
    from torchvision.datasets import ImageFolder

    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}: make it, with one folder of images for each class.")
    try:
        images = ImageFolder(folder, allow_empty=True)
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no class folders: put the images of each class in a folder there.") from error
    empty = some(images.classes, {images.classes[label] for label in images.targets})
    if empty != "none":
        raise DataError(f"{folder} has class folders without an image ({empty}): fill them, or delete them.")
    paths = np.array([os.fsencode(path) for path, _ in images.samples])
    return FolderSplit(paths, torch.tensor(images.targets), size, randaugment), images.classes


def some(names, others):
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
    """``reader[index list]`` is a batch, (uint8 (B, 3, size, size), index list), or the DataError of a damaged file.

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
        batch = torch.stack(images)
        if get_worker_info() is not None:
            batch.share_memory_()  # here, where a failure is heard: in the thread that sends batches one would be lost
        return batch, index


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


def shared_memory_explained(loader):
    """What the loader gives. Raises DataError where its processes could not hand it over: containers have little room.

    https://docs.docker.com/engine/containers/run/ (--shm-size): 64 MB of /dev/shm, unless more is asked for.
    """
    try:
        yield from loader
    except (RuntimeError, OSError) as error:
        signs = ("DataLoader worker (pid", "shared memory", "Bus error", "No space left on device", "torch_shm_manager")
        if not any(sign in str(error) for sign in signs):
            raise
        reason = reason_of(error).split(". ")[0]  # what follows are guesses
        room = f" of {shutil.disk_usage('/dev/shm').total / 2**20:.0f} MB" if os.path.isdir("/dev/shm") else ""
        raise DataError(
            f"The processes that read the images were lost ({reason}), most often for want of shared memory, "
            f"/dev/shm{room}: set MIXER_WORKERS=0 to read without them, or start the container with --shm-size=2g."
        ) from error


def num_workers(count):
    """How many processes read ``count`` images: ``MIXER_WORKERS``, else one a core, 8 at most, none for a few images.

    Raises DataError where MIXER_WORKERS is no number.
    """
    asked = os.environ.get("MIXER_WORKERS")
    if asked is None:
        return min(8, usable_cores()) if count >= 64 else 0
    if not asked.isdecimal():
        raise DataError(f"MIXER_WORKERS is {asked!r}: it must be a whole number of processes, 0 for none.")
    return int(asked)
