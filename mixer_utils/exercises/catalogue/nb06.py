"""Exercises of notebook 06: evaluation. Answers are numpy, as the notebook's counts are."""

import numpy as np

from mixer_utils.evaluation import calibration
from mixer_utils.exercises.exercise import Exercise


def listed(matrix):
    """The labels and the classes called that a confusion matrix was counted from."""
    classes = np.arange(len(matrix))
    return np.repeat(classes, matrix.sum(axis=1)), np.concatenate([np.repeat(classes, row) for row in matrix])


def recall_by_scikit_learn(matrix, k):
    from sklearn.metrics import recall_score  # imported here: it takes a second

    return recall_score(*listed(matrix), average=None)[k]


def macro_f1_by_scikit_learn(matrix):
    from sklearn.metrics import f1_score

    return f1_score(*listed(matrix), average="macro")


def calibration_error_by_the_package(confidence, right, bins):
    """As probabilities of eleven classes, the first of which is called each time."""
    others = np.repeat((1 - confidence)[:, None] / 10, 10, axis=1)
    return calibration(np.column_stack([confidence, others]), 1 - right, bins)["error"]


def recall_of(matrix, k):
    return matrix[k, k] / matrix[k].sum()


def precision_and_recall(matrix):
    hits = matrix.diagonal()
    return hits / matrix.sum(axis=0), hits / matrix.sum(axis=1)


def f1_of_classes(matrix):
    return 2 * matrix.diagonal() / (matrix.sum(axis=0) + matrix.sum(axis=1))


def macro_f1(matrix):
    return f1_of_classes(matrix).mean()


def f1_of_means(matrix):
    precision, recall = np.mean(precision_and_recall(matrix), axis=1)
    return 2 * precision * recall / (precision + recall)


def weighted_f1(matrix):
    return (f1_of_classes(matrix) * matrix.sum(axis=1)).sum() / matrix.sum()


def gaps(confidence, right, bins):
    """For each bin with answers: their number, and mean confidence minus accuracy."""
    where = (confidence * bins).astype(int)
    filled = np.unique(where)
    count = np.array([(where == b).sum() for b in filled])
    gap = np.array([(confidence - right)[where == b].mean() for b in filled])
    return count, gap


def calibration_error(confidence, right, bins):
    count, gap = gaps(confidence, right, bins)
    return (count * np.abs(gap)).sum() / len(confidence)


def matrices():
    three = np.array([[30, 1, 0], [8, 4, 2], [1, 0, 3]])
    four = np.array([[20, 0, 1, 4], [2, 9, 0, 0], [0, 5, 30, 1], [3, 0, 0, 7]])
    return three, four


def answers():
    """Twelve answers: confidence (0 to below 1) and whether they are right; some bins stay empty."""
    confidence = np.array([0.95, 0.92, 0.97, 0.93, 0.98, 0.91, 0.72, 0.75, 0.71, 0.43, 0.47, 0.35])
    right = np.array([1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 0])
    return confidence, right


def compare(predict_a, predict_b, splits):
    """By the counts of images on which one model alone is right, a and b."""
    images, labels = splits["test"]
    right_a = predict_a(images) == labels
    right_b = predict_b(images) == labels
    a = (right_a & ~right_b).sum()
    b = (right_b & ~right_a).sum()
    N = len(labels)
    return [(a - b) / N, np.sqrt(a + b - (a - b) ** 2 / N) / N]


def on_split(name):
    return lambda a, b, splits: compare(a, b, {"test": splits[name]})


def one_by_one(a, b, splits):
    """A's right answers minus B's on the test images, 1, 0 or -1 for each."""
    images, labels = splits["test"]
    return (a(images) == labels).astype(int) - (b(images) == labels)


def unpaired(a, b, splits):
    images, labels = splits["test"]
    rates = [(predict(images) == labels).mean() for predict in (a, b)]
    variances = [p * (1 - p) / len(labels) for p in rates]
    return [rates[0] - rates[1], np.sqrt(sum(variances))]


def counted(a, b, splits):
    each = one_by_one(a, b, splits)
    return [each.sum(), np.sqrt(np.abs(each).sum())]


def by_different_answers(a, b, splits):
    images, labels = splits["test"]
    return [one_by_one(a, b, splits).mean(), np.sqrt((a(images) != b(images)).mean() / len(labels))]


def subtracted_truth_values(a, b, splits):
    images, labels = splits["test"]
    return ((a(images) == labels) - (b(images) == labels)).mean()


