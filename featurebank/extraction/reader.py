"""A reader process: reads, hashes, decodes and prepares image files, straight into memory that its parent shares.

It is told what to do in lines of JSON on its standard input, and answers each with a line; it ends when its input does,
so that it never outlives its parent. It imports neither torch nor the module that the user runs.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import warnings
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from featurebank.backbones.preprocessing import Preprocessing
from featurebank.errors import ImageError, one_line
from featurebank.images.content import read_file
from featurebank.images.decoding import content_digest, decode
from featurebank.images.pixels import PixelRules
from featurebank.images.views import make_views
from featurebank.storage.memory import map_file

Answer = dict[str, Any]
"""What became of an image: ``digest`` (hex), ``error`` where there is one, ``unseen`` and ``noted`` where it was
prepared, ``again`` where the parent is to do it."""


class Slots:
    """Shared memory that holds tasks of images, a slot each; both sides lay it out by the same description.

    Parameters
    ----------
    memory : mmap
        All of it: the digests that are known, and the slots.
    layout : dict
        ``known``, the number of digests; ``start``, where the slots begin; ``slot``, the bytes of one; ``images``, how
        many images one takes; ``parts``, for each preparation its ``offset`` in a slot and the ``shape`` of an image's
        views.
    """

    def __init__(self, memory: mmap.mmap, layout: dict[str, Any]):
        self._memory = memoryview(memory)
        self._layout = layout
        self.known = np.frombuffer(self._memory, "S32", layout["known"])

    def whole(self, number: int) -> NDArray[np.uint8]:
        """Return the bytes of a slot, as an array that all arrays of its `rows` keep alive."""
        size = self._layout["slot"]
        return np.frombuffer(self._memory, np.uint8, size, self._layout["start"] + number * size)

    def rows(self, whole: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Return a slot's rows for each preparation, shape (images, views, height, width, 3)."""
        images, found = self._layout["images"], []
        for part in self._layout["parts"]:
            shape = (images, *part["shape"])
            found.append(whole[part["offset"] : part["offset"] + int(np.prod(shape))].reshape(shape))
        return found


def layout_of(preparations: Sequence[tuple[Preprocessing, int]], images: int, known: int) -> dict[str, Any]:
    """Return the layout of `Slots` for preparations of so many views each.

    Examples
    --------
    >>> small = Preprocessing(8, (8, 8), "bilinear", (0.5,) * 3, (0.5,) * 3)
    >>> layout = layout_of([(small, 2)], images=4, known=3)
    >>> layout["slot"], layout["start"], layout["parts"]
    (1536, 4096, [{'offset': 0, 'shape': [2, 8, 8, 3]}])
    """
    parts, offset = [], 0
    for preprocessing, views in preparations:
        shape = [views, *preprocessing.crop, 3]
        parts.append({"offset": offset, "shape": shape})
        offset += images * int(np.prod(shape))
    start = -(-known * 32 // mmap.PAGESIZE) * mmap.PAGESIZE
    return {"known": known, "start": start, "slot": offset, "images": images, "parts": parts}


def main() -> None:
    """Serve the parent until it closes the standard input."""
    warnings.simplefilter("ignore")  # what decoders warn of is noted of the image, or an error of it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        serve(sys.stdin.buffer, answers)
    except BrokenPipeError:  # the parent has ended, and nobody is left to be told
        os._exit(1)


def serve(tasks: IO[bytes], answers: IO[bytes]) -> None:
    """Answer each task with a line; the first line says how to work."""
    setup = json.loads(tasks.readline() or "null")
    if setup is None:
        return
    slots = Slots(map_file(setup["file"], setup["bytes"]), setup["layout"])
    how = [(Preprocessing.from_dict(each["preprocessing"]), each["views"]) for each in setup["preparations"]]
    opening = {"least": setup["least"], "pixels": PixelRules.from_dict(setup["pixels"])}
    say(answers, "ready")
    for line in tasks:
        task = json.loads(line)
        rows = slots.rows(slots.whole(task["slot"]))
        places = {int(number): place for number, place in task["places"].items()}
        found = [prepare(place, slots.known, how, [part[i] for part in rows], opening) for i, place in places.items()]
        say(answers, found)


def say(to: IO[bytes], what: Any) -> None:
    """Write a line of JSON."""
    to.write(json.dumps(what).encode() + b"\n")
    to.flush()


def prepare(
    place: str,
    known: NDArray[np.bytes_],
    how: Sequence[tuple[Preprocessing, str]],
    rows: Sequence[NDArray[np.uint8]],
    opening: dict[str, Any],
) -> Answer:
    """Read an image, and prepare its views into rows unless its content is known."""
    answer: Answer = {"digest": ""}
    try:
        data = read_file(place)
        digest = content_digest(data)
        answer["digest"] = digest.hex()
        if len(known) and known[min(int(np.searchsorted(known, digest)), len(known) - 1)] == digest:
            return answer
        image = decode(data, **opening)
        for (preprocessing, views), own in zip(how, rows, strict=True):
            for number, view in enumerate(make_views(image, views, digest)):
                own[number] = preprocessing(view)
        answer.update(unseen=how[0][0].unseen(image.size), noted=image.info.get("featurebank", {}))
    except ImageError as error:
        answer["error"] = one_line(error)
    except Exception:  # the parent raises it, as if there were no reader
        answer["again"] = True
    return answer


if __name__ == "__main__":
    main()
