"""The command line: python -m mixer_utils train | evaluate | predict | explorer | grade."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from mixer_utils import MixerError
from mixer_utils._files import at_home

SURE = 0.5  # how far the likeliest class's probability is ahead of the second's, at least, to be called sure


def main(arguments=None):
    """Run one command; a mistake ends in one sentence on stderr and exit status 1 (2 for unusable arguments)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a pipe may know few letters, and no file's name shall cost its answer
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        expand(options)
        options.run(options)  # imports what is heavy: --help and a typo answer at once
    except (MixerError, ValueError) as error:
        sys.exit(f"error: {error}")


def expand(options):
    """Put the home folder in place of ~ in every path: shells leave it in --out=~/run. Raises ValueError."""
    for name, value in vars(options).items():
        if isinstance(value, Path):
            setattr(options, name, at_home(value))
        elif isinstance(value, list):
            setattr(options, name, [at_home(part) if isinstance(part, Path) else part for part in value])


def parser():
    top = argparse.ArgumentParser(prog="python -m mixer_utils", description="Train, evaluate and use an MLP-Mixer.")
    commands = top.add_subparsers(required=True, metavar="train | evaluate | predict | explorer | grade")

    train = commands.add_parser("train", help="train by a recipe and write the run to a folder")
    train.add_argument("--recipe", help="a recipe's name (default: minute; with --more-epochs, the finished run's)")
    train.add_argument("--out", required=True, type=Path, help="the folder of the run")
    train.add_argument("--data", type=Path, metavar="FOLDER", help="images of your own: a folder with train and val, "
                       "each with one folder a class (default: the recipe's data set)")  # fmt: skip
    train.add_argument("--seed", type=int, help="decides weights, order and augmentation (default: 0; with "
                       "--more-epochs, one more than the finished run's)")  # fmt: skip
    train.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    train.add_argument("--resume", action="store_true", help="go on with the run in --out, or begin it")
    train.add_argument("--more-epochs", type=int, metavar="N", help="train the model of the finished run in --out for "
                       "N more epochs, as a new run beside it")  # fmt: skip
    train.add_argument("--save-every", type=float, default=10, metavar="MINUTES",
                       help="keep a state for --resume inside long epochs, too (default: 10)")  # fmt: skip
    train.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change one value of the recipe"
    )
    train.add_argument("--compile", action="store_true", help="torch.compile the model first (a minute, then faster)")
    train.add_argument("--tensorboard", type=Path, metavar="DIR", help="write TensorBoard's logs to this folder")
    train.set_defaults(run=run_train)

    evaluate = commands.add_parser("evaluate", help="print a run's report on the test images; write DIR/metrics.json")
    evaluate.add_argument("dir", type=Path, help="the folder of a run, or the name of a model that ships: mnist")
    evaluate.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="on these images instead, one folder a class; write DIR/metrics-FOLDER.json",
    )
    evaluate.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    evaluate.set_defaults(run=run_evaluate)

    predict = commands.add_parser("predict", help="say what is on image files")
    predict.add_argument("dir", type=Path, help="the folder of a run, or the name of a model that ships: mnist")
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    predict.add_argument("--show", type=Path, metavar="OUT.png", help="save a picture of what the model was given")
    predict.set_defaults(run=run_predict)

    explorer = commands.add_parser("explorer", help="write one page that shows a model from inside, for any browser")
    explorer.add_argument("dir", type=Path, nargs="?", help="the folder of a run (default: the model that ships)")
    explorer.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder of the page, index.html")
    explorer.set_defaults(run=run_explorer)

    grade = commands.add_parser(
        "grade", help="mark submitted notebooks; runs their code with your rights, see docs/teaching.md"
    )
    grade.add_argument("files", type=Path, nargs="+", metavar="FILE.ipynb", help="or a folder: all notebooks in it")
    grade.add_argument("--seconds", type=float, default=600, help="the limit for each file (default: 600)")
    grade.add_argument("--whole", action="store_true", help="run all cells, not only those that the checks need")
    grade.add_argument("--csv", type=Path, metavar="OUT.csv", help="write a table, too: one row a file")
    grade.set_defaults(run=run_grade)
    return top


def run_train(options):
    import os

    from mixer_utils.recipes import changed
    from mixer_utils.training import train

    recipe = options.recipe or "minute"
    model = None
    seed = 0
    out = options.out
    if options.more_epochs is not None:
        recipe, model = longer(options)
        seed = model.about["seed"] + 1
        out = Path(f"{out}+{options.more_epochs}")
    recipe = changed(recipe, options.set)
    data = folder_for(options.data, recipe) if options.data is not None else None
    seed = seed if options.seed is None else options.seed
    written = out / "history.json"
    before = json.loads(written.read_bytes()) if options.resume and written.is_file() else None
    _, history = train(recipe, data=data, model=model, seed=seed, device=options.device, out=out,
                       resume=options.resume, tensorboard=options.tensorboard, compile=options.compile,
                       save_every=options.save_every)  # fmt: skip
    if os.environ.get("RANK", "0") != "0":
        return  # one of several processes is enough to tell
    if dataclasses.asdict(history) == before:  # nothing was left to train
        print(f"{out} was finished before: --more-epochs N trains its model for longer, as a new run.")
    for epoch, accuracy in enumerate(history.epochs["validation_accuracy"], 1):
        print(f"epoch {epoch:2}: training loss {history.epochs['train_loss'][epoch - 1]:.4f}, "
              f"validation accuracy {accuracy:.2%}")  # fmt: skip
    same_data = f" --data {options.data}" if options.data is not None else ""
    print(f"{history.train_seconds:.1f} s of training. Next: python -m mixer_utils evaluate {out}{same_data}")


