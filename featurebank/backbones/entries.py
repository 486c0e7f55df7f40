"""Which tensors of a checkpoint are the network's: the entry, and the prefix of the names, that fit all of it.

Training tools wrap the same tensors differently: ``state_dict`` with ``model.``, ``teacher`` with ``module.backbone.``.
Nothing here knows the tools: whatever entry and prefix has every tensor of the network, in its shape, is taken. A last
classifier may be missing, or have other classes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from featurebank.errors import WeightsError, printable

if TYPE_CHECKING:
    from torch import Tensor

NOTHING = r"(?!)"
"""A pattern that fits no name."""
COUNTER = "num_batches_tracked"
"""Tensors of batch normalisation that decide nothing in eval mode, and that old checkpoints lack."""
_TRAINING_ONLY = re.compile(
    r"projec|predict|prototypes|decoder_|mask_token|masked_embed|queue|criterion|loss|n_averaged"
)
"""Beginnings of names that a training without labels puts beside the network's own; its features do not need them."""
_AVERAGED = re.compile(r"(^|[_.])(ema|teacher|averaged?|swa)([_.]|$)")
_FOLLOWER = re.compile(r"(^|[_.])(student|encoder_k|key|momentum|target)([_.]|$)")
_SHOWN = 3
Shapes = Mapping[str, tuple[int, ...]]
Rename = Callable[[Mapping[str, Any], Shapes], Mapping[str, Any]]


class Checkpoint(NamedTuple):
    """The dictionaries of tensors in a file, by where they lie in it; ``""`` for the file itself."""

    where: str
    entries: Mapping[str, Mapping[str, Tensor]]
    asked: str = ""
    """Which entry was asked for, behind a ``#``; empty for whichever fits."""
    rename: Rename = lambda state, own: state
    """Gives tensors under other names, of older versions or other tools, the network's own."""

    def renamed(self, rename: Rename) -> Self:
        """Return the same tensors, to be renamed once the network is known."""
        return self._replace(rename=rename)


class Own(NamedTuple):
    """What a network's tensors have to fit."""

    shapes: Shapes
    classifier: str | None
    settled: str = NOTHING
    """A pattern of names that decide how the network is built, and are compared with it only then."""


@dataclass(frozen=True)
class Fit:
    """The tensors under one prefix of one entry, under the network's names, and what there is between them.

    Attributes
    ----------
    entry, prefix : str
    state : dict of str to Tensor
        The network's tensors that were found.
    classes : int or None
        Number of classes of the classifier, where it is not the network's.
    absent : tuple of str
        Modules of the classifier that the file has no tensors of.
    left_out, missing, unexpected : tuple of str
        Tensors that the network does not need, that it lacks, and that it has no place for.
    unlike : tuple of str
        Tensors of another shape, with both shapes.
    """

    entry: str
    prefix: str
    state: dict[str, Tensor]
    classes: int | None
    absent: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    unlike: tuple[str, ...]

    @property
    def faults(self) -> int:
        """How many tensors do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.unlike)

    @property
    def path(self) -> str:
        """Where the tensors lie, as it may be asked for behind ``FILE#``."""
        return ".".join(filter(None, (self.entry, self.prefix.rstrip("."))))

    def __str__(self) -> str:
        found = [f"entry {self.entry!r}"] * bool(self.entry) + [f"prefix {self.prefix!r}"] * bool(self.prefix)
        notes = [", ".join(found)] if found else []
        notes += [f"no tensors of the classifier ({_some(self.absent)})"] if self.absent else []
        notes += [f"left out {_some(self.left_out)}"] if self.left_out else []
        return printable("; ".join(notes))


def find_fit(checkpoint: Checkpoint, own: Own) -> tuple[Fit, str]:
    """Find the one entry and prefix of a checkpoint that fit a network.

    Where several do, the average of a training (``ema``, ``teacher``) goes before the network that was trained, and
    that one before those that follow it (``student`` of a teacher, ``encoder_k``, ``momentum``, ``target``).

    Returns
    -------
    fit : Fit
    note : str
        What was taken and left, for the reader; empty when the file holds the network's tensors and no more.

    Raises
    ------
    WeightsError
        When none fits, with the names on both sides; or when several do that no custom tells apart.
    """
    entries = {at: checkpoint.rename(tensors, own.shapes) for at, tensors in checkpoint.entries.items()}
    found = [fit for at, tensors in entries.items() for fit in _candidates(at, tensors, own)]
    asked = [fit for fit in found if f".{checkpoint.asked}." in f".{fit.path}." or not checkpoint.asked]
    fits = _different([fit for fit in asked if not fit.faults])
    if not fits:
        raise WeightsError(_about_misfit(checkpoint, found, asked))
    ranks = [_rank(fit) for fit in fits]
    best = fits[ranks.index(min(ranks))]
    if ranks.count(min(ranks)) > 1:
        raise WeightsError(
            f"{checkpoint.where!r} holds {len(fits)} networks that fit this backbone ({_paths(fits)}); expected one: "
            f"choose it with --weights FILE#ENTRY, e.g. {printable(checkpoint.where)}#{printable(best.path)}"
        )
    others = f"; FILE#ENTRY takes another: {_paths(fit for fit in fits if fit is not best)}" if len(fits) > 1 else ""
    return best, str(best) + others