def unpacked(a, b, splits):
    images, labels = splits
    return (a(images) == labels).mean()


def some_split(N, rates, draw):
    """(images, labels) on which two models are right at these rates, mostly on the same images.

    What the models call an image stands in two of its pixels. Where both are wrong they mostly call different classes.
    """
    labels = draw.integers(0, 10, N)
    images = draw.random((N, 3, 4))
    hard = draw.random(N)
    for rate, (i, j) in zip(rates, [(0, 1), (2, 3)], strict=True):
        right = hard + 0.08 * draw.standard_normal(N) < rate
        images[:, i, j] = np.where(right, labels, (labels + draw.integers(1, 10, N)) % 10)
    return images, labels


def two_models(test_rates, sizes, seed):
    """The inputs of 06.4. From 600 test images on, dividing by N or by N - 1 is the same to within the tolerance."""
    draw = np.random.default_rng(seed)
    rates = {"train": (0.97, 0.9), "validation": (0.88, 0.76), "test": test_rates}
    splits = {name: some_split(N, rates[name], draw) for name, N in zip(rates, sizes, strict=True)}
    return model_a, model_b, splits


def model_a(images):
    return images[:, 0, 1].astype(int)


def model_b(images):
    return images[:, 2, 3].astype(int)


EXERCISES = {
    "06.1": Exercise(
        reference=recall_by_scikit_learn,
        inputs=lambda: [(matrices()[0], 1), (matrices()[1], 3)],
        mistakes={
            "that is the precision: you went down the column of class k, recall goes along its row": (
                lambda matrix, k: matrix[k, k] / matrix[:, k].sum()
            ),
            "that is the accuracy, of all classes: divide the one entry of class k by the sum of row k": (
                lambda matrix, k: matrix.trace() / matrix.sum()
            ),
            "you divided by all images: divide by those that are of class k, the sum of row k": (
                lambda matrix, k: matrix[k, k] / matrix.sum()
            ),
            "that is the number of right answers: divide it by the sum of row k": lambda matrix, k: matrix[k, k],
            "that is the share of class k that was missed: recall is 1 minus it": (
                lambda matrix, k: 1 - recall_of(matrix, k)
            ),
            "that is the recall of the class before: rows are counted from 0, row k belongs to class k": (
                lambda matrix, k: recall_of(matrix, k - 1)
            ),
            "those are the shares of all answers to class k: the recall is one of them, entry k": (
                lambda matrix, k: matrix[k] / matrix[k].sum()
            ),
            "that is the recall of every class: take entry k": lambda matrix, k: matrix.diagonal() / matrix.sum(axis=1),
        },
        hints=(
            "of the images that are of class k, how many were predicted as k?",
            "the images that are of class k stand in row k: matrix[k]",
            "divide the entry on the diagonal by the sum of that row",
        ),
    ),
    "06.2": Exercise(
        reference=macro_f1_by_scikit_learn,
        inputs=lambda: [(matrix,) for matrix in matrices()],
        mistakes={
            "that is the micro F1, which is the accuracy: compute F1 for each class, then take the mean": (
                lambda matrix: matrix.trace() / matrix.sum()
            ),
            "that is the F1 of mean precision and mean recall: compute F1 for each class, average last": f1_of_means,
            "you took the ordinary mean of precision and recall: F1 is the harmonic one, 2 p r / (p + r)": (
                lambda matrix: np.mean(precision_and_recall(matrix))
            ),
            "you weighted the classes by their images: in the macro mean every class counts alike": weighted_f1,
            "that is the F1 of every class: take the mean of them": f1_of_classes,
            "the factor 2 is missing: F1 is 2 p r / (p + r)": lambda matrix: macro_f1(matrix) / 2,
            "that is the macro recall: combine it with the precision, class by class": (
                lambda matrix: precision_and_recall(matrix)[1].mean()
            ),
            "that is the macro precision: combine it with the recall, class by class": (
                lambda matrix: precision_and_recall(matrix)[0].mean()
            ),
        },
        hints=(
            "section 1 computes the F1 of every class in four lines: all of them work for any number of classes",
            "the hits are the diagonal; recall divides them by the sums of the rows, precision by those of the columns",
            "F1 is 2 p r / (p + r), for arrays as for numbers; the mean over the classes comes last",
        ),
    ),
    "06.3": Exercise(
        reference=calibration_error_by_the_package,
        inputs=lambda: [(*answers(), 10), (*answers(), 4), (answers()[0][2:], answers()[1][2:], 5)],
        mistakes={
            "every bin counted alike: weight its gap with its number of answers, over all answers": (
                lambda confidence, right, bins: np.abs(gaps(confidence, right, bins)[1]).mean()
            ),
            "gaps of opposite sign cancelled: take the absolute value in each bin, before you add": (
                lambda confidence, right, bins: (confidence - right).mean()
            ),
            "the gaps kept their sign, and cancelled: take the absolute value in each bin, before you add": (
                lambda confidence, right, bins: (right - confidence).mean()
            ),
            "you took the gap of each answer: average confidence and right over a bin, then take their difference": (
                lambda confidence, right, bins: np.abs(confidence - right).mean()
            ),
            "that is the largest gap of any bin: take the mean of the gaps, weighted with the answers in them": (
                lambda confidence, right, bins: np.abs(gaps(confidence, right, bins)[1]).max()
            ),
            "you divided by the number of bins: skip the empty ones, and weight the others with their answers": (
                lambda confidence, right, bins: np.abs(gaps(confidence, right, bins)[1]).sum() / bins
            ),
            "the sum is not divided yet: divide by the number of answers": (
                lambda confidence, right, bins: calibration_error(confidence, right, bins) * len(confidence)
            ),
            "the gaps were squared: take their absolute value": (
                lambda confidence, right, bins: np.average(
                    gaps(confidence, right, bins)[1] ** 2, weights=gaps(confidence, right, bins)[0]
                )
            ),
        },
        hints=(
            "go through the ranges one by one: which answers lie in range b?",
            "with where = (confidence * bins).astype(int), where == b chooses the answers of range b",
            "a range adds |mean confidence - share of right ones|, times its number of answers",
            "divide the sum over the ranges by the number of all answers; a range with no answer adds nothing",
        ),
    ),
    "06.4": Exercise(
        reference=compare,
        inputs=lambda: [
            two_models((0.85, 0.8), (700, 500, 600), seed=0),
            two_models((0.74, 0.77), (500, 650, 900), seed=1),
        ],
        mistakes={
            "these are metrics on training data: memory counts there as well as skill, so compare on the test images": (
                on_split("train")
            ),
            "you compared on the validation images: they chose these models, and flatter them; use the test images": (
                on_split("validation")
            ),
            "the standard error is that of two separate test sets: both models see the same images, so take the "
            "difference of right and wrong image by image, and the standard error of its mean": unpaired,
            "you counted images: divide both numbers by the number of test images": counted,
            "the root is missing: the second number is the variance of the mean, its root is the standard error": (
                lambda a, b, splits: [compare(a, b, splits)[0], compare(a, b, splits)[1] ** 2]
            ),
            "that is the standard deviation of single images: for the error of their mean divide it by the root of N": (
                lambda a, b, splits: [one_by_one(a, b, splits).mean(), one_by_one(a, b, splits).std()]
            ),
            "the standard deviation was divided by N: divide it by the root of N": (
                lambda a, b, splits: [
                    one_by_one(a, b, splits).mean(),
                    one_by_one(a, b, splits).std() / len(one_by_one(a, b, splits)),
                ]
            ),
            "the sign is turned: the difference is A minus B": (
                lambda a, b, splits: [-compare(a, b, splits)[0], compare(a, b, splits)[1]]
            ),
            "you counted images on which the answers differ, also where both are wrong: what differs has to be right "
            "against wrong": by_different_answers,
            "the standard error is missing: return a list of two numbers": (
                lambda a, b, splits: compare(a, b, splits)[0]
            ),
            "True and False cannot be subtracted: turn them into numbers first, with astype(int)": (
                subtracted_truth_values
            ),
            'splits is a dict of three pairs: take one of them out first, as in images, labels = splits["train"]': (
                unpacked
            ),
            "a model was given the pair of images and labels: unpack it, and give the images alone": (
                lambda a, b, splits: a(splits["test"])
            ),
        },
        hints=(
            "which images have neither trained these models nor chosen them?",
            "for every test image write 1, 0 or -1: A alone is right, both or none is, B alone is",
            "the difference in accuracy is the mean of these numbers",
            "the standard error of a mean is the standard deviation of the numbers over the root of how many they are",
        ),
    ),
}

PREDICTIONS = {"06.1": 3, "06.2": 3, "06.3": 3, "06.4": 3}
