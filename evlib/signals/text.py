"""Names out of files are text: one line, without control characters, wherever they are shown."""

import unicodedata

# Kinds of characters that are no text: controls, marks of direction, halves of characters; joiners are.
NO_TEXT, JOINERS = {"Cc", "Cf", "Cs", "Zl", "Zp"}, "\u200c\u200d"
# Letters of a name that are shown at most.
MOST_LETTERS = 80


def one_line(name, most: int = MOST_LETTERS) -> str:
    r"""A name as one line of text of at most ``most`` letters; what runs from right to left stays by itself.

    >>> one_line("two\nlines"), len(one_line(1000 * "x"))
    ('two lines', 80)
    """
    words = " ".join(str(name).split())
    words = "".join(c for c in words if c in JOINERS or unicodedata.category(c) not in NO_TEXT)
    if len(words) > most:
        words = words[: most - 1] + "…"
    if any(unicodedata.bidirectional(c) in ("R", "AL") for c in words):
        words = f"\N{FIRST STRONG ISOLATE}{words}\N{POP DIRECTIONAL ISOLATE}"
    return words
