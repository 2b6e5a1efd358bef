"""Training: a recipe, the loop that follows it, and the history it leaves.

Read ``train`` from top to bottom; everything else in this file is something it calls.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import signal
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from mixer_utils.augmentation import AFFINE_NUMBERS, SHIFT_NUMBERS, mixup, random_affine, random_shift
from mixer_utils.checkpoints import CheckpointError, read_tensors, save_checkpoint, write_atomically, write_tensors
from mixer_utils.data import load_dataset
from mixer_utils.devices import Processes, autocast, joined_processes, keep_freed_memory, pick_device, replayed
from mixer_utils.model import MlpMixer, create_mixer
from mixer_utils.optimizers import make_optimizers, set_learning_rate
from mixer_utils.snapshots import Snapshots


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run but the seed and the device.

    ``learning_rate`` is the highest one reached; it rises linearly over the ``warmup`` share of all steps (or that many
    steps, from 1 on) and falls linearly to zero. ``optimizer`` is "muon" (Muon on the blocks' matrices, AdamW on the
    rest) or "adamw" (on all); ``momentum`` is Muon's. ``shift, translation, elastic`` are in pixels, ``rotation`` in
    degrees, ``scale`` and ``shear`` are shares. ``mixup`` is the alpha of its Beta distribution. A ``clip_norm`` of 0
    clips nothing. ``validation`` training images are held out and never trained on.
    """

    name: str
    dataset: str = "mnist"
    model: str = "mnist/7"  # a name in CONFIGS
    epochs: int = 8
    batch_size: int = 256
    optimizer: str = "muon"
    learning_rate: float = 1.5e-2
    momentum: float = 0.95
    weight_decay: float = 0.05
    warmup: float = 0.1
    shift: int = 1
    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    translation: float = 0.0
    elastic: float = 0.0
    mixup: float = 0.0
    label_smoothing: float = 0.0
    stochastic_depth: float = 0.0
    clip_norm: float = 1.0
    validation: int = 5000

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 1 if field.name in ("epochs", "batch_size") else 0
            if not isinstance(value, str) and not value >= least:  # not a number is not at least anything
                raise ValueError(f"{field.name} is {value!r}: it must be at least {least}.")

    def learning_rate_at(self, step, steps):
        """The learning rate of step ``step`` (from 0) of ``steps``."""
        warmup = max(1, round(self.warmup if self.warmup >= 1 else self.warmup * steps))
        return self.learning_rate * min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))

    @property
    def affine(self):
        """The arguments of ``random_affine``."""
        return {name: getattr(self, name) for name in ("rotation", "scale", "shear", "translation", "elastic")}


RECIPES = {
    recipe.name: recipe
    for recipe in [
        Recipe("quick", model="mnist/quick", epochs=3, batch_size=384, learning_rate=4.5e-2, momentum=0.9, clip_norm=0),
        Recipe("minute"),
        Recipe("full", model="mnist/full", epochs=50, learning_rate=1e-2, shift=0, rotation=15, scale=0.15, shear=0.15,
               translation=2, elastic=1.2),
        Recipe("digits", dataset="digits", epochs=30, batch_size=64, validation=200),
        # The paper's, for ImageNet alone (appendix B); RandAugment and random crops are the data set's.
        Recipe("imagenet", dataset="imagenet", model="B/16", epochs=300, batch_size=4096, optimizer="adamw",
               learning_rate=1e-3, weight_decay=0.1, warmup=10_000, shift=0, mixup=0.5, stochastic_depth=0.1,
               validation=10_000),
    ]
}  # fmt: skip


ALONE = Processes()
STEP_COLUMNS = ("loss", "accuracy", "learning_rate")
EPOCH_COLUMNS = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "learning_rate", "seconds",
                 "images")  # fmt: skip


@dataclasses.dataclass
class History:
    """What a run recorded: lists of numbers, one entry a step in ``steps`` and one an epoch in ``epochs``.

    Losses are cross-entropies in nats, accuracies run from 0 to 1, seconds count training alone. ``steps`` and the
    training columns of ``epochs`` are taken on the augmented batches as they were trained on.
    """

    steps: dict[str, list] = dataclasses.field(default_factory=lambda: {name: [] for name in STEP_COLUMNS})
    epochs: dict[str, list] = dataclasses.field(default_factory=lambda: {name: [] for name in EPOCH_COLUMNS})

    @property
    def train_seconds(self):
        """Seconds of training, without the validation after each epoch."""
        return sum(self.epochs["seconds"])

    @property
    def images_per_second(self):
        """Training images per second, over the whole run."""
        return sum(self.epochs["images"]) / self.train_seconds if self.train_seconds else 0.0


