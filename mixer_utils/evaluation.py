"""From predictions to a report: accuracy, precision, recall, F1, confusion matrix, calibration, mistakes.

The numbers are scikit-learn's; this module asks for them in one place and gives them names.
"""

import dataclasses
import math

import numpy as np
import torch
from torch.nn import functional as F

from mixer_utils._processes import ALONE
from mixer_utils._split_check import checked

# --- what a model says of images --------------------------------------------------------------------------------------


@torch.inference_mode()
def predict_logits(model, images, data, batch_size=1000):
    """Logits (N, num_classes) in float32, on the CPU, of uint8 images; the model is left in eval mode.

    A model in half precision, ``model.half()`` or ``model.bfloat16()``, gets its images in that.
    """
    model.eval()
    weights = next(model.parameters())
    dtype = weights.dtype if weights.is_floating_point() else torch.float32
    logits = []
    for part in images.split(int(batch_size)):
        inputs = data.normalize(part.to(weights.device)).to(dtype)
        logits.append(model(inputs).float().cpu())
    return torch.cat(logits)


def split_logits(model, split, data):
    """Logits (N, num_classes) in float32, on the CPU, of a whole split, in its order."""
    most = 10_000_000 // math.prod(split.image_shape)  # images of 224 pixels come in smaller batches
    parts = torch.arange(len(split)).split(max(1, min(1000, most)))
    return torch.cat([predict_logits(model, images, data) for images, _ in split.batches(parts)])


def loss_and_accuracy(model, split, data, processes=ALONE):
    """Mean cross-entropy in nats and accuracy (0 to 1) on a split, in float32; each process works on its share."""
    share = split[processes.rank :: processes.size]
    logits = split_logits(model, share, data)
    labels = share.labels.cpu()
    loss = F.cross_entropy(logits, labels, reduction="sum").double()
    right = (logits.argmax(1) == labels).sum().double()
    return tuple(processes.mean(torch.stack([loss, right]) * (processes.size / len(split))))


