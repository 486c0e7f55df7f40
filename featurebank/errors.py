"""The errors of featurebank: one base, each child also the builtin a caller would expect.

Every message is one line: what was found, what was expected, what to do.
"""

from __future__ import annotations

import difflib
import functools
import shlex
import warnings
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class FeatureBankError(Exception):
    """Base of every error that featurebank raises on purpose.

    See Also
    --------
    featurebank.errors : All of its children, by name.

    Examples
    --------
    >>> issubclass(BankError, FeatureBankError), issubclass(BankError, ValueError)
    (True, True)
    >>> raise BankError("no bank at 'x.bank'; expected a folder NAME.bank: make one with featurebank extract")
    Traceback (most recent call last):
    featurebank.errors.BankError: no bank at 'x.bank'; expected a folder NAME.bank: make one with featurebank extract
    """


class SourceError(FeatureBankError, ValueError):
    """An image source (folder, manifest, list) that cannot be used as it is."""


class ImageError(FeatureBankError, ValueError):
    """An image that cannot be decoded under the pixel policy."""


class BackboneError(FeatureBankError, ValueError):
    """A backbone that is unknown, or that does not take the input it was given."""


class WeightsError(FeatureBankError, OSError):
    """Weights that cannot be had, or that do not fit the backbone."""


class LayerError(FeatureBankError, LookupError):
    """A layer that does not exist or cannot be captured, or a pooling that does not fit it."""


class DeviceError(FeatureBankError, RuntimeError):
    """A device that was asked for and is not there."""


class EngineError(FeatureBankError, RuntimeError):
    """An engine that cannot run this network here, or whose embeddings are not those of plain PyTorch."""


class StorageError(FeatureBankError, OSError):
    """A write that the file system refused."""


class BankError(FeatureBankError, ValueError):
    """A bank that is missing, of another format, or lacks what was asked for."""


class CorruptError(BankError):
    """A file of a bank or predictor that is damaged, or not exactly of the expected shape."""


class FeatureSetError(FeatureBankError, LookupError):
    """A feature-set name that matches no set of the bank, or several."""


class ColumnError(FeatureBankError, LookupError):
    """A column that the sample table does not have, or that does not fit its use."""


class TopModelError(FeatureBankError, ValueError):
    """A top model or a search that cannot be built or fitted as asked."""


class FineTuneError(FeatureBankError, ValueError):
    """A fine-tuning that cannot be done as asked."""


class PredictorError(FeatureBankError, ValueError):
    """A predictor file that cannot be read, or does not fit what it is given."""


class PlotError(FeatureBankError, ValueError):
    """A picture that cannot be drawn as asked."""


class ClusterError(FeatureBankError, ConnectionError):
    """A Ray cluster that cannot be joined or used, or that keeps losing its workers."""


class NotInstalledError(FeatureBankError, ImportError):
    """An optional package that is needed here; the message names the extra to install."""


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line, its class name where it has none.

    Examples
    --------
    >>> one_line(ValueError("two\\nlines"))
    'two lines'
    """
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    """Return text that is safe on a terminal or a page: control characters and undecodable bytes are escaped.

    Examples
    --------
    >>> printable("a\\x1b[31mb"), printable("caf\\u00e9")
    ('a\\\\x1b[31mb', 'café')
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shell_word(value: object) -> str:
    """Return a word as a shell takes it, on one line and without control characters.

    Examples
    --------
    >>> shell_word("my photos"), shell_word("photos")
    ("'my photos'", 'photos')
    """
    text = str(value)
    return shlex.quote(text) if text.isprintable() else repr(text)


def shell_command(name: str, place: object, options: Iterable[tuple[str, object]]) -> str:
    """Return a command about a bank or a source, with those of its options that have a value.

    Examples
    --------
    >>> shell_command("extract", "my photos", [("--bank", "a.bank"), ("--root", None)])
    "featurebank extract 'my photos' --bank a.bank"
    """
    words = [f"{option} {shell_word(value)}" for option, value in options if value is not None]
    return " ".join([f"featurebank {name} {shell_word(place)}", *words])


