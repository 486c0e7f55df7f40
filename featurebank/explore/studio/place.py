"""A folder of images becomes a bank while its first images are labelled already."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurebank.bank.bank import Bank, BankLike
from featurebank.errors import BankError, FeatureBankError, one_line
from featurebank.storage import files

if TYPE_CHECKING:
    from featurebank.images.sources import Source

AT_ONCE = 0.1
"""Seconds within which images are told of that were embedded in one batch."""


class NotYetError(BankError):
    """What is asked for is being made: ask again in a moment."""


class Place:
    """Where a studio's bank is, and the images that it is made of, where these are what was named.

    Parameters
    ----------
    named : path-like or Bank
        A bank, or a source of images (`featurebank.extract`).
    bank : path-like, optional
        Of a source: its bank; by default its name with ``.bank``, beside it.
    options : mapping
        ``backbone, layers, weights, size`` of the extraction (`featurebank.extract`).

    Attributes
    ----------
    extracting : dict or None
        ``done, total, rate`` (images a second) and ``left`` (seconds) while images are embedded; the total is 0 until
        they are listed, `rate` and `left` are None until the second batch is embedded.
    message : str or None
        What went wrong, or images that could not be read.

    Raises
    ------
    BankError
        When what is named is not there, or is a bank and another is named beside it.
    """

    def __init__(self, named: BankLike, bank: str | os.PathLike[str] | None, options: Mapping[str, Any]) -> None:
        self._named, self._options = named, dict(options)
        self.is_source = not isinstance(named, Bank) and not (files.as_path(named) / "bank.json").is_file()
        if bank is not None and not self.is_source:
            raise BankError(f"{_name(named)!r} is a bank itself; leave out the bank {os.fspath(bank)!r}")
        if self.is_source and isinstance(files.as_path(_plain(named)), Path) and not os.path.exists(_plain(named)):
            raise BankError(f"{_name(named)!r} is not there; expected a bank or a folder of images")
        self.bank: BankLike = (bank or files.beside(files.as_path(_plain(named)), ".bank")) if self.is_source else named
        self.extracting: dict[str, Any] | None = None
        self.message: str | None = None
        self._began, self._first = time.monotonic(), 0
        self._ended, self._thread = threading.Event(), threading.Thread()

    @property
    def title(self) -> str:
        """The bank's name."""
        return Path(_name(self.bank)).name

    def open(self) -> Bank:
        """Open the bank; of a source make it, and begin to fill it.

        A bank that is there can be labelled while its source is listed; where none is, none is left of a source that
        has no images.
        """
        if not self.is_source:
            return Bank.of(self.bank)
        self._show(0, 0)
        try:
            found = None if (files.as_path(_plain(self.bank)) / "bank.json").is_file() else self._listed()
            bank = Bank.create(_plain(self.bank))
        except FeatureBankError:
            self.extracting = None
            raise
        arguments = (bank, found)
        self._thread = threading.Thread(target=self._extract, args=arguments, name="featurebank-extract", daemon=True)
        self._thread.start()
        return bank

    def close(self) -> None:
        """End the extraction after its batch, or once the network is loaded: a process that ends before is aborted."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _extract(self, bank: Bank, found: Source | None) -> None:
        from featurebank.backbones.request import Request
        from featurebank.extraction.extract import run_extraction
        from featurebank.extraction.pipeline import Compute

        try:
            found = found or self._listed()
            self._show(0, len(found.paths))
            how = Request(**self._options), Compute(early=True)
            report = run_extraction(found, Bank(bank.path), *how, progress=self._go_on)
            self.message = report.about_failures() if report.failed else None
        except _EndedError:
            pass
        except FeatureBankError as error:
            self.message = one_line(error)
        except Exception as error:  # a thread of its own has nobody else to tell
            traceback.print_exc()
            self.message = f"the extraction ended: {one_line(error)}; start the studio again to go on with it"
        finally:
            self.extracting = None

    def _listed(self) -> Source:
        from featurebank.images.scanning import scan

        return scan(_plain(self._named))

    def _go_on(self, done: int, total: int) -> None:
        if self._ended.is_set():
            raise _EndedError
        self._show(done, total)

    def _show(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._began = now if done <= 1 else self._began
        if now - self._began < AT_ONCE:  # the first batch comes with loading the network: no part of the rate
            self._first = done
        rate = (done - self._first) / max(now - self._began, AT_ONCE) or None
        self.extracting = {"done": done, "total": total, "rate": rate, "left": (total - done) / rate if rate else None}


class _EndedError(Exception):
    """The studio was closed."""


def _plain(place: BankLike) -> Any:
    """Return the path of a bank, or a path as it is."""
    return place.path if isinstance(place, Bank) else place


def _name(place: BankLike) -> str:
    return str(_plain(place))
