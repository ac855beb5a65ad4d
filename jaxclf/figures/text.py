"""Names of classes in figures: shortened, and in a font that has their characters."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_LENGTH = 24  # characters of a name; longer ones are shortened in the middle
FONT = "DejaVu Sans"  # which matplotlib brings
MISSING = "\N{REPLACEMENT CHARACTER}"


def shorten_names(names: Sequence[str]) -> list[str]:
    """Return names that fit into figures: the middle of a long name is left out."""
    half = (MAX_LENGTH - 1) // 2
    return [name if len(name) <= MAX_LENGTH else f"{name[:half]}…{name[-half:]}" for name in map(str, names)]


def set_fonts(figure: Figure) -> None:
    """Set fonts that have the characters of all texts of a figure.

    Characters that no installed font has are replaced, and a note on standard error says so once.
    """
    from matplotlib.text import Text

    for artist in figure.findobj(Text):
        text = artist.get_text() if isinstance(artist, Text) else ""
        if not isinstance(artist, Text) or text.isascii() or get_characters(FONT).issuperset(map(ord, text)):
            continue
        fonts = {character: find_font(character) for character in text if not character.isspace()}
        lacking = {character for character, font in fonts.items() if font is None}
        if lacking:
            print_note()
            artist.set_text("".join(MISSING if character in lacking else character for character in text))
        artist.set_fontfamily(list(dict.fromkeys([FONT, *(font for font in fonts.values() if font)])))


@cache
def print_note() -> None:
    """Print that characters are missing, once a process."""
    fix = "install one that has them, such as Noto Sans CJK"
    print(f"no installed font has all characters of the class names, figures show {MISSING}; {fix}", file=sys.stderr)


@cache
def find_font(character: str) -> str | None:
    """Return the name of an installed font that has a character; sans-serif fonts come first."""
    from matplotlib.font_manager import fontManager

    names = {font.name for font in fontManager.ttflist if "Last Resort" not in font.name}
    preferred = sorted(names, key=lambda name: (name != FONT, "Sans" not in name, name))
    return next((name for name in preferred if ord(character) in get_characters(name)), None)


@cache
def get_characters(font: str) -> frozenset[int]:
    """Return the code points of the characters that a font has."""
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(findfont(font, fallback_to_default=False)).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()
