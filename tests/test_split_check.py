"""Labels and images that no model can be trained or judged on are told in one sentence, before anything is done."""

import dataclasses

import pytest
import torch
from told import assert_told
from torch import nn

from mixer_utils import Dataset, Recipe, Split, evaluate, train

TINY = Recipe("tiny", dataset="digits", epochs=1, batch_size=50, validation=60)
WRONG = {  # the split, made of images and labels that are right, and what is told of it
    "labels from 1": (lambda x, y: (x, y + 1), ("run from 1 to 10", "digits has 10 classes, 0 to 9", "labels - 1")),
    "an ignored label": (
        lambda x, y: (x, y.where(y > 0, -100)), ("run from -100 to 9", "split[split.labels >= 0]")),
    "one label too high": (lambda x, y: (x, y.where(y > 0, 37)), ("run from 1 to 37", "a name for each class")),
    "one-hot labels": (lambda x, y: (x, nn.functional.one_hot(y, 10)), ("10)", "(N,)", "labels.argmax(1)")),
    "one-hot shares": (lambda x, y: (x, nn.functional.one_hot(y, 10).float()), ("10)", "(N,)", "labels.argmax(1)")),
    "labels in a column": (lambda x, y: (x, y[:, None]), ("1)", "(N,)", "labels.flatten()")),
    "masks": (lambda x, y: (x, y[:, None, None].expand(-1, 28, 28)), ("28, 28)", "(N,)", "segmentation")),
    "labels with a point": (lambda x, y: (x, y.float()), ("torch.float32", "whole numbers", "labels.long()")),
    "a label too few": (lambda x, y: (x, y[:-1]), ("images and", "labels in", "one label an image")),
    "labels in a list": (lambda x, y: (x, y.tolist()), ("labels", "are a list", "torch.as_tensor")),
    "labels of NumPy's": (lambda x, y: (x, y.numpy()), ("labels", "are a ndarray", "torch.as_tensor")),
    "images of NumPy's": (lambda x, y: (x.numpy(), y), ("images", "are a ndarray", "torch.as_tensor")),
    "images with a point": (lambda x, y: (x / 255, y), ("torch.float32", "uint8", "(images * 255)")),
    "images without channels": (lambda x, y: (x[:, 0], y), ("28, 28)", "(N, in_channels, H, W)", "images[:, None]")),
    "flat images": (lambda x, y: (x.flatten(1), y), ("784)", "(N, in_channels, H, W)")),
    "nothing": (lambda x, y: (x[:0], y[:0]), ("no images", "at least one")),
}  # fmt: skip


def spoilt(split, how):
    change, told = WRONG[how]
    return Split(*change(split.images, split.labels)), told


@pytest.mark.parametrize("how", WRONG)
def test_train_refuses_it_before_the_first_step(how, few_digits, tmp_path):
    split, told = spoilt(few_digits.train, how)
    data = dataclasses.replace(few_digits, train=split)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    model.register_forward_pre_hook(lambda *_: pytest.fail("a model met it"))
    with pytest.raises(ValueError) as error:
        train(TINY, data=data, model=model, device="cpu", progress=False)
    assert_told(error.value, "the training split", *told)
    with pytest.raises(ValueError):
        train(TINY, data=data, device="cpu", out=tmp_path / "run", progress=False)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("how", WRONG)
def test_evaluate_refuses_it_too(how, few_digits, tiny_mixer):
    split, told = spoilt(few_digits.test, how)
    with pytest.raises(ValueError) as error:
        evaluate(tiny_mixer(), few_digits, split)
    assert_told(error.value, "the given split", *told)
    with pytest.raises(ValueError) as error:
        evaluate(tiny_mixer(), dataclasses.replace(few_digits, test=split))
    assert_told(error.value, "the test split", *told)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_whole_numbers_of_any_kind_are_the_same_labels(dtype, few_digits, tiny_mixer):
    def narrow(split):
        return Split(split.images, split.labels.to(dtype))

    data = dataclasses.replace(few_digits, train=narrow(few_digits.train), test=narrow(few_digits.test))
    _, expected = train(TINY, data=few_digits, device="cpu", progress=False)
    _, found = train(TINY, data=data, device="cpu", progress=False)
    assert found.steps == expected.steps
    assert evaluate(tiny_mixer(), data).metrics() == evaluate(tiny_mixer(), few_digits).metrics()


def test_the_labels_of_images_in_files_are_looked_at_as_well(few_digits, tiny_mixer):
    class InFiles:
        """Has labels, and no images."""

        labels = torch.tensor([1, 2, 10])
        image_shape = (1, 28, 28)

    with pytest.raises(ValueError) as error:
        evaluate(tiny_mixer(), few_digits, InFiles())
    assert_told(error.value, "run from 1 to 10", "labels - 1")


@pytest.mark.parametrize("split", ["val", "validation", "mean", ""])
def test_a_split_that_there_is_not_is_refused_with_those_there_are(split, few_digits, tiny_mixer):
    with pytest.raises(ValueError) as error:
        evaluate(tiny_mixer(), few_digits, split=split)
    assert_told(error.value, f"no split {split!r}", '"test"', '"train"', "hold_out(data.train, recipe.validation)[1]")


def test_a_dataset_holds_what_a_run_s_file_can_hold(few_digits):
    data = Dataset("mine", few_digits.train, None, range(10), torch.tensor([0.25]), 0.5)
    assert data.class_names == tuple("0123456789") and data.mean == (0.25,) and data.std == (0.5,)
    images = few_digits.train.images[:2]
    torch.testing.assert_close(data.normalize(images), (images / 255 - 0.25) / 0.5)