def folder_for(folder, recipe):
    """The Dataset of a folder of images, at the size that the recipe's model is made for."""
    from mixer_utils.data import load_image_folder
    from mixer_utils.model import CONFIGS

    return load_image_folder(folder, CONFIGS.get(recipe.model, {}).get("image_size", 28))


def longer(options):
    """Recipe and model of a run that trains the model of a finished one for more epochs.

    It is a new run, with a schedule of its own: at the end of the finished one the learning rate has come down to zero.
    Raises ValueError for a run that is not finished, or whose data its recipe does not name.
    """
    from mixer_utils.data import check_named
    from mixer_utils.recipes import Recipe, find_recipe

    model, about = load_run(options.out)
    recipe = Recipe(**about["recipe"])
    steps = recipe.epochs * about["steps_per_epoch"]
    if about["steps"] < steps:
        raise ValueError(f"{options.out} stopped after step {about['steps']} of {steps}: go on with --resume first.")
    if options.data is None and about["dataset"] != recipe.dataset:
        raise ValueError(
            f"{options.out} was trained on {about['dataset']}, and its recipe names {recipe.dataset}: say where its "
            "images are, --data FOLDER."
        )
    if options.data is None:
        check_named(about)
    if options.recipe is not None:
        recipe = find_recipe(options.recipe)
    return dataclasses.replace(recipe, epochs=options.more_epochs), model


def run_evaluate(options):
    from mixer_utils._files import write_atomically
    from mixer_utils.data import load_dataset_of, load_for_evaluation
    from mixer_utils.devices import pick_device
    from mixer_utils.evaluation import evaluate
    from mixer_utils.model import count_parameters

    model, about = load_run(options.dir)
    if options.data is not None:
        data = load_for_evaluation(options.data, about, model.image_shape)
        path = options.dir / f"metrics-{data.name}.json"
    else:
        data = load_dataset_of(about)
        path = options.dir / "metrics.json"
    report = evaluate(model.to(pick_device(options.device)), data)
    print(report)
    metrics = report.metrics() | {key: about[key] for key in (
        "seed", "device", "torch_version", "train_seconds", "images_per_second")}  # fmt: skip
    metrics |= {"dataset": data.name, "recipe": about["recipe"]["name"], "num_parameters": count_parameters(model)}
    if options.dir.is_dir():  # the model that ships has no folder
        write_atomically(path, json.dumps(metrics, indent=1).encode())


def run_predict(options):
    import torch

    from mixer_utils.data import DataError, normalize, pictures_of, read_image

    model, about = load_run(options.dir)
    images = {}
    for path in options.images:
        try:
            images[path] = read_image(path, model.image_shape, pictures_of(about))
        except DataError as error:  # the others are answered
            print(f"error: {error}", file=sys.stderr)
    if images:
        with torch.inference_mode():
            logits = model(normalize(torch.stack(list(images.values())), about["mean"], about["std"]))
        probabilities = logits.softmax(1)
        for path, row in zip(images, probabilities, strict=True):
            print(f"{path}: {answer(row, about['class_names'])}")
        if options.show:
            show_predictions(options.show, images, probabilities, about["class_names"])
    if len(images) < len(set(options.images)):
        sys.exit(1)


def answer(probabilities, class_names):
    """The likeliest class in words, and the second where it comes close."""
    (first, second), (best, other) = (tensor.tolist() for tensor in probabilities.topk(2))
    said = f"{class_names[best]} ({first:.1%})"
    return said if first - second >= SURE else f"{said}, not sure: perhaps {class_names[other]} ({second:.1%})"


def show_predictions(path, images, probabilities, class_names):
    """Save a picture: each original, what the model was given of it, and the probabilities."""
    import numpy as np

    from mixer_utils._pictures import decode, opaque
    from mixer_utils.plotting import plot_predictions

    originals = [np.asarray(opaque(decode(file))) for file in images]
    picture = plot_predictions(originals, list(images.values()), probabilities, class_names, [p.name for p in images])
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path)
    print(f"{path}: each picture, what the model was given, and the probabilities.")


def run_explorer(options):
    from mixer_utils.widgets.page import write_explorer

    path = write_explorer(options.out, options.dir and load_run(options.dir)[0])
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, open it in a browser.")


def run_grade(options):
    from mixer_utils.exercises.grading import grade_files

    if not grade_files(options.files, options.seconds, options.whole, table=options.csv):
        sys.exit(1)


def load_run(folder):
    """The model of a run, or one that ships, by its name, and what was saved beside it. Raises CheckpointError."""
    from mixer_utils.checkpoints import PRETRAINED, CheckpointError, load_checkpoint

    by_name = str(folder) in PRETRAINED and not folder.is_dir()
    path = PRETRAINED[str(folder)] if by_name else folder / "model.safetensors"
    model = load_checkpoint(path)
    if "recipe" not in model.about:
        raise CheckpointError(f"{path} was not written by `train --out`: it names no recipe.")
    return model, model.about


if __name__ == "__main__":
    main()
