"""What is known of an exported network: its layers, its graph's digest, how exact it is, an input with its outputs."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import EngineError, one_line

FORMAT = 1
_FACTS, _INPUT, _OUTPUT = "facts", "input", "output"


@dataclass(frozen=True)
class Record:
    """The facts of an exported network, and its proof.

    Parameters
    ----------
    backbone : str
        Name of the network.
    layers : list
        What tells each output apart: layer, layout, prefix and pooling of its spec.
    deepest : int
        Number of the layer that the network is computed up to.
    weights : str
        Digest of the network's tensors.
    graph : str
        SHA-256 (hex) of the ONNX file.
    floats : int
        Numbers in the largest layer of one image, which decides the batch size.
    off : float
        The largest relative distance from plain PyTorch, found when it was exported.
    made_by : dict
        Versions of the libraries that made it.
    apart : dict
        On which library, machine and threads a row's bits were found not to depend on its batch; empty where they do.
    known : ndarray of uint8, shape (1, height, width, 3)
    outputs : list of ndarray of float32, each of shape (1, …)
        What the network gave for it.
    """

    backbone: str
    layers: list[list[str | int]]
    deepest: int
    weights: str
    graph: str
    floats: int
    off: float
    made_by: dict[str, str]
    apart: dict[str, Any]
    known: NDArray[np.uint8]
    outputs: Sequence[NDArray[np.float32]] = field(default_factory=list)

    def encode(self) -> bytes:
        """Return the bytes of the record's file."""
        facts = {name: value for name, value in vars(self).items() if name not in ("known", "outputs")}
        arrays: dict[str, Any] = {f"{_OUTPUT}{number}": each for number, each in enumerate(self.outputs)}
        buffer = io.BytesIO()
        text = json.dumps({"format": FORMAT, **facts}).encode("ascii")
        np.savez(buffer, **{_FACTS: np.frombuffer(text, np.uint8), _INPUT: self.known, **arrays})
        return buffer.getvalue()

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read the file of a record.

        Raises
        ------
        FileNotFoundError
            When there is none.
        EngineError
            When it is damaged, or of another format.
        """
        try:
            return cls._read(path)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
            raise EngineError(
                f"{str(path)!r} is no record of an exported network ({one_line(error)[:100]}): remove it"
            ) from error

    @classmethod
    def _read(cls, path: Path) -> Record:
        with np.load(path, allow_pickle=False) as stored:
            facts = json.loads(stored[_FACTS].tobytes())
            if facts.pop("format") != FORMAT:
                raise ValueError("another format")
            outputs = [stored[f"{_OUTPUT}{number}"] for number in range(len(facts["layers"]))]
            return cls(**facts, known=stored[_INPUT], outputs=outputs)
