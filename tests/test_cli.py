import dataclasses
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from told import assert_told

from benchmarks.drawn import draw
from mixer_utils import (
    CONFIGS,
    RECIPES,
    _run,
    evaluate,
    load_checkpoint,
    load_image_folder,
    save_checkpoint,
    training,
)
from mixer_utils.__main__ import answer, main, parser
from mixer_utils.data import read_image

ROOT = Path(__file__).resolve().parent.parent
SHORT = dataclasses.replace(RECIPES["digits"], epochs=3, batch_size=200, stochastic_depth=0.1)  # 6 steps an epoch
CONTRACT = (
    "accuracy precision recall f1 confusion_matrix per_class "
    "train_seconds images_per_second num_parameters recipe seed device torch_version"
)


@pytest.fixture(autouse=True)
def short_recipe(monkeypatch):
    monkeypatch.setitem(RECIPES, "digits", SHORT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run made by the command line, for reading."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "digits", SHORT)
        main(["train", "--recipe", "digits", "--out", str(folder), "--seed", "3", "--device", "cpu"])
    return folder


def stop(*arguments):
    """The sentence with which a command ends, and that it is an error of exit status 1."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    sentence = end.value.code  # Python prints a string to stderr and leaves with status 1
    assert isinstance(sentence, str) and sentence.startswith("error: ") and "\n" not in sentence
    return sentence.removeprefix("error: ")


def python(*arguments, **environment):
    """Run Python in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=env, capture_output=True, text=True)


# --- train, evaluate, predict ------------------------------------------------------------------------------


def test_train_writes_a_run_and_prints_its_epochs(tmp_path, capsys):
    folder = tmp_path / "runs" / "first"
    main(
        [
            "train",
            "--recipe",
            "digits",
            "--out",
            str(folder),
            "--device",
            "cpu",
            "--tensorboard",
            str(tmp_path / "logs"),
        ]
    )
    assert {path.name for path in folder.iterdir()} == {
        "history.json",
        "model.safetensors",
        "resume.safetensors",
        "resume-previous.safetensors",
    }
    assert any((tmp_path / "logs").iterdir())
    *epochs, last = capsys.readouterr().out.splitlines()
    history = json.loads((folder / "history.json").read_text())["epochs"]
    assert epochs == [
        f"epoch  {i + 1}: training loss {history['train_loss'][i]:.4f}, "
        f"validation accuracy {history['validation_accuracy'][i]:.2%}"
        for i in range(3)
    ]
    assert last.endswith(f"Next: python -m mixer_utils evaluate {folder}")
    assert load_checkpoint(folder / "model.safetensors").about["seed"] == 0


def test_evaluate_prints_the_report_and_writes_what_the_public_contract_lists(finished, digits, capsys):
    main(["evaluate", str(finished), "--device", "cpu"])
    model = load_checkpoint(finished / "model.safetensors")
    report = evaluate(model, digits)
    assert str(report) in capsys.readouterr().out
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics) >= set(CONTRACT.split())
    assert metrics["accuracy"] == report.accuracy > 0.5
    assert metrics["confusion_matrix"] == report.confusion_matrix.tolist()
    assert np.sum(metrics["confusion_matrix"]) == 360
    assert [metrics[key] for key in ("precision", "recall", "f1")] == [report.precision, report.recall, report.f1]
    assert metrics["per_class"] == report.per_class
    assert (metrics["recipe"], metrics["seed"], metrics["device"]) == ("digits", 3, "cpu")
    assert metrics["torch_version"] == torch.__version__
    assert metrics["num_parameters"] == sum(parameter.numel() for parameter in model.parameters())
    history = json.loads((finished / "history.json").read_text())["epochs"]
    assert metrics["train_seconds"] == pytest.approx(sum(history["seconds"]))
    assert metrics["images_per_second"] == pytest.approx(3 * 1200 / sum(history["seconds"]))


@pytest.fixture
def drawn(digits, tmp_path):
    """The first 12 test digits as image files, with what the files show."""
    paths = []
    for i, image in enumerate(digits.test.images[:12]):
        paths.append(tmp_path / f"digit {i}.png")
        Image.fromarray(image[0].numpy()).save(paths[-1])
    return paths


