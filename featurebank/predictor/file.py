"""THE predictor file: JSON, skops and safetensors in an uncompressed zip, trusted only when it proves itself."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from featurebank import __version__
from featurebank.backbones.checkpoints import checkpoint_path
from featurebank.bank.features import VIEWS
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import CorruptError, PredictorError, one_line
from featurebank.images.columns import text_frame
from featurebank.predictor.compatibility import INSTALLED, read_under, suit, try_out
from featurebank.predictor.features import EMBEDDED, PredictorFeature
from featurebank.predictor.light import read_light
from featurebank.predictor.out_of_fold_table import decode_columns, encode_table
from featurebank.predictor.serialization import dump, undump
from featurebank.predictor.stored import StoredTask
from featurebank.predictor.task import Task
from featurebank.storage.memory import releasing

if TYPE_CHECKING:
    from featurebank.predictor.patch_maps import PatchMaps
    from featurebank.topmodels.novelty import Unlike

FORMAT = "featurebank-predictor"
VERSION = 4
_USUAL = 3
"""The version of files that hold no one-class model, which earlier releases read too."""
_READABLE = (1, 2, 3, 4)
_FACTS, _MODEL, _CALIBRATOR, _FIT = "predictor.json", "model.skops", "calibrator.skops", "fit.json"
_UNLIKE, _OUT_OF_FOLD, _PATCHES = "unlike.skops", "outoffold.safetensors", "patches.skops"
_MEMBERS = {"model": _MODEL, "calibrator": _CALIBRATOR, "unlike": _UNLIKE}
_LIMITS = {_FACTS: 1 << 20, _MODEL: 4 << 30, _CALIBRATOR: 16 << 20, _UNLIKE: 256 << 20, _FIT: 1 << 30}
_LIMITS |= {_OUT_OF_FOLD: 4 << 30, _PATCHES: 256 << 20}
_WEIGHTS = re.compile(r"weights/[0-9a-f]{64}\.safetensors")
_WEIGHTS_LIMIT = 16 << 30
_TASK = re.compile(r"tasks/[0-9]+\.featurebank")
_TASK_LIMIT = 5 << 30
_SAFE_WEIGHTS = re.compile(r"[A-Za-z0-9_.]+|random:[0-9]+")


def encode(tasks: Sequence[Task], report: Mapping[str, Any], tensors: Mapping[str, bytes]) -> memoryview:
    """Return the bytes of a predictor file: of one task, or a predictor file of each, with the weights beside them.

    Raises
    ------
    PredictorError
        When a model holds a type outside the fixed allow-list.
    """
    if len(tasks) == 1:
        return _encode(tasks[0], tensors)
    members: dict[str, Any] = {_FIT: _json(report), **_weights(tensors)}
    members |= {f"tasks/{number}.featurebank": bytes(_encode(each, {})) for number, each in enumerate(tasks)}
    names = [each.target for each in tasks]
    return _archive({"target": "+".join(names), "tasks": names}, members)


def _weights(tensors: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"weights/{digest}.safetensors": data for digest, data in tensors.items()}


@releasing
def _encode(task: Task, tensors: Mapping[str, bytes]) -> memoryview:
    """Return the bytes of the predictor file of one task."""
    members = {_FIT: _json(task.report), _MODEL: dump(task.model)}
    if task.calibrator is not None:
        members[_CALIBRATOR] = dump(task.calibrator)
    if task.unlike is not None:
        members[_UNLIKE] = dump(task.unlike)
    if task.out_of_fold is not None:
        members[_OUT_OF_FOLD] = encode_table(task.out_of_fold)
    facts: dict[str, Any] = {
        "target": task.target,
        "task": task.kind,
        "labels": task.labels,
        "features": _feature_facts(task.features),
    }
    if task.kind == "anomaly":
        facts["version"] = VERSION
    if task.patches is not None:
        members[_PATCHES] = dump(task.patches.memory)
        facts["maps"] = {"features": _feature_facts(task.patches.features), "shapes": list(task.patches.shapes)}
    return _archive(facts, {**members, **_weights(tensors)})


def _feature_facts(features: Sequence[PredictorFeature]) -> list[dict[str, Any]]:
    return [
        {"spec": each.spec.to_dict(), "weights": each.weights, "size": each.size, "views": each.views}
        for each in features
    ]


def _archive(facts: Mapping[str, Any], members: Mapping[str, Any]) -> memoryview:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    written = {"format": FORMAT, "version": _USUAL, "written_by": f"featurebank {__version__}"}
    written["scikit_learn"] = INSTALLED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {_FACTS: _json({**written, **facts, "members": digests}, indent=1), **members}.items():
            archive.writestr(name, data)
    return buffer.getbuffer()


def read(path: str | os.PathLike[str]) -> tuple[list[Task], dict[str, Any], dict[str, bytes]]:
    """Read a predictor file; no code in it is run.

    Returns
    -------
    tasks : list of Task
    report : dict
        What the fit says of all of them.
    tensors : dict of str to bytes
        Safetensors of backbones whose weights came from a file, by weights digest.

    Raises
    ------
    PredictorError
        When the file is missing, damaged, or holds anything but what `encode` writes.
    """
    with _readable(path):
        facts, members = _read_checked(path)
        if "tasks" in facts:
            tasks, report = _read_tasks(facts, members, path), json.loads(members[_FIT])
        else:
            tasks = [_read(facts, members, members)]
            report = tasks[0].report
        used = {each.spec.weights for task in tasks for each in _seen_by(task) if each.weights == EMBEDDED}
        weights = {digest: f"weights/{digest}.safetensors" for digest in used}
        return tasks, report, {digest: members[name] for digest, name in weights.items()}


def _seen_by(task: Task) -> list[PredictorFeature]:
    return [*task.features, *([] if task.patches is None else task.patches.features)]


@contextmanager
def _readable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever reading a predictor file raises into a `PredictorError`."""
    try:
        yield
    except PredictorError:
        raise
    except (FileNotFoundError, IsADirectoryError) as error:
        raise PredictorError(
            f"no predictor at {str(path)!r}; expected a .featurebank file from `featurebank fit`"
        ) from error
    except CorruptError as error:
        raise PredictorError(
            f"{str(path)!r} is damaged or no predictor: {one_line(error)}; make it again with `featurebank fit`"
        ) from error
    except Exception as error:  # zip, JSON and skops raise many kinds on damaged or hostile bytes
        raise PredictorError(
            f"{str(path)!r} is no predictor that this featurebank reads ({type(error).__name__}: "
            f"{one_line(error)[:160]}); make it again with `featurebank fit`"
        ) from error


