"""The front-end as one script: the ES modules beside this file, joined in the order in which they need each other."""

import re
from pathlib import Path

__all__ = ["FOLDER", "SCRIPT", "STYLE", "joined", "style"]

FOLDER = Path(__file__).parent
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async function|function|class|const)\b)", re.MULTILINE)
DEFAULT = re.compile(r"^export default .*\n", re.MULTILINE)
DEFINED = re.compile(r"^(?:export )?(?:async function|function|class|const|let) (\w+)", re.MULTILINE)


def joined(entry, folder=FOLDER):
    """``entry``.js and every module that it imports as one ES module: anywidget and a page take a single script.

    A module stands below those that it imports. Imports and the word ``export`` go; a default export stays where it is
    the entry's. Raises ValueError for two modules that define the same name at their top level, which one scope cannot
    hold, and for imports that run in a circle.
    """
    owner = {}  # a name at the top level -> its file
    parts = []
    for name in in_order(entry, folder):
        source = read(name, folder)
        for defined in DEFINED.findall(source):
            if defined in owner:
                raise ValueError(f"{owner[defined]}.js and {name}.js both define {defined}: rename one.")
            owner[defined] = name
        source = EXPORT.sub("", IMPORT.sub("", source))
        parts.append(source if name == entry else DEFAULT.sub("", source))
    return "\n".join(parts)


def in_order(entry, folder=FOLDER):
    """The names of the modules that ``entry`` needs, itself last; each stands after those that it imports."""
    order = []

    def visit(name, path):
        if name in path:
            raise ValueError(f"Imports run in a circle, {' -> '.join([*path, name])}: move what they share.")
        if name in order:
            return
        for _, needed in IMPORT.findall(read(name, folder)):
            visit(needed, [*path, name])
        order.append(name)

    visit(entry, [])
    return order


def read(name, folder=FOLDER):
    """The text of a module."""
    return (folder / f"{name}.js").read_text(encoding="utf-8")


def style():
    """The views' style sheet."""
    return (FOLDER / "views.css").read_text(encoding="utf-8")


SCRIPT = joined("index")
STYLE = style()
