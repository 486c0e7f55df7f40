"""The encoding of a table of text: certain by a mark or as UTF-8, else the one code page in which all words are words.

Statistics over a text (charset_normalizer, chardet) decide nothing on a column of short labels: ``Käfer`` as Excel
writes it looks as much like Cyrillic or DOS to them. So a code page is held possible only when the letters beyond ASCII
in all words together are those of one language that is written in it. Pages that then read the same text are one.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence

from featurebank.errors import SourceError, printable

Names = list[str]

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # which begins like UTF-16's
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ROMANCE_AND_GERMANIC = (
    "äöüß",  # German
    "àâæçèéêëîïôœùûüÿ",  # French
    "áéíñóúüªº",  # Spanish
    "àáâãçéêíòóôõúüªº",  # Portuguese
    "àèéìíîòóùú",  # Italian
    "àçèéíïòóúü·",  # Catalan
    "åäöéü",  # Swedish, Finnish
    "åæøéèêóòôü",  # Danish, Norwegian
    "áäéèëêïíóöúü",  # Dutch
    "áðéíóúýþæö",  # Icelandic
)
_CENTRAL = (
    "ąćęłńóśźż",  # Polish
    "áčďéěíňóřšťúůýž",  # Czech
    "áäčďéíĺľňóôŕšťúýž",  # Slovak
    "áéíóöőúüű",  # Hungarian
    "čćđšž",  # Croatian, Slovene
    "ăâîșțşţ",  # Romanian
    "äöüß",
)
_BALTIC = ("ąčęėįšųūž", "āčēģīķļņōŗšūž", "äõöüšž", "äöüß")
_TURKISH = ("çğıöşüâîûi\u0307", "äöüß")
_RUSSIAN = "абвгдежзийклмнопрстуфхцчшщъыьэюяё"
_CYRILLIC = (_RUSSIAN, "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя", "абвгдђежзијклљмнњопрстћуфхцчџш")
_GREEK = ("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ",)
_HEBREW, _ARABIC = ("".join(map(chr, range(0x5D0, 0x5EB))),), ("".join(map(chr, range(0x621, 0x64B))),)
_PAGES = {
    "cp1252": _ROMANCE_AND_GERMANIC,
    "iso8859-15": _ROMANCE_AND_GERMANIC,
    "mac-roman": _ROMANCE_AND_GERMANIC,
    "cp1250": _CENTRAL,
    "iso8859-2": _CENTRAL,
    "cp1254": _TURKISH,
    "cp1257": _BALTIC,
    "cp1251": _CYRILLIC,
    "koi8-r": (_RUSSIAN,),
    "cp1253": _GREEK,
    "cp1255": _HEBREW,
    "cp1256": _ARABIC,
}
"""Code pages, and for each the letters beyond ASCII of the languages that are written in it."""
_WIDE = {
    "gb18030": re.compile(rb"([\xb0-\xd7][\xa1-\xfe])+"),
    "euc-kr": re.compile(rb"([\xb0-\xc8][\xa1-\xfe])+"),
    "euc-jp": re.compile(rb"([\xa4\xa5\xb0-\xcf][\xa1-\xfe])+"),
    "shift-jis": re.compile(rb"([\x82\x83\x88-\x97][\x40-\x7e\x80-\xfc])+"),
    "big5": re.compile(rb"([\xa4-\xc6][\x40-\x7e\xa1-\xfe])+"),
}
"""Encodings of two bytes a character, and their common characters."""
_SIGNS = frozenset("°µ²³±×–—‘’“”„…€£§½¼¾©®™«»¿¡")
_LETTER = "[^\\W\\d_²³½¼¾]"
_ODD = re.compile(  # signs inside a word, letters inside a number or a unit
    f"{_LETTER}[–—‘“”„«»¿¡£€§©®×±°½¼¾]{_LETTER}|{_LETTER}[£€¿¡]|[²³£€]{_LETTER}"
    f"|\\d[^\\W\\d_a-zA-Zµ²³½¼¾]\\d|\\d ?[^\\W\\d_a-zA-Zµ²³½¼¾][a-zA-Z]\\b|µ{_LETTER}{_LETTER}"
)
_SHOWN = 3


def mark_of(data: bytes) -> str:
    """Return the encoding that the first bytes of a file tell for certain, or that its zeros do; empty for none.

    Examples
    --------
    >>> mark_of("path".encode("utf-16")), mark_of("path".encode("utf-16-be")), mark_of(b"path")
    ('utf-16', 'utf-16-be', '')
    """
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            return name
    head = data[:4096]
    zeros = head[::2].count(0), head[1::2].count(0)
    if len(data) % 2 == 0 and max(zeros) > 0.2 * len(head) / 2 and min(zeros) == 0:
        return "utf-16-be" if zeros[0] else "utf-16-le"
    return ""


def decode(data: bytes, encoding: str, where: object) -> str:
    """Return text in an encoding that was named, or is certain.

    Raises
    ------
    SourceError
        When there is no such encoding, or the bytes are not of it.
    """
    try:
        text = data.decode("utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding)
    except LookupError as error:
        raise SourceError(f"no encoding {encoding!r}; expected a name such as cp1252, utf-8 or utf-16") from error
    except UnicodeError as error:
        line = data.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise SourceError(
            f"line {line} of {str(where)!r} is not {encoding}; name its encoding with --encoding (such as cp1252)"
        ) from error
    return text.removeprefix("\ufeff")


def code_page(words: Iterable[bytes], where: object) -> Names:
    """Return the code pages that words are written in: several where all of them read the same text.

    Parameters
    ----------
    words : iterable of bytes
        Cells that are not UTF-8.
    where : object
        The file, for messages.

    Raises
    ------
    SourceError
        When no page fits, or pages that do read different texts.

    Examples
    --------
    >>> code_page(["Käfer".encode("cp1252"), "Öl".encode("cp1252")], "a.csv")[0]
    'cp1252'
    """
    distinct = sorted(set(words))
    readings: dict[tuple[str, ...], Names] = {}
    for page in (*_PAGES, *_WIDE):
        texts = _read(distinct, page)
        if texts is not None and _is_plausible(distinct, texts, page):
            readings.setdefault(tuple(texts), []).append(page)
    if len(readings) == 1:
        return next(iter(readings.values()))
    raise SourceError(_undecided(distinct, readings, where))


def _read(words: Sequence[bytes], page: str) -> list[str] | None:
    try:
        return [word.decode(page) for word in words]
    except UnicodeError:
        return None


def _is_plausible(words: Sequence[bytes], texts: Sequence[str], page: str) -> bool:
    if page in _WIDE:
        return _is_wide(words, texts, page)
    letters = {c.lower() for text in texts for c in text if not c.isascii()} - _SIGNS
    has_language = any(letters <= set(alphabet) for alphabet in _PAGES[page])
    parts = (part for text in texts for part in re.findall(f"{_LETTER}+", text))
    return has_language and not any(map(_ODD.search, texts)) and all(map(_is_word, parts))


def _is_wide(words: Sequence[bytes], texts: Sequence[str], page: str) -> bool:
    """Say whether words may be Chinese, Japanese or Korean: of common characters, apart from Latin letters."""
    runs = [run for word in words for run in re.findall(b"(?:[\x80-\xff][\x40-\xff]?)+", word)]
    is_common = all(map(_WIDE[page].fullmatch, runs)) and any(re.search(b"[\x80-\xff]{2}", run) for run in runs)
    return is_common and not any(re.search("[a-zA-Z][^\x00-\x7f]|[^\x00-\x7f][a-zA-Z]", text) for text in texts)


def _is_word(part: str) -> bool:
    """Say whether letters make a word of one script, in which no capital stands where only a wrong page puts it."""
    own = [c for c in part if not c.isascii()]
    if any(ord(c) >= 0x250 for c in own) and any(c.isascii() for c in part):
        return False
    return part.isupper() or not any(c.isupper() for c in part[1:] if not c.isascii())


def _undecided(words: Sequence[bytes], readings: Mapping[tuple[str, ...], Names], where: object) -> str:
    """Return the message about words that no page reads for certain, with the first word as some pages read it."""
    if not readings:
        every = {page: _read(words, page) for page in ("cp1252", "cp850", "mac-roman", "cp1251")}
        readings = {tuple(texts): [page] for page, texts in every.items() if texts is not None}
    parts = [f"{printable(texts[0])!r} as {pages[0]}" for texts, pages in list(readings.items())[:_SHOWN]]
    return (
        f"{str(where)!r} is not UTF-8, and its encoding is not clear: {ascii(words[0])[1:]} reads {', '.join(parts)}; "
        "name the right one with --encoding, or save the table as UTF-8"
    )