class TrainingError(RuntimeError):
    """A run that cannot start or go on. The message says why and what to do."""


def train(recipe="minute", *, data=None, model=None, seed=0, device="auto", out=None, resume=False, progress=True,
          tensorboard=None, compile=False, snapshots=None):  # fmt: skip
    """Train a Mixer and return ``(model, history)``, the model in eval mode on the device it was trained on.

    recipe: a name in ``RECIPES`` or a Recipe. data: a Dataset, else the one that the recipe names. model: any module
    that maps (B, in_channels, H, W) to logits, trained in place, else the recipe's Mixer. seed: decides weights, order
    and augmentation. device: "auto", "cpu", "cuda" or "mps". out: a folder for model.safetensors, history.json and,
    after every epoch, resume.safetensors, from which ``resume=True`` goes on to the very weights of a run that was
    never interrupted. progress: show a bar. tensorboard: a folder for TensorBoard's logs. compile: torch.compile the
    model first. snapshots: a Snapshots, filled along the run with the token-mixing weights and the validation accuracy;
    a resumed run's hold only what comes from there on. Ctrl-C ends the run after the current step and keeps what
    was learned. Under torchrun, every process takes its share of each batch.

    The test images are never read here. Raises TrainingError for a loss that is not finite, a batch that the GPU's
    memory cannot hold or a folder that cannot be resumed, DeviceError for a device that is not there or a process that
    is lost, ValueError for an unknown recipe, a model that is not for this data, or snapshots of one not an MlpMixer.
    """
    recipe = find_recipe(recipe)
    device = pick_device(device)
    if device.type == "cpu":
        keep_freed_memory()
    with joined_processes() as processes:
        return run(recipe, data, model, seed, processes.device(device), processes, out, resume, progress, tensorboard,
                   compile, snapshots)  # fmt: skip


def run(recipe, data, model, seed, device, processes, out, resume, progress, tensorboard, compile, snapshots):
    """What ``train`` does, in one of the processes of a run."""
    if out is not None and processes.first:
        prepare_folder(out, resume)
    data = data or load_dataset(recipe.dataset)
    training, validation = (split.to(device) for split in hold_out(data.train, recipe.validation))

    torch.manual_seed(seed)
    model = (model or mixer_for(recipe, data)).to(device)
    check_fits(model, data, out)
    optimizers = make_optimizers(model, recipe)
    history = History()
    identity = {"recipe": dataclasses.asdict(recipe), "seed": seed, "data": fingerprint(data)}
    if resume:
        load_state(out, model, optimizers, history, identity)
    update = make_update(model, optimizers, recipe, device, processes, compile)

    batch_size = min(recipe.batch_size, len(training))
    steps_per_epoch = len(training) // batch_size  # the last, smaller batch is left out; another one in every epoch
    steps = recipe.epochs * steps_per_epoch
    first_epoch = len(history.epochs["seconds"])
    step = first_epoch * steps_per_epoch
    about = {"recipe": identity["recipe"], "seed": seed, "dataset": data.name, "steps_per_epoch": steps_per_epoch,
             "device": str(device), "processes": processes.size, "torch_version": torch.__version__}  # fmt: skip
    snapshot = snapshot_taker(snapshots, model, validation, data, processes, steps, about)

    with (
        progress_bar(steps, step, progress and processes.first) as bar,
        tensorboard_log(tensorboard if processes.first else None) as log,
        interrupts_noted() as interrupts,
    ):
        snapshot(step)
        for epoch in range(first_epoch, recipe.epochs):
            start = time.perf_counter()
            # Every epoch has a seed of its own: a resumed run draws the same numbers, with no random state to keep.
            torch.manual_seed(seed * 10_000 + epoch)
            order = torch.randperm(len(training))
            numbers = torch.rand(len(training), SHIFT_NUMBERS + AFFINE_NUMBERS * any(recipe.affine.values()))
            shares = [processes.share(batch) for batch in order[: steps_per_epoch * batch_size].split(batch_size)]
            model.train()
            for share, (images, labels) in zip(shares, training.batches(shares, train=True), strict=True):
                learning_rate = recipe.learning_rate_at(step, steps)
                set_learning_rate(optimizers, learning_rate)
                images, targets = augment(images, labels, numbers[share].to(device), recipe, data, seed + step)
                with out_of_memory_explained(batch_size, device):
                    found = update(images, targets, labels)
                stop = torch.tensor([float(len(interrupts))], device=device)
                loss, accuracy, stop = processes.mean(torch.cat([found, stop]))
                step += 1
                record = {"loss": loss, "accuracy": accuracy, "learning_rate": learning_rate}
                if not math.isfinite(loss):
                    raise TrainingError(not_finite(step, record, out, epoch))
                append(history.steps, record)
                log("step", record, step)
                bar.update()
                start += snapshot(step, stop)  # looking is not training
                if stop:
                    break

            if stop:
                if processes.first:
                    print(f"Stopped by hand after step {step} of {steps}: the model keeps what it has learned.")
                break
            seconds = time.perf_counter() - start
            recent = {name: values[-steps_per_epoch:] for name, values in history.steps.items()}
            validation_loss, validation_accuracy = loss_and_accuracy(model, validation, data, processes)
            record = {
                "train_loss": sum(recent["loss"]) / steps_per_epoch,
                "train_accuracy": sum(recent["accuracy"]) / steps_per_epoch,
                "validation_loss": validation_loss,
                "validation_accuracy": validation_accuracy,
                "learning_rate": learning_rate,
                "seconds": seconds,
                "images": steps_per_epoch * batch_size,
            }
            append(history.epochs, record)
            log("epoch", record, epoch + 1)
            bar.set_postfix_str(f"validation accuracy {validation_accuracy:.2%}")
            if out is not None and processes.first:
                save_state(out, model, optimizers, history, identity)

    model.eval()
    if out is not None and processes.first:
        about |= {
            "steps": step, "mean": data.mean, "std": data.std, "class_names": data.class_names,
            "train_seconds": history.train_seconds, "images_per_second": history.images_per_second,
        }  # fmt: skip
        save_checkpoint(model, Path(out) / "model.safetensors", **about)
        write_atomically(Path(out) / "history.json", json.dumps(dataclasses.asdict(history)).encode())
    return model, history


