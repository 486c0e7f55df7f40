"""Several backbones in one run: each image is read and decoded once, and prepared for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from featurebank.backbones.request import Request
from featurebank.bank.spec import PENULTIMATE, FeatureSpec
from featurebank.errors import BankError
from featurebank.extraction.pipeline import Compute, Outputs, Pipeline
from featurebank.extraction.preparing import Item, Preparer
from featurebank.extraction.tracker import Tracker

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone


def requests_for(backbones: Sequence[Any], layers: str | Sequence[str], **options: Any) -> list[Request]:
    """Return what is asked of each backbone; a layer named as ``BACKBONE/LAYER[:POOL]`` is of that one alone.

    Raises
    ------
    BankError
        When a backbone is named twice, or a layer is of none of several.

    Examples
    --------
    >>> first, second = requests_for(["resnet18", "vgg11"], ["penultimate", "resnet18/layer3:max"])
    >>> first.layers, second.layers
    (['penultimate', 'layer3:max'], ['penultimate'])
    """
    wanted = [layers] if isinstance(layers, str) else list(layers)
    names = [each for each in backbones if isinstance(each, str)]
    if len(set(names)) < len(names):
        raise BankError(f"the backbones {', '.join(names)}; expected each once, with all its layers")
    if len(backbones) == 1:
        return [Request(backbones[0], wanted, **options)]
    owners = {layer: next((name for name in names if layer.startswith(f"{name}/")), None) for layer in wanted}
    return [Request(each, _layers_of(each, owners), **options) for each in backbones]


def _layers_of(backbone: Any, owners: dict[str, str | None]) -> list[str]:
    """Return the layers that are of every backbone or of this one; the penultimate where none is."""
    mine = [
        layer if owner is None else layer.removeprefix(f"{owner}/")
        for layer, owner in owners.items()
        if owner is None or owner == backbone
    ]
    return mine or [PENULTIMATE]


class SharedPipeline(Pipeline):
    """Embeds with several backbones what is read and decoded once.

    Parameters
    ----------
    requests : sequence of Request
        Of the same pixels and decoder.
    tracker : Tracker
        Of the feature sets of all of them.
    specs : sequence of sequence of FeatureSpec
        Those of each.
    compute, advance
        See `Pipeline`.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        tracker: Tracker,
        specs: Sequence[Sequence[FeatureSpec]],
        compute: Compute,
        advance: Callable[[], None],
    ):
        super().__init__(requests[0], tracker, compute, advance)
        self.parts = [
            Pipeline(request, _of(tracker, own), compute, advance) for request, own in zip(requests, specs, strict=True)
        ]

    def run(self, pending: Sequence[int]) -> None:
        """Settle every pending sample; see `Pipeline.run`."""
        for part in self.parts:
            part._pending = pending
        try:
            super().run(pending)
        finally:
            for part in self.parts:
                self.warnings += [*part.warnings, *(line for each in part._engines.values() for line in each.warnings)]
                self.drift += part.drift

    @property
    def engines(self) -> list[str]:
        """The engines that ran, of all backbones."""
        return list(dict.fromkeys(name for part in self.parts for name in part.engines))

    @cached_property
    def images_at_once(self) -> int:
        """Images whose views go into one batch of every backbone."""
        return min(part.images_at_once for part in self.parts)

    def _preparer(self) -> Preparer:
        return Preparer(
            self.tracker.source,
            self._preparations,
            lacking=self.tracker.lacking,
            known=self.tracker.known,
            batch=lambda: self.__dict__.get("images_at_once", 0),
            workers=self.compute.workers,
            pin=self._pinned,
        )

    def _preparations(self) -> list[tuple[Backbone, str]]:
        found = [(part.backbone, part.tracker.specs[0].views) for part in self.parts]
        if any(backbone.opening != found[0][0].opening for backbone, _ in found):
            raise BankError(
                "these backbones have images decoded differently with this --decoder; extract with one after the other"
            )
        return found

    def _outputs(self, specs: tuple[FeatureSpec, ...], batches: Iterator[list[Item]]) -> Iterator[Outputs]:
        """Yield batches with what every backbone makes of them, one behind the other."""
        stream: Iterator[Outputs] = ((batch, []) for batch in batches)
        for number, part in enumerate(self.parts):
            own = tuple(spec for spec in specs if spec in part.tracker.specs)
            if own:
                stream = _through(part, number, own, stream)
        return stream


def _through(
    part: Pipeline, number: int, specs: tuple[FeatureSpec, ...], stream: Iterator[Outputs]
) -> Iterator[Outputs]:
    """Yield batches with what one more backbone makes of them."""
    engine = part._engine(specs)
    prepared = ((each, list(chain.from_iterable(item.views[number] for item in each[0]))) for each in stream)
    for (batch, found), outputs in engine.stream(prepared):
        made = [(spec, output, engine.made_by) for spec, output in zip(specs, outputs, strict=True)]
        yield batch, [*found, *made]


def _of(tracker: Tracker, specs: Sequence[FeatureSpec]) -> Tracker:
    """Return a tracker that shares all but its feature sets, which are some of the other's."""
    part = copy(tracker)
    part.specs, part._sets = list(specs), [each for each in tracker._sets if each.spec in specs]
    return part


def alike(requests: Sequence[Request]) -> list[Request]:
    """Return requests that all have the pixel rules of the first, which have been settled."""
    return [requests[0], *(replace(each, pixels=requests[0].pixels, loaded=None) for each in requests[1:])]
