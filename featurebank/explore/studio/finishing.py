"""The end: the real fit with its options, compared with the present predictor on the same rows, written to a file."""

from __future__ import annotations

import inspect
import os
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featurebank.bank.answers import Answers, is_given
from featurebank.bank.bank import Bank
from featurebank.bank.samples import rows_of
from featurebank.errors import BankError, FeatureBankError, one_line, shell_word
from featurebank.fitting.fit import default_output, fit
from featurebank.fitting.result import FitResult
from featurebank.predictor.predictor import Predictor
from featurebank.storage.files import free
from featurebank.topmodels.formatting import bounded, gain_text, interval_text, percent, score_text
from featurebank.topmodels.scores import gains_interval

SUFFIX = ".featurebank"
FOLDS = inspect.signature(fit).parameters["folds"].default
OWN = ("bank", "target", "progress")
"""Arguments of `fit` that are not the page's to set."""

Facts = dict[str, Any]
NOTHING: Facts = {"comparison": None, "written": None, "message": None}
"""What is told of a fit that has not ended."""


class Finishing:
    """One fit at a time, and what became of the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts: Facts = {"state": "idle", "progress": None, "path": None, **NOTHING}

    def state(self, bank: Bank) -> Facts:
        """Return how far it is: ``state, progress, path, comparison, written, message``; and a path that is free.

        ``proposed`` is the path for the next predictor, and ``path`` too before the first.
        """
        facts, proposed = dict(self._facts), str(free(_beside(bank)))
        return {**facts, "path": facts["path"] or proposed, "proposed": proposed}

    def start(self, answers: Answers, path: Any, options: Any) -> Facts:
        """Begin a fit of the labels that the bank has.

        Raises
        ------
        BankError
            When one is under way, the labels are too few, the path is none for a new predictor, or there is no such
            option.
        """
        bank = answers.bank
        place = checked_path(bank, path)
        wanted = _checked_options(options)
        if not {"cv", "split", "normal"} & set(wanted):  # which have needs of their own
            check_labels(answers.labels, wanted.get("folds", FOLDS))
        with self._lock:
            if self._facts["state"] == "running":
                raise BankError("a fit is under way; wait until it has ended")
            self._facts = {**self._facts, "state": "running", "progress": {"done": 0, "total": 0}, "path": str(place)}
            self._facts |= NOTHING
        arguments = (bank, answers.column, place, wanted)
        threading.Thread(target=self._run, args=arguments, name="featurebank-finish", daemon=True).start()
        return {"started": True}

    def _run(self, bank: Bank, target: str, path: Path, options: Facts) -> None:
        def progress(done: int, total: int) -> None:
            self._facts = {**self._facts, "progress": {"done": done, "total": total}}

        try:
            result = fit(bank, target=target, progress=progress, **options)
            comparison = compared(bank, target, result)
            path = free(path)  # another may have been written there meanwhile
            result.save(path)
            self._facts = {**self._facts, "path": str(path)}
            told = {"comparison": comparison, "written": after(bank, path, result), "message": about(result)}
            self._facts = {**self._facts, "state": "done", **told}
        except FeatureBankError as error:
            self._facts = {**self._facts, "state": "failed", "message": one_line(error)}
        except Exception as error:  # a thread of its own has nobody else to tell
            traceback.print_exc()
            self._facts = {**self._facts, "state": "failed", "message": f"the fit ended: {one_line(error)}"}


def about(result: FitResult) -> str:
    """Say in one sentence which model a fit took, and its score with the interval."""
    report, best = result.report, result.report["best"]
    scoring = report["scoring"]
    score = f"{score_text(best['mean'], scoring)} (95 % {interval_text(best['ci95'], scoring)})"
    return f"{best['model']} on {'+'.join(best['features'])}: {score}, cross-validated over {report['folds']} folds."


def after(bank: Bank, path: Path, result: FitResult) -> Facts:
    """Return what one does with a predictor: ``commands``; and its learning curve, ``curve`` and ``verdict``."""
    where = bank.path.absolute() if isinstance(bank.path, Path) else bank.path
    predictor, place = shell_word(path), shell_word(where)
    commands = [f"featurebank predict {predictor} IMAGES", f"featurebank report {place} --predictor {predictor}"]
    found = result.report.get("learning_curve", {"points": [], "verdict": None})
    return {"commands": commands, "curve": [_point(each) for each in found["points"]], "verdict": found["verdict"]}


def _point(found: Mapping[str, Any]) -> Facts:
    low, high = bounded("accuracy", found["ci95"])
    return {"labels": round(found["n_train"]), "score": found["mean"], "low": low, "high": high}


def checked_path(bank: Bank, path: Any) -> Path:
    """Return the new file that a predictor goes to; by default that beside the bank.

    A relative path is one beside the bank, and a name without a suffix gets ``.featurebank``. A predictor that is there
    already stays: whether the new one takes its place is for its user to say.

    Raises
    ------
    BankError
        When it ends in another suffix than ``.featurebank``, its folder is not there, or something is there already.
    """
    if path is not None and not isinstance(path, str):
        raise BankError("a path has to be text; type one")
    beside = _beside(bank)
    found = beside.parent / path if path else free(beside)
    try:
        if not found.suffix and not found.is_dir():
            found = found.with_name(found.name + SUFFIX)
        is_name = found.suffix == SUFFIX and b"\0" not in os.fsencode(found)
        is_place = is_name and os.access(found.parent, os.W_OK | os.X_OK)
        is_taken = found.exists() or found.is_symlink()
    except (OSError, ValueError):  # longer than a file system's names, or what none can hold
        is_place = is_taken = False
    if is_taken:
        raise BankError(f"{str(found)!r} is there already and stays; name a new file, and put it in its place by hand")
    if not is_place:
        raise BankError(
            f"{str(found)!r} is no place for a predictor; expected NAME{SUFFIX} in a folder that is there and can be "
            "written"
        )
    return found


def check_labels(labels: NDArray[Any], folds: Any) -> None:
    """Check that there are labels to fit.

    Raises
    ------
    BankError
        When there are fewer than two classes, or too few labels for the folds.

    Examples
    --------
    >>> check_labels(np.array(["cat", "cat", "dog", "dog", None], object), 2)
    """
    names, counts = np.unique(labels[is_given(labels)].astype(str), return_counts=True)
    if len(names) < 2:
        found = f"all labels are of one class, {str(names[0])!r}" if len(names) else "there are no labels"
        raise BankError(f"{found}; expected two classes: label images of another, then finish")
    if counts.min() < 2:
        found = str(names[counts.argmin()])
        raise BankError(f"class {found!r} has one label; expected two at least: label another image of it, then finish")
    if isinstance(folds, int) and counts.max() < folds:
        raise BankError(
            f"the largest class has {counts.max()} labels; expected {folds}, one for each fold: label more, or ask for "
            "fewer folds"
        )


def _beside(bank: Bank) -> Path:
    return default_output(bank).absolute()


def _checked_options(options: Any) -> Facts:
    known = {name: each.default for name, each in inspect.signature(fit).parameters.items() if name not in OWN}
    if not isinstance(options or {}, Mapping):
        raise BankError("the options of a fit have to be names with values")
    for name, value in (options or {}).items():
        if name not in known:
            raise BankError(f"fit has no option {name!r}; expected some of {', '.join(sorted(known))}")
        if isinstance(known[name], int) and type(value) is not type(known[name]):
            raise BankError(f"fit's option {name!r} is {value!r}; expected one like {known[name]!r}")
    return dict(options or {})


def compared(bank: Bank, target: str, result: FitResult) -> Facts | None:
    """Compare a fit with the present predictor, the one beside the bank, on the rows of the fit; None where none is.

    Each of the two is taken by what it said of a row when it had not seen it: out of fold where it learned from it.

    Returns
    -------
    dict or None
        ``text``, ``rows`` (each name with its accuracy), ``n``, ``difference`` and its ``ci95``.
    """
    path = default_output(bank)
    if not path.exists():
        return None
    table = bank.select(target)
    true = np.array([str(value) for value in table.columns[target]], object)
    try:
        present = _said_unseen(bank, target, Predictor.load(path, allow_download=False))
    except FeatureBankError as error:
        return {"text": f"{path.name} could not be compared: {one_line(error)}"}
    new = _by_row(table, result.oof, "predicted")
    both = np.flatnonzero(is_given(new) & is_given(present))
    if len(both) < 2:
        return {"text": f"{path.name} and the new predictor have no rows in common to be compared on."}
    first, second = (each[both] == true[both] for each in (new, present))
    gains = first.astype(float) - second
    gain = {"difference": float(gains.mean()), "ci95": list(gains_interval(gains, folds=2).ends)}
    text = f"The new predictor is right on {percent(first.mean())} % of {len(both)} labelled images, {path.name} on "
    text += f"{percent(second.mean())} %: {gain_text(gain, 'accuracy')}; each as it judged images unseen."
    rows = [["the new predictor", f"{percent(first.mean())} %"], [path.name, f"{percent(second.mean())} %"]]
    return {"text": text, "rows": rows, "n": len(both), **gain}


def _said_unseen(bank: Bank, target: str, predictor: Predictor) -> Any:
    """Return what a predictor says of the labelled samples, out of fold where it learned from them, shape (n,)."""
    task, table = predictor.task_of(target), bank.select(target)
    said = np.array([str(each) for each in task.model.predict(predictor.load_rows(bank, table, task))], object)
    if task.oof is None:
        return said
    learned = _by_row(table, task.oof, "predicted")
    return np.where(is_given(learned), learned, said)


def _by_row(table: Any, oof: pd.DataFrame, column: str) -> Any:
    """Return a column of out-of-fold predictions by the samples of a table, as text, None where there is none."""
    found, rows = np.full(len(table), None, object), rows_of(table, oof)
    for row, value in zip(rows, oof[column], strict=True):
        if row >= 0:
            found[row] = str(value)
    return found
