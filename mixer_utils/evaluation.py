"""From predictions to a report: accuracy, precision, recall, F1, confusion matrix, calibration, mistakes.

The numbers are scikit-learn's; this module asks for them in one place and gives them names.
"""

import dataclasses

import numpy as np
import torch

from mixer_utils.training import split_logits


@dataclasses.dataclass(frozen=True)
class Report:
    """What a model did on one split of N images.

    ``accuracy, precision, recall, f1`` run from 0 to 1; the last three are macro averages (every class counts alike).
    ``confusion_matrix[i, j]`` counts images of class i that were called class j. ``per_class`` has, for each class,
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
        """The class called for every image, (N,)."""
        return self.probabilities.argmax(1)

    def metrics(self):
        """Everything but the per-image arrays, as JSON can hold it."""
        kept = {k: v for k, v in vars(self).items() if k not in ("probabilities", "labels")}
        return {**kept, "confusion_matrix": self.confusion_matrix.tolist()}

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

    Raises ValueError for a model whose classes are not the data's.
    """
    part = getattr(data, split) if isinstance(split, str) else split
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

    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    probabilities, labels = logits.softmax(1).numpy(), labels.numpy()
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


def calibration(probabilities, labels, bins=10):
    """How far confidence is from accuracy, bin by bin: Guo et al. 2017, https://arxiv.org/abs/1706.04599.

    Predictions are sorted into ``bins`` equal ranges of their highest probability. Returns per bin ``confidence``,
    ``accuracy`` (NaN where a bin is empty) and ``count``, and ``error``: the expected calibration error, 0 to 1.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    where = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(where, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(where, confidence, bins) / count
        accuracy = np.bincount(where, right, bins) / count
    error = np.nansum(np.abs(accuracy - mean_confidence) * count) / len(labels)
    return {"confidence": mean_confidence, "accuracy": accuracy, "count": count, "error": float(error)}


def worst_mistakes(report, count):
    """Indices of the wrongly called images, the most confident first."""
    wrong = np.flatnonzero(report.predictions != report.labels)
    return wrong[np.argsort(-report.probabilities.max(1)[wrong], kind="stable")][:count]