def counted(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun, and with the verb after it where both are given.

    Examples
    --------
    >>> counted(1, "image"), counted(1280, "image"), counted(2, "match", "matches")
    ('1 image', '1,280 images', '2 matches')
    >>> counted(1, "sample has", "samples have") + " no label"
    '1 sample has no label'
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the question which known name was meant, whatever its capitals, for the middle of a message; or nothing.

    Examples
    --------
    >>> did_you_mean("LABLE", ["label", "age"]), did_you_mean("x", ["label", "age"])
    ('did you mean label? ', '')
    >>> did_you_mean("acc", ["jaccard", "accuracy"])
    'did you mean accuracy? '
    """
    near = nearest(name, known)
    return "" if near is None else f"did you mean {near}? "


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, whatever its capitals: one that begins so, or is spelt alike.

    Examples
    --------
    >>> nearest("acc", ["jaccard", "accuracy"]), nearest("benin", ["malign", "benign"]), nearest("x", ["age"])
    ('accuracy', 'benign', None)
    """
    folded, asked = {str(each).casefold(): each for each in known}, str(name).casefold()
    begun = sorted((each for each in folded if each.startswith(asked)), key=len) if len(asked) > 1 else []
    near = begun or difflib.get_close_matches(asked, folded, n=1)
    return folded[near[0]] if near else None


def near_names(name: str, known: Iterable[str], most: int | None = None) -> str:
    """Return the end of a message about an unknown name: the nearest known one, or all of them, or the first `most`.

    Examples
    --------
    >>> near_names("logrge", ["logreg", "svm"])
    'did you mean logreg?'
    >>> near_names("x", ["logreg", "svm"])
    'expected one of logreg, svm'
    >>> near_names("x", ["logreg", "svm", "knn"], most=2)
    'expected one of logreg, svm, … (3 in all)'
    """
    known = list(known)
    shown = known if most is None or len(known) <= most else [*known[:most], f"… ({len(known)} in all)"]
    return did_you_mean(name, known).rstrip() or f"expected one of {', '.join(shown)}"


def no_column(what: str, name: str, known: Iterable[str]) -> str:
    """Return a message about a column that something does not have, up to what to do.

    Examples
    --------
    >>> no_column("the bank has", "lable", ["label", "age"])
    "the bank has no column 'lable'; did you mean label? it has 'label', 'age'"
    >>> no_column("the labels have", "x", ["label"])
    "the labels have no column 'x'; they have 'label'"
    """
    known = list(map(str, known))
    pronoun, verb = ("it", "has") if what.endswith(" has") else ("they", "have")
    have = ", ".join(map(repr, known)) or "none"
    return f"{what} no column {name!r}; {did_you_mean(name, known)}{pronoun} {verb} {have}"


def install_hint(extra: str) -> str:
    """Return the end of a message about a library that is not installed: what brings it.

    Examples
    --------
    >>> install_hint("plot")
    "pip install 'featurebank[plot]' (in a checkout: pip install -e '.[plot]')"
    """
    return f"pip install 'featurebank[{extra}]' (in a checkout: pip install -e '.[{extra}]')"


def notice(old: str, new: str) -> None:
    """Say in one line that an old spelling works in this release for the last time."""
    warnings.warn(f"{old} is now {new}; the old spelling goes with the next release", FutureWarning, stacklevel=3)


def renamed(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function also take arguments under their old names (old="new"), with a `notice`.

    Examples
    --------
    >>> @renamed(seed="random_state")
    ... def draw(random_state=0):
    ...     return random_state
    >>> draw(seed=3)  # doctest: +SKIP
    3
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__qualname__.rpartition("<locals>.")[2].removesuffix(".__init__")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in names.items():
                if old in kwargs:
                    notice(f"{name}({old}=)", f"{new}=")
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
