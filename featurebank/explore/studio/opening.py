"""A session that opens in the background, so that the page is there before the bank is read."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from featurebank.errors import FeatureBankError, one_line
from featurebank.explore.studio.place import NotYetError

if TYPE_CHECKING:
    from featurebank.explore.studio.session import Session


class Opening:
    """Makes a session in a thread.

    Parameters
    ----------
    make : callable
        Returns the session; what it imports takes a second or two.
    title : str
        The bank's name.
    target, by : str
    """

    def __init__(self, make: Callable[[], Session], *, title: str, target: str, by: str) -> None:
        self._make, self._facts = make, {"title": title, "target": target, "by": by}
        self._session: Session | None = None
        self._message: str | None = None
        self._is_closed = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="featurebank-open", daemon=True).start()

    def _run(self) -> None:
        try:
            session = self._make()
            session.work.start()
            self._session = session
            if self._is_closed:
                session.close()
        except FeatureBankError as error:
            self._message = one_line(error)
        except Exception as error:  # a thread of its own has nobody else to tell
            traceback.print_exc()
            self._message = f"the studio could not begin: {one_line(error)}"

    @property
    def session(self) -> Session:
        """The session.

        Raises
        ------
        NotYetError
            Until it is there.
        """
        if self._session is None:
            raise NotYetError(self._message or "the studio is opening; ask again in a moment")
        return self._session

    def state(self) -> dict[str, Any]:
        """Return what the page's frame shows, whatever is there already."""
        facts: dict[str, Any] = {"ready": False, "extracting": None, "classes": [], "images": 0, "labelled": 0}
        facts |= {"revision": 0, "model_revision": 0, "reading": False, "message": self._message, **self._facts}
        return facts if self._session is None else {**facts, **self._session.state()}

    def close(self) -> None:
        """End the work in the background."""
        self._is_closed = True
        if self._session is not None:
            self._session.close()