def predictions(out):
    """path -> (class, chance) of what `predict` prints."""
    found = [re.match(r"(.+): (\S+) \((\d+\.\d)%\)(, not sure: .*)?$", line).groups()[:3] for line in out.splitlines()]
    return {path: (called, float(chance)) for path, called, chance in found}


def test_predict_says_the_class_and_probability_of_every_file(finished, drawn, digits, capsys):
    main(["predict", str(finished), *map(str, drawn)])
    found = predictions(capsys.readouterr().out)
    logits = load_checkpoint(finished / "model.safetensors")(digits.normalize(digits.test.images[:12]))
    chances, classes = logits.softmax(1).max(1)
    assert list(found) == [str(path) for path in drawn]
    assert [called for called, _ in found.values()] == [str(i) for i in classes.tolist()]
    assert [chance for _, chance in found.values()] == pytest.approx([100 * c for c in chances.tolist()], abs=0.051)
    labels = map(str, digits.test.labels[:12].tolist())
    right = sum(called == label for (called, _), label in zip(found.values(), labels, strict=True))
    assert right >= 6


def test_dark_ink_on_light_paper_is_predicted_as_light_on_dark(finished, drawn, capsys):
    main(["predict", str(finished), str(drawn[0])])
    before = predictions(capsys.readouterr().out)
    image = Image.open(drawn[0])
    Image.fromarray(255 - np.asarray(image)).save(drawn[0])
    main(["predict", str(finished), str(drawn[0])])
    assert predictions(capsys.readouterr().out) == before


def test_a_path_may_begin_at_home_where_the_shell_leaves_it_as_it_is(finished, drawn, tmp_path, monkeypatch, capsys):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(finished.parent))
    monkeypatch.chdir(tmp_path)
    main(["evaluate", f"~/{finished.name}", "--device", "cpu"])
    capsys.readouterr()
    shutil.copy(drawn[0], finished.parent / "a digit.png")
    main(["predict", f"~/{finished.name}", "~/a digit.png"])
    assert list(predictions(capsys.readouterr().out)) == [str(finished.parent / "a digit.png")]
    main(["explorer", "--out=~/page"])
    assert (finished.parent / "page" / "index.html").is_file()
    assert not (tmp_path / "~").exists()


def test_a_name_that_the_output_cannot_spell_costs_no_answer(finished, drawn, tmp_path):
    path = tmp_path / "цифра 7.png"
    shutil.copy(drawn[0], path)
    done = python("-m", "mixer_utils", "predict", finished, path, PYTHONIOENCODING="cp1252")
    spelt = str(path).encode("ascii", "backslashreplace").decode()
    assert (done.returncode, done.stderr) == (0, "")
    assert list(predictions(done.stdout)) == [spelt]


# --- resume ------------------------------------------------------------------------------------------------


def test_an_interrupted_run_is_resumed_to_the_same_end(finished, tmp_path, monkeypatch, capsys):
    command = ["train", "--recipe", "digits", "--out", str(tmp_path), "--seed", "3", "--device", "cpu"]
    judge, calls = training.loss_and_accuracy, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)  # Ctrl-C: the next step is the last
        return judge(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "loss_and_accuracy", interrupted)
        main(command)
    assert "Stopped by hand after step 13 of 18" in capsys.readouterr().out
    assert "already holds a run" in stop(*command)
    main([*command, "--resume"])
    ours, theirs = ((folder / "model.safetensors") for folder in (tmp_path, finished))
    for name, weight in load_checkpoint(theirs).state_dict().items():
        assert torch.equal(load_checkpoint(ours).state_dict()[name], weight), name
    assert capsys.readouterr().out.count("epoch ") == 3


# --- for longer -----------------------------------------------------------------------------------------------


@pytest.fixture
def finished_here(finished, tmp_path):
    """A copy of the finished run, in a folder that may be written."""
    return shutil.copytree(finished, tmp_path / "runs" / "digits")


