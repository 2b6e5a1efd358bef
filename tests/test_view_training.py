import io

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from mixer_utils import MlpMixer, mixing
from mixer_utils.snapshots import Snapshots, load_recorded_run
from mixer_utils.widgets import base, explore_training
from mixer_utils.widgets import training as training_view
from mixer_utils.widgets.base import unpacked
from mixer_utils.widgets.front_end import joined
from mixer_utils.widgets.page import embedded
from mixer_utils.widgets.training import mosaic, training_data


@pytest.fixture(scope="module")
def run():
    return load_recorded_run()


@pytest.fixture
def view():
    return explore_training()


def taken(model, steps, accuracies):
    """Snapshots of a model whose weights grow by a half at each."""
    snapshots = Snapshots()
    snapshots.begin(model, steps[-1])
    snapshots.steps, snapshots.validation_accuracy = list(steps), list(accuracies)
    snapshots.weights = torch.stack([(1 + i / 2) * mixing.unit_maps(model) for i in range(len(steps))]).half()
    return snapshots


def test_the_browser_gets_the_recorded_run_as_it_is(view, run):
    np.testing.assert_array_equal(unpacked(view.data["weights"]), run.weights.numpy())
    assert unpacked(view.data["steps"]).tolist() == run.steps
    np.testing.assert_array_equal(unpacked(view.data["validation_accuracy"]), np.float32(run.validation_accuracy))
    assert view.data["run"] == "the run of recipe mixing" and view.data["grid"] == [14, 14]
    assert sum(len(one["bytes"]) for one in view.data.values() if isinstance(one, dict) and "bytes" in one) < 2_000_000


def test_it_opens_at_the_end_of_the_run_and_stands_still(view, run):
    assert view.time == 23 and view.steps[view.time] == run.steps[-1] and view.playing is False


def test_tiles_are_sorted_by_the_last_snapshot_and_keep_their_places(view, run):
    last = run.weights[-1].float().numpy()
    assert view.sort == "structure" and view.unit == mixing.morans_i(last[0, 0], (14, 14)).argmax()
    for sort, order in [("structure", lambda reads: mixing.by_structure(reads, (14, 14))),
                        ("norm", mixing.by_norm), ("pairs", mixing.by_pairs),
                        ("frequency", lambda reads: mixing.by_frequency(reads, (14, 14))),
                        ("number", lambda reads: np.arange(len(reads)))]:  # fmt: skip
        for block in range(3):
            view.sort, view.block = sort, block
            for view.time in (0, 12, 23):
                np.testing.assert_array_equal(view.order(), order(last[block, 0]))
            np.testing.assert_array_equal(unpacked(view.data["orders"][sort])[block], view.order())


def test_colours_cover_the_block_s_whole_run_or_each_snapshot_by_itself(view, run):
    view.block = 1
    tops = run.weights[:, 1].float().abs().flatten(1).amax(1)
    assert tops[0] != tops[23]
    for view.time in (0, 23):
        view.scale = "shared"
        assert view.top() == tops.max()
        view.scale = "each"
        assert view.top() == tops[view.time]


def test_snapshots_of_one_s_own_run_are_shown(tiny_mixer):
    snapshots = taken(tiny_mixer(), [0, 3, 9], [0.1, 0.5, 0.75])
    view = explore_training(snapshots)
    assert view.steps == [0, 3, 9] and view.time == 2 and view.data["run"] == "the run"
    np.testing.assert_array_equal(unpacked(view.data["weights"]), snapshots.weights.numpy())
    assert explore_training(taken(tiny_mixer(), [7], [0.3])).picture().alt  # stopped at once


def test_of_a_run_too_large_fewer_snapshots_are_sent_the_last_one_among_them(monkeypatch, tiny_mixer):
    snapshots = taken(tiny_mixer(), range(11), np.linspace(0, 1, 11))  # 120 bytes each, 80 weights and 20 scales
    monkeypatch.setattr(training_view, "MOST_IN_HALVES", 300)
    monkeypatch.setattr(base, "MOST_SENT", 400)
    view = explore_training(snapshots)
    assert view.steps == [0, 5, 10] and view.data["weights"]["dtype"] == "int8"
    whole = snapshots.weights.float().numpy()[[0, 5, 10]]
    assert (abs(unpacked(view.data["weights"]) - whole) <= 0.51 / 127 * abs(whole).max(-1, keepdims=True)).all()
    np.testing.assert_array_equal(view.weights, unpacked(view.data["weights"]))
    np.testing.assert_allclose(view.validation_accuracy, [0, 0.5, 1])
    monkeypatch.setattr(base, "MOST_SENT", 200)
    assert explore_training(snapshots).steps == [10]  # in half precision, 160 bytes
    assert explore_training(snapshots).data["weights"]["dtype"] == "float16"
    monkeypatch.setattr(base, "MOST_SENT", 100)
    with pytest.raises(ValueError, match=r"\b80 weights\b.*: record a model"):
        explore_training(snapshots)


