"""Networks that will be used again are exported: which of them are yet to be, and the export of one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from featurebank.backbones.exported import cache
from featurebank.backbones.opening import is_exportable, is_raw
from featurebank.backbones.request import Request
from featurebank.errors import BackboneError, EngineError, FeatureBankError, NotInstalledError, install_hint

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.bank.bank import Bank
    from featurebank.bank.spec import FeatureSpec

SWITCH = "FEATUREBANK_EXPORT"
"""The environment variable that, set to ``never``, keeps commands from exporting what was not asked for."""
_LOG = logging.getLogger(__name__)


class Network(NamedTuple):
    """Layers of one network that are exported together, and what returns its backbone."""

    load: Callable[[], Backbone]
    specs: Sequence[FeatureSpec]


def networks_of(bank: Bank) -> list[Network]:
    """Return the networks of a bank's feature sets that were asked for by name, each with all its layers there."""
    alike: dict[str, dict[str, FeatureSpec]] = {}
    for each in bank.feature_sets:
        if Request.readable(bank, each.spec) is not None:
            layers = alike.setdefault(cache.network_of(each.spec), {})
            layers.setdefault(str(cache.layers_of([each.spec])), each.spec)
    found = [list(layers.values()) for layers in alike.values()]
    return [Network(partial(_load, bank, specs), specs) for specs in found if _can_be(specs)]


def _load(bank: Bank, specs: Sequence[FeatureSpec]) -> Backbone:
    """Load the backbone of feature sets again, and refuse one that would make others by now."""
    request = Request.last(bank, specs[0])
    assert request is not None  # see `networks_of`
    backbone = request.load(allow_download=False)
    for spec in specs:
        if backbone.spec(spec.layer_name, store=spec.store, views=spec.views, precision=spec.precision) != spec:
            raise BackboneError(
                f"{request} is no longer the network that {spec.name!r} was made with: run the `featurebank extract` "
                "of that set again"
            )
    return backbone


def is_lacking(network: Network, *, device: str = "auto", engine: str = "auto") -> bool:
    """Say whether a network can be exported, and was not, is not being, and never failed to be.

    Parameters
    ----------
    network : Network
    device, engine : str, default "auto"
        What it is run with; see `featurebank.backbones.engine.Engine`.
    """
    specs = network.specs
    if os.environ.get(SWITCH) == "never" or not find_spec("onnxscript") or not _can_be(specs, device, engine):
        return False
    return cache.find(specs) is None and not cache.has_failed(specs) and not cache.is_making(specs)


def _can_be(specs: Sequence[FeatureSpec], device: str = "cpu", engine: str = "auto") -> bool:
    decoders = {spec.preprocessing.get("decoder") for spec in specs}
    return is_exportable(specs, device, engine) and "nvjpeg" not in decoders


def export_network(network: Network) -> None:
    """Export a network, where it was not; the log says so.

    Raises
    ------
    NotInstalledError
        When the exporter is not installed.
    FeatureBankError
        When the backbone cannot be loaded or exported, or the cache folder cannot be written.
    """
    if not (find_spec("onnxruntime") and find_spec("onnxscript")):
        raise NotInstalledError(f"an export needs onnxscript and onnxruntime: {install_hint('onnx')}")
    name = network.specs[0].backbone
    if cache.find(network.specs) is not None:
        return
    with cache.making(cache.path_of(network.specs), name):
        _LOG.info("exporting %s once, so that it starts at once from now on (into %s)", name, cache.folder())
        backbone = network.load()
        if not is_raw(backbone):
            raise EngineError(f"{name!r} prepares images in a way of its own; expected a named backbone")
        from featurebank.backbones.exported.making import export_held

        export_held(backbone, network.specs)


def keep(network: Network, *, device: str = "auto", engine: str = "auto") -> None:
    """Export a network that is lacking (`is_lacking`); the log says what went wrong."""
    if not is_lacking(network, device=device, engine=engine):
        return
    try:
        export_network(network)
    except FeatureBankError as error:
        _LOG.info("%s is not exported: %s", network.specs[0].backbone, error)
