"""Training: the loop that follows a recipe, and the history it leaves.

Read ``train``, then ``follow``, the loop; everything else in this file is something they call.
"""

import copy
import dataclasses
import functools
import math
import numbers
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from mixer_utils._departures import uncompiled
from mixer_utils._files import at_home
from mixer_utils._processes import Processes, joined_processes
from mixer_utils._run import (
    Saver,
    TrainingError,
    about_model,
    compiler_explained,
    fingerprint,
    load_state,
    not_finite,
    observers_of,
    out_of_memory_explained,
    prepare_folder,
    save_model,
)
from mixer_utils._split_check import checked
from mixer_utils.augmentation import (
    AFFINE_NUMBERS,
    ERASE_NUMBERS,
    FLIP_NUMBERS,
    SHIFT_NUMBERS,
    mixup,
    random_affine,
    random_erase,
    random_flip,
    random_shift,
)
from mixer_utils.checkpoints import check_loadable
from mixer_utils.data import Dataset, Split, load_dataset
from mixer_utils.devices import autocast, fitting_threads, keep_freed_memory, pick_device, replayed, seed_draws
from mixer_utils.evaluation import loss_and_accuracy, predict_logits
from mixer_utils.model import CONFIGS, MlpMixer, create_mixer
from mixer_utils.optimizers import make_optimizers, set_learning_rate
from mixer_utils.recipes import RECIPES, Recipe, changed, find_recipe

__all__ = ["RECIPES", "History", "Recipe", "Run", "TrainingError", "changed", "hold_out", "loss_and_accuracy",
           "mixer_for", "predict_logits", "train"]  # fmt: skip


def train(recipe="minute", *, data=None, model=None, seed=0, device="auto", out=None, resume=False, progress=True,
          tensorboard=None, compile=False, snapshots=None, save_every=10):  # fmt: skip
    """Train a Mixer and return ``(model, history)``, the model in eval mode on the device it was trained on.

    recipe: a name in ``RECIPES`` or a Recipe. data: a Dataset, else the one that the recipe names. model: any module
    that maps (B, in_channels, H, W) to logits, trained in place, else the recipe's Mixer; of a compiled one, the module
    that was compiled is trained, saved and returned. seed: decides weights, order and augmentation. device: "auto",
    "cpu", "cuda" or "mps". out: a folder for model.safetensors, history.json and, after every epoch and every
    ``save_every`` minutes (math.inf: never) within one, resume.safetensors, from which ``resume=True`` goes on to the
    very weights of a run that was never interrupted; where there is none yet, the run begins. progress: show a bar.
    tensorboard: a folder for TensorBoard's logs. compile: torch.compile the model first.
    snapshots: a Snapshots, filled along the run with the token-mixing weights and the validation accuracy; a resumed
    run's hold only what comes from there on. Ctrl-C ends the run after the current step and keeps what was learned.
    Under torchrun, every process takes its share of each batch.

    The test images are never read here. Raises TrainingError for a loss that is not finite, a batch that the GPU's
    memory cannot hold or a folder that cannot be resumed, DeviceError for a device that is not there or a process that
    is lost, ValueError for an unknown recipe, a ``save_every`` that is no time, images or labels that are not as in
    ``Split``, a model that is not for this data or could not be saved as ``out`` asks, or snapshots of one not an
    MlpMixer.
    """
    recipe = find_recipe(recipe)
    if not isinstance(seed, numbers.Integral):
        raise ValueError(f"seed is {seed!r}: it must be a whole number.")
    out = None if out is None else at_home(out)
    saver = Saver(save_every)
    device = pick_device(device)
    if device.type == "cpu":
        keep_freed_memory()
    with joined_processes() as processes:
        if out is not None and processes.first:
            prepare_folder(out, resume)
        run = prepare(recipe, data, model, int(seed), processes.device(device), processes, out)
        if resume:
            load_state(run)
        given_compiled = uncompiled(model) is not model
        forward = model if given_compiled else torch.compile(run.model) if compile else run.model
        with fitting_threads(run.device, trial_step(run), run.threads):
            follow(run, make_update(run, forward), observers_of(run, progress, tensorboard, snapshots, saver))
        run.model.eval()
        if out is not None and processes.first:
            save_model(run)
        if about_of(run.model):  # what a file said of it is no longer so
            run.model.about = about_model(run)
        return run.model, run.history


