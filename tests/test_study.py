"""tools/study.py on a few digits: that it compares what it says it compares."""

import importlib.util
from pathlib import Path

import pytest
import torch

from mixer_utils.evaluation import loss_and_accuracy
from mixer_utils.model import count_parameters
from mixer_utils.training import hold_out

PATH = Path(__file__).parent.parent / "tools" / "study.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("study", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_networks_have_one_size(study):
    mixer, *others = [count_parameters(study.build(name, (1, 28, 28), 10)) for name in study.NETWORKS]
    assert all(0.9 * mixer < other <= mixer for other in others)


@pytest.mark.parametrize("cure", ["plain", "all three"])
def test_a_run_learns_and_is_the_same_again(study, cure, few_digits):
    training, validation = hold_out(few_digits.train, 60)

    def found():
        torch.manual_seed(0)
        model = study.build("CNN", few_digits.image_shape, 10)
        recipe = study.recipe_for(4e-3, **study.CURES[cure])
        return study.curves(model, training, validation, few_digits, recipe, 50, 0) | {"model": model}

    first, again = found(), found()
    assert first["steps"] == [50] and first["train"] == again["train"]
    assert first["validation"] == [loss_and_accuracy(first["model"], validation, few_digits)]
    assert first["validation"][0][1] > 0.3


def test_a_run_that_is_there_is_not_done_again(study, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "RUNS", tmp_path / "runs")
    assert study.keep("a/b", lambda: {"x": 1}) == {"x": 1}
    assert study.keep("a/b", lambda: pytest.fail("done again")) == {"x": 1}
    with pytest.raises(SystemExit):
        study.keep("c", study.missing)


def test_all_images_of_a_run_are_training_images(study, mnist):
    seen = [study.parts_of("mnist", 100, seed) for seed in (0, 0, 1)]
    assert torch.equal(seen[0][1].images, seen[1][1].images) and not torch.equal(seen[0][1].images, seen[2][1].images)
    _, validation = hold_out(mnist.train, study.VALIDATION)
    assert all(torch.equal(part[2].images, validation.images) for part in seen)


def test_jobs_have_names_of_their_own_and_cover_every_network(study):
    names = [name for _, name, _ in study.jobs()]
    assert len(names) == len(set(names)) and {network for network, _, _ in study.jobs()} == set(study.NETWORKS)
    assert sum("-5000-" in name for name in names) == len(study.NETWORKS) * len(study.CURES) * len(study.SEEDS)
