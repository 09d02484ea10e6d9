"""Names out of files are text: one line, without control characters, wherever they are shown."""

import re
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


def printable(text: str) -> str:
    r"""A text for the terminal: control characters are shown, not sent.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)


def plain_name(name: str) -> str:
    """A name without what is not meant by it: case, blanks, underscores, the form of Unicode.

    >>> plain_name("Acc_X") == plain_name("acc x"), plain_name("x+") == plain_name("x-")
    (True, False)
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    # A blank between two digits is a difference: 1 2 and 12.
    return re.sub(r"(?<!\d)[\s_]+|[\s_]+(?!\d)", "", plain)