def read_backbone(path: str | os.PathLike[str]) -> tuple[PredictorFeature, bytes]:
    """Return the first feature set whose backbone's weights are in a predictor file, and their safetensors.

    Raises
    ------
    PredictorError
        When the file cannot be read (see `read`), or holds no weights.
    """
    with _readable(path):
        facts, members = _read_checked(path)
        for each in _features_of_all(facts, members, path):
            if each.weights == EMBEDDED:
                return each, members[f"weights/{each.spec.weights}.safetensors"]
        raise PredictorError(
            f"{str(path)!r} holds no weights of a backbone; expected a predictor of `featurebank finetune`, or one "
            "whose backbone came from a checkpoint: name the backbone itself"
        )


def target_of(path: str | os.PathLike[str]) -> str | None:
    """Return what the predictor at a path predicts; None when there is no such file, or it is no predictor."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_FACTS).file_size > _LIMITS[_FACTS]:
                return None
            return str(json.loads(archive.read(_FACTS))["target"])
    except (OSError, zipfile.BadZipFile, ValueError, LookupError, TypeError, NotImplementedError):
        return None


def _read_tasks(facts: Any, members: dict[str, bytes], path: Any) -> list[Task]:
    """Read the predictor file of each task, whose weights lie beside it."""
    names = [f"tasks/{number}.featurebank" for number in range(len(facts["tasks"]))]
    if len({str(task) for task in facts["tasks"]}) != len(names) or set(names) != set(filter(_TASK.fullmatch, members)):
        raise CorruptError(f"its tasks are {str(facts['tasks'])[:60]}, which does not fit its members")
    tasks = [_read(*_read_checked(io.BytesIO(members[name]), path), members) for name in names]
    if [each.target for each in tasks] != facts["tasks"]:
        raise CorruptError(f"its tasks are {str(facts['tasks'])[:60]}, which does not fit their files")
    return tasks


def _read(facts: Any, members: dict[str, bytes], weights: Mapping[str, bytes]) -> Task:
    """Return what the members of one task hold, `weights` those of its backbones among others."""
    report, kind = json.loads(members[_FIT]), str(facts.get("task", "classification"))
    about: dict[str, Any] = {"features": _features(facts, weights), "target": str(facts["target"]), "kind": kind}
    about |= {"labels": _labels(facts), "report": report}
    kept = members.get(_OUT_OF_FOLD)
    columns = None if kept is None else decode_columns(kept, {"row": len(report["samples"])})
    out_of_fold = partial(_table, columns)  # a table is made when it is asked for
    writer = facts.get("scikit_learn")
    if writer == INSTALLED:
        with suppress(CorruptError):  # other models, or none: skops reads them, or says why not
            light = read_light(members[_MODEL], members.get(_CALIBRATOR), members.get(_UNLIKE), kind)
            make = {name: partial(_made, members.get(member)) for name, member in _MEMBERS.items()}
            return StoredTask(light, {**make, "out_of_fold": out_of_fold}, **about)
    models = _read_models(members, kind, writer)
    return Task(**about, **models, out_of_fold=out_of_fold(), patches=_read_patches(facts, members, weights))


def _table(columns: Mapping[str, Any] | None) -> Any:
    return None if columns is None else text_frame(columns)


def _made(data: bytes | None) -> Any:
    return None if data is None else suit(undump(data))


def _read_models(members: Mapping[str, bytes], kind: str, writer: str | None) -> dict[str, Any]:
    """Return the model of a task, its calibrator and what says how unlike an image is."""
    with read_under(writer):
        model, calibrator = _made(members[_MODEL]), _made(members.get(_CALIBRATOR))
        if writer != INSTALLED:
            try_out(model)
    _check_model(model, calibrator, kind)
    return {"model": model, "calibrator": calibrator, "unlike": _read_unlike(members, model)}


def _read_checked(file: Any, path: Any = None) -> tuple[Any, dict[str, bytes]]:
    """Return the facts of a predictor file, and its members once they are what the facts list."""
    with zipfile.ZipFile(file) as archive:
        members = _read_members(archive)
    facts = json.loads(members[_FACTS])
    _check_facts(facts, file if path is None else path)
    _check_members(facts, members)
    return facts, members


def _check_facts(facts: Any, path: Any) -> None:
    if facts["format"] != FORMAT:
        raise PredictorError(f"{str(path)!r} is no predictor; expected format {FORMAT!r}")
    if facts["version"] not in _READABLE:
        raise PredictorError(
            f"{str(path)!r} is a predictor of version {facts['version']}, this reads up to {VERSION}: upgrade"
        )


def _features_of_all(facts: dict[str, Any], members: Mapping[str, bytes], path: Any) -> list[PredictorFeature]:
    """Return the feature sets of a predictor file's one task, or of all its tasks."""
    if "tasks" not in facts:
        return _features(facts, members)
    inner = [members[name] for name in sorted(filter(_TASK.fullmatch, members))]
    parts = [_read_checked(io.BytesIO(data), path)[0] for data in inner]
    return [feature for part in parts for feature in _features(part, members)]


