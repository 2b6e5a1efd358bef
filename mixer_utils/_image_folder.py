"""Folders of image files: which images there are, and how they are read, one batch at a time."""

import collections
import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from mixer_utils._files import DataError, reason_of
from mixer_utils._pictures import INSTALL, decode, opaque, picture_endings
from mixer_utils._threads import usable_cores

# What systems put beside people's files, besides names that begin with a dot. In lower case.
HIDDEN = {"__macosx", "thumbs.db", "desktop.ini", "@eadir"}
OUTSIDE = " outside of the class folders"
# What the two splits are called elsewhere; the likeliest comes first.
SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev", "eval", "test", "testing")}


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


def check_splits(root):
    """Raise DataError where ``root`` holds something else than train and val, and say what to do with it."""
    if not root.is_dir():
        raise DataError(f"There is no folder {root}: give the path of one that holds the folders train and val.")
    folders, _ = listed(root)
    missing = [part for part in SPLIT_NAMES if not (root / part).is_dir()]
    inside = [name for name in folders if all((root / name / part).is_dir() for part in SPLIT_NAMES)]
    renamed = {part: likeliest(folders, SPLIT_NAMES[part]) for part in missing}
    if inside and missing:
        advice = f"give the path {root / inside[0]}"
    elif any(renamed.values()):
        advice = " and ".join(f"rename {name} to {part}" if name else f"make {part}" for part, name in renamed.items())
    elif len(missing) == 2:
        advice = "move the class folders into train, and a tenth of each class's images into the same folders in val"
    else:
        return  # what is missing is told by name, or nothing is
    found = f"the folders {some(folders, ())}" if folders else "no folders"
    raise DataError(
        f"{root} holds {found} in place of train and val, each with one folder of images for each class: {advice}."
    )


def likeliest(names, known):
    """The one of the ``names`` that comes first among the ``known``, None where there is none."""
    return next((name for other in known for name in names if name.lower() == other), None)


def image_files(folder, size, randaugment):
    """The FolderSplit of ``folder``, and the names of its classes: those of the folders in it, sorted.

    Hidden files and folders are passed over at any depth. What else is left out is told in one printed line. Raises
    DataError where there is no class, or a class without an image.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}: make it, with one folder of images for each class.")
    classes, names = listed(folder)
    classes = [name for name in classes if not leads_up(folder / name)]
    if not classes:
        raise DataError(f"{folder} holds no class folders: put the images of each class in a folder there.")
    endings = picture_endings()
    left_out = collections.Counter()
    for ending in map(ending_of, names):
        left_out[ending + OUTSIDE if ending in endings else ending] += 1
    paths, labels = [], []
    for label, name in enumerate(classes):
        for path in files_below(folder / name):
            if ending_of(path) in endings:
                paths.append(os.fsencode(path))
                labels.append(label)
            else:
                left_out[ending_of(path)] += 1
    empty = some(classes, {classes[label] for label in labels})
    if empty != "none":
        told = f" ({counted(left_out)})" if left_out else ""
        raise DataError(f"{folder} has class folders without an image ({empty}): fill them, or move them away{told}.")
    if left_out:
        print(f"{folder.parent.name}/{folder.name}: {counted(left_out)}.")
    return FolderSplit(np.array(paths), torch.tensor(labels), size, randaugment), classes


def listed(folder):
    """The names of the folders and of the files in a folder, sorted, without hidden ones. Raises DataError."""
    _, folders, names = next(os.walk(folder, onerror=refused))
    return visible(folders), visible(names)


def files_below(folder):
    """The paths of all files below a folder, in torchvision's order, without hidden ones. Raises DataError.

    Links are followed, each real folder once, and none that leads back up: its files would come again, as this class.
    """
    seen = set()
    found = []
    for here, folders, names in os.walk(folder, followlinks=True, onerror=refused):
        real = os.path.realpath(here)
        if real in seen or leads_up(here):
            folders.clear()  # and no further here
            continue
        seen.add(real)
        folders[:] = visible(folders)
        found += [(here, name) for name in visible(names)]
    return [os.path.join(here, name) for here, name in sorted(found)]


def leads_up(folder):
    """Whether a folder is a link to one that it lies in, by its path or by where links on that path lead."""
    real = Path(os.path.realpath(folder))
    if str(real) == str(folder):
        return False
    return any(Path(os.path.realpath(parent)).is_relative_to(real) for parent in Path(folder).parents)


def visible(names):
    """The names, sorted, of what people put there themselves."""
    return sorted(name for name in names if name[0] != "." and name.lower() not in HIDDEN)


def refused(error):
    """What os.walk calls where a folder cannot be listed; it would go on as if that were empty."""
    raise DataError(f"{error.filename} cannot be read ({error.strerror}): get the right to read it.") from error


def ending_of(path):
    return os.path.splitext(path)[1].lower()


def counted(left_out):
    """How many files of each kind were left out, {kind: number}, in words; first what could be read after all."""
    kinds = sorted(left_out, key=lambda kind: (-left_out[kind], kind))
    kinds.sort(key=lambda kind: kind not in INSTALL and OUTSIDE not in kind)
    told = []
    for kind in kinds[:6]:
        remedy = f" (to read those: `{INSTALL[kind]}`)" if kind in INSTALL else ""
        told.append(f"{left_out[kind]} {kind or 'without an ending'}{remedy}")
    others = f" and {len(kinds) - 6} more" if kinds[6:] else ""
    return f"left out {', '.join(told)}{others}"


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
    """An image file as Pillow's RGB image: upright, 8 bits a channel, white where it is transparent.

    Raises DataError for a file that is missing, damaged, too large or no image.
    """
    return opaque(decode(path))


def read_image(path, image_shape, pictures="stretch"):
    """A picture file as a model gets it: uint8 (in_channels, H, W). What is transparent counts as white paper.

    ``pictures`` says how the images that the model was trained on were made, as ``Dataset.pictures`` does: "digit" is
    MNIST's way (``photograph.read_digit``); "crop" is that of a folder of images (the shorter side resized, the centre
    cut out); "stretch" resizes both sides, and inverts dark on light for one-channel models.

    Raises DataError for a file that is missing, damaged or no picture, and where no digit or several are found.
    """
    from torchvision.transforms.v2.functional import pil_to_tensor, resize

    channels, height, width = image_shape
    if pictures == "digit":
        from mixer_utils.photograph import read_digit  # scipy takes its time

        return torch.from_numpy(read_digit(path, box=round(20 / 28 * height), size=height))[None]
    image = opaque(decode(path))
    if pictures == "crop":
        return image_transform(height, randaugment=0, train=False)(image)
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