def follow(run, update, observers):
    """The loop. It does what the recipe says; all who only look on, or keep something, are observers (``_run``).

    After every step and every epoch they get the record of it. One of them ends the run by setting ``run.interrupted``.
    """
    recipe, history = run.recipe, run.history
    try:
        tell(observers, "begin", run)
        for epoch in range(run.first_epoch, recipe.epochs):
            start = time.perf_counter() - run.seconds
            run.model.train()
            for images, targets, labels in batches(run, epoch):
                learning_rate = recipe.learning_rate_at(run.step, run.steps)
                set_learning_rate(run.optimizers, learning_rate)
                with out_of_memory_explained(run.batch_size, run.device), compiler_explained():
                    loss, accuracy = run.averaged(update(images, targets, labels))
                run.step += 1
                run.seconds = time.perf_counter() - start
                record = {"loss": loss, "accuracy": accuracy, "learning_rate": learning_rate}
                if not math.isfinite(loss):
                    raise TrainingError(not_finite(run, record, epoch))
                append(history.steps, record)
                start += tell(observers, "after_step", run, record)  # looking is not training
                if run.stopped:
                    return
            validation_loss, validation_accuracy = loss_and_accuracy(run.model, run.validation, run.data, run.processes)
            record = {
                "train_loss": mean(history.steps["loss"][-run.steps_per_epoch :]),
                "train_accuracy": mean(history.steps["accuracy"][-run.steps_per_epoch :]),
                "validation_loss": validation_loss,
                "validation_accuracy": validation_accuracy,
                "learning_rate": history.steps["learning_rate"][-1],
                "seconds": run.seconds,
                "images": run.steps_per_epoch * run.batch_size,
            }
            append(history.epochs, record)
            run.seconds = 0.0
            tell(observers, "after_epoch", run, record)
    finally:
        tell(observers, "end", run)


def tell(observers, event, *what):
    """Call a method of every observer, in their order; returns the seconds that took."""
    start = time.perf_counter()
    for observer in observers:
        getattr(observer, event)(*what)
    return time.perf_counter() - start


# --- what a run consists of -------------------------------------------------------------------------------------------

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


@dataclasses.dataclass
class Run:
    """A run as it stands: what it was given, and how far it is.

    ``step`` counts the steps that are done, ``saved_step`` those that a resumed run need not do again; ``seconds`` is
    the time of the epoch under way. ``interrupted`` is set by whoever wants the run to end; ``stopped`` says that all
    of its processes have agreed to, after the step under way.
    """

    recipe: Recipe
    data: Dataset
    training: Split
    validation: Split
    model: torch.nn.Module
    seed: int
    device: torch.device
    processes: Processes
    out: Path | None
    optimizers: list
    started_from: dict  # what is known of the weights that the model came with; empty where the run drew its own
    history: History = dataclasses.field(default_factory=History)
    step: int = 0
    saved_step: int = 0
    first_epoch: int = 0
    seconds: float = 0.0
    threads: int | None = None  # as many as before, for a resumed run: sums over threads depend on their number
    interrupted: bool = False
    stopped: bool = False

    @property
    def batch_size(self):
        return min(self.recipe.batch_size, len(self.training))

    @property
    def steps_per_epoch(self):
        """The last, smaller batch is left out: other images in every epoch."""
        return len(self.training) // self.batch_size

    @property
    def steps(self):
        """Of the whole run."""
        return self.recipe.epochs * self.steps_per_epoch

    @functools.cached_property  # the labels are hashed once
    def identity(self):
        """What a resumed run must share with the one that was interrupted."""
        return {"recipe": dataclasses.asdict(self.recipe), "seed": self.seed, "data": fingerprint(self.data)}

    @property
    def about(self):
        """What is kept beside everything that the run leaves behind."""
        about = {"recipe": dataclasses.asdict(self.recipe), "seed": self.seed, "dataset": self.data.name,
                 "steps_per_epoch": self.steps_per_epoch, "device": str(self.device),
                 "processes": self.processes.size, "torch_version": torch.__version__}  # fmt: skip
        return {**about, "started_from": self.started_from} if self.started_from else about

    def averaged(self, measured):
        """The loss and the accuracy of a step over all processes, as numbers; they learn, too, whether to stop."""
        interrupted = torch.tensor([float(self.interrupted)], device=self.device)
        loss, accuracy, stop = self.processes.mean(torch.cat([measured, interrupted]))
        self.stopped = stop > 0
        return loss, accuracy


