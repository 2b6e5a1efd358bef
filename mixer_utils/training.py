"""Training: a recipe, the loop that follows it, and the history it leaves.

Read ``train`` from top to bottom; everything else in this file is something it calls.
"""

import contextlib
import dataclasses
import json
import math
import os
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from mixer_utils.checkpoints import read_tensors, save_checkpoint, write_atomically, write_tensors
from mixer_utils.data import load_dataset, random_shift
from mixer_utils.model import MlpMixer, create_mixer


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run but the seed and the device.

    ``learning_rate`` is the highest one reached; it rises linearly over the ``warmup`` share of all steps and falls
    linearly to zero. ``optimizer`` is "muon" (Muon on the blocks' matrices, AdamW on the rest) or "adamw" (on all).
    ``shift`` is in pixels. ``validation`` training images are held out and never trained on.
    """

    name: str
    dataset: str = "mnist"
    model: str = "mnist/7"  # a name in CONFIGS
    epochs: int = 5
    batch_size: int = 256
    optimizer: str = "muon"
    learning_rate: float = 1.5e-2
    weight_decay: float = 0.05
    warmup: float = 0.1
    shift: int = 1
    label_smoothing: float = 0.0
    stochastic_depth: float = 0.0
    clip_norm: float = 1.0
    validation: int = 5000

    def learning_rate_at(self, step, steps):
        """The learning rate of step ``step`` (from 0) of ``steps``."""
        warmup = max(1, round(self.warmup * steps))
        return self.learning_rate * min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


RECIPES = {
    recipe.name: recipe
    for recipe in [
        Recipe("minute"),
        Recipe("digits", dataset="digits", epochs=30, batch_size=64, validation=200),
    ]
}


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
          tensorboard=None):  # fmt: skip
    """Train a Mixer and return ``(model, history)``, the model in eval mode on the device it was trained on.

    recipe: a name in ``RECIPES`` or a Recipe. data: a Dataset, else the one that the recipe names. model: any module
    that maps (B, in_channels, H, W) to logits, trained in place, else the recipe's Mixer. seed: decides weights, order
    and augmentation. device: "auto", "cpu", "cuda" or "mps". out: a folder for model.safetensors, history.json and,
    after every epoch, resume.safetensors, from which ``resume=True`` goes on. progress: show a bar. tensorboard: a
    folder for TensorBoard's logs. Ctrl-C ends the run and keeps what was learned.

    The test images are never read here. Raises TrainingError for a loss that is not finite, a device that is not
    there or a folder that cannot be resumed, ValueError for an unknown recipe or a model that is not for this data.
    """
    recipe = find_recipe(recipe)
    device = pick_device(device)
    if out is not None:
        prepare_folder(out, resume)
    data = data or load_dataset(recipe.dataset)
    training, validation = (split.to(device) for split in hold_out(data.train, recipe.validation))

    torch.manual_seed(seed)
    model = (model or mixer_for(recipe, data)).to(device)
    check_fits(model, data, out)
    optimizers = make_optimizers(model, recipe)
    history = History()
    if resume:
        load_state(out, model, optimizers, history, recipe, seed)

    batch_size = min(recipe.batch_size, len(training))
    steps_per_epoch = len(training) // batch_size  # the last, smaller batch is left out; another one in every epoch
    steps = recipe.epochs * steps_per_epoch
    first_epoch = len(history.epochs["seconds"])
    step = first_epoch * steps_per_epoch

    with progress_bar(steps, step, progress) as bar, tensorboard_log(tensorboard) as log:
        try:
            for epoch in range(first_epoch, recipe.epochs):
                start = time.perf_counter()
                # Every epoch has a seed of its own: a resumed run draws the same numbers, with no random state to keep.
                torch.manual_seed(seed * 10_000 + epoch)
                order = torch.randperm(len(training)).to(device)
                model.train()
                for batch in order[: steps_per_epoch * batch_size].split(batch_size):
                    learning_rate = recipe.learning_rate_at(step, steps)
                    images = data.normalize(random_shift(training.images[batch], recipe.shift))
                    labels = training.labels[batch]

                    with autocast(device):
                        logits = model(images)
                    loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
                    record = {
                        "loss": loss.item(),
                        "accuracy": (logits.argmax(1) == labels).float().mean().item(),
                        "learning_rate": learning_rate,
                    }
                    if not math.isfinite(record["loss"]):
                        raise TrainingError(not_finite(step + 1, record, out, epoch))

                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                    for optimizer in optimizers:
                        for group in optimizer.param_groups:
                            group["lr"] = learning_rate
                        optimizer.step()
                        optimizer.zero_grad()

                    step += 1
                    append(history.steps, record)
                    log("step", record, step)
                    bar.update()

                seconds = time.perf_counter() - start
                recent = {name: values[-steps_per_epoch:] for name, values in history.steps.items()}
                validation_loss, validation_accuracy = loss_and_accuracy(model, validation, data)
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
                if out is not None:
                    save_state(out, model, optimizers, history, recipe, seed)
        except KeyboardInterrupt:
            print(f"Stopped by hand after step {step} of {steps}: the model keeps what it has learned.")

    model.eval()
    if out is not None:
        about = {
            "recipe": dataclasses.asdict(recipe), "seed": seed, "device": str(device), "steps": step,
            "dataset": data.name, "mean": data.mean, "std": data.std, "class_names": data.class_names,
            "train_seconds": history.train_seconds, "images_per_second": history.images_per_second,
            "torch_version": torch.__version__,
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


def pick_device(name="auto"):
    """The torch.device called ``name``; "auto" takes CUDA, then MPS, then the CPU.

    Raises TrainingError for a GPU that is asked for and not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, available in there.items() if available)
    if not there.get(str(name).split(":")[0]):
        raise TrainingError(
            f"The device {name!r} was asked for, but this machine offers {', '.join(k for k in there if there[k])}: "
            f'choose one of those or "auto".'
        )
    return torch.device(name)


