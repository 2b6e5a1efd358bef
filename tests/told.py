"""What a test asks of an error's message, whatever the rest of its wording."""


def assert_told(message, *parts):
    """`message`, a string or an exception, is one line that ends in a full stop and contains each of `parts`."""
    text = str(message)
    assert len(text.splitlines()) == 1 and text.endswith("."), text
    missing = [part for part in map(str, parts) if part not in text]
    assert not missing, f"{missing} not in: {text}"
