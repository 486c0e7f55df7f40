"""Feature specs: everything that decides the numbers, its fingerprint, and the names of feature sets."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from featurebank.errors import CorruptError, FeatureSetError, ImageError, did_you_mean, one_line
from featurebank.images.pixels import PixelRules

PENULTIMATE, LOGITS = "penultimate", "logits"
"""The layers that are not named after a module: the input of the last linear classifier, and its output."""
POOLS = ("avg", "max", "avgmax", "gem", "cls", "none")
PRECISIONS = ("fp32", "bf16", "fp16")
PIXELS = "pixels"
"""The key of the pixel rules in a spec's preprocessing; left out where they are the default."""
LAYOUTS = ("vector", "NCHW", "NHWC", "tokens", "cls-tokens")
_DEFAULT_POOLS = {"vector": "none", "NCHW": "avg", "NHWC": "avg", "tokens": "avg", "cls-tokens": "cls"}


def default_pool(layout: str) -> str:
    """Return the pooling that a layer of this layout gets when none is named.

    Examples
    --------
    >>> default_pool("NCHW"), default_pool("cls-tokens")
    ('avg', 'cls')
    """
    return _DEFAULT_POOLS[layout]


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII.

    Examples
    --------
    >>> canonical_json({"b": 1, "a": [0.5, None]})
    b'{"a":[0.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def digest_of(value: Any) -> str:
    """Return the SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that decides the numbers of a feature set.

    Two specs with the same fingerprint give the same embeddings; any field that changes them changes it.

    Parameters
    ----------
    backbone : str
        Name of the backbone, e.g. ``"resnet18"`` or ``"timm:vit_tiny_patch16_224"``.
    version : str
        Version that the owner of a custom module gave it; empty for named backbones.
    weights : str
        SHA-256 (hex) of the backbone's tensors.
    layer : str
        ``"penultimate"``, ``"logits"`` or a module name.
    layout : str
        What the layer gives: one of `LAYOUTS`.
    prefix : int
        Tokens that precede the patch tokens (class and register tokens); 0 where there are none.
    pool : str
        One of `POOLS`.
    preprocessing : dict
        The resolved preprocessing, input size included.
    pixel_policy : int
        Version of the rules that turn an image file into RGB pixels.
    views : str
        ``"none"`` or the name of a set of views.
    precision : str
        Compute dtype: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    store : str
        Stored dtype: ``"float16"`` or ``"float32"``.

    See Also
    --------
    Bank.feature_sets : The sets of a bank, each with its spec.
    Backbone.spec : The spec of a layer.

    Examples
    --------
    >>> from featurebank import Bank
    >>> spec = Bank("photos.bank").feature_set("penultimate").spec
    >>> spec.name, spec.store
    ('efficientnet_lite0/penultimate', 'float16')
    """

    backbone: str
    version: str
    weights: str
    layer: str
    layout: str
    prefix: int
    pool: str
    preprocessing: dict[str, Any]
    pixel_policy: int
    views: str
    precision: str
    store: str

    def __hash__(self) -> int:
        return hash((self.backbone, self.weights, self.layer, self.pool, self.store))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the canonical JSON of the spec."""
        return digest_of(self.to_dict())

    @property
    def layer_name(self) -> str:
        """``LAYER[:POOL]``, as `extract` takes it; the layer's default pool is left out."""
        return self.layer if self.pool == default_pool(self.layout) else f"{self.layer}:{self.pool}"

    @property
    def name(self) -> str:
        """``BACKBONE/LAYER[:POOL]``; the layer's default pool is left out."""
        return f"{self.backbone}/{self.layer_name}"

    @property
    def origin(self) -> dict[str, Any] | None:
        """Where an imported feature set came from: ``format``, ``url`` and ``sha256``; None for a computed one."""
        return self.preprocessing.get("origin")

    @property
    def pixels(self) -> PixelRules:
        """What of an image's values, pages and channels is seen (`featurebank.images.pixels`)."""
        return PixelRules.from_dict(self.preprocessing.get(PIXELS, {}))

    @property
    def about_origin(self) -> str:
        """Why no network can add to an imported feature set, for the reader; empty for a computed one."""
        if self.origin is None:
            return ""
        return f"{self.name!r} was imported from {self.origin.get('url')}, and no network here makes such rows"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> FeatureSpec:
        """Build a spec from `to_dict`'s dictionary.

        Raises
        ------
        CorruptError
            When a field is missing, unknown, or of another type.
        """
        if not isinstance(values, dict) or set(values) != {field.name for field in fields(cls)}:
            raise CorruptError("a feature spec with other fields than this version knows: read it with its own version")
        kinds = {"prefix": int, "pixel_policy": int, "preprocessing": dict}
        for key, value in values.items():
            if type(value) is not kinds.get(key, str):
                raise CorruptError(f"feature spec field {key!r} holds a {type(value).__name__}: the file is damaged")
        known = {"layout": LAYOUTS, "pool": POOLS, "precision": PRECISIONS}
        wrong = [key for key, words in known.items() if values[key] not in words]
        if wrong:
            raise CorruptError(f"a feature spec with an unknown {wrong[0]}: the file is damaged")
        if not isinstance(values["preprocessing"].get("origin", {}), dict):
            raise CorruptError("a feature spec with an origin that is none: the file is damaged")
        try:
            PixelRules.from_dict(values["preprocessing"].get(PIXELS, {}))
        except ImageError as error:
            raise CorruptError(f"a feature spec with {one_line(error)}") from error
        return cls(**values)