def test_a_finished_run_is_trained_for_longer_as_a_new_run_from_its_weights(finished_here, monkeypatch, capsys):
    before = {path.name: path.read_bytes() for path in finished_here.iterdir()}
    main(["train", "--out", str(finished_here), "--more-epochs", "2", "--set", "learning_rate=0", "--device", "cpu"])
    longer = finished_here.parent / "digits+2"
    model, old = (load_checkpoint(folder / "model.safetensors") for folder in (longer, finished_here))
    for name, weight in old.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name  # at a rate of zero nothing moves
    expected = dataclasses.asdict(SHORT) | {"epochs": 2, "learning_rate": 0.0}
    assert model.about["recipe"] == expected and model.about["steps"] == 12
    assert model.about["seed"] == 4  # the next one: other batches than in the finished run
    assert model.about["started_from"]["recipe"] == dataclasses.asdict(SHORT)
    assert (model.about["started_from"]["seed"], model.about["started_from"]["steps"]) == (3, 18)
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"Next: python -m mixer_utils evaluate {longer}")
    assert {path.name: path.read_bytes() for path in finished_here.iterdir()} == before


def test_a_run_for_longer_has_a_schedule_of_its_own_and_takes_other_settings(finished_here):
    main(["train", "--out", str(finished_here), "--more-epochs", "1", "--seed", "9", "--recipe", "digits",
          "--set", "learning_rate=0.001", "--device", "cpu"])  # fmt: skip
    folder = finished_here.parent / "digits+1"
    rates = json.loads((folder / "history.json").read_text())["steps"]["learning_rate"]
    recipe = dataclasses.replace(SHORT, epochs=1, learning_rate=0.001)
    assert rates == [recipe.learning_rate_at(step, 6) for step in range(6)]
    assert load_checkpoint(folder / "model.safetensors").about["seed"] == 9


def test_a_run_that_is_not_finished_or_on_other_data_is_not_trained_for_longer(finished_here, tmp_path):
    path = finished_here / "model.safetensors"
    model = load_checkpoint(path)
    about = {key: value for key, value in model.about.items() if key != "model"}
    save_checkpoint(model, path, **{**about, "steps": 17})
    sentence = stop("train", "--out", finished_here, "--more-epochs", 2)
    assert_told(sentence, f"{finished_here} stopped after step 17 of 18", "--resume first")
    save_checkpoint(model, path, **{**about, "dataset": "letters"})
    sentence = stop("train", "--out", finished_here, "--more-epochs", 2)
    assert_told(sentence, "was trained on letters", "names digits", "--data FOLDER")
    save_checkpoint(model, path, **{**about, "pictures": "crop"})  # a folder that is called digits
    sentence = stop("train", "--out", finished_here, "--more-epochs", 2)
    assert_told(sentence, "images of your own, called digits", "--data FOLDER")
    save_checkpoint(model, path, **about)
    assert "epochs is 0" in stop("train", "--out", finished_here, "--more-epochs", 0)
    assert [path.name for path in finished_here.parent.iterdir()] == ["digits"]


def test_resuming_a_finished_run_says_how_to_train_it_for_longer(finished_here, capsys):
    command = ["train", "--recipe", "digits", "--out", str(finished_here), "--seed", "3", "--device", "cpu", "--resume"]
    main(command)
    first = capsys.readouterr().out.splitlines()[0]
    assert_told(first, f"{finished_here} was finished before", "--more-epochs N", "as a new run")
    assert_told(stop(*command, "--set", "epochs=5"), "(epochs 3, not 5)", "another out", "--more-epochs N")
    assert "--more-epochs" not in stop(*command, "--set", "epochs=2")


def test_compiling_without_a_compiler_ends_in_one_sentence(tmp_path, monkeypatch):
    from torch._inductor.exc import InvalidCxxCompiler

    def forward(images):
        raise InvalidCxxCompiler()

    monkeypatch.setattr(torch, "compile", lambda model: forward)
    sentence = stop("train", "--recipe", "digits", "--out", tmp_path, "--device", "cpu", "--compile")
    assert_told(sentence, "torch.compile does not work here", "C++ compiler", "g++", "--compile", "away")


# --- errors ------------------------------------------------------------------------------------------------


