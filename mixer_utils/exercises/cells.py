"""What the cells of a submitted notebook check, set and need. They are read here, and not run."""

import ast
import json
import re
import symtable
import warnings
from pathlib import Path

from mixer_utils._files import reason_of
from mixer_utils.exercises.catalogue import notebooks


def read(path):
    """("02", [the source of each code cell]) of a file of any name. Raises ValueError for no notebook of the series."""
    try:
        cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
        sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({reason_of(error)}): give the path of a notebook.") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path} is no notebook, or a damaged one: ask for the .ipynb file again.") from None
    code = [source for kind, source in sources if kind == "code"]
    checked = [number[:2] for source in code for number, _ in checks(source)]
    titles = [re.match(r"# (\d\d) · ", source) for _, source in sources]
    for notebook in checked + [title[1] for title in titles if title]:
        if notebook in notebooks():
            return notebook, code
    raise ValueError(f"{path} is no notebook of this series: it has neither a check nor a title like '# 02 · …'.")


def checks(source):
    """[("02.1", "move_on")]: the exercises that a cell checks, and the expressions it gives as answers."""
    result = []
    for node in ast.walk(parsed(source) or ast.parse("")):
        if not isinstance(node, ast.Call) or name_called(node) != "check":
            continue
        match [*node.args, *(keyword.value for keyword in node.keywords)]:
            case [ast.Constant(str(number)), answer] if re.fullmatch(r"\d\d\.\d+", number):
                result.append((number, ast.unparse(answer)))
    return result


def name_called(call):
    """What is called by ``check(…)`` and by ``ex.check(…)``: "check"; "" where it has no name."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def parsed(source):
    """The syntax tree of a cell, or None. Lines that are IPython's own, ``%`` and ``!``, are passed over."""
    for text in [source, re.sub(r"^[ \t]*(%%?\w|!).*", "", source, flags=re.MULTILINE)]:
        try:
            with warnings.catch_warnings():  # of a "\d" in a submission, say
                warnings.simplefilter("ignore")
                symtable.symtable(text, "cell", "exec")  # finds mistakes that a tree may hold
                return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
    return None


def names(source):
    """The global names that a cell sets and those that it reads: two sets."""
    scopes = [symtable.symtable(ast.unparse(parsed(source) or ast.parse("")), "cell", "exec")]
    for scope in scopes:
        scopes += scope.get_children()
    symbols = [symbol for scope in scopes for symbol in scope.get_symbols() if symbol.is_global()]
    names_set = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    names_read = {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
    return names_set, names_read


def needed(cells):
    """The indices of the cells that the checks need: those that set a name they read, those that these need, and so on.

    The first cell, which sets up, is among them, and so is every cell that cannot be parsed.
    """
    names_of = [names(source) for source in cells]
    result = {i for i, source in enumerate(cells) if i == 0 or checks(source) or parsed(source) is None}
    while True:
        names_read = set().union(*(names_of[i][1] for i in result))
        more = {i for i, (names_set, _) in enumerate(names_of) if names_set & names_read}
        if more <= result:
            return sorted(result)
        result |= more
