import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score
from told import assert_told
from torch import nn

from mixer_utils import evaluate
from mixer_utils.evaluation import calibration, calibration_by_chance, report, worst_mistakes

# Six images of three classes. Confidence rises down the list, so that the order of mistakes can be told.
LABELS = [0, 0, 0, 1, 1, 2]
PROBABILITIES = [
    [0.50, 0.30, 0.20],  # right
    [0.55, 0.25, 0.20],  # right
    [0.25, 0.65, 0.10],  # a, called b
    [0.10, 0.75, 0.15],  # right
    [0.05, 0.85, 0.10],  # right
    [0.95, 0.03, 0.02],  # c, called a; nothing is ever called c
]


@pytest.fixture
def toy():
    return report(torch.tensor(PROBABILITIES).log(), torch.tensor(LABELS), ("a", "b", "c"))


def test_the_toys_report_is_what_pencil_and_paper_give(toy):
    assert toy.accuracy == pytest.approx(4 / 6)
    assert toy.confusion_matrix.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert toy.predictions.tolist() == [0, 0, 1, 1, 1, 0]
    assert toy.labels.tolist() == LABELS
    np.testing.assert_allclose(toy.probabilities, PROBABILITIES, atol=1e-6)
    assert toy.loss == pytest.approx(-math.log(0.50 * 0.55 * 0.25 * 0.75 * 0.85 * 0.02) / 6, rel=1e-5)


def test_each_class_has_its_own_scores_and_a_class_never_called_has_zero_without_a_warning(toy):
    assert [row["name"] for row in toy.per_class] == ["a", "b", "c"]
    assert [row["support"] for row in toy.per_class] == [3, 2, 1]
    for name, expected in [("precision", [2 / 3, 2 / 3, 0]), ("recall", [2 / 3, 1, 0]), ("f1", [2 / 3, 0.8, 0])]:
        assert [row[name] for row in toy.per_class] == pytest.approx(expected), name


def test_precision_recall_and_f1_are_means_over_classes_however_many_images_each_has(toy):
    assert toy.precision == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert toy.recall == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert toy.f1 == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert toy.recall != pytest.approx(toy.accuracy)