def prepare(recipe, data, model, seed, device, processes, out):
    """The Run, before its first step."""
    data = load_dataset(recipe.dataset) if data is None else data
    split = checked(data.train, data, "the training split")
    training, validation = (part.to(device) for part in hold_out(split, recipe.validation))
    torch.manual_seed(seed)
    model = mixer_for(recipe, data) if model is None else uncompiled(model)
    model = model.to(device)
    check_fits(model, data, out)
    optimizers = make_optimizers(model, recipe)
    started_from = {key: value for key, value in about_of(model).items() if key not in ("model", "class_names")}
    return Run(recipe, data, training, validation, model, seed, device, processes, out, optimizers, started_from)


def about_of(model):
    """What the file said that a Mixer was loaded from, as ``load_checkpoint`` notes it; empty for other models."""
    return getattr(model, "about", {}) if isinstance(model, MlpMixer) else {}


def hold_out(split, count):
    """``split`` without ``count`` images, and those images. Which ones is fixed: all runs are compared on the same."""
    if not 0 < count < len(split):
        raise ValueError(f"validation is {count}: it must be between 1 and {len(split) - 1}, of {len(split)} images.")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return split[order[count:]], split[order[:count]]


def mixer_for(recipe, data):
    """The recipe's Mixer, made to fit the images and classes of ``data``. Raises ValueError where patches do not."""
    check_patches(recipe, data)
    channels, height, width = data.image_shape
    return create_mixer(recipe.model, in_channels=channels, image_size=(height, width),
                        num_classes=len(data.class_names), stochastic_depth=recipe.stochastic_depth)  # fmt: skip


def check_patches(recipe, data):
    """Raise ValueError, naming the configurations that fit, where the recipe's patches do not divide the images."""
    _, height, width = data.image_shape
    patch_sizes = {name: config["patch_size"] for name, config in CONFIGS.items()}
    fitting = [name for name, P in patch_sizes.items() if height % P == width % P == 0]
    if recipe.model in fitting or recipe.model not in CONFIGS:
        return  # create_mixer tells of a name that is not known
    P = patch_sizes[recipe.model]
    told = (
        f"{recipe.model}, the model of the recipe {recipe.name}, takes patches of {P} x {P} pixels, and these do not "
        f"divide the {height} x {width} images of {data.name}"
    )
    # Of fewer than 4 x 4 patches there is little to mix. The nearest to the size they were made for come first.
    several = [name for name in fitting if 4 * patch_sizes[name] <= min(height, width)]
    several.sort(key=lambda name: abs(CONFIGS[name].get("image_size", 28) - height))
    if not several:
        raise ValueError(
            f"{told}, and no configuration cuts them into 4 x 4 patches or more: resize the images, to 32 x 32 say, or "
            "give train(model=...) a Mixer of your own."
        )
    raise ValueError(
        f'{told}: choose {" or ".join(several)}, by mixer_utils.recipes.changed(recipe, ["model={several[0]}"]) '
        f"in Python, by --set model={several[0]} on the command line."
    )


def check_fits(model, data, out):
    """Raise ValueError unless ``model`` has the classes of ``data`` and can be saved, where ``out`` asks for it."""
    if out is not None and not isinstance(model, MlpMixer):
        raise ValueError(
            f"out= saves an MlpMixer, and this model is a {type(model).__name__}: leave out= away and save it yourself."
        )
    if out is not None:
        check_loadable(model)
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()} - {torch.float32}
    if dtypes:
        raise ValueError(
            f"The model's weights are {', '.join(map(str, dtypes))}, and float32 is trained, with products in bfloat16 "
            "where that is a gain: give model.float()."
        )
    found = tuple(predict_logits(model, torch.zeros(1, *data.image_shape, dtype=torch.uint8), data).shape)
    if found != (1, len(data.class_names)):
        raise ValueError(
            f"The model's logits for one image have the shape {found}, but {data.name} has {len(data.class_names)} "
            f"classes: build it with num_classes={len(data.class_names)}."
        )