def test_an_unknown_recipe_ends_in_one_sentence(tmp_path):
    assert stop("train", "--recipe", "hour", "--out", tmp_path) == (
        f"There is no recipe 'hour': choose one of {', '.join(RECIPES)}."
    )
    assert not any(tmp_path.iterdir())


def test_a_gpu_that_is_not_there_ends_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert stop("train", "--recipe", "digits", "--out", tmp_path, "--device", "cuda").startswith(
        "The device 'cuda' was asked for, but this machine offers "
    )
    assert list(tmp_path.iterdir()) == []


def test_a_first_start_that_asks_to_resume_begins_in_one_line_and_ends_as_any_other(tmp_path, finished, capsys):
    command = ["train", "--recipe", "digits", "--seed", "3", "--device", "cpu", "--out", str(tmp_path)]
    main([*command, "--resume", "--save-every", "1e-9"])
    first, *epochs, _ = capsys.readouterr().out.splitlines()
    assert first == "There is no state to resume from yet: the run begins at its first step."
    assert [line.split(":")[0] for line in epochs] == ["epoch  1", "epoch  2", "epoch  3"]
    assert same_model(tmp_path, finished)


def same_model(*folders):
    ours, theirs = (load_checkpoint(folder / "model.safetensors").state_dict() for folder in folders)
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("minutes", ["0", "-3", "nan"])
def test_minutes_that_are_none_end_in_one_sentence(minutes, tmp_path):
    command = ["train", "--recipe", "digits", "--out", tmp_path / "run", f"--save-every={minutes}"]
    assert stop(*command).startswith(f"save_every is {float(minutes)!r}: it must be a number of minutes above 0")
    assert not (tmp_path / "run").exists()


def test_minutes_on_the_command_line_and_in_python_are_the_same_by_default():
    options = parser().parse_args(["train", "--out", "run"])
    assert options.save_every == inspect.signature(training.train).parameters["save_every"].default == 10


def test_another_seed_to_resume_with_ends_in_one_sentence(finished):
    sentence = stop("train", "--recipe", "digits", "--out", finished, "--resume", "--seed", 4, "--device", "cpu")
    assert "seed 3, not 4" in sentence


def test_data_that_cannot_be_had_end_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXER_DATA", str(tmp_path / "data"))
    assert stop("train", "--recipe", "minute", "--out", tmp_path / "run").startswith("mnist is not in ")


def test_an_out_below_a_file_ends_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert "cannot be written" in stop("train", "--recipe", "digits", "--out", tmp_path / "file" / "run")


@pytest.mark.parametrize("command", [["evaluate"], ["predict"]])
def test_a_folder_without_a_run_ends_in_one_sentence(command, tmp_path):
    rest = ["x.png"] if command == ["predict"] else []
    assert stop(*command, tmp_path, *rest).startswith(f"There is no checkpoint {tmp_path / 'model.safetensors'}")