# --- the parts, in the order in which train() calls them --------------------------------------------------------------


def find_recipe(recipe):
    """The Recipe, given itself or by its name. Raises ValueError for a name that is not known."""
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise ValueError(f"There is no recipe {recipe!r}: choose one of {', '.join(RECIPES)}.")
        recipe = RECIPES[recipe]
    return recipe


def changed(recipe, settings):
    """The recipe with some values changed, each given as the text "name=value". Raises ValueError for an unfit one."""
    recipe = find_recipe(recipe)
    fields = {field.name: field.type for field in dataclasses.fields(recipe)}
    changes = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in fields:
            raise ValueError(f"A recipe has no {name!r}: choose one of {', '.join(fields)}.")
        try:
            changes[name] = fields[name](value)
        except ValueError:
            kind = {int: "a whole number", float: "a number"}[fields[name]]
            raise ValueError(f"{name} is {value!r}: it must be {kind}.") from None
    return dataclasses.replace(recipe, **changes)


def prepare_folder(out, resume):
    """Make the run's folder. One that holds a run or cannot be written is refused now, not after an hour."""
    if not resume and any((Path(out) / name).exists() for name in STATES):
        raise TrainingError(
            f"{out} already holds a run: go on with it (resume=True, or --resume), or give another folder."
        )
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
        for name in (*STATES, "model.safetensors", "history.json"):
            for unfinished in Path(out).glob(f".{name}-*"):  # left by a process that was killed while writing
                unfinished.unlink()
    except OSError as error:
        raise TrainingError(f"The folder {out} cannot be written ({error.strerror}): give another one.") from error


def hold_out(split, count):
    """``split`` without ``count`` images, and those images. Which ones is fixed: all runs are compared on the same."""
    if not 0 < count < len(split):
        raise ValueError(f"validation is {count}: it must be between 1 and {len(split) - 1}, of {len(split)} images.")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return split[order[count:]], split[order[:count]]


def mixer_for(recipe, data):
    """The recipe's Mixer, made to fit the images and classes of ``data``."""
    channels, height, width = data.image_shape
    return create_mixer(recipe.model, in_channels=channels, image_size=(height, width),
                        num_classes=len(data.class_names), stochastic_depth=recipe.stochastic_depth)  # fmt: skip


