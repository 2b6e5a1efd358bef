"""The benchmarks measure what they say: the same sizes for all, a formula that counts right, every part runs."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import bench, busy, cost, gpu, loop, peers, timing

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
KEPT = sorted((ROOT / "results").glob("bench-*.json"))
PACKAGE = {"timm": "timm", "lucidrains": "mlp_mixer_pytorch"}


def forward_flops(model, shape):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(shape.batch(CPU)[0])
    return counter.get_total_flops()


# --- the formula ------------------------------------------------------------------------------------------------------

THREE = [
    peers.TINY,
    dataclasses.replace(peers.SHAPES[1], batch_size=2),
    peers.Shape("colour", 8, 24, 10, 40, 3, batch_size=3, image_size=32, in_channels=3, num_classes=7),
]


@pytest.mark.parametrize("shape", THREE, ids=lambda shape: shape.name)
def test_the_formula_counts_what_torch_counts(shape):
    assert 2 * cost.multiply_adds(shape) * shape.batch_size == forward_flops(peers.build("ours", shape, CPU), shape)


@pytest.mark.parametrize("shape", THREE, ids=lambda shape: shape.name)
def test_a_training_step_takes_three_times_the_forward_pass_but_for_the_gradient_of_the_images(shape):
    model, batch = peers.build("ours", shape, CPU), shape.batch(CPU)
    with FlopCounterMode(display=False) as counter:
        peers.training_step(model, *batch, "float32")
    stem = shape.num_tokens * shape.patch_size**2 * shape.in_channels * shape.hidden_dim
    expected = 3 * cost.multiply_adds(shape) - stem  # nobody asks for the images' gradient
    assert counter.get_total_flops() == 2 * expected * shape.batch_size


def test_b_16_takes_as_many_multiply_adds_as_is_published():
    assert cost.multiply_adds(gpu.B_16) == pytest.approx(12.6e9, rel=0.01)  # timm's benchmark table: 12.61 GMACs


def test_with_fixed_widths_cost_is_linear_in_the_number_of_tokens():
    one, four = (dataclasses.replace(cost.BASE, image_size=size) for size in (28, 56))
    head = cost.BASE.hidden_dim * cost.BASE.num_classes
    assert cost.multiply_adds(four) - head == 4 * (cost.multiply_adds(one) - head)


def test_the_slope_of_a_power_law_is_its_power():
    assert cost.slope([1, 2, 4, 8], [5 * x**1.5 for x in (1, 2, 4, 8)]) == pytest.approx(1.5)


def test_saved_bytes_count_what_the_backward_pass_of_a_linear_layer_needs_and_no_weights():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    found = cost.memory_of(model, torch.randn(3, 1, 3, 4), torch.tensor([0, 1, 2]), "float32")
    assert found["parameter_bytes"] == 4 * (12 * 5 + 5)
    images, log_probabilities, labels, total_weight = 4 * 3 * 12, 4 * 3 * 5, 8 * 3, 4
    assert found["saved_bytes"] == images + log_probabilities + labels + total_weight


# --- the models -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", peers.SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("name", PACKAGE)
def test_a_block_of_a_peer_has_the_parameters_and_the_flops_of_ours(name, shape):
    pytest.importorskip(PACKAGE[name])
    shape = dataclasses.replace(shape, batch_size=1, num_blocks=1)
    mixer, peer = peers.build("ours", shape, CPU), peers.build(name, shape, CPU)
    assert peers.parameter_shapes(peer) == peers.parameter_shapes(mixer)
    assert forward_flops(peer, shape) == forward_flops(mixer, shape)


def test_swapped_expansion_factors_are_noticed(monkeypatch):
    mixer = pytest.importorskip("mlp_mixer_pytorch").MLPMixer

    def swapped(shape):
        return mixer(image_size=28, channels=1, patch_size=14, dim=16, depth=2, num_classes=10)  # its defaults

    monkeypatch.setitem(peers.MODELS, "lucidrains", swapped)
    with pytest.raises(AssertionError, match="lucidrains has parameters of other shapes"):
        peers.build("lucidrains", peers.TINY, CPU)


def test_the_small_mnist_mixer_is_the_usual_one():
    model = peers.build("small MNIST Mixer", peers.SHAPES[2], CPU)
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_387_885
    norms = [tuple(m.normalized_shape) for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert norms == [(49,), (512,)] * 3
    assert model(peers.SHAPES[2].batch(CPU)[0][:2]).shape == (2, 10)


def test_no_head_starts_at_zero_where_it_would_send_zeros_back():
    assert peers.build("ours", peers.TINY, CPU).head.weight.std().item() == pytest.approx(0.02, rel=0.2)


# --- the clock --------------------------------------------------------------------------------------------------------


def test_calls_take_turns_and_another_one_starts_every_round():
    order = []
    times = timing.alternate({name: lambda name=name: order.append(name) for name in "abc"}, CPU, least=2, warmup=1)
    assert "".join(order) == "abc" + "abc" + "bca"
    assert [len(values) for values in times.values()] == [2, 2, 2]


def test_a_call_that_times_itself_is_believed():
    assert timing.alternate({"a": lambda: 0.25}, CPU, least=2) == {"a": [0.25, 0.25]}


def test_a_ratio_is_the_median_of_the_rounds_own_ratios():
    # A round in which the machine was slow for both says as much as any other.
    assert timing.ratio([1.0, 10.0, 1.0], [2.0, 20.0, 3.0]) == {"median": 2.0, "low": 2.0, "high": 2.5}


# --- every part -------------------------------------------------------------------------------------------------------


def last(found):
    return list(found)[-1]


def test_peers_runs(capsys, monkeypatch):
    monkeypatch.setattr(peers, "precisions", lambda device: ["float32"])
    found = last(peers.run(CPU, smoke=True))
    assert [case["mode"] for case in found["cases"]] == ["training", "inference"]
    for case in found["cases"]:
        assert set(case["seconds"]) == {"ours", *case["ratio"]} == set(peers.MODELS) - set(found["skipped"])
        assert all(value > 0 for value in case["seconds"].values())
    assert capsys.readouterr().out.count("ours") == 2


def test_a_package_that_is_not_there_is_skipped_with_its_reason(capsys, monkeypatch):
    monkeypatch.setattr(peers, "precisions", lambda device: ["float32"])
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.models.mlp_mixer", None)
    found = last(peers.run(CPU, smoke=True))
    assert "timm" in found["skipped"]["timm"] and "timm" not in found["cases"][0]["ratio"]
    assert capsys.readouterr().out.count("timm: skipped") == 1


def test_cost_runs():
    found = last(cost.run(CPU, smoke=True))["sweeps"]
    assert [point["value"] for point in found["S"]["points"]] == [4, 16, 49, 196]
    assert found["depth"]["exponent"]["multiply_adds"] == pytest.approx(1, abs=0.05)
    saved = [point["saved_bytes"] for point in found["depth"]["points"]]
    assert saved[3] - saved[2] == pytest.approx(2 * (saved[2] - saved[1]), rel=0.01)  # so many bytes a block


def test_gpu_is_skipped_without_one(capsys):
    assert list(gpu.run(CPU)) == []
    assert "skipped" in capsys.readouterr().out


def test_gpu_s_share_of_the_peak_is_the_formula_s(monkeypatch):
    monkeypatch.setattr(gpu, "matmul_peak", lambda device, side: 1e12)
    batch = last(gpu.run(CPU, smoke=True))["batches"][0]
    found = batch["variants"]["ours, eager"]
    expected = 6 * cost.multiply_adds(peers.TINY) * batch["batch_size"] / found["seconds"] / 1e12
    assert found["share_of_peak"] == pytest.approx(expected)


def test_a_batch_that_does_not_fit_is_halved_and_the_rest_goes_on(monkeypatch):
    real = gpu.training_step

    def step(name, shape, mode, device):
        if name == "timm" and shape.batch_size == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        if name == "timm":
            raise RuntimeError("something else\nand more")
        return real(name, shape, mode, device)

    monkeypatch.setattr(gpu, "training_step", step)
    large, small = last(gpu.run(CPU, smoke=True))["batches"]
    assert (large["batch_size"], small["batch_size"]) == (4, 2)
    assert "out of memory" in large["variants"]["timm, eager"]["error"]
    assert small["variants"]["timm, eager"] == {"error": "RuntimeError: something else"}
    assert small["variants"]["ours, eager"]["seconds"] > 0


def test_loop_runs_and_its_model_is_the_recipe_s(monkeypatch):
    monkeypatch.setattr(loop, "RECIPE", dataclasses.replace(loop.RECIPE, batch_size=32))
    monkeypatch.setattr(loop, "page_faults", lambda rounds, steps: {})  # starts four processes: below
    found = last(loop.run(CPU, smoke=True))
    assert {"train()", "model alone"} <= set(found["images_per_second"])
    assert found["overhead"] < 1
    assert ("usual way" in found["skipped"]) != (found.get("usual_way", {}).get("median", 0) > 0)
    shape = loop.shape_of(loop.RECIPE)
    assert peers.parameter_shapes(peers.ours(shape)) == peers.parameter_shapes(loop.create_mixer(loop.RECIPE.model))


def test_a_step_in_a_process_of_its_own_prints_its_seconds():
    assert loop.own_process("keep", "mnist/quick", 2) > 0


def test_the_command_keeps_what_it_measures_with_how_when_and_where(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cost, "run", lambda device, smoke: iter([{"sweeps": 1}, {"sweeps": 2}]))
    monkeypatch.setattr(bench, "PARTS", ("cost",))
    bench.main(["--device", "cpu", "--results", str(tmp_path)])
    found = json.loads((tmp_path / "bench-cost.json").read_text())
    assert found["command"] == "python benchmarks/bench.py cost" and found["sweeps"] == 2
    assert found["versions"]["torch"] == torch.__version__
    assert "cost, on cpu" in capsys.readouterr().out


def test_a_smoke_run_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "run", lambda device, smoke: iter([{}]))
    bench.main(["cost", "--smoke", "--device", "cpu", "--results", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_part_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        bench.main(["pears"])
    assert "there is no part pears: choose from peers, loop, cost, gpu, views, busy" in capsys.readouterr().err


def test_the_script_runs_from_another_folder(tmp_path):
    run = subprocess.run([sys.executable, ROOT / "benchmarks" / "bench.py", "gpu", "--device", "cpu"], cwd=tmp_path,
                         check=True, capture_output=True, text=True)  # fmt: skip
    assert "skipped: this machine has no CUDA GPU" in run.stdout


def test_times_beside_busy_programs_are_held_against_one_thread(monkeypatch):
    seconds = {"one thread": 4.0, "as torch has it": 10.0, "train()": 5.0, "train(), torch imported before": 3.0}
    monkeypatch.setattr(busy, "trained", lambda way, recipe: seconds[way])
    *_, found = busy.run(torch.device("cpu"), smoke=True)
    assert list(found["beside"]) == ["0", "1"] and found["recipe"] == "digits"
    assert found["beside"]["1"]["times_one_thread"]["as torch has it"] == 2.5
    assert found["beside"]["1"]["seconds"]["train()"] == [5.0]
    assert found["alone_against_torch"] == 0.5
    assert list(busy.run(torch.device("cuda"), smoke=True)) == []


def test_a_run_beside_others_reports_its_seconds_or_its_error(monkeypatch):
    monkeypatch.setattr(busy, "RUN", "import os\n{first}\nprint(len(os.environ['OMP_NUM_THREADS']), '0.25')")
    assert busy.trained("one thread", "digits") == 0.25
    monkeypatch.setattr(busy, "RUN", "raise SystemExit('no data')")
    with pytest.raises(RuntimeError, match="no data"):
        busy.trained("one thread", "digits")


# --- what was measured ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_result_says_how_when_and_where(path):
    found = json.loads(path.read_text(encoding="utf-8"))
    part = re.fullmatch(r"bench-(\w+?)(-gpu)?", path.stem).group(1)
    assert found["command"] == f"python benchmarks/bench.py {part}"
    assert found["device"] and re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])
    assert {"python", "torch"} <= set(found["versions"])


@pytest.mark.parametrize("path", [p for p in KEPT if p.stem.startswith("bench-peers")], ids=lambda path: path.stem)
def test_kept_ratios_were_measured_on_today_s_shapes_in_five_rounds_or_more(path):
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["shapes"] == [dataclasses.asdict(shape) for shape in peers.SHAPES]
    assert all(case["rounds"] >= 5 for case in found["cases"])
    assert all(math.isfinite(ratio["median"]) for case in found["cases"] for ratio in case["ratio"].values())
