"""What becomes a prompt of a text that nobody has read: whole, plain sentences that name their class, each once."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from ..recipes.prompts import as_tokenised

SHORTEST, LONGEST = 12, 240  # characters; text towers read about 75 tokens
LOOKED_AT = 4 * LONGEST  # characters of a line; one that is longer is too long anyhow
SECRET = 8  # characters from which on a key is no word that a sentence may have by chance
MOST_LINES = 500  # of one answer
PLAIN = "LMNPS"  # first letters of the Unicode categories in a sentence: letters, marks, numbers, punctuation, symbols
MARKUP = re.compile(r"[<>{}\[\]|`*#\\_~^=@]|https?:|www\.|&#?\w+;")
LIST = re.compile(r"^(?:[-*+\u2022\u2013]|\(?\d{1,3}[.):])\s+")
QUOTED = re.compile(r"^([\"'])(.*)\1$|^\u201c(.*)\u201d$")
END = re.compile(r"[.!\u3002\uff01\u0964]$")
PLURALS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"))
THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)  # what some models say before they answer


def sift(text: str, names: Sequence[str], taken: Collection[str], secret: str = "") -> tuple[list[str], Counter]:
    """(the sentences that may be prompts of a class called `names`, how many were dropped and why).

    `taken` holds the prompts that there are, as_tokenised. No sentence holds `secret`.
    """
    kept: dict[str, str] = {}
    dropped: Counter = Counter()
    for number, line in enumerate(_lines(text)):
        same = as_tokenised(line)
        why = "too many lines" if number >= MOST_LINES else fault(line, names)
        if not why and len(secret) >= SECRET and secret.lower() in same.replace(" ", ""):
            why = "odd characters"
        if not why and (same in taken or same in kept):
            why = "duplicate"
        if why:
            dropped[why] += 1
        else:
            kept[same] = line
    return list(kept.values()), dropped


def _lines(text: str) -> Iterator[str]:
    """Lines that say something, composed and with single spaces, without list marks and quotes around them."""
    for line in THOUGHTS.sub("", text).splitlines():
        line = " ".join(unicodedata.normalize("NFC", line[:LOOKED_AT]).split())
        line = LIST.sub("", line)
        quoted = QUOTED.match(line)
        line = (quoted[2] or quoted[3] or "").strip() if quoted else line
        if line:
            yield line


def fault(line: str, names: Sequence[str]) -> str:
    """Why a line is no prompt; '' if it may be one."""
    if any(char != " " and unicodedata.category(char)[0] not in PLAIN for char in line):
        return "odd characters"
    if len(line) > LONGEST:
        return "too long"
    if len(line) < SHORTEST:
        return "too short"
    if MARKUP.search(line):
        return "markup"
    if not END.search(line):
        return "no whole sentence"
    return "" if any(is_named(line, name) for name in names) else "does not name its class"


def is_named(line: str, name: str) -> bool:
    """Whether a sentence has the words of a name in a row, in singular or plural."""
    found, wanted = _words(line), _words(name)
    if not wanted or not name.isascii():  # scripts without spaces, names without words
        return name.strip().casefold() in line.casefold()
    places = range(len(found) - len(wanted) + 1)
    return any(all(a & b for a, b in zip(found[n:], wanted, strict=False)) for n in places)


def _words(text: str) -> list[set[str]]:
    """Each word as all that it may be the plural of, and itself."""
    words = re.findall(r"[^\W_]+", text.casefold())
    return [{word, *(word.removesuffix(end) + own for end, own in PLURALS if word.endswith(end))} for word in words]