def imported_spec(name: str, origin: Mapping[str, str], layout: str, store: str) -> FeatureSpec:
    """Return the spec of embeddings that another tool computed.

    Parameters
    ----------
    name : str
        ``BACKBONE/LAYER``.
    origin : mapping
        ``format``, ``url`` and ``sha256`` of the files that they were read from, which stand for all that decided them.
    layout : str
        One of `LAYOUTS`.
    store : str
        ``"float16"`` or ``"float32"``.

    Examples
    --------
    >>> imported_spec("clip/image", {"url": "file:///clip.npy"}, "vector", "float16").about_origin
    "'clip/image' was imported from file:///clip.npy, and no network here makes such rows"
    """
    parsed = parse_name(name)
    return FeatureSpec(
        backbone=parsed.backbone,
        version="",
        weights="",
        layer=parsed.layer,
        layout=layout,
        prefix=0,
        pool="none",
        preprocessing={"origin": dict(origin)},
        pixel_policy=0,
        views="none",
        precision="fp32",
        store=store,
    )


@dataclass(frozen=True)
class FeatureName:
    """A parsed feature-set name; `pool` and `prefix` are empty when not given, so is `backbone` in a short name."""

    backbone: str
    layer: str
    pool: str = ""
    prefix: str = ""

    def matches(self, spec: FeatureSpec) -> bool:
        """Say whether a spec answers to this name."""
        return (
            (self.backbone or spec.backbone, self.layer) == (spec.backbone, spec.layer)
            and (self.pool or default_pool(spec.layout)) == spec.pool
            and spec.fingerprint.startswith(self.prefix)
        )


