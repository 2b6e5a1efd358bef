"""Exercises of notebook 06: evaluation. Answers are numpy, as the notebook's counts are."""

import numpy as np

from mixer_utils.exercises.exercise import Exercise


def recall_of(matrix, k):
    return matrix[k, k] / matrix[k].sum()


def precision_and_recall(matrix):
    hits = matrix.diagonal()
    return hits / matrix.sum(axis=0), hits / matrix.sum(axis=1)


def macro_f1(matrix):
    return (2 * matrix.diagonal() / (matrix.sum(axis=0) + matrix.sum(axis=1))).mean()


def f1_of_means(matrix):
    precision, recall = (scores.mean() for scores in precision_and_recall(matrix))
    return 2 * precision * recall / (precision + recall)


def weighted_f1(matrix):
    scores = 2 * matrix.diagonal() / (matrix.sum(axis=0) + matrix.sum(axis=1))
    return (scores * matrix.sum(axis=1)).sum() / matrix.sum()


def gaps(confidence, right, bins):
    """For each bin with answers: their number, and mean confidence minus accuracy."""
    where = (confidence * bins).astype(int)
    filled = np.unique(where)
    count = np.array([(where == b).sum() for b in filled])
    return count, np.array([(confidence - right)[where == b].mean() for b in filled])


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
    return confidence, np.array([1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 0])


EXERCISES = {
    "06.1": Exercise(
        reference=recall_of,
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
        },
    ),
    "06.2": Exercise(
        reference=macro_f1,
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
            "that is the F1 of every class: take the mean of them": (
                lambda matrix: 2 * matrix.diagonal() / (matrix.sum(axis=0) + matrix.sum(axis=1))
            ),
            "the factor 2 is missing: F1 is 2 p r / (p + r)": lambda matrix: macro_f1(matrix) / 2,
            "that is the macro recall: combine it with the precision, class by class": (
                lambda matrix: precision_and_recall(matrix)[1].mean()
            ),
        },
    ),
    "06.3": Exercise(
        reference=calibration_error,
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
        },
    ),
}

PREDICTIONS = {}