def _features(facts: dict[str, Any], members: Mapping[str, bytes]) -> list[PredictorFeature]:
    features = [
        PredictorFeature(
            FeatureSpec.from_dict(each["spec"]), str(each["weights"]), each["size"], each.get("views", "mean")
        )
        for each in facts["features"]
    ]
    for each in features:
        if each.weights and (not _SAFE_WEIGHTS.fullmatch(each.weights) or checkpoint_path(each.weights) is not None):
            raise CorruptError(f"its weights are {each.weights[:60]!r}, not a name: bring them with --weights FILE")
        if each.weights == EMBEDDED and f"weights/{each.spec.weights}.safetensors" not in members:
            raise CorruptError(f"the weights of {each.spec.name} are not in it")
        if each.size is not None and type(each.size) is not int:
            raise CorruptError(f"the input size of {each.spec.name} is no number")
        if each.views not in VIEWS:
            raise CorruptError(f"the views of {each.spec.name} are {str(each.views)[:20]!r}")
    if not features:
        raise CorruptError("it names no feature set")
    return features


def _labels(facts: dict[str, Any]) -> list[str] | None:
    labels = facts.get("labels")
    return None if labels is None else [str(label) for label in labels]


def _check_model(model: Any, calibrator: Any, kind: str) -> None:
    if kind == "anomaly":
        from featurebank.topmodels.one_class.model import OneClassModel

        if isinstance(model, OneClassModel):
            return model.check()
    if kind == "regression" and hasattr(model, "predict"):
        return
    has_proba = any(hasattr(each, "predict_proba") for each in (model, calibrator))
    if kind not in ("classification", "multilabel") or not hasattr(model, "classes_") or not has_proba:
        raise CorruptError("its model is no classifier with probabilities")


