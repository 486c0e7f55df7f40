"""The range of a run: as the bank has it, or as its source asks for; decided before the first image is embedded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from featurebank.backbones.request import Request
from featurebank.bank.folder import BankFolder
from featurebank.images.pixels import Limits, as_text
from featurebank.images.ranges import measure_range

if TYPE_CHECKING:
    from featurebank.images.sources import Source


def settle_range(request: Request, source: Source, bank: BankFolder | None) -> tuple[Request, str]:
    """Return a request whose range is decided, and one line that says how; an empty one where nothing is to be said.

    A bank has one range, unless others are asked for: features of one source, or of several, stay comparable, and a run
    that goes on needs no measuring. Only the first features of a bank have the range measured.

    Parameters
    ----------
    request : Request
    source : Source
        The images to come.
    bank : BankFolder or None
        None where there is no bank yet.
    """
    if request.pixels.range != "auto":
        return request, ""
    kept = [] if bank is None else bank.ranges
    if kept:
        limits = None if None in kept else kept[0]
        said = "" if limits is None else f"range: {as_text(limits)}, as in the bank"
        return _with_range(request, limits), said
    measured = measure_range(source, request.pixels)
    return _with_range(request, measured.limits), str(measured)


def _with_range(request: Request, limits: Limits | None) -> Request:
    return replace(request, pixels=request.pixels.with_range(limits), loaded=None)