# --- the report -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Report:
    """What a model did on one split of N images.

    ``accuracy, precision, recall, f1`` run from 0 to 1; the last three are macro averages (every class counts alike).
    ``confusion_matrix[i, j]`` counts images of class i predicted as class j. ``per_class`` has, for each class,
    its ``name, precision, recall, f1, support``. ``loss`` is the mean cross-entropy in nats. ``probabilities``
    (N, num_classes) and ``labels`` (N,) are kept for what a caller may want to look at.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    loss: float
    calibration_error: float
    confusion_matrix: np.ndarray
    per_class: list[dict]
    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def predictions(self):
        """The class predicted for every image, (N,)."""
        return self.probabilities.argmax(1)

    def metrics(self):
        """Everything but the per-image arrays, as JSON can hold it."""
        result = {k: v for k, v in vars(self).items() if k not in ("probabilities", "labels")}
        return {**result, "confusion_matrix": self.confusion_matrix.tolist()}

    def __str__(self):
        width = max(len("macro mean"), *(len(row["name"]) for row in self.per_class))
        lines = [f"{'class':{width}}  precision  recall      F1  images"]
        mean = {"name": "macro mean", "precision": self.precision, "recall": self.recall, "f1": self.f1,
                "support": len(self.labels)}  # fmt: skip
        for row in [*self.per_class, mean]:
            scores = f"{row['precision']:9.4f}  {row['recall']:6.4f}  {row['f1']:6.4f}"
            lines.append(f"{row['name']:{width}}  {scores}  {row['support']:6d}")
        return "\n".join([*lines, f"accuracy {self.accuracy:.2%}, loss {self.loss:.4f} nats"])


def evaluate(model, data, split="test"):
    """Run ``model`` over a split ("test" or "train") of a Dataset, or over a Split, and return the Report.

    Raises ValueError for a split that there is not, labels that are no classes of the data, images that are not uint8,
    and a model whose classes are not the data's.
    """
    if not isinstance(split, str):
        part, called = split, "the given split"
    elif split in ("test", "train"):
        part, called = getattr(data, split), f"the {split} split"
    else:
        raise ValueError(
            f'There is no split {split!r}: choose "test" or "train", or give a Split; the images that a run held out '
            "are hold_out(data.train, recipe.validation)[1], from mixer_utils.training."
        )
    part = checked(part, data, called)
    logits = split_logits(model, part, data)
    if logits.shape[1] != len(data.class_names):
        raise ValueError(
            f"The model has {logits.shape[1]} classes, {data.name} has {len(data.class_names)}: use another."
        )
    return report(logits, part.labels.cpu(), data.class_names)


def report(logits, labels, class_names):
    """The Report on logits (N, num_classes) for labels (N,)."""
    # Imported here: scikit-learn takes a second, which training need not wait for.
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

    loss = F.cross_entropy(logits, labels).item()
    probabilities = logits.softmax(1).numpy()
    labels = labels.numpy()
    predictions = probabilities.argmax(1)
    classes = range(len(class_names))
    scores = precision_recall_fscore_support(labels, predictions, labels=classes, zero_division=0)
    macro = precision_recall_fscore_support(labels, predictions, labels=classes, zero_division=0, average="macro")
    return Report(
        accuracy=float(accuracy_score(labels, predictions)),
        precision=float(macro[0]),
        recall=float(macro[1]),
        f1=float(macro[2]),
        loss=loss,
        calibration_error=calibration(probabilities, labels)["error"],
        confusion_matrix=confusion_matrix(labels, predictions, labels=classes),
        per_class=[
            {"name": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
            for name, p, r, f, n in zip(class_names, *scores, strict=True)
        ],
        probabilities=probabilities,
        labels=labels,
    )


def calibration(probabilities, labels, bins=10, equal_mass=False):
    """How far confidence is from accuracy, bin by bin: Guo et al. 2017, https://arxiv.org/abs/1706.04599.

    Predictions are sorted into ``bins`` equal ranges of their highest probability; with ``equal_mass``, into as many
    bins of equally many predictions, the least confident first. Returns per bin ``confidence``, ``accuracy`` (NaN where
    a bin is empty) and ``count``, and ``error``: the expected calibration error, 0 to 1.
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    where = bin_of(confidence, bins, equal_mass)
    count = np.bincount(where, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(where, confidence, bins) / count
        accuracy = np.bincount(where, right, bins) / count
    error = np.nansum(np.abs(accuracy - mean_confidence) * count) / len(labels)
    return {"confidence": mean_confidence, "accuracy": accuracy, "count": count, "error": float(error)}


def calibration_by_chance(probabilities, bins=10, equal_mass=False, draws=1000, seed=0):
    """The calibration errors (draws,) that chance alone gives a calibrated model of the same confidences.

    Each draw takes the model at its word: a prediction of confidence 0.9 is right with a chance of 0.9. Bins as in
    ``calibration``. A finite number of images is never calibrated to the last digit: what was measured is compared with
    these.
    """
    confidence = probabilities.max(1).astype(float)
    where = bin_of(confidence, bins, equal_mass)
    random = np.random.default_rng(seed)
    errors = np.empty(draws)
    for i in range(draws):
        surplus = np.bincount(where, (random.random(len(confidence)) < confidence) - confidence, bins)
        errors[i] = np.abs(surplus).sum() / len(confidence)
    return errors


def bin_of(confidence, bins, equal_mass):
    """The bin of every prediction, (N,), from its confidence: equal ranges of it, or equally many predictions each."""
    if not equal_mass:
        return np.minimum((confidence * bins).astype(int), bins - 1)
    rank = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
    return rank * bins // len(confidence)


def worst_mistakes(report, count):
    """Indices of the wrongly predicted images, the most confident first."""
    wrong = np.flatnonzero(report.predictions != report.labels)
    return wrong[np.argsort(-report.probabilities.max(1)[wrong], kind="stable")][:count]