def _read_unlike(members: Mapping[str, bytes], model: Any) -> Unlike | None:
    from featurebank.topmodels.novelty import Unlike

    if _UNLIKE not in members:
        return None
    found = undump(members[_UNLIKE])
    if not isinstance(found, Unlike):
        raise CorruptError(f"its {_UNLIKE} holds {type(found).__name__}")
    found.check(getattr(model, "n_features_in_", None))
    return found


def _read_patches(
    facts: dict[str, Any], members: Mapping[str, bytes], weights: Mapping[str, bytes]
) -> PatchMaps | None:
    if _PATCHES not in members:
        return None
    from featurebank.predictor.patch_maps import PatchMaps
    from featurebank.topmodels.one_class.patches import PatchMemory

    memory, maps = undump(members[_PATCHES]), facts["maps"]
    if not isinstance(memory, PatchMemory):
        raise CorruptError(f"its {_PATCHES} holds {type(memory).__name__}")
    memory.check()
    shapes = [tuple(int(side) for side in shape) for shape in maps["shapes"]]
    return PatchMaps(_features(maps, weights), shapes, memory)


def _read_members(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Read the members of a predictor, refusing any that `encode` would not write."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    is_whole = {_FACTS, _FIT} <= set(names) and (_MODEL in names) != any(map(_TASK.fullmatch, names))
    if len(set(names)) != len(names) or not is_whole:
        raise CorruptError(f"it has the members {names[:6]}; expected each of {_FACTS}, {_FIT}, {_MODEL} once")
    for info in infos:
        limit = _limit(info.filename)
        if info.file_size > limit or info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise CorruptError(f"member {info.filename!r} is unknown, compressed or too large")
    return {name: archive.read(name) for name in names}


def _limit(name: str) -> int:
    """Return the bytes that a member may have, -1 for one that no predictor has."""
    if _TASK.fullmatch(name):
        return _TASK_LIMIT
    return _WEIGHTS_LIMIT if _WEIGHTS.fullmatch(name) else _LIMITS.get(name, -1)


def _check_members(facts: Any, members: dict[str, bytes]) -> None:
    """Compare every member with the digest that the facts list, before anything in it is parsed."""
    found = {name: hashlib.sha256(data).hexdigest() for name, data in members.items() if name != _FACTS}
    if found != facts["members"]:
        torn = sorted(set(found.items()) ^ set(facts["members"].items()))
        raise CorruptError(f"member {torn[0][0]!r} does not match its digest")


def _json(value: Any, indent: int | None = None) -> bytes:
    """Return a value as JSON; indented, a million samples would take five times as long, and memory."""
    return json.dumps(value, indent=indent, sort_keys=True).encode("ascii")