def check_fits(model, data, out):
    """Raise ValueError unless ``model`` has the classes of ``data`` and can be saved, where ``out`` asks for it."""
    if out is not None and not isinstance(model, MlpMixer):
        raise ValueError(
            f"out= saves an MlpMixer, and this model is a {type(model).__name__}: leave out= away and save it yourself."
        )
    found = tuple(predict_logits(model, torch.zeros(1, *data.image_shape, dtype=torch.uint8), data).shape)
    if found != (1, len(data.class_names)):
        raise ValueError(
            f"The model's logits for one image have the shape {found}, but {data.name} has {len(data.class_names)} "
            f"classes: build it with num_classes={len(data.class_names)}."
        )


def fingerprint(data):
    """A short text that differs where the training images' classes or order do."""
    return f"{data.name}, {hashlib.sha256(data.train.labels.numpy().tobytes()).hexdigest()[:16]}"


def make_update(model, optimizers, recipe, device, processes, compile):
    """The function that does one step: (images, targets, labels) -> tensor of loss and accuracy, on one batch.

    On CUDA it is recorded once and replayed: a small Mixer's step is some 500 launches that take longer than the work.
    """
    forward = processes.parallel(torch.compile(model) if compile else model)

    def update(images, targets, labels):
        with autocast(device):
            logits = forward(images)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing)
        loss.backward()
        if recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return torch.stack([loss.detach(), (logits.argmax(1) == labels).float().mean()])

    return replayed(update) if device.type == "cuda" and processes.size == 1 else update


def augment(images, labels, numbers, recipe, data, seed):
    """Images as the model gets them in training, normalised, and the targets of the loss: labels or shares of them."""
    if recipe.shift:
        images = random_shift(images, recipe.shift, numbers[:, :SHIFT_NUMBERS])
    if any(recipe.affine.values()):
        images = random_affine(images, **recipe.affine, numbers=numbers[:, SHIFT_NUMBERS:])
    images = data.normalize(images)
    if recipe.mixup:
        return mixup(images, labels, len(data.class_names), recipe.mixup, seed)
    return images, labels


def snapshot_taker(snapshots, model, validation, data, processes, steps, about):
    """A function ``snapshot(step, stopped)`` that takes one where it is due or a run is stopped: seconds it took.

    Without ``snapshots`` it does nothing. Every process calls it: each measures its share of the validation images.
    """
    if snapshots is None:
        return lambda step, stopped=False: 0.0
    if not isinstance(snapshots, Snapshots):
        raise ValueError(f"snapshots is {snapshots!r}: it must be a Snapshots, as in train(snapshots=Snapshots()).")
    snapshots.begin(model, steps, **about)

    def snapshot(step, stopped=False):
        start = time.perf_counter()
        if step in snapshots.due or stopped:
            _, accuracy = loss_and_accuracy(model, validation, data, processes)
            snapshots.add(step, model, accuracy)
            model.train()
        return time.perf_counter() - start

    return snapshot


@contextlib.contextmanager
def out_of_memory_explained(batch_size, device):
    """Say which batch size was tried and which to try, where the GPU's memory is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        less = max(1, batch_size // 2)
        raise TrainingError(
            f"{batch_size} images a step do not fit into the memory of {device}: try batch_size={less}, or a smaller "
            f"model (dataclasses.replace(recipe, batch_size={less}), or --set batch_size={less})."
        ) from error


@contextlib.contextmanager
def interrupts_noted():
    """A list that grows with every Ctrl-C: the step under way is finished first. A second one interrupts at once."""
    noted = []

    def note(number, frame):
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main thread, which alone is interrupted
        yield noted
        return
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


@torch.inference_mode()
def predict_logits(model, images, data, batch_size=1000):
    """Logits (N, num_classes) in float32, on the CPU, of uint8 images; the model is left in eval mode."""
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model(data.normalize(part.to(device))).float().cpu() for part in images.split(batch_size)])


def split_logits(model, split, data):
    """Logits (N, num_classes) in float32, on the CPU, of a whole split, in its order."""
    batch_size = max(
        1, min(1000, 10_000_000 // math.prod(split.image_shape))
    )  # images of 224 pixels in smaller batches
    parts = torch.arange(len(split)).split(batch_size)
    return torch.cat([predict_logits(model, images, data) for images, _ in split.batches(parts)])


def loss_and_accuracy(model, split, data, processes=ALONE):
    """Mean cross-entropy in nats and accuracy (0 to 1) on a split, in float32; each process works on its share."""
    share = split[processes.rank :: processes.size]
    logits, labels = split_logits(model, share, data), share.labels.cpu()
    loss = F.cross_entropy(logits, labels, reduction="sum")
    found = torch.stack([loss.double(), (logits.argmax(1) == labels).sum().double()]) * (processes.size / len(split))
    return tuple(processes.mean(found))


def append(columns, record):
    """Add one row to a table that is a dict of lists."""
    for name, value in record.items():
        columns[name].append(value)


def not_finite(step, record, out, epoch):
    """What to say when a loss is infinite or not a number, and where the last good state is."""
    kept = f"{Path(out) / STATES[0]} (epoch {epoch})" if out is not None and epoch else "none"
    return (
        f"The loss became {record['loss']} at step {step}, at learning rate {record['learning_rate']:.2g}: lower the "
        f"recipe's learning_rate or raise its warmup. Last good checkpoint: {kept}."
    )


def progress_bar(steps, done, show):
    """tqdm's bar, in a notebook or a terminal; it goes away when the run ends, since its numbers are in the history."""
    from tqdm.auto import tqdm

    show = show and os.environ.get("MIXER_PROGRESS") != "0"  # so that saved notebooks hold no bars
    return tqdm(total=steps, initial=done, desc="training", unit="step", leave=False, disable=not show)