def layer_order(layer: str) -> tuple[int, list[tuple[int, str]]]:
    """Return a key that sorts layers by the numbers in their names, the penultimate and the logits last.

    Examples
    --------
    >>> sorted(["penultimate", "blocks.10", "blocks.9"], key=layer_order)
    ['blocks.9', 'blocks.10', 'penultimate']
    """
    parts = [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", layer)]
    return [PENULTIMATE, LOGITS].index(layer) + 1 if layer in (PENULTIMATE, LOGITS) else 0, parts


def split_pool(layer: str) -> tuple[str, str]:
    """Split ``LAYER[:POOL]`` into layer and pool; an empty pool means the layer's default.

    Examples
    --------
    >>> split_pool("layer3:gem"), split_pool("penultimate")
    (('layer3', 'gem'), ('penultimate', ''))
    """
    head, colon, pool = layer.rpartition(":")
    return (head, pool) if colon and pool in POOLS else (layer, "")


def parse_name(name: str) -> FeatureName:
    """Parse ``BACKBONE/LAYER[:POOL][@PREFIX]`` from the right.

    Raises
    ------
    FeatureSetError
        When there is no ``/`` between backbone and layer.

    Examples
    --------
    >>> parse_name("timm:vit_tiny_patch16_224/blocks.9:cls@ab12")
    FeatureName(backbone='timm:vit_tiny_patch16_224', layer='blocks.9', pool='cls', prefix='ab12')
    """
    body, prefix = _split_prefix(name)
    backbone, slash, layer = body.rpartition("/")
    if not slash or not backbone or not layer:
        raise FeatureSetError(f"feature set {name!r} is not of the form BACKBONE/LAYER[:POOL][@PREFIX]")
    return FeatureName(backbone, *split_pool(layer), prefix)


def _split_prefix(name: str) -> tuple[str, str]:
    body, at, prefix = name.rpartition("@")
    return (body, prefix) if at else (name, "")


def resolve_name(name: str, specs: Sequence[FeatureSpec]) -> FeatureSpec:
    """Return the one spec that a feature-set name stands for.

    Parameters
    ----------
    name : str
        ``BACKBONE/LAYER[:POOL][@PREFIX]`` (`parse_name`), or without ``BACKBONE/`` where one spec alone fits.
    specs : sequence of FeatureSpec

    Raises
    ------
    FeatureSetError
        When no spec matches, or several do (what tells them apart is listed).
    """
    name = name.strip()
    is_short = "/" not in name
    body, prefix = _split_prefix(name)
    wanted = FeatureName("", *split_pool(body), prefix) if is_short else parse_name(name)
    found = [spec for spec in specs if wanted.matches(spec)]
    if not found:
        have = ", ".join(unique_names(specs)) or "none"
        guess = did_you_mean(name, unique_names(specs))
        raise FeatureSetError(f"no feature set {name!r} in the bank; {guess}it has: {have}")
    if len(found) > 1:
        full = dict(zip(specs, unique_names(specs), strict=True))
        ways = [full[spec] if is_short else f"@{spec.fingerprint[:8]}" for spec in found]
        what = "name one of" if is_short else "add one of"
        raise FeatureSetError(f"{name!r} fits {len(found)} feature sets; {what} {', '.join(ways)}")
    return found[0]


def unique_names(specs: Iterable[FeatureSpec]) -> list[str]:
    """Return a name for each spec, with an ``@PREFIX`` where the short name fits several."""
    specs = list(specs)
    names = [spec.name for spec in specs]
    return [
        name if names.count(name) == 1 else f"{name}@{spec.fingerprint[:8]}"
        for name, spec in zip(names, specs, strict=True)
    ]


def common_backbone(names: Iterable[str]) -> str:
    """Return ``BACKBONE/`` when all feature sets are of one backbone, else an empty text.

    Examples
    --------
    >>> common_backbone(["resnet18/layer3+resnet18/layer4", "resnet18/penultimate"])
    'resnet18/'
    """
    backbones = {part.rpartition("/")[0] for name in names for part in name.split("+")}
    return f"{backbones.pop()}/" if len(backbones) == 1 else ""


def short(name: str) -> str:
    """Return a concatenation with the backbone named once.

    Examples
    --------
    >>> short("resnet18/layer3+resnet18/penultimate")
    'resnet18/layer3 + penultimate'
    """
    common = common_backbone([name])
    return common + " + ".join(part.removeprefix(common) for part in name.split("+"))
