"""What a test asks of an error's message, whatever the rest of its wording."""

import re


def assert_told(message, *parts):
    """``message``, a string or an exception, is one line that ends in a full stop and contains each of ``parts``.

    A part stands there as whole words and numbers: "50 images" is not told by "150 images".
    """
    text = str(message)
    assert len(text.splitlines()) == 1 and text.endswith("."), text
    for part in map(str, parts):
        before = r"(?<!\w)" if re.match(r"\w", part) else ""
        after = r"(?!\w)" if re.search(r"\w$", part) else ""
        assert re.search(before + re.escape(part) + after, text), f"{part!r} not in: {text}"