@contextlib.contextmanager
def tensorboard_log(folder):
    """A function ``log(prefix, record, step)`` that writes to TensorBoard's logs, or does nothing without a folder."""
    if folder is None:
        yield lambda prefix, record, step: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("tensorboard is not installed: run `pip install tensorboard`, or leave it out.") from error
    with SummaryWriter(folder) as writer:
        yield lambda prefix, record, step: [writer.add_scalar(f"{prefix}/{k}", v, step) for k, v in record.items()]


STATES = ("resume.safetensors", "resume-previous.safetensors")  # after the last epoch, and after the one before it


def save_state(out, model, optimizers, history, identity):
    """Everything a run needs to go on after an epoch, as one file of tensors and one JSON text.

    The file of the epoch before is kept beside it: at every moment one of the two is whole.
    """
    latest, previous = (Path(out) / name for name in STATES)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for i, optimizer in enumerate(optimizers):
        for key, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{key}.{name}": value for name, value in values.items()}
    if latest.exists():
        os.replace(latest, previous)
    write_tensors(latest, tensors, {**identity, "history": dataclasses.asdict(history)})


def load_state(out, model, optimizers, history, identity):
    """Fill model, optimizers and history with what ``save_state`` wrote. Raises TrainingError or CheckpointError."""
    if out is None:
        raise TrainingError("resume=True needs out=, the folder of the run to go on with.")
    path, tensors, about = read_state(out)
    if "recipe" not in about or "history" not in about:
        raise TrainingError(f"{path} holds no run to go on with: give another out.")
    asked = {**identity["recipe"], **{key: identity[key] for key in ("seed", "data")}}
    found = {**about["recipe"], **{key: about.get(key) for key in ("seed", "data")}}
    other = [f"{key} {found.get(key)!r}, not {value!r}" for key, value in asked.items() if found.get(key) != value]
    if other:
        raise TrainingError(
            f"{path} is of another run ({'; '.join(other)}): give the same recipe, seed and data, or another out."
        )
    try:
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    except RuntimeError as error:
        raise TrainingError(f"{path} does not hold the model to train: give that one, or another out.") from error
    for i, optimizer in enumerate(optimizers):
        state = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer.{i}."):
                _, _, parameter, name = key.split(".", 3)
                state.setdefault(int(parameter), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    history.steps, history.epochs = about["history"]["steps"], about["history"]["epochs"]


def read_state(out):
    """Path, tensors and about of the last state; of the one before it, where a run was killed between the two."""
    latest, previous = (Path(out) / name for name in STATES)
    if previous.exists() and not latest.exists():
        return previous, *read_tensors(previous)
    try:
        return latest, *read_tensors(latest)
    except CheckpointError as error:
        with contextlib.suppress(CheckpointError):
            _, about = read_tensors(previous)
            epoch = len(about["history"]["epochs"]["seconds"])
            raise TrainingError(
                f"{latest} is damaged, but {previous.name} beside it, of epoch {epoch}, is good: delete {latest.name} "
                f"and resume again to go on from there."
            ) from error
        raise
