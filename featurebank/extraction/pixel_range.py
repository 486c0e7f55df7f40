"""The pixel rules of a run: its range as the bank has it or as its source asks for, and a sample a page where asked."""

from __future__ import annotations

import os
from dataclasses import replace

from featurebank.backbones.request import Request
from featurebank.bank.folder import BankFolder
from featurebank.errors import NotInstalledError, install_hint
from featurebank.images.content import read_file
from featurebank.images.memory import scan_memory
from featurebank.images.pixels import Limits, PixelRules, as_text
from featurebank.images.ranges import measure_range
from featurebank.images.sources import Source
from featurebank.images.stacks import each_page


def settle_source(request: Request, source: Source, bank: BankFolder | None) -> tuple[Request, Source, str]:
    """Return a request whose range is decided, the source as it asks for it, and one line that says what was decided.

    Parameters
    ----------
    request : Request
    source : Source
        The images to come.
    bank : BankFolder or None
        None where there is no bank yet.

    Raises
    ------
    NotInstalledError
        When pages are to be read together and tifffile is not installed.
    SourceError
        See `featurebank.images.stacks.each_page`.
    """
    check_installed(request.pixels)
    source = each_page(source) if request.pixels.pages == "each" else source
    settled = settle_range(request, bank)
    if settled is not None:
        limits = settled.pixels.limits
        kept = request.pixels.range == "auto" and limits is not None
        return settled, source, f"range: {as_text(limits)}, as in the bank" if kept else ""
    measured = measure_range(source, request.pixels)
    return _with_range(request, measured.limits), source, str(measured)


def settle_range(request: Request, bank: BankFolder | None) -> Request | None:
    """Return a request with the range that it names or that the bank has; None where it has to be measured.

    A bank has one range, unless others are named: features of one source, or of several, stay comparable, and a run
    that goes on needs no measuring. Only the first features of a bank have the range measured.
    """
    if request.pixels.range != "auto":
        return request
    kept = [] if bank is None else bank.ranges
    return _with_range(request, None if None in kept else kept[0]) if kept else None


def settle_image(path: str | os.PathLike[str], rules: PixelRules) -> tuple[PixelRules, str]:
    """Return rules whose range is decided for one image alone, and one line that says what was decided.

    Raises
    ------
    ImageError
        When the image cannot be read.
    NotInstalledError
        When pages are to be read together and tifffile is not installed.
    """
    check_installed(rules)
    if rules.range != "auto":
        return rules, ""
    measured = measure_range(scan_memory([read_file(path)], [os.fspath(path)], None), rules)
    return rules.with_range(measured.limits), str(measured)


def check_installed(rules: PixelRules) -> None:
    """Refuse rules that need tifffile where that is not installed.

    Raises
    ------
    NotInstalledError
        See above.
    """
    if rules.pages in ("mean", "max"):
        try:
            import tifffile  # noqa: F401
        except ImportError as error:
            raise NotInstalledError(f"--pages {rules.pages} needs tifffile: {install_hint('microscopy')}") from error


def _with_range(request: Request, limits: Limits | None) -> Request:
    return replace(request, pixels=request.pixels.with_range(limits), loaded=None)
