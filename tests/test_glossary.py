"""The glossary tells where a word first comes up, and every notebook leads to it."""

import re
from pathlib import Path

import nbformat
import pytest

from mixer_utils import load_pretrained

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
PROSE = {
    path.stem[:2]: "\n".join(
        cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"
    )
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
}
ROWS = [[part.strip() for part in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")]
SYMBOLS = [row for row in ROWS if len(row) == 5 and row[1].startswith("`")]
WORDS = [(word, re.search(r"\[(\d\d)\]", row[-1])[1]) for row in ROWS if len(row) == 3 and "](" in row[-1]
         for word in row[0].split(", ")]  # fmt: skip


@pytest.mark.parametrize("word, first", WORDS)
def test_a_word_comes_up_first_where_the_glossary_says(word, first):
    found = [number for number, text in PROSE.items() if re.search(rf"\b{re.escape(word)}", text, re.IGNORECASE)]
    assert found[0] == first


@pytest.mark.parametrize("row", SYMBOLS, ids=lambda row: row[1])
def test_a_symbol_has_the_shipped_model_s_value(row):
    model = load_pretrained("mnist")
    name, value = row[1].strip("`"), row[3]
    sizes = {**model.config, "num_tokens": model.num_tokens, "batch_size": model.about["recipe"]["batch_size"],
             "image_size": ", ".join(map(str, model.image_shape[1:]))}  # fmt: skip
    assert value.split(" in ")[0] == str(sizes[name])


@pytest.mark.parametrize("number", PROSE)
def test_every_notebook_leads_to_the_glossary(number):
    assert "(../docs/glossary.md)" in PROSE[number]