def _candidates(entry: str, tensors: Mapping[str, Tensor], own: Own) -> Iterator[Fit]:
    """Compare an entry with a network under each prefix that gives many of its names, the most likely one first."""
    counts = Counter(
        name.removesuffix(end) for name in tensors for end in _ends(name) if end in own.shapes and not _counts(end)
    )
    most = max(counts.values(), default=0)
    likely = sorted(
        (prefix for prefix in counts if 2 * counts[prefix] >= most), key=lambda each: (-counts[each], len(each))
    )
    for prefix in likely or [""]:
        yield _compare(entry, prefix, tensors, own)


def _ends(name: str) -> Iterator[str]:
    """Return a dotted name, and what is left of it without its first parts."""
    parts = name.split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))


def _counts(name: str) -> bool:
    return name.endswith(COUNTER)


def _compare(entry: str, prefix: str, tensors: Mapping[str, Tensor], own: Own) -> Fit:
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    judged = [name for name in own.shapes if not _counts(name) and not re.match(own.settled, name)]
    lacking = [name for name in judged if name not in found]
    absent = _absent(lacking, judged, own.classifier)
    classes, heads = classes_in(shapes, own)
    unlike = [name for name in judged if name in found and shapes[name] != own.shapes[name]]
    extra = [name for name in found if name not in own.shapes and not _counts(name) and not re.match(own.settled, name)]
    is_replaced = bool(absent) or not any(_is_near(name, own.classifier) for name in judged)
    left_out = [n for n in extra if _TRAINING_ONLY.match(n) or (is_replaced and _is_near(n, own.classifier))]
    return Fit(
        entry=entry,
        prefix=prefix,
        state={name: tensor for name, tensor in found.items() if name not in left_out and not _is_idle(name, own)},
        classes=classes,
        absent=absent,
        left_out=tuple(left_out),
        missing=tuple(name for name in lacking if module_of(name) not in absent),
        unexpected=tuple(name for name in extra if name not in left_out),
        unlike=tuple(
            f"{name} of shape {_shape(shapes[name])}, expected {_shape(own.shapes[name])}"
            for name in unlike
            if module_of(name) not in heads
        ),
    )


def _is_idle(name: str, own: Own) -> bool:
    """Say whether a tensor is a counter that this network does not keep."""
    return _counts(name) and name not in own.shapes


def _absent(lacking: Sequence[str], judged: Sequence[str], classifier: str | None) -> tuple[str, ...]:
    """Return the modules of the classifier, and of those beside it, of which a checkpoint has no tensor at all."""
    modules = dict.fromkeys(module_of(name) for name in lacking if _is_near(name, classifier))
    there = {module_of(name) for name in judged if name not in lacking}
    return tuple(module for module in modules if module not in there)


def _is_near(name: str, classifier: str | None) -> bool:
    """Say whether a tensor belongs to the part of a network that its classifier is in: ``fc``, ``head.…``."""
    return classifier is not None and name.partition(".")[0] == classifier.partition(".")[0]


def classes_in(found: Shapes, own: Own) -> tuple[int | None, set[str]]:
    """Return the number of classes of a checkpoint whose classifier has others, and the modules that have this length.

    The heads are all modules with a tensor of another shape. Unless the classifier is one of them, and all their
    tensors are there and differ in their first length alone, which is one number, there is none.
    """
    heads = {module_of(name) for name in own.shapes if found.get(name, own.shapes[name]) != own.shapes[name]}
    heads -= {module_of(name) for name in own.shapes if re.match(own.settled, name) and module_of(name) in heads}
    parts = [name for name in own.shapes if module_of(name) in heads]
    classes = {found[name][0] for name in parts if found.get(name)}
    fits = own.classifier in heads and len(classes) == 1
    fits = fits and all(own.shapes[n] and found.get(n) == (*classes, *own.shapes[n][1:]) for n in parts)
    return (classes.pop(), heads) if fits else (None, set())


def module_of(name: str) -> str:
    """Return the name of the module that a tensor belongs to."""
    return name.rpartition(".")[0]


def _different(fits: Sequence[Fit]) -> list[Fit]:
    """Leave out what holds the same tensors as one before: a module that was kept under two names."""
    kept: list[Fit] = []
    for fit in fits:
        if not any(_is_same(fit.state, other.state) for other in kept):
            kept.append(fit)
    return kept


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def _rank(fit: Fit) -> int:
    if _FOLLOWER.search(fit.path):
        return 2
    return 0 if _AVERAGED.search(fit.path) else 1


def _about_misfit(checkpoint: Checkpoint, found: Sequence[Fit], asked: Sequence[Fit]) -> str:
    """Say what the nearest entry lacks and has besides, or that there is no such entry."""
    where = f"{checkpoint.where}#{checkpoint.asked}" if checkpoint.asked else checkpoint.where
    if not asked:
        return f"{where!r}: there is no such entry; expected one of {_paths(found)}"
    best = min(asked, key=lambda fit: fit.faults)
    sides = {"lacks": best.missing, "has besides": best.unexpected, "has": best.unlike}
    parts = [f"{word} {_some(names)}" for word, names in sides.items() if names]
    at = f" (under {best.path!r})" if best.path else ""
    return printable(f"the tensors of {where!r}{at} do not fit this backbone: it {'; it '.join(parts)}")


def _paths(fits: Any) -> str:
    return printable(", ".join(repr(fit.path) for fit in fits))


def _some(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _SHOWN} more"] * (len(names) > _SHOWN)
    return ", ".join([name[:80] for name in names[:_SHOWN]] + more)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"