def test_a_damaged_run_ends_in_one_sentence(finished, tmp_path):
    raw = bytearray((finished / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(raw)
    assert "is damaged (SHA-256 " in stop("evaluate", tmp_path)


def test_a_model_that_no_recipe_made_ends_in_one_sentence(tmp_path, tiny_mixer):
    save_checkpoint(tiny_mixer(), tmp_path / "model.safetensors")
    assert "was not written by `train --out`: it names no recipe" in stop("evaluate", tmp_path)


def test_metrics_that_cannot_be_written_end_in_one_sentence(finished, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in finished.iterdir()}
    monkeypatch.setattr(os, "fsync", full)
    sentence = stop("evaluate", finished, "--device", "cpu")
    assert sentence.startswith(f"Cannot write {finished / 'metrics.json'} (No space left on device): ")
    assert {path: path.read_bytes() for path in finished.iterdir()} == before


def test_an_image_that_is_missing_or_none_gets_one_sentence_and_the_others_their_answers(
    finished, drawn, tmp_path, capsys
):
    raw = drawn[1].read_bytes()
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 0xFF
    contents = {
        "text.png": b"I am no image.",
        "empty.png": b"",
        "cut.png": raw[: len(raw) // 2],
        "flipped.png": flipped,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    bad = [tmp_path / name for name in [*contents, "missing.png"]]
    with pytest.raises(SystemExit) as end:
        main(["predict", str(finished), str(bad[0]), str(drawn[0]), *map(str, bad[1:])])
    assert end.value.code == 1
    said = capsys.readouterr()
    assert list(predictions(said.out)) == [str(drawn[0])]
    sentences = said.err.splitlines()
    reasons = ["not a picture", "empty", "damaged", "damaged", "no such file"]
    for sentence, path, reason in zip(sentences, bad, reasons, strict=True):
        assert_told(sentence, "error", path, "cannot be read", reason)


# --- models by name, and folders of one's own ---------------------------------------------------------------


def test_the_model_that_ships_answers_by_its_name(mnist, tmp_path, capsys):
    path = saved(Image.fromarray(255 - mnist.test.images[0, 0].numpy()), tmp_path / "seven.png")
    main(["predict", "mnist", str(path)])
    ((called, chance),) = predictions(capsys.readouterr().out).values()
    assert (called, chance > 95) == ("7", True)


def test_a_folder_that_is_called_mnist_is_that_folder(finished, drawn, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished, tmp_path / "mnist")
    monkeypatch.chdir(tmp_path)
    for folder in ("mnist", finished):
        main(["predict", str(folder), str(drawn[0])])
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_close_answers_are_called_not_sure():
    assert answer(torch.tensor([0.1, 0.19, 0.71]), "abc") == "c (71.0%)"
    assert answer(torch.tensor([0.05, 0.4, 0.55]), "abc") == "c (55.0%), not sure: perhaps b (40.0%)"


def test_show_saves_a_picture_of_what_the_model_was_given(finished, drawn, tmp_path, capsys):
    path = tmp_path / "new" / "shown.png"
    main(["predict", str(finished), *map(str, drawn[:2]), "--show", str(path)])
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{path}: ")
    with Image.open(path) as shown:
        pixels = np.asarray(shown.convert("L"))
    assert pixels.min() < 50 < 250 < pixels.max()


def test_predict_and_evaluate_read_the_same_files_alike(tmp_path, capsys):
    """Pictures twice as wide as high: stretched, what is round in training is none in prediction."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 60), ("val", 12)):
        for name, width in (("round", 20), ("tall", 10)):
            (tmp_path / "shapes" / part / name).mkdir(parents=True)
            for i in range(count):
                x, y = 60 + draw.integers(-4, 5), 30 + draw.integers(-4, 5)
                image = Image.new("RGB", (120, 60), (250, 250, 250))
                ImageDraw.Draw(image).ellipse([x - width, y - 20, x + width, y + 20], fill=(30, 30, 30))
                image.save(tmp_path / "shapes" / part / name / f"{i}.png")
    data = load_image_folder(tmp_path / "shapes", size=28, randaugment=0)
    recipe = dataclasses.replace(SHORT, model="mnist/quick", epochs=10, batch_size=20, validation=20, shift=0)
    model, _ = training.train(recipe, data=data, out=tmp_path / "run", progress=False, device="cpu")
    report = evaluate(model, data)
    assert report.accuracy > 0.8

    files = [os.fsdecode(path) for path in data.test.paths]
    main(["predict", str(tmp_path / "run"), *files])
    called = [called for called, _ in predictions(capsys.readouterr().out).values()]
    assert called == [data.class_names[i] for i in report.predictions]

    sentence = stop("evaluate", tmp_path / "run")
    assert_told(sentence, "shapes", "--data FOLDER")
    main(["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "shapes"), "--device", "cpu"])
    metrics = json.loads((tmp_path / "run" / "metrics-shapes.json").read_text())
    assert metrics["confusion_matrix"] == report.confusion_matrix.tolist()
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_train_takes_a_folder_of_images(tmp_path, capsys):
    for part, count in (("train", 8), ("val", 2)):
        for name, grey in (("dark", 40), ("light", 210)):
            (tmp_path / "greys" / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40, 30), (grey + i,) * 3).save(tmp_path / "greys" / part / name / f"{i}.png")
    options = [f"--set={setting}" for setting in ("model=mnist/quick", "batch_size=4", "validation=4", "epochs=1")]
    command = ["train", "--recipe", "digits", "--data", str(tmp_path / "greys"), "--device", "cpu", *options]
    main([*command, "--out", str(tmp_path / "run")])
    assert capsys.readouterr().out.endswith(f"evaluate {tmp_path / 'run'} --data {tmp_path / 'greys'}\n")
    model = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert (model.about["class_names"], model.about["pictures"]) == (["dark", "light"], "crop")
    assert model.image_shape == (3, 28, 28)


def test_ones_own_digits_are_evaluated_in_folders_named_as_the_classes(mnist, tmp_path, capsys):
    for i in range(6):
        folder = tmp_path / "mine" / str(mnist.test.labels[i].item())
        folder.mkdir(parents=True, exist_ok=True)
        draw("side light", mnist.test.images[i, 0].numpy(), folder / str(i), np.random.default_rng(i))
    main(["evaluate", "mnist", "--data", str(tmp_path / "mine"), "--device", "cpu"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("accuracy 100.00%")
    (tmp_path / "mine" / "0").rename(tmp_path / "mine" / "nought")
    assert_told(stop("evaluate", "mnist", "--data", tmp_path / "mine"), "nought", "0, 1, 2, 3")


@pytest.mark.parametrize("arguments", [[], ["train"], ["evaluate"], ["predict", "dir"], ["fly"],
                                       ["train", "--out", "x", "--device", "tpu"]])  # fmt: skip
def test_unusable_arguments_end_with_status_2_and_a_word_on_usage(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m mixer_utils")


def test_an_error_leaves_with_status_1_one_line_on_stderr_and_no_traceback(tmp_path):
    done = python("-m", "mixer_utils", "evaluate", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: There is no checkpoint ") and done.stderr.count("\n") == 1


# --- image files -------------------------------------------------------------------------------------------


@pytest.fixture
def digit(digits):
    return digits.test.images[0]


def saved(image, path, **options):
    image.save(path, **options)
    return path


def test_image_files_of_many_kinds_show_the_same_digit(digit, tmp_path):
    grey = digit[0].numpy()
    plain = Image.fromarray(grey)
    transparent = np.zeros((28, 28, 4), np.uint8)
    transparent[..., 3] = grey  # black ink on nothing
    files = [
        saved(plain, tmp_path / "grey.png"),
        saved(plain.convert("RGB"), tmp_path / "colour.png"),
        saved(plain.convert("P"), tmp_path / "palette.png"),
        saved(plain, tmp_path / "grey.bmp"),
        saved(plain, tmp_path / "grey.gif"),
        saved(Image.fromarray(grey.astype(np.uint16) * 257), tmp_path / "sixteen bits.png"),
        saved(Image.fromarray(transparent), tmp_path / "transparent.png"),
        saved(Image.fromarray(255 - grey), tmp_path / "ink on paper.png"),
    ]
    for path in files:
        image = read_image(path, (1, 28, 28))
        assert image.dtype == torch.uint8 and torch.equal(image, digit), path.name
    lossy = read_image(saved(plain, tmp_path / "grey.jpg", quality=95), (1, 28, 28))
    assert (lossy.int() - digit.int()).abs().max() < 20


def test_an_image_file_is_resized_to_the_models_images(digit, tmp_path):
    large = Image.fromarray(digit[0].numpy()).resize((224, 224), Image.Resampling.BILINEAR)
    image = read_image(saved(large, tmp_path / "large.png"), (1, 28, 28))
    assert image.shape == (1, 28, 28)
    assert np.corrcoef(image.flatten(), digit.flatten())[0, 1] > 0.97


def test_colours_stay_for_models_of_three_channels_and_nothing_is_inverted(tmp_path):
    pixels = np.full((8, 6, 3), 250, np.uint8)
    pixels[2:4, 1:3] = (200, 10, 30)
    image = read_image(saved(Image.fromarray(pixels), tmp_path / "colour.png"), (3, 8, 6))
    np.testing.assert_array_equal(image, pixels.transpose(2, 0, 1))


# --- light imports -----------------------------------------------------------------------------------------


def test_help_is_there_without_loading_torch():
    script = (
        "import runpy, sys; sys.argv = ['mixer_utils', '--help']\n"
        "try: runpy.run_module('mixer_utils', run_name='__main__')\n"
        "except SystemExit as end: print('status', end.code, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = python("-c", script)
    assert done.stdout.splitlines()[-1] == "status 0 False False", done.stderr
    for command in ("train", "evaluate", "predict"):
        assert command in done.stdout


def test_importing_mixer_utils_loads_neither_torch_nor_numpy_until_a_name_is_used():
    script = (
        "import sys, mixer_utils\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules, 'train' in dir(mixer_utils))\n"
        "mixer_utils.MlpMixer; print('torch' in sys.modules)\n"
        "try: mixer_utils.Mixer\n"
        "except AttributeError as error: print(error)"
    )
    done = python("-c", script)
    assert done.stdout.splitlines() == [
        "False False True",
        "True",
        "module 'mixer_utils' has no attribute 'Mixer'",
    ], done.stderr


# --- where MNIST cannot be had, no test and no notebook is run ----------------------------------------------


@pytest.mark.parametrize("what", [["tests/test_model.py"], ["--nbval", "notebooks"]])
def test_without_mnist_a_test_run_ends_with_one_clear_line(what, tmp_path):
    done = python("-m", "pytest", "-p", "no:cacheprovider", *what, MIXER_DATA=str(tmp_path), MIXER_DOWNLOAD="0")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert (done.stdout + done.stderr).strip() == (
        f"ERROR: mnist is not in {tmp_path / 'mnist'} and could not be downloaded (MIXER_DOWNLOAD is 0): "
        "connect to the internet, or put train-images-idx3-ubyte, train-labels-idx1-ubyte, "
        "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte there."
    )


# --- the paper's recipe, on a folder of images ---------------------------------------------------------------


def test_the_recipe_imagenet_trains_on_a_folder_of_images_goes_on_and_is_evaluated(tmp_path, monkeypatch, capsys):
    for part, count in {"train": 6, "val": 2}.items():
        for name, colour in {"n01": (200, 30, 30), "n02": (30, 30, 200)}.items():
            (tmp_path / "imagenet" / part / name).mkdir(parents=True)
            for i in range(count):
                noise = np.random.default_rng(i).integers(0, 50, (40, 60, 3)) + colour
                Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "imagenet" / part / name / f"{i}.jpg")
    monkeypatch.setenv("MIXER_DATA", str(tmp_path))
    # 224 pixels in patches of 112, so that a Mixer of four tokens does.
    monkeypatch.setitem(CONFIGS, "tiny", dict(image_size=224, in_channels=3, patch_size=112, num_blocks=2, hidden_dim=8,
                                              tokens_mlp_dim=4, channels_mlp_dim=32))  # fmt: skip
    settings = {"model": "tiny", "epochs": 2, "batch_size": 4, "validation": 4, "warmup": 1}
    command = ["train", "--recipe", "imagenet", "--device", "cpu"]
    command += [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]

    whole, halved = tmp_path / "whole", tmp_path / "halved"
    main([*command, "--out", str(whole)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_run, "save_state", dying_after(_run.save_state))
        with pytest.raises(RuntimeError, match="the power is cut"):
            main([*command, "--out", str(halved)])
    main([*command, "--out", str(halved), "--resume"])
    first, second = (load_checkpoint(folder / "model.safetensors") for folder in (whole, halved))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))

    about = first.about
    assert (about["class_names"], about["mean"], about["steps"]) == (["n01", "n02"], [0.5] * 3, 4)
    for kept in ("mixup", "stochastic_depth", "optimizer", "weight_decay", "learning_rate"):
        assert about["recipe"][kept] == getattr(RECIPES["imagenet"], kept)
    capsys.readouterr()
    main(["evaluate", str(whole), "--device", "cpu"])
    assert "n02" in capsys.readouterr().out
    assert np.sum(json.loads((whole / "metrics.json").read_text())["confusion_matrix"]) == 4


def dying_after(save_state):
    """``save_state``, followed by a power cut."""

    def dying(*arguments):
        save_state(*arguments)
        raise RuntimeError("the power is cut")

    return dying
