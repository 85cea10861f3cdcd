"""Text of others in which nothing steers the reader's terminal; imports nothing, so that every command can afford it."""


def printable(text: str) -> str:
    """Return the text on one line, with every control character escaped."""
    return "".join(sign if sign.isprintable() or sign == "\t" else ascii(sign)[1:-1] for sign in text)


def printable_lines(text: str) -> str:
    """Return the text with its lines kept and every other control character escaped."""
    return "\n".join(map(printable, text.split("\n")))
