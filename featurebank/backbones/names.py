"""Names of networks as other tools write them, and the nearest names that are known here.

``ViT-B/16``, ``dinov2_vits14`` of torch.hub and ``facebook/dinov2-small`` of the Hub say the same in other words: a
name is taken apart into words, and the known names that have most of them, and fewest others, are suggested.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

TIMM = "timm:"
HUB = re.compile(r"^(hf[-_]hub:)?([A-Za-z][\w.-]*/[\w.-]*[A-Za-z][\w.-]*)$")
_PLACE = re.compile(
    r"^(https?://huggingface\.co/|pytorch/vision[:/\w.]*[:/]|torchvision(\.models)?[.:/]|timm:)", re.IGNORECASE
)
"""Where a name is from, which other tools write in front."""
_SIZES = {"ti": "tiny", "t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
_VIT = re.compile(r"(?<![a-z])vit[-_]?(ti|[tsblhg])[-_/]?(?:patch)?(\d+)")
_CLIP_RESNET = re.compile(r"^rn(\d+)$")
_SHOWN = 3


def suggest(name: str, known: Sequence[str] = ()) -> str:
    """Return an error's hint: what is known here under a name like this.

    Parameters
    ----------
    name : str
        What was typed, without ``timm:``.
    known : sequence of str, default ()
        Names that need no prefix, to be suggested beside timm's.

    Examples
    --------
    >>> suggest("ResNet-18", ["resnet18", "resnet34"])
    'did you mean resnet18 or timm:resnet18?'
    >>> suggest("timm/resnet50d.ra2_in1k", ["resnet18"])
    'did you mean timm:resnet50d.ra2_in1k?'
    """
    name = _PLACE.sub("", name)
    near = [each for each in known if _squeezed(each) == _squeezed(_without_owner(name))]
    try:
        near += [TIMM + each for each in _certain(name) or ([] if near else _nearest(name))]
    except ImportError:
        near = near or _spelled_alike(name, known)
        return f"{_did_you_mean(near)}; timm, which has more, is not installed: pip install timm"
    hub = HUB.match(name)
    if hub and not near:
        return f"{TIMM}hf-hub:{hub[2]} takes it from the Hub, if it is a network of timm's"
    return _did_you_mean(near or _spelled_alike(name, known or [TIMM + each for each in _all_of_timm()]))


def _certain(name: str) -> list[str]:
    """Return timm's name for a network where it is certain."""
    import timm

    hub = HUB.match(name)
    of_hub = timm_name_of(hub[2]) if hub else None
    if of_hub or timm.is_model(name.partition(".")[0]):
        return [of_hub or name]
    return [each for each in timm.list_models() if _squeezed(each) == _squeezed(_without_owner(name))]


def timm_name_of(hub_id: str) -> str | None:
    """Return timm's name for weights that it fetches from a repository of the Hub.

    Examples
    --------
    >>> timm_name_of("timm/vit_small_patch14_dinov2.lvd142m")
    'vit_small_patch14_dinov2.lvd142m'
    """
    import timm

    bare = hub_id.removeprefix("timm/")
    if bare != hub_id and timm.is_model(bare.partition(".")[0]):
        return bare
    configs = ((name, timm.get_pretrained_cfg(name)) for name in timm.list_models(pretrained=True))
    return next((name for name, config in configs if config is not None and config.hf_hub_id == hub_id), None)


def _nearest(name: str) -> list[str]:
    """Return timm's names that share the most words with one, the shortest first; none where most words are others."""
    wanted = set(_words(name))
    shared = {each: len(wanted & _stems(each)) for each in _all_of_timm()}
    most = max(shared.values())
    best = [each for each in shared if shared[each] == most] if 3 * most >= 2 * len(wanted) else []
    owner = name.partition("/")[0].lower()
    best.sort(key=lambda each: (owner not in each, len(_words(each)), -_alike(name, each)))
    return [each for each in best if "." not in each or each.partition(".")[0] not in best][:_SHOWN]


def _all_of_timm() -> list[str]:
    """Return timm's names, without and with the tags of their weights."""
    import timm

    return [*timm.list_models(), *timm.list_models(pretrained=True)]


def _words(name: str) -> list[str]:
    """Take a name apart, with the sizes of vision transformers written out.

    Examples
    --------
    >>> _words("dinov2_vits14_reg"), _words("facebook/dinov2-small")
    (['dinov2', 'vit', 'small', 'patch14', 'reg'], ['dinov2', 'small'])
    """
    name = _without_owner(name).lower().replace("with-registers", "reg")
    name = _VIT.sub(lambda found: f"vit_{_SIZES[found[1]]}_patch{found[2]}", name)
    return re.findall(r"[a-z0-9]+", _CLIP_RESNET.sub(r"resnet\1_clip", name))


def _stems(name: str) -> set[str]:
    """Return the words of a name, with and without the number at their end: ``reg4`` is ``reg`` too."""
    return {form for word in _words(name) for form in (word, word.rstrip("0123456789"))}


def _without_owner(name: str) -> str:
    """Return a repository's name without whose it is; other names, such as ``ViT-B/16``, as they are."""
    hub = HUB.match(name)
    return hub[2].partition("/")[2] if hub else name


def _spelled_alike(name: str, known: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name.lower(), known, n=_SHOWN)


def _alike(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name, other).ratio()


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _did_you_mean(near: Sequence[str]) -> str:
    return f"did you mean {' or '.join(near)}?" if near else "`featurebank backbones` lists them"
