"""Names for sources and models, made from the names of folders and files, which may be in any script."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_LATIN = re.compile(r"LATIN (?:SMALL|CAPITAL) LETTER ([A-Z]+)(?: WITH .*)?")
MARK_CHARACTERS = 8


def make_name(original: str, fallback: str, punctuation: str, filler: str, longest: int) -> str:
    """An ASCII name that a person recognizes: `Données médicales` becomes `Donnees medicales`.

    Letters without an ASCII spelling are left out. Then, and where the name is cut, a mark made from the original
    follows, so that `日本語` and `العربية` differ.

    Args:
        original: the same name for every Unicode normal form of it.
        fallback: stands for a name without a single ASCII letter or digit.
        punctuation: characters that may stand beside letters and digits.
        filler: replaces every other one.
        longest: most characters; more than MARK_CHARACTERS.
    """
    text, complete = _transliterate(original)
    made = "".join(c if c.isalnum() or c in punctuation else filler for c in text)
    recognizable = any(c.isalnum() for c in made)
    if complete and recognizable and len(made) <= longest:
        return made
    base = made[: longest - MARK_CHARACTERS - 1].strip(punctuation + filler) if recognizable else fallback
    return f"{base}-{mark_of(original)}"


def mark_of(original: str) -> str:
    """Hex digits that stand for a name, in any Unicode normal form."""
    encoded = unicodedata.normalize("NFC", original).encode(errors="backslashreplace")
    return hashlib.blake2b(encoded).hexdigest()[:MARK_CHARACTERS]


def _transliterate(name: str) -> tuple[str, bool]:
    """A name in ASCII, and whether all its letters have an ASCII spelling."""
    out, complete = [], True
    for character in unicodedata.normalize("NFKD", name):
        if character.isascii():
            out.append(character)
        elif unicodedata.combining(character):
            continue
        elif latin := _LATIN.fullmatch(unicodedata.name(character, "")):
            out.append(latin[1] if character.isupper() else latin[1].lower())
        elif character.casefold().isascii():  # ß
            out.append(character.casefold())
        elif unicodedata.category(character)[0] in "PZ":
            out.append("-")
        else:
            complete = False
    return "".join(out), complete