def test_a_run_on_the_papers_grid_takes_a_third_of_a_page_of_6_mb():
    model = MlpMixer(28, patch_size=2, hidden_dim=4, tokens_mlp_dim=64, channels_mlp_dim=4, num_blocks=3)
    data = training_data(taken(model, range(24), np.linspace(0, 1, 24)))
    assert unpacked(data["weights"]).shape == (24, 3, 2, 64, 196)
    places, end = embedded([{"view": "training", "data": data}])
    script = joined("page")
    assert len(end) - len(script) < 2_600_000


def test_another_view_can_have_the_data(view, run):
    assert training_data(run) == view.data


def test_what_cannot_be_shown_is_said_in_one_sentence(tiny_mixer):
    with pytest.raises(
        ValueError, match=r"^This view shows Snapshots, not a MlpMixer: give what [^:]*\(snapshots=\.\.\.\)"
    ):
        explore_training(tiny_mixer())
    with pytest.raises(ValueError, match=r"^These snapshots are empty: give them to train\(snapshots=\.\.\.\) before "):
        explore_training(Snapshots())


@pytest.mark.parametrize("trait, value, message", [
    ("time", 24, "time is 24: it must be from 0 to 23."), ("block", 3, "block is 3: it must be from 0 to 2."),
    ("unit", 32, "unit is 32: it must be from 0 to 31."), ("patch", -1, "patch is -1: it must be from 0 to 195."),
])  # fmt: skip
def test_a_trait_out_of_range_is_refused(view, trait, value, message):
    with pytest.raises(traitlets.TraitError) as caught:
        setattr(view, trait, value)
    assert str(caught.value) == message


def test_every_control_is_a_trait_that_the_browser_shares(view):
    assert {"time", "block", "sort", "scale", "unit", "patch", "playing"} <= set(view.keys)
    with pytest.raises(traitlets.TraitError):
        view.sort = "index"


def test_its_picture_shows_the_snapshot_at_hand_and_the_curve(view, run):
    view.time, view.block = 13, 2
    picture = view.picture()
    step, accuracy = run.steps[13], run.validation_accuracy[13]
    assert 0 < step < run.steps[-1] and 0.5 < accuracy < 1
    assert picture.alt == (
        f"On the left what the 32 units of block 2's token mixing read from the patches after step {step:,} of "
        f"{run.steps[-1]:,}, sorted by structure at the end of the run. On the right the validation accuracy along the "
        f"run, {accuracy:.2%} at this step."
    )
    left, right = picture.axes[:2]
    (drawn,) = left.get_images()
    first = run.weights[13, 2, 0, view.order()[0]].float().numpy().reshape(14, 14)
    np.testing.assert_array_equal(drawn.get_array()[:14, :14], first)
    assert drawn.get_clim() == (-view.top(), view.top())
    curve, mark = right.get_lines()
    assert list(curve.get_xdata()) == run.steps and list(mark.get_xdata()) == [step]
    np.testing.assert_allclose(mark.get_ydata(), [100 * accuracy])


def test_where_no_widget_can_be_shown_the_picture_stands_in(view):
    data, metadata = view._repr_mimebundle_()
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(data)
    assert metadata["image/png"] == {"alt": view.picture().alt}
    assert Image.open(io.BytesIO(data["image/png"])).size[0] > 500
    assert repr(view) == "TrainingView(training)"


def test_a_mosaic_has_every_map_and_lines_between():
    maps = np.arange(3 * 2 * 2, dtype=float).reshape(3, 2, 2)
    picture = mosaic(maps)
    assert picture.shape == (3, 9)
    np.testing.assert_array_equal(picture[:2, 3:5], maps[1])
    assert np.isnan(picture[2]).all() and np.isnan(picture[:, [2, 5, 8]]).all()
