"""The server of a studio as an object: in a notebook it is the page in a frame, and it can be closed."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING

from featurebank.errors import NotInstalledError, StorageError, install_hint
from featurebank.explore.studio.place import Place

if TYPE_CHECKING:
    from featurebank.bank.bank import BankLike
    from featurebank.explore.studio.opening import Opening
    from featurebank.explore.studio.session import Session

WAIT = 10.0
"""Seconds that a server has to start, and to end."""


class Handle:
    """A studio that runs.

    Attributes
    ----------
    url : str
        The page's address, with its token: who knows it can label.

    See Also
    --------
    studio : What makes it.

    Examples
    --------
    >>> running = studio("photos.bank")
    >>> running.url.startswith("http://")
    True
    >>> running.close()
    """

    def __init__(self, opening: Opening, *, host: str, port: int, is_open: bool, in_frames: bool) -> None:
        import uvicorn

        from featurebank.explore.studio.app import make_app
        from featurebank.explore.studio.safety import LOOPBACK, new_token

        token = new_token()
        self._opening = opening
        self._socket = _listen(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}/{token}/"
        app = make_app(opening, token, hosts={*LOOPBACK, shown}, is_open=is_open, in_frames=in_frames)
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", server_header=False)
        config.timeout_graceful_shutdown = 2
        self._server = uvicorn.Server(config)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="featurebank-server", daemon=True)

    def start(self) -> Handle:
        """Begin to answer, and to read the bank."""
        self._opening.start()
        self._thread.start()
        deadline = time.monotonic() + WAIT
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        return self

    def left(self) -> int:
        """Return how many images of a source are not embedded yet."""
        under_way = self._opening.state()["extracting"]
        return under_way["total"] - under_way["done"] if under_way else 0

    def wait(self) -> None:
        """Return when the server ends."""
        while not self._over.wait(0.2):  # a thread that is joined when Ctrl-C comes is taken for ended
            pass

    def close(self) -> None:
        """End the server; every answer is in the bank."""
        self._opening.close()
        self._server.should_exit = True
        if self._over.wait(WAIT):
            self._thread.join()
            self._socket.close()

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._over.set()

    def __repr__(self) -> str:
        return f"<studio at {self.url}>"

    def _repr_html_(self) -> str:
        return (
            f'<iframe src="{escape(self.url)}" title="featurebank studio" width="100%" height="800" '
            'style="border:0" allow="camera"></iframe>'
        )


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any that is free.

    Raises
    ------
    StorageError
        When the address cannot be had.
    """
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        why = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise StorageError(f"cannot listen at {host}:{port}: {why}; choose another --port or --host") from error
    return found


def studio(
    source: BankLike,
    *,
    bank: str | os.PathLike[str] | None = None,
    backbone: str = "efficientnet_lite0",
    layers: str | Sequence[str] = "penultimate",
    weights: str = "DEFAULT",
    size: int | None = None,
    target: str = "label",
    by: str = "",
    features: str | Sequence[str] | None = None,
    port: int = 0,
    random_state: int = 0,
    host: str = "127.0.0.1",
    allow_remote: bool = False,
    in_frames: bool = True,
) -> Handle:
    """Label images in the browser, while a model learns from every answer.

    Each answer is a label of the bank, written before the page says so.

    Parameters
    ----------
    source : path-like or Bank
        A bank; or a folder of images, or another source (`featurebank.extract`), which becomes one while its first
        images are labelled.
    bank : path-like, optional
        Of a source: its bank, made where there is none; by default its name with ``.bank``, beside it.
    backbone, layers, weights, size
        What is embedded of a source; see `featurebank.extract`.
    target : str, default "label"
        Column of classes; made with the first answer where there is none. Several labels an image, and numbers, are
        out of scope.
    by : str, default ""
        Who labels: kept beside each answer, with the time, in the columns ``TARGET_by`` and ``TARGET_at``.
    features : str or sequence of str, optional
        Feature sets that the model sees; by default the penultimate layer, or the first pooled set, and later the one
        that a ridge does best on.
    port : int, default 0
        Of the server; 0 is any that is free.
    random_state : int, default 0
        Decides which tenth of the images is the test part that no model chooses.
    host : str, default "127.0.0.1"
        Address to listen at; any but this machine's own takes `allow_remote`.
    allow_remote : bool, default False
        Whether other machines may ask: whoever knows the address can see the images and label.
    in_frames : bool, default True
        Whether a page of this machine, such as a notebook, may show the studio in a frame.

    Returns
    -------
    Handle
        With ``url`` and ``close()``; a notebook shows it as the page itself.

    Raises
    ------
    NotInstalledError
        When starlette or uvicorn is not installed.
    BankError
        When `source` is not there, or `bank` is given beside a bank.
    StorageError
        When the port cannot be had.

    See Also
    --------
    next_to_label : The images to label, as a table.
    Bank.label : Labels from a table.

    Examples
    --------
    >>> running = studio("photos.bank")
    >>> running.url.startswith("http://127.0.0.1:")
    True
    >>> running.close()
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise NotInstalledError(f"the studio needs starlette and uvicorn: {install_hint('studio')}")
    from featurebank.explore.studio.opening import Opening
    from featurebank.explore.studio.safety import is_loopback

    if not is_loopback(host) and not allow_remote:
        raise StorageError(
            f"{host!r} lets other machines see the images and label; say that you want this (--allow-remote), or leave "
            "out --host"
        )
    options = {"backbone": backbone, "layers": layers, "weights": weights, "size": size}
    place = Place(source, bank, options)

    def make() -> Session:
        from featurebank.explore.studio.session import Session
        from featurebank.explore.studio.work import Work

        return Session(Work(place, target, by, features, random_state), target)

    opening = Opening(make, title=place.title, target=target, by=by)
    return Handle(opening, host=host, port=port, is_open=allow_remote, in_frames=in_frames).start()
