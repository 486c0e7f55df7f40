"""Progress in a notebook: what takes long draws a bar there by itself, unless the caller wants to be told instead."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

from featurebank.images.reading import Progress

PAUSE = 0.2
KERNEL = "ZMQInteractiveShell"
"""IPython's shell where what is displayed goes to a notebook."""


def shown(progress: Progress | None, title: str) -> Progress | None:
    """Return the callback that was given, else a bar where this runs in a notebook, else None.

    Examples
    --------
    >>> print(shown(None, "extract"))
    None
    """
    return Bar(title) if progress is None and _is_notebook() else progress


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and type(ipython.get_ipython()).__name__ == KERNEL


class Bar:
    """A bar in the output of a cell, drawn a few times a second and gone when all is done."""

    def __init__(self, title: str):
        self._title, self._drawn = title, 0.0
        self._handle: Any = None

    def __call__(self, done: int, total: int) -> None:
        """Draw how much of how much is done."""
        now = time.monotonic()
        if done >= total:
            self._draw("")
        elif now - self._drawn >= PAUSE:
            self._drawn = now
            bar = f'<progress value="{done}" max="{total}" aria-label="{escape(self._title)}"></progress>'
            self._draw(f"{escape(self._title)} {bar} {done:,} of {total:,}")

    def _draw(self, html: str) -> None:
        from IPython.display import HTML, display

        if self._handle is not None:
            self._handle.update(HTML(html))
        elif html:
            self._handle = display(HTML(html), display_id=True)
