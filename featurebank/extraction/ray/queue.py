"""Shards: the pending samples of a source, dealt out by a hash of their paths, and what becomes of a lost one."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import ClusterError
from featurebank.extraction.pipeline import SEGMENT_ROWS
from featurebank.images.shards import SUFFIX

SHARDS = 8
"""Shards of a worker, as long as they are large enough: so many that no worker waits long for the last."""
BATCHES = 8
"""Fewest batches of a shard: at its end the network waits for the segment to be written."""
CHANCES = 3
"""Workers that one image may cost before it counts as failed."""
IN_A_ROW = 4
"""Times that every worker may be lost with no shard finished between, before the job is given up."""
_IN_TAR = f"{SUFFIX}/".encode()


@dataclass(frozen=True)
class Shard:
    """Samples that one worker settles in one go.

    Attributes
    ----------
    positions : ndarray of int64, shape (n,)
        Their positions in the source, ascending.
    losses : int
        Workers that were lost over just these.
    is_new : bool
        Whether no worker has had any of them.
    """

    positions: NDArray[np.int64]
    losses: int = 0
    is_new: bool = True

    def __len__(self) -> int:
        return len(self.positions)


def make_shards(paths: Sequence[bytes], pending: Sequence[int], workers: int, batch: int) -> list[Shard]:
    """Deal samples out to shards of the same number of batches, ordered by a hash of the paths.

    The hash mixes folders, classes and file sizes, so that shards take equally long and an interrupted run has seen a
    random part of the source. Images of one tar shard stay together, since who reads one reads its neighbours with it.

    Parameters
    ----------
    paths : sequence of bytes
        Those of all samples of the source.
    pending : sequence of int
        Positions of the samples to deal out.
    workers : int
        Each gets the same number of shards.
    batch : int
        Images that the network takes at once; only the last batch of a shard, at most, is smaller.

    Examples
    --------
    >>> [len(shard) for shard in make_shards([b"%d" % i for i in range(1000)], range(1000), workers=2, batch=32)]
    [512, 488]
    """
    positions = np.sort(np.asarray(pending, np.int64))
    files = [paths[position].partition(_IN_TAR)[0] for position in positions]
    hashes = [hashlib.blake2b(file, digest_size=8).digest() for file in files]
    ordered = positions[np.argsort(np.array(hashes, "S8"), kind="stable")]
    count = count_shards(len(ordered), workers, batch)
    batches = np.array_split(np.arange(-(-len(ordered) // batch)), count)
    ends = [(int(part[-1]) + 1) * batch for part in batches if len(part)]
    starts = [0, *ends[:-1]]
    return [Shard(np.sort(ordered[start:end])) for start, end in zip(starts, ends, strict=True)]


def count_shards(samples: int, workers: int, batch: int) -> int:
    """Return the number of shards: `SHARDS` a worker, fewer of few samples, more of many (a segment each).

    Examples
    --------
    >>> count_shards(100, 2, 32), count_shards(5_000, 2, 32), count_shards(1_000_000, 2, 256)
    (2, 16, 246)
    """
    most = samples // (workers * batch * BATCHES)
    least = -(-samples // (workers * SEGMENT_ROWS))
    return workers * max(least, min(SHARDS, most), 1)


@dataclass
class ShardQueue:
    """The shards that wait for a worker, and what is to be done when one was lost with its worker.

    A lost shard comes back in halves, so that an image that kills its worker is soon alone; after `CHANCES` of its own
    it is failed.

    Attributes
    ----------
    waiting : deque of Shard
    finished : int
        Samples of finished shards.
    failed : list of int
        Positions of samples that cost their worker every time.
    lost : int
        Workers that were lost.
    """

    waiting: deque[Shard]
    workers: int
    finished: int = 0
    failed: list[int] = field(default_factory=list)
    lost: int = 0
    _in_a_row: int = 0

    def finish(self, shard: Shard) -> None:
        """Note that a shard is done."""
        self.finished += len(shard)
        self._in_a_row = 0

    def lose(self, shard: Shard | None, reason: str) -> None:
        """Take back what a lost worker was at.

        Raises
        ------
        ClusterError
            When workers are lost one after the other and nothing is finished between.
        """
        self.lost += 1
        self._in_a_row += 1
        if self._in_a_row > IN_A_ROW * self.workers:
            raise ClusterError(
                f"{self._in_a_row} workers in a row were lost and nothing was finished between; expected them to live: "
                f"look at the memory and the logs of their machines ({reason})"
            )
        if shard is not None:
            self.waiting.extend(self._again(shard))

    def _again(self, shard: Shard) -> list[Shard]:
        if len(shard) > 1:
            return [Shard(half, is_new=False) for half in np.array_split(shard.positions, 2)]
        if shard.losses + 1 < CHANCES:
            return [Shard(shard.positions, shard.losses + 1, is_new=False)]
        self.failed.append(int(shard.positions[0]))
        self.finish(shard)
        return []
