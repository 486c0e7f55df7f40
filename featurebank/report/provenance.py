"""What was run: settings, versions, and the commands that make a report again."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from featurebank._version import __version__
from featurebank.remedies import extract_command, roots
from featurebank.report.subject import Subject

LIBRARIES = ("numpy", "pandas", "scikit-learn", "torch", "torchvision", "timm")
_DEFAULTS = {"views": "mean", "normalize": "standardize"}
_SETTINGS = ("target", "separator", "task", "scoring", "folds", "seed", "n_samples", "interrupted", "timed_out")


def settings(fit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the settings of a fit, as far as its report has them."""
    found = [(name.replace("_", " "), str(fit[name])) for name in _SETTINGS if fit.get(name) not in (None, False)]
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


def commands(subject: Subject) -> dict[str, Any]:
    """Return the commands that the page names; ``again`` lists those that make what it shows."""
    bank, fit = _word(subject.bank.path), _fit_command(subject)
    target = subject.target if subject.predictor is None else subject.predictor.target
    report = f"featurebank report {bank}" + ("" if subject.file is None else f" --predictor {_word(subject.file)}")
    made = [fit] if subject.fit else []
    oof = "" if subject.file is None else f" --oof {_word(subject.file.with_suffix('.oof.csv'))}"
    return {
        "fit": fit,
        "duplicates": f"featurebank duplicates {bank} -o duplicates.csv",
        "issues": f"featurebank label-issues {bank} --target {_word(target)}{oof} -o issues.csv",
        "again": [*_extract_commands(subject), *made, f"{report} -o report.html"],
    }


def _extract_commands(subject: Subject) -> list[str]:
    """Return the commands that embed what the report is about: a line for each source and feature set."""
    where = roots(subject.table)
    asked = [subject.bank.feature_set(name).spec for name in subject.features]
    return [
        extract_command(subject.bank, spec, source, "" if root in (source, os.path.dirname(source)) else root)
        for source, root in where.items()
        if os.path.isabs(source)
        for spec in asked
    ]


def _fit_command(subject: Subject) -> str:
    """Return a command that fits the candidates of the report again, or any where there is none."""
    fit, words = subject.fit, ["featurebank", "fit", str(subject.bank.path)]
    tried = fit.get("candidates", [])
    for name in dict.fromkeys("+".join(each["features"]) for each in tried):
        words += ["--features", name]
    for key in ("model", "views", "normalize", "select"):
        values = dict.fromkeys(str(each[key]) for each in tried if each.get(key) is not None)
        is_default = list(values) == [_DEFAULTS.get(key)]
        words += [word for value in values if not is_default for word in (f"--{key}", value)]
    words += [word for name in _targets(subject) for word in ("--target", name)]
    for key in ("separator", "folds", "seed", *([] if "domain" in fit else ["scoring"])):
        words += [f"--{key}", str(fit[key])] if fit.get(key) is not None else []
    words += _domain_words(fit.get("domain"))
    words += ["-o", str(subject.file)] if fit else []
    return " ".join(map(_word, words))


def _targets(subject: Subject) -> list[str]:
    """Return the columns that the predictor learned, else the one that the report is about."""
    predictor = subject.predictor
    if predictor is None:
        return [] if subject.target is None else [subject.target]
    is_several = predictor.labels is not None and not subject.fit.get("separator")
    return list(predictor.labels or []) if is_several else [predictor.target]


def _domain_words(domain: Mapping[str, Any] | None) -> list[str]:
    """Return the flags of a fit from one domain to another."""
    if domain is None:
        return []
    flags = {"--domain": "column", "--source": "source", "--target-domain": "target"}
    return [word for flag, key in flags.items() for word in (flag, str(domain[key]))]


def _word(value: Any) -> str:
    """Return a word as a shell takes it."""
    return shlex.quote(str(value))