def test_a_class_without_images_counts_as_zero_and_keeps_its_row_and_column():
    scores = report(torch.eye(4)[[0, 1]], torch.tensor([0, 1]), tuple("abcd"))
    assert scores.accuracy == 1 and scores.recall == scores.f1 == 0.5
    assert scores.confusion_matrix.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert scores.per_class[3] == {"name": "d", "precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_scores_agree_with_scikit_learns_on_random_predictions():
    torch.manual_seed(0)
    logits, labels = torch.randn(500, 10), torch.randint(0, 10, (500,))
    scores = report(logits, labels, tuple("0123456789"))
    called = logits.argmax(1)
    assert scores.precision == pytest.approx(precision_score(labels, called, average="macro"))
    assert scores.recall == pytest.approx(recall_score(labels, called, average="macro"))
    assert scores.f1 == pytest.approx(f1_score(labels, called, average="macro"))
    assert [row["recall"] for row in scores.per_class] == pytest.approx(recall_score(labels, called, average=None))
    assert scores.loss == pytest.approx(log_loss(labels, logits.double().softmax(1)), rel=1e-5)


def test_metrics_are_everything_but_the_single_images_and_fit_into_json(toy):
    metrics = json.loads(json.dumps(toy.metrics()))
    assert set(metrics) == {"accuracy", "precision", "recall", "f1", "loss", "calibration_error", "confusion_matrix",
                            "per_class"}  # fmt: skip
    assert metrics["confusion_matrix"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert metrics["per_class"] == toy.per_class
    assert metrics["accuracy"] == toy.accuracy


def test_the_printed_report_is_a_table(toy):
    assert str(toy) == (
        "class       precision  recall      F1  images\n"
        "a              0.6667  0.6667  0.6667       3\n"
        "b              0.6667  1.0000  0.8000       2\n"
        "c              0.0000  0.0000  0.0000       1\n"
        "macro mean     0.4444  0.5556  0.4889       6\n"
        "accuracy 66.67%, loss 1.1733 nats"
    )


# --- calibration -------------------------------------------------------------------------------------------


def test_calibration_by_hand():
    # confidences 0.50 0.55 | 0.65 | 0.75 | 0.85 | 0.95; right: yes yes | no | yes | yes | no
    found = calibration(np.array(PROBABILITIES), np.array(LABELS))
    assert found["count"].tolist() == [0, 0, 0, 0, 0, 2, 1, 1, 1, 1]
    np.testing.assert_allclose(found["confidence"][5:], [0.525, 0.65, 0.75, 0.85, 0.95])
    np.testing.assert_allclose(found["accuracy"][5:], [1, 0, 1, 1, 0])
    assert np.isnan(found["confidence"][:5]).all() and np.isnan(found["accuracy"][:5]).all()
    assert found["error"] == pytest.approx((2 * 0.475 + 0.65 + 0.25 + 0.15 + 0.95) / 6)


def test_calibration_with_two_bins_by_hand():
    found = calibration(np.array(PROBABILITIES), np.array(LABELS), bins=2)
    assert found["count"].tolist() == [0, 6]
    confidence = (0.50 + 0.55 + 0.65 + 0.75 + 0.85 + 0.95) / 6
    assert found["error"] == pytest.approx(abs(confidence - 4 / 6))


def test_full_confidence_belongs_to_the_last_bin_and_if_right_has_no_error():
    found = calibration(np.eye(3), np.arange(3))
    assert found["count"].tolist() == [0] * 9 + [3] and found["error"] == 0
    assert calibration(np.eye(3), np.array([1, 2, 0]))["error"] == 1


def test_calibration_in_bins_of_equally_many_by_hand():
    shuffled = [4, 0, 5, 2, 1, 3]  # the order of the images must not matter
    found = calibration(np.array(PROBABILITIES)[shuffled], np.array(LABELS)[shuffled], bins=3, equal_mass=True)
    assert found["count"].tolist() == [2, 2, 2]
    np.testing.assert_allclose(found["confidence"], [0.525, 0.70, 0.90])
    np.testing.assert_allclose(found["accuracy"], [1, 0.5, 0.5])
    assert found["error"] == pytest.approx((0.475 + 0.20 + 0.40) / 3)


def test_equally_many_differ_by_one_at_most_however_many_are_as_confident():
    probabilities = np.tile([0.9, 0.1], (11, 1))
    found = calibration(probabilities, np.zeros(11, int), bins=4, equal_mass=True)
    assert found["count"].tolist() == [3, 3, 3, 2]


def test_by_chance_one_bin_has_the_mean_of_a_binomial_deviation():
    probabilities = np.tile([0.8, 0.2], (100, 1))
    counts = np.arange(101)
    chances = np.array([math.comb(100, k) * 0.8**k * 0.2 ** (100 - k) for k in counts])
    expected = (chances * abs(counts / 100 - 0.8)).sum()
    for equal_mass in (False, True):
        errors = calibration_by_chance(probabilities, bins=1, equal_mass=equal_mass, draws=4000)
        assert errors.shape == (4000,)
        assert errors.mean() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_a_calibrated_model_lies_among_the_errors_of_chance_and_an_overconfident_one_above_all(equal_mass):
    random = np.random.default_rng(1)
    confidence = random.uniform(0.5, 1, 2000)
    probabilities = np.stack([confidence, 1 - confidence], 1)
    by_chance = calibration_by_chance(probabilities, equal_mass=equal_mass, draws=200)
    calibrated = (random.random(2000) > confidence).astype(int)
    overconfident = (random.random(2000) > confidence - 0.1).astype(int)
    low, high = np.quantile(by_chance, [0.005, 0.995])
    assert low < calibration(probabilities, calibrated, equal_mass=equal_mass)["error"] < high
    assert calibration(probabilities, overconfident, equal_mass=equal_mass)["error"] > 2 * by_chance.max()


def test_the_report_carries_the_calibration_error(toy):
    assert toy.calibration_error == pytest.approx((2 * 0.475 + 0.65 + 0.25 + 0.15 + 0.95) / 6, abs=1e-6)


# --- mistakes ----------------------------------------------------------------------------------------------


def test_the_most_confident_mistake_comes_first(toy):
    assert worst_mistakes(toy, 10).tolist() == [5, 2]
    assert worst_mistakes(toy, 1).tolist() == [5]


def test_without_mistakes_there_are_none_to_show():
    assert worst_mistakes(report(torch.eye(3), torch.arange(3), "abc"), 5).tolist() == []


def test_mistakes_of_a_larger_set_are_sorted_by_confidence():
    torch.manual_seed(0)
    scores = report(torch.randn(300, 5), torch.randint(0, 5, (300,)), "abcde")
    found = worst_mistakes(scores, 50)
    confidence = scores.probabilities.max(1)
    assert (np.diff(confidence[found]) <= 0).all()
    wrong = scores.predictions != scores.labels
    assert wrong[found].all() and (confidence[found].min() >= np.delete(confidence * wrong, found)).all()


# --- a model on a split ------------------------------------------------------------------------------------


@pytest.fixture
def model(tiny_mixer):
    return tiny_mixer()


def one_by_one(model, data, split):
    """Probabilities and predictions of a split, image by image, in float64."""
    model, probabilities = model.double().eval(), []
    for image in split.images:
        x = (image.double()[None] / 255 - data.mean[0]) / data.std[0]
        exp = model(x)[0].detach().exp()
        probabilities.append((exp / exp.sum()).numpy())
    model.float()
    return np.array(probabilities)


def test_a_model_is_evaluated_as_if_image_by_image(model, few_digits):
    scores = evaluate(model, few_digits)
    expected = one_by_one(model, few_digits, few_digits.test)
    labels = few_digits.test.labels.numpy()
    np.testing.assert_allclose(scores.probabilities, expected, atol=1e-5)
    assert len(set(expected.argmax(1))) > 1
    matrix = np.zeros((10, 10), int)
    for true, called in zip(labels, expected.argmax(1), strict=True):
        matrix[true, called] += 1
    assert scores.confusion_matrix.tolist() == matrix.tolist()
    assert scores.accuracy == pytest.approx(matrix.trace() / 40)
    assert scores.loss == pytest.approx(-np.log(expected[range(40), labels]).mean(), rel=1e-5)
    assert [row["name"] for row in scores.per_class] == list("0123456789")


def test_the_split_can_be_named_or_given(model, few_digits):
    assert len(evaluate(model, few_digits).labels) == 40
    assert len(evaluate(model, few_digits, "train").labels) == 260
    given = evaluate(model, few_digits, few_digits.train[100:110])
    assert given.labels.tolist() == few_digits.train.labels[100:110].tolist()
    whole = evaluate(model, few_digits, "train")
    np.testing.assert_allclose(given.probabilities, whole.probabilities[100:110], atol=1e-5)


def test_the_test_images_alone_are_read_where_they_are_asked_for(model, few_digits):
    data = dataclasses.replace(few_digits, train=None)
    assert evaluate(model, data).accuracy == evaluate(model, few_digits).accuracy


def test_a_model_in_training_mode_is_evaluated_in_eval_mode_without_gradients(tiny_mixer, few_digits):
    model = tiny_mixer(stochastic_depth=0.9).train()
    first, second = evaluate(model, few_digits), evaluate(model.train(), few_digits)
    assert (first.probabilities == second.probabilities).all()
    assert (first.probabilities == evaluate(tiny_mixer(), few_digits).probabilities).all()
    assert not model.training and all(parameter.grad is None for parameter in model.parameters())


def test_a_model_with_other_classes_is_refused(few_digits):
    with pytest.raises(ValueError) as error:
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(784, 7)), few_digits)
    assert_told(error.value, "model has 7 classes", "digits has 10", "use another")