# --- one epoch, one step ----------------------------------------------------------------------------------------------


def batches(run, epoch):
    """The batches of an epoch that are to come, this process's share of each: images, the loss's targets, labels.

    Every epoch and every step has a seed of its own: a resumed run draws the same numbers, with no random state to
    keep, and reads no image again.
    """
    recipe, processes = run.recipe, run.processes
    done = run.step - epoch * run.steps_per_epoch  # above 0 where a run goes on in the middle of an epoch
    torch.manual_seed(run.seed * 10_000 + epoch)
    order = torch.randperm(len(run.training))
    numbers = random_numbers(len(run.training), recipe)
    whole = order[: run.steps_per_epoch * run.batch_size].split(run.batch_size)
    shares = [processes.share(batch) for batch in whole[done:]]
    read = run.training.batches(shares, train=True)  # a folder's images draw their seed here
    seeds = torch.randint(2**31, (run.steps_per_epoch,))[done:].tolist()
    for share, seed, (images, labels) in zip(shares, seeds, read, strict=True):
        seed_draws(seed, run.device)  # for what the model draws: which branches it skips, say
        own = numbers[share].to(run.device)
        images, targets = augment(images, labels, own, recipe, run.data, run.seed + run.step)
        yield images, targets, labels


def random_numbers(count, recipe):
    """The random numbers of one epoch, a row an image, in the order shift, affine, flip, erase: only what is used."""
    moved = torch.rand(count, SHIFT_NUMBERS + AFFINE_NUMBERS * any(recipe.affine.values()))
    more = torch.rand(count, FLIP_NUMBERS + ERASE_NUMBERS) if recipe.flip or recipe.erase else moved[:, :0]
    return torch.cat([moved, more], 1)


def augment(images, labels, numbers, recipe, data, seed):
    """Images as the model gets them in training, normalised, and the targets of the loss: labels or shares of them."""
    if recipe.shift:
        images = random_shift(images, recipe.shift, numbers[:, :SHIFT_NUMBERS])
    if any(recipe.affine.values()):
        images = random_affine(images, **recipe.affine, numbers=numbers[:, SHIFT_NUMBERS:][:, :AFFINE_NUMBERS])
    if recipe.flip:
        images = random_flip(images, recipe.flip, numbers[:, -ERASE_NUMBERS - FLIP_NUMBERS : -ERASE_NUMBERS])
    if recipe.erase:
        images = random_erase(images, recipe.erase, numbers[:, -ERASE_NUMBERS:])
    images = data.normalize(images)
    if recipe.mixup:
        return mixup(images, labels, len(data.class_names), recipe.mixup, seed)
    return images, labels


def make_update(run, forward):
    """The function that does one step: (images, targets, labels) -> tensor of loss and accuracy, on one batch.

    ``forward`` is the run's model, or what torch.compile made of it.

    On CUDA it is recorded once and replayed: a small Mixer's step is some 500 launches that take longer than the work.
    """
    recipe = run.recipe
    forward = run.processes.parallel(forward)

    def update(images, targets, labels):
        with autocast(run.device):
            logits = forward(images)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing)
        loss.backward()
        if recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip_norm)
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return torch.stack([loss.detach(), (logits.argmax(1) == labels).float().mean()])

    return replayed(update) if run.device.type == "cuda" and run.processes.size == 1 else update


def trial_step(run):
    """A function that takes the time of a step, on a copy of the model: the run stays as it is."""

    def step():
        model = copy.deepcopy(run.model).train()
        images = torch.zeros(min(run.batch_size, 256), *run.data.image_shape, device=run.device)
        with autocast(run.device):
            logits = model(images)
        logits.float().sum().backward()

    return step


def append(columns, record):
    """Add one row to a table that is a dict of lists."""
    for name, value in record.items():
        columns[name].append(value)


def mean(values):
    """The mean of a list of numbers."""
    return sum(values) / len(values)
