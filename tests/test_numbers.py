"""Every measured number in prose is the measured one: in README and docs/, and in the notebooks' text.

Where the numbers of README and docs/ come from is listed in results/quoted.toml. In a notebook a number carries it in a
comment that no reader sees: `98.9 %<!-- results/x.json a.b -->`, or `<!-- paper -->` for a number of others.
"""

import json
import re
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
LISTED = tomllib.loads((ROOT / "results" / "quoted.toml").read_text(encoding="utf-8"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def look_up(source, key):
    """The value that ``key``, names and indices with dots between, has in the file ``source`` of results/."""
    value = json.loads((ROOT / "results" / source).read_text(encoding="utf-8"))
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def rounded_as(number, value):
    """``value`` written as ``number`` is: "98.60 %", "1,206,986" or "7.8"."""
    digits = len(number.removesuffix(" %").partition(".")[2])
    return f"{value * 100:,.{digits}f} %" if number.endswith(" %") else f"{value:,.{digits}f}"


def test_numbers_are_written_with_their_digits_their_commas_and_their_percent_sign():
    assert rounded_as("98.60 %", 0.98604) == "98.60 %"
    assert rounded_as("98.6 %", 0.98666) == "98.7 %"
    assert rounded_as("1,206,986", 1206986) == "1,206,986"
    assert rounded_as("8", 7.8) == "8"


# --- README and docs/ -------------------------------------------------------------------------------------------------

PAGES = {
    path.relative_to(ROOT).as_posix(): " ".join(path.read_text(encoding="utf-8").split())
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
QUOTES = [(page, marked, sources) for page, listed in LISTED.items() for marked, sources in listed.items()]
MARKED = re.compile("«(.+?)»")

# On pages of results whatever looks measured is listed: percentages, seconds, decimals, thousands, cells of numbers.
OF_RESULTS = ["README.md", "docs/results.md", "docs/benchmarks.md"]
PERCENTAGE = r"\d+\.\d+ ?%"
MEASURED = (
    r"(?<![\w.,])(?:\d[\d,]*(?:\.\d+)? ?%|\d[\d,]*(?:\.\d+)? ?(?:s|ms|seconds)\b|\d+\.\d+(?![\w.])"
    r"|\d{1,3}(?:,\d{3})+|(?<=\| )\d\d+(?= \|))"
)


def of_the_shipped_model():
    """The lines of docs/results.md with the shipped model's confusion matrix and its scores, class by class."""
    metrics = look_up("pretrained-mnist.json", "metrics")
    for row in metrics["per_class"]:
        scores = " | ".join(f"{row[key]:.4f}" for key in ("precision", "recall", "f1"))
        yield f"| {row['name']} | {scores} | {row['support']} |"
    for row, counts in zip(metrics["per_class"], metrics["confusion_matrix"], strict=True):
        yield f"| **{row['name']}** | {' | '.join(map(str, counts))} |"


def unlisted(text, marked_texts, pattern):
    """What ``pattern`` finds in ``text`` outside code, links and the marks of ``marked_texts``."""
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", lambda code: "·" * len(code.group()), text)
    for marked in marked_texts:
        plain = re.sub(r"`[^`]*`|\]\([^)]*\)", lambda code: "·" * len(code.group()), marked)
        text = text.replace(MARKED.sub(r"\1", plain), MARKED.sub(lambda number: "·" * len(number[1]), plain))
    return [text[max(0, found.start() - 40) : found.end() + 20] for found in re.finditer(pattern, text)]


@pytest.mark.parametrize("page, marked, sources", QUOTES, ids=[f"{page}-{marked[:50]}" for page, marked, _ in QUOTES])
def test_a_listed_number_stands_on_its_page_and_is_the_measured_one(page, marked, sources):
    assert PAGES[page].count(MARKED.sub(r"\1", marked)) == 1, f"not there, or twice: {marked}"
    for number, source in zip(MARKED.findall(marked), sources, strict=True):
        file, _, key = source.partition(" ")
        if file != "said":
            assert rounded_as(number, look_up(file, key)) == number, source


@pytest.mark.parametrize("page", PAGES)
def test_no_number_that_looks_measured_is_unlisted(page):
    text = PAGES[page]
    if page == "docs/results.md":
        for line in of_the_shipped_model():
            assert line in text
            text = text.replace(line, "")
    assert unlisted(text, LISTED.get(page, {}), MEASURED if page in OF_RESULTS else PERCENTAGE) == []


@pytest.mark.parametrize("new", ["98.6 %", "7 %", "3 s", "12 ms", "1.07", "12,345", "| 904 |"])
def test_a_new_number_is_noticed(new):
    assert len(unlisted(f"so many: {new} and `1.5` in code, [a link](https://example.org/1.7)", {}, MEASURED)) == 1


def test_a_mark_covers_its_number_and_nothing_beside_it():
    assert unlisted("first 1.5, then 1.5", {"first «1.5»,": []}, MEASURED) == ["first ···, then 1.5"]


# --- the notebooks ----------------------------------------------------------------------------------------------------

COMMENTED = re.compile(r"(?P<number>\d[\d,]*(?:\.\d+)?(?: %)?)(?: \w+)?<!-- (?P<source>\S+)(?: (?P<key>[^>]*?))? -->")


def prose(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


IN_NOTEBOOKS = [
    pytest.param(found["number"], found["source"], found["key"], id=f"{path.stem[:2]}-{found['key']}")
    for path in NOTEBOOKS
    for found in COMMENTED.finditer(prose(path))
    if found["source"].startswith("results/")
]


@pytest.mark.parametrize("number, source, key", IN_NOTEBOOKS)
def test_a_number_in_a_notebook_is_the_measured_one(number, source, key):
    assert rounded_as(number, look_up(source.removeprefix("results/"), key)) == number


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_percentage_with_decimals_in_a_notebook_is_without_a_source(path):
    text = prose(path)
    assert [text[m.start() - 40 : m.end() + 20] for m in re.finditer(r"\d\.\d+ ?%(?!<!-- )", text)] == []
