"""The command line: python -m mixer_utils train | evaluate | predict | explorer | grade."""

import argparse
import json
import sys
from pathlib import Path

from mixer_utils import MixerError
from mixer_utils._files import at_home


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
    train.add_argument("--recipe", default="minute", help="a recipe's name (default: minute)")
    train.add_argument("--out", required=True, type=Path, help="the folder of the run")
    train.add_argument("--seed", type=int, default=0, help="decides weights, order and augmentation (default: 0)")
    train.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    train.add_argument("--resume", action="store_true", help="go on with the run in --out, or begin it")
    train.add_argument("--save-every", type=float, default=10, metavar="MINUTES",
                       help="keep a state for --resume inside long epochs, too (default: 10)")  # fmt: skip
    train.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change one value of the recipe"
    )
    train.add_argument("--compile", action="store_true", help="torch.compile the model first (a minute, then faster)")
    train.add_argument("--tensorboard", type=Path, metavar="DIR", help="write TensorBoard's logs to this folder")
    train.set_defaults(run=run_train)

    evaluate = commands.add_parser("evaluate", help="print a run's report on the test images; write DIR/metrics.json")
    evaluate.add_argument("dir", type=Path, help="the folder of a run")
    evaluate.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    evaluate.set_defaults(run=run_evaluate)

    predict = commands.add_parser("predict", help="say what is on image files")
    predict.add_argument("dir", type=Path, help="the folder of a run")
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
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

    _, history = train(changed(options.recipe, options.set), seed=options.seed, device=options.device, out=options.out,
                       resume=options.resume, tensorboard=options.tensorboard, compile=options.compile,
                       save_every=options.save_every)  # fmt: skip
    if os.environ.get("RANK", "0") != "0":
        return  # one of several processes is enough to tell
    for epoch, accuracy in enumerate(history.epochs["validation_accuracy"], 1):
        print(f"epoch {epoch:2}: training loss {history.epochs['train_loss'][epoch - 1]:.4f}, "
              f"validation accuracy {accuracy:.2%}")  # fmt: skip
    print(f"{history.train_seconds:.1f} s of training. Next: python -m mixer_utils evaluate {options.out}")


def run_evaluate(options):
    from mixer_utils._files import write_atomically
    from mixer_utils.data import load_dataset
    from mixer_utils.devices import pick_device
    from mixer_utils.evaluation import evaluate
    from mixer_utils.model import count_parameters

    model, about = load_run(options.dir)
    report = evaluate(model.to(pick_device(options.device)), load_dataset(about["dataset"]))
    print(report)
    metrics = report.metrics() | {key: about[key] for key in (
        "seed", "device", "torch_version", "train_seconds", "images_per_second", "dataset")}  # fmt: skip
    metrics |= {"recipe": about["recipe"]["name"], "num_parameters": count_parameters(model)}
    write_atomically(options.dir / "metrics.json", json.dumps(metrics, indent=1).encode())


def run_predict(options):
    import torch

    from mixer_utils.data import normalize, read_image

    model, about = load_run(options.dir)
    images = torch.stack([read_image(path, model.image_shape) for path in options.images])
    with torch.inference_mode():
        chances, classes = model(normalize(images, about["mean"], about["std"])).softmax(1).max(1)
    for path, chance, i in zip(options.images, chances.tolist(), classes.tolist(), strict=True):
        print(f"{path}: {about['class_names'][i]} ({chance:.1%})")


def run_explorer(options):
    from mixer_utils.widgets.page import write_explorer

    path = write_explorer(options.out, options.dir and load_run(options.dir)[0])
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, open it in a browser.")


def run_grade(options):
    from mixer_utils.exercises.grading import grade_files

    if not grade_files(options.files, options.seconds, options.whole, table=options.csv):
        sys.exit(1)


def load_run(folder):
    """The model of a run and what was saved beside it. Raises CheckpointError."""
    from mixer_utils.checkpoints import CheckpointError, load_checkpoint

    model = load_checkpoint(folder / "model.safetensors")
    if "recipe" not in model.about:
        raise CheckpointError(f"{folder / 'model.safetensors'} was not written by `train --out`: it names no recipe.")
    return model, model.about


if __name__ == "__main__":
    main()
