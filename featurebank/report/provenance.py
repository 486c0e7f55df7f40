"""What was run: settings, versions, and the commands that make a report again."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from featurebank import __version__
from featurebank.bank.features import FeatureSet
from featurebank.bank.repair_hints import extract_command, root_to_name, roots
from featurebank.bank.spec import canonical_json
from featurebank.errors import shell_word
from featurebank.report.inputs import Inputs

LIBRARIES = ("numpy", "pandas", "scikit-learn", "torch", "torchvision", "timm")
_DEFAULTS = {"views": "mean", "normalize": "standardize"}
_SETTINGS = (
    *("target", "separator", "task", "scoring", "groups", "folds", "seed", "n_samples"),
    *("interrupted", "timed_out"),
)


def settings(fit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the settings of a fit, as far as its report has them."""
    given = {name: fit[name] for name in _SETTINGS if name in fit and fit[name] is not None and fit[name] is not False}
    found = [(name.replace("_", " "), str(value)) for name, value in given.items()]
    if "candidates" in fit:
        found += [("candidates", str(len(fit["candidates"]))), ("seconds", f"{fit.get('seconds', 0):.0f}")]
    return found


def versions() -> str:
    """Return the versions of featurebank, Python and the libraries that make the numbers."""
    found = [f"featurebank {__version__}", f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def commands(inputs: Inputs) -> dict[str, Any]:
    """Return the commands that the page names; ``again`` lists those that make what it shows."""
    bank, fit = shell_word(inputs.bank.path), _fit_command(inputs)
    target = inputs.target if inputs.predictor is None else inputs.predictor.target
    given = "" if inputs.file is None else f" --predictor {shell_word(inputs.file)}"
    oof = "" if inputs.file is None else f" --predictor {shell_word(inputs.file)}"
    report = f"featurebank report {bank}{given} -o report.html"
    return {
        "fit": fit,
        "learning": "" if {"domain", "one_class"} & set(inputs.fit) else f"{fit} --learning-curve",
        "label": f"featurebank label {bank} labels.csv",
        "layer": f"featurebank extract SOURCE --bank {bank} --layer LAYER",
        "duplicates": f"featurebank duplicates {bank} -o duplicates.csv",
        "issues": f"featurebank label-issues {bank} --target {shell_word(target)}{oof} -o issues.csv",
        "report": report,
        "again": [*_extract_commands(inputs), *([fit] if inputs.fit else []), report],
    }


def _extract_commands(inputs: Inputs) -> list[str]:
    """Return the commands that embed what the report is about: a line for each source and kind of feature set."""
    asked: dict[Any, list[FeatureSet]] = {}
    for each in _asked_sets(inputs):
        spec = each.spec
        kind = (spec.backbone, spec.weights, canonical_json(spec.preprocessing), spec.views, spec.precision, spec.store)
        asked.setdefault(kind, []).append(each)
    return [
        extract_command(
            inputs.bank,
            sets[0].spec,
            source,
            root_to_name(source, root),
            layers=[each.spec.layer_name for each in sets],
        )
        for source, root in roots(inputs.table).items()
        if os.path.isabs(source)
        for sets in asked.values()
    ]


def _asked_sets(inputs: Inputs) -> list[FeatureSet]:
    """Return the feature sets that a network made: those of the map and of the candidates, without a fit all."""
    made = [each for each in inputs.bank.feature_sets if each.spec.origin is None]
    tried = [name for each in inputs.fit.get("candidates", []) for name in each["features"]]
    names = {*inputs.features, *tried}
    return [each for each in made if each.name in names or not tried]


def _fit_command(inputs: Inputs) -> str:
    """Return a command that fits the candidates of the report again, or any where there is none."""
    fit = inputs.fit
    words = ["featurebank", "adapt" if "domain" in fit else "fit", str(inputs.bank.path)]
    tried = fit.get("candidates", [])
    for name in dict.fromkeys("+".join(each["features"]) for each in tried):
        words += ["--features", name]
    for key in ("model", "views", "normalize", "select"):
        values = dict.fromkeys(str(each[key]) for each in tried if each.get(key) is not None)
        is_default = list(values) == [_DEFAULTS.get(key)]
        words += [word for value in values if not is_default for word in (f"--{key}", value)]
    if "one_class" in fit:
        words += [*_one_class_words(fit), "-o", str(inputs.file)]
        return " ".join(map(shell_word, words))
    words += [word for name in _targets(inputs) for word in ("--target", name)]
    for key in ("separator", "groups", "folds", "seed", *([] if "domain" in fit else ["scoring"])):
        words += [f"--{key}", str(fit[key])] if fit.get(key) is not None else []
    words += _domain_words(fit["domain"]) if "domain" in fit else _extra_words(fit)
    words += ["-o", str(inputs.file)] if fit else []
    return " ".join(map(shell_word, words))


def _extra_words(fit: Mapping[str, Any]) -> list[str]:
    """Return the flags of what was made beside the candidates."""
    method = (fit.get("calibration") or {}).get("method")
    words = ["--calibrate", str(method)] if method else []
    return words + [f"--{name.replace('_', '-')}" for name in ("nested", "learning_curve") if fit.get(name)]


def _one_class_words(fit: Mapping[str, Any]) -> list[str]:
    """Return the flags of a fit of normal images alone."""
    known = fit.get("normal")
    words = ["--normal", "*"] if known is None else ["--target", str(fit["target"]), "--normal", str(known)]
    words += ["--groups", str(fit["groups"])] if "groups" in fit else []
    return [*words, "--false-alarms", f"{fit['one_class']['false_alarms']:g}", "--seed", str(fit["seed"])]


def _targets(inputs: Inputs) -> list[str]:
    """Return the columns that the predictor learned, else the one that the report is about."""
    predictor = inputs.predictor
    if predictor is None:
        return [] if inputs.target is None else [inputs.target]
    is_several = predictor.single.labels is not None and not inputs.fit.get("separator")
    return list(predictor.single.labels or []) if is_several else [predictor.target]


def _domain_words(domain: Mapping[str, Any]) -> list[str]:
    """Return the flags of a fit from one domain to another."""
    flags = {"--domain": "column", "--source": "source", "--target-domain": "target"}
    return [word for flag, key in flags.items() for word in (flag, str(domain[key]))]