def prepare_folder(out, resume):
    """Make the run's folder. One that holds a run or cannot be written is refused now, not after an hour."""
    if not resume and (Path(out) / "resume.safetensors").exists():
        raise TrainingError(
            f"{out} already holds a run: go on with it (resume=True, or --resume), or give another folder."
        )
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
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
    found = tuple(predict_logits(model, data.train.images[:1], data).shape)
    if found != (1, len(data.class_names)):
        raise ValueError(
            f"The model's logits for one image have the shape {found}, but {data.name} has {len(data.class_names)} "
            f"classes: build it with num_classes={len(data.class_names)}."
        )


def make_optimizers(model, recipe):
    """Muon on the matrices between the first layer and the last, AdamW on the rest; or AdamW alone.

    Muon makes every update of a matrix nearly orthogonal, so that no direction is learned much faster than another:
    https://kellerjordan.github.io/posts/muon/. It is meant for hidden layers; here the first is called ``stem``, the
    last ``head``. Biases and LayerNorms are not decayed.
    """
    if recipe.optimizer not in ("muon", "adamw"):
        raise ValueError(f'optimizer is {recipe.optimizer!r}: it must be "muon" or "adamw".')
    matrices, weights, vectors = [], [], []
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim == 2 and not name.startswith(("stem", "head"))
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif hidden and recipe.optimizer == "muon":
            matrices.append(parameter)
        else:
            weights.append(parameter)
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    optimizers = [torch.optim.AdamW(groups, lr=recipe.learning_rate)] if groups else []
    if matrices:
        # Scaled to AdamW's usual update size, so that one learning rate serves both.
        optimizers.append(torch.optim.Muon(matrices, lr=recipe.learning_rate, weight_decay=recipe.weight_decay,
                                           adjust_lr_fn="match_rms_adamw"))  # fmt: skip
    return optimizers


def autocast(device):
    """bfloat16 for the matrix products where the processor has instructions for it; float32 elsewhere.

    Weights, LayerNorms, losses and optimisers stay in float32. bfloat16 has float32's range, so losses need no scaling.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=gains_from_bf16(device))


def gains_from_bf16(device):
    """Whether ``device`` computes faster in bfloat16 than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        able = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases: there float32 is a safe answer
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False


@torch.inference_mode()
def predict_logits(model, images, data, batch_size=1000):
    """Logits (N, num_classes) in float32, on the CPU, of uint8 images; the model is left in eval mode."""
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model(data.normalize(part.to(device))).float().cpu() for part in images.split(batch_size)])


def loss_and_accuracy(model, split, data):
    """Mean cross-entropy in nats and accuracy (0 to 1) on a split, in float32."""
    logits, labels = predict_logits(model, split.images, data), split.labels.cpu()
    return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()


def append(columns, record):
    """Add one row to a table that is a dict of lists."""
    for name, value in record.items():
        columns[name].append(value)


def not_finite(step, record, out, epoch):
    """What to say when a loss is infinite or not a number, and where the last good state is."""
    kept = f"{Path(out) / 'resume.safetensors'} (epoch {epoch})" if out is not None and epoch else "none"
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


def save_state(out, model, optimizers, history, recipe, seed):
    """Everything a run needs to go on after an epoch, as one file of tensors and one JSON text."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for i, optimizer in enumerate(optimizers):
        for key, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{key}.{name}": value for name, value in values.items()}
    about = {"recipe": dataclasses.asdict(recipe), "seed": seed, "history": dataclasses.asdict(history)}
    write_tensors(Path(out) / "resume.safetensors", tensors, about)


def load_state(out, model, optimizers, history, recipe, seed):
    """Fill model, optimizers and history with what ``save_state`` wrote. Raises TrainingError or CheckpointError."""
    if out is None:
        raise TrainingError("resume=True needs out=, the folder of the run to go on with.")
    path = Path(out) / "resume.safetensors"
    tensors, about = read_tensors(path)
    asked = {**dataclasses.asdict(recipe), "seed": seed}
    found = {**about.get("recipe", {}), "seed": about.get("seed")}
    other = [f"{key} {found.get(key)!r}, not {value!r}" for key, value in asked.items() if found.get(key) != value]
    if other:
        raise TrainingError(
            f"{path} is of another run ({'; '.join(other)}): give the same recipe and seed, or another out."
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
