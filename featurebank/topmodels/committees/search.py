"""The committee of a search: who may be in it, who is, what it scores on rows it was not chosen on, and its models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from featurebank.errors import TopModelError
from featurebank.topmodels.calibration import Calibrator, LabelsCalibrator
from featurebank.topmodels.candidates import Candidate, CandidateGroup, called
from featurebank.topmodels.committees.models import CommitteeClassifier, CommitteeRegressor, said, whole
from featurebank.topmodels.committees.selection import Judge, Part, select, unseen_answers
from featurebank.topmodels.comparison import difference
from featurebank.topmodels.cross_calibration import cross_calibrated
from featurebank.topmodels.evaluation import refitted, score_answers
from featurebank.topmodels.formatting import COMMITTEE, SAME_ANSWERS, gain_text, paid_text, score_name
from featurebank.topmodels.models import OVERSURE
from featurebank.topmodels.out_of_fold import OutOfFold, gather
from featurebank.topmodels.search_run import Found, SearchRun
from featurebank.topmodels.solvers.problem import Prediction

_LEAST = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class GivenMember:
    """A model that was fitted elsewhere and may be in a committee, as a fine-tuned predictor.

    Attributes
    ----------
    name : str
        What it is called, for instance its file.
    features : tuple of str
        Blocks of X that it takes.
    model : Pipeline
        Fitted; it takes all columns of X.
    calibrator : Calibrator or None
        Of its scores, where it has no probabilities of its own.
    answers : ndarray of float64, shape (n, k) or (n,)
        Its probabilities, or numbers, of each row of X; NaN where it learned from the row.
    """

    name: str
    features: tuple[str, ...]
    model: Pipeline
    calibrator: Any
    answers: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Member:
    """What may be in a committee: the best candidate of its features and model, or a model from elsewhere.

    Attributes
    ----------
    candidate : Candidate
    group : CandidateGroup or None
    given : GivenMember or None
    answers : list of ndarray of float64, each of shape (m,) or (m, k)
        Out of fold: of the best candidate, and for each part of the rows of that which is the best without them.
    found : OutOfFold or None
    """

    candidate: Candidate
    group: CandidateGroup | None
    given: GivenMember | None
    answers: list[NDArray[np.float64]]
    found: OutOfFold | None = None


@dataclass(eq=False)
class Committee:
    """A committee that was chosen, and how it compares with the best single candidate.

    Attributes
    ----------
    candidate : Candidate
        Its scores, on rows that had no part in choosing it.
    predictions : list of Prediction
        What it says of each fold's rows.
    members : list of Member
    weights : list of float
        Of each member; they add up to 1.
    report : dict
        ``members``, ``log_loss`` of it and of the best single candidate, ``difference``, ``ci95`` (paired, over the
        folds; missing where there is but one), ``sentence``, and ``seconds`` of choosing.
    """

    candidate: Candidate
    predictions: list[Prediction]
    members: list[Member]
    weights: list[float]
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def is_one(self) -> bool:
        """Whether it is a single candidate of the search."""
        return len(self.members) == 1 and self.members[0].given is None

    def fitted(self, run: SearchRun, random_state: int) -> Pipeline:
        """Return its members fitted on all rows, as one pipeline that takes all columns of X."""
        fitted = [
            refitted(run.data, each.group, each.candidate, random_state) if each.group else _frozen(each.given)
            for each in self.members
        ]
        if run.data.task == "regression":
            return Pipeline([("model", CommitteeRegressor.of_fitted(fitted, self.weights))])
        fixed = [_kept(_calibrator(each, run.data.classes)) for each in self.members]
        return Pipeline([("model", CommitteeClassifier.of_fitted(fitted, self.weights, calibrators=fixed))])


def form_committee(run: SearchRun, found: Found, members: int | None, given: Sequence[GivenMember]) -> Committee:
    """Choose a committee of a search's candidates, and score it.

    The weights that answer for the rows of a fold are chosen on rows of other folds, from candidates that are the best
    on other folds, so that the scores are those of rows whose own answers had no part in it; nothing is fitted again. A
    little optimism is left, less than that of the best of many candidates: the models that answered on other folds had
    learned from this one. So the comparison with the best single candidate errs towards that one. (A member's decision
    values become probabilities by a calibrator of one or two numbers, which saw all folds but the row's own.)

    Parameters
    ----------
    run : SearchRun
        Finished, with the predictions that a committee needs.
    found : list of (CandidateGroup, Candidate)
        What it finished.
    members : int or None
        At most so many.
    given : sequence of GivenMember

    Raises
    ------
    TopModelError
        When a given member learned from rows that are tested, or nothing has probabilities to average.
    """
    started = time.perf_counter()
    table = gather(run.data, run.predictions_of(*found[0]))
    library = [*_kinds(run, table), *(_of_given(run, each, table) for each in given)]
    if not library:
        raise TopModelError("no candidate gives probabilities or decision values, which a committee averages")

    def choose(answers: Sequence[NDArray[np.float64]], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        seen, judge = _seen(run, table, rows)
        return select([seen(each[rows]) for each in answers], judge, members=members)

    is_every = np.ones(len(table.row), bool)
    weights = choose([each.answers[0] for each in library], is_every)
    answers = unseen_answers(_parts(table, library), choose)
    drawn = [number for number in np.argsort(-weights, kind="stable") if weights[number]]
    chosen = Committee(
        _candidate(run, [library[number] for number in drawn]),
        _predictions(run, table, answers),
        [library[number] for number in drawn],
        [float(weights[number]) for number in drawn],
    )
    run.score_committee(chosen.candidate, chosen.predictions)
    chosen.candidate.seconds = time.perf_counter() - started
    single = max((candidate for _, candidate in found), key=lambda candidate: candidate.mean)
    chosen.report = _report(run, chosen, table, answers, single, library)
    return chosen


# --- who may be in it --------------------------------------------------------------------------------------


def _kinds(run: SearchRun, table: OutOfFold) -> list[Member]:
    """Return the best candidate of each features × model, with its honest answers."""
    kinds: dict[Any, list[tuple[CandidateGroup, Candidate]]] = {}
    for group in run.groups:
        kept = [group.candidates[number] for number in group.predictions if group.candidates[number].fold_scores]
        kinds.setdefault((group.features, group.model.name), []).extend((group, each) for each in kept)
    members = [_member(run, rivals, table) for rivals in kinds.values() if rivals]
    return [each for each in members if each is not None]


def _member(run: SearchRun, rivals: Found, table: OutOfFold) -> Member | None:
    """Return the best of some candidates; None where it has nothing to average, or cannot be calibrated."""
    best = [max(rivals, key=lambda rival: float(np.mean(np.array(rival[1].fold_scores)[f]))) for f in run.compared]
    if len(run.folds) == 1:
        best = best[:1] * (1 + len(np.unique(table.parts)))
    known = {id(candidate): (group, candidate) for group, candidate in best}
    try:
        found = {name: gather(run.data, run.predictions_of(*each)) for name, each in known.items()}
        answers = {name: _answers(run, each, known[name][1].model) for name, each in found.items()}
    except TopModelError as error:
        run.notes.append(f"left out of the committee, {called(best[0][1])}: {error}")
        return None
    first = id(best[0][1])
    return Member(best[0][1], best[0][0], None, [answers[id(each)] for _, each in best], found[first])


def _answers(run: SearchRun, found: OutOfFold, model: str) -> NDArray[np.float64]:
    """Return what is averaged: numbers, or probabilities, of rows that the model and its calibrator had not seen."""
    if run.data.task == "regression":
        return np.asarray(found.predicted, np.float64)
    method = _method(found, model)
    if method is None:
        assert found.proba is not None
        return found.proba
    found.learned(model)  # refuses what cannot be calibrated
    assert found.scores is not None
    if run.data.task == "multilabel":
        columns = [
            cross_calibrated(found.scores[:, label], found.true[:, label], found.parts, method, found.weight)[:, 1]
            for label in range(found.true.shape[1])
        ]
        return np.column_stack(columns)
    options: dict[str, Any] = {"classes": found.classes, "is_learned": found.is_learned}
    return cross_calibrated(found.scores, found.true, found.parts, method, found.weight, **options)


def _method(found: OutOfFold, model: str) -> str | None:
    """Return how a member's scores become probabilities; None where its own are taken."""
    if found.proba is not None and model not in OVERSURE:
        return None
    assert found.classes is not None
    return "sigmoid" if found.true.ndim == 2 or len(found.classes) == 2 else "temperature"


def _calibrator(member: Member, classes: NDArray[Any]) -> Calibrator | LabelsCalibrator | None:
    """Return what turns a fitted member's scores into probabilities, learned from all of its out-of-fold scores."""
    if member.given is not None:
        return member.given.calibrator
    assert member.found is not None
    method = _method(member.found, member.candidate.model)
    if method is None:
        return None
    if member.found.true.ndim == 2:
        return LabelsCalibrator(method).fit(member.found.scores, member.found.true, member.found.weight)
    found = member.found.learned(member.candidate.model)
    return Calibrator(method).fit(found.scores, found.true, found.weight, classes)


def _of_given(run: SearchRun, given: GivenMember, table: OutOfFold) -> Member:
    answers = given.answers[table.row]
    unknown = np.isnan(answers).reshape(len(answers), -1).any(axis=1)
    if unknown.any():
        raise TopModelError(
            f"{given.name} learned from {len(np.unique(table.row[unknown]))} of the samples that are tested, so its "
            "score there means nothing; expected a predictor of other samples: fine-tune it on the train part of a "
            "--split, and fit with the same one"
        )
    candidate = Candidate(given.features, given.name, {})
    run.score_committee(candidate, _predictions(run, table, answers))
    return Member(candidate, None, given, [answers] * (1 + len(np.unique(table.parts))))


# --- how it is chosen --------------------------------------------------------------------------------------


def _parts(table: OutOfFold, library: Sequence[Member]) -> list[Part]:
    """Return the parts of the rows, each with the rows that a committee for it may be chosen on."""
    parts = []
    for number, part in enumerate(np.unique(table.parts), start=1):
        told = table.parts == part
        learned = ~np.isin(table.row, table.row[told])  # with repeated folds a row comes again
        if not learned.any():
            raise TopModelError("every fold tests the same rows, so none is left to choose a committee on")
        parts.append(Part(learned, told, [each.answers[number] for each in library]))
    return parts


def _seen(run: SearchRun, table: OutOfFold, rows: NDArray[np.bool_]) -> tuple[Any, Judge]:
    """Return what a judge looks at of answers to some rows, and the judge: log loss, or the scoring asked for."""
    true, weight = table.true[rows], None if table.weight is None else table.weight[rows]
    if run.scoring is not None:
        X = None if hasattr(run.scorer, "_score_func") else run.data.X[table.row[rows]]
        return _itself, lambda answers: _scored(run, answers, X, true, weight)
    if run.data.task == "regression":
        return _itself, lambda answers: -float(np.average((answers - true) ** 2, weights=weight))
    return lambda answers: chance_of(answers, true, table.classes), lambda chance: -log_loss_of(chance, weight)


def _itself(answers: NDArray[np.float64]) -> NDArray[np.float64]:
    return answers


def _scored(run: SearchRun, answers: NDArray[np.float64], X: Any, true: NDArray[Any], weight: Any) -> float:
    try:
        return score_answers(run.scorer, _prediction(run, 0, answers), X, true, weight)
    except ValueError:  # rows of one class
        return float("nan")


def chance_of(proba: NDArray[np.float64], true: NDArray[Any], classes: Any) -> NDArray[np.float64]:
    """Return the probability of what is true, shape (n,), or (n, labels) where rows have several labels.

    Examples
    --------
    >>> chance_of(np.array([[0.2, 0.8], [0.7, 0.3]]), np.array(["b", "b"]), np.array(["a", "b"])).tolist()
    [0.8, 0.3]
    """
    if true.ndim == 2:
        return np.where(true == 1, proba, 1 - proba)
    return proba[np.arange(len(proba)), np.searchsorted(classes, true)]


def log_loss_of(chance: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    """Return the log loss of probabilities of what is true.

    Examples
    --------
    >>> round(log_loss_of(np.array([0.5, 0.5]), None), 4)
    0.6931
    """
    loss = -np.log(np.maximum(chance, _LEAST))
    return float(np.average(loss if loss.ndim == 1 else loss.mean(axis=1), weights=weight))


def _predictions(run: SearchRun, table: OutOfFold, answers: NDArray[np.float64]) -> list[Prediction]:
    return [_prediction(run, fold, answers[table.fold == fold]) for fold in run.folds]


def _prediction(run: SearchRun, fold: int, answers: NDArray[np.float64]) -> Prediction:
    if run.data.task == "regression":
        return Prediction(0, fold, None, answers)
    is_several = run.data.task == "multilabel"
    answers = answers if is_several else whole(answers)
    classes = np.arange(answers.shape[1]) if is_several else run.data.classes
    return Prediction(0, fold, classes, said(answers, classes, is_several), None, answers)


# --- what it is --------------------------------------------------------------------------------------------


def _candidate(run: SearchRun, members: Sequence[Member]) -> Candidate:
    used = {name for each in members for name in each.candidate.features}
    known = [name for group in run.groups for name in group.features]
    known += [name for each in members for name in each.candidate.features]
    return Candidate(tuple(name for name in dict.fromkeys(known) if name in used), COMMITTEE, {"members": len(members)})


def _report(
    run: SearchRun,
    chosen: Committee,
    table: OutOfFold,
    answers: NDArray[np.float64],
    single: Candidate,
    library: Sequence[Member],
) -> dict[str, Any]:
    """Return what is said of a committee beside its scores."""
    told = [
        {**each.candidate.to_dict(), "weight": weight, "given": each.given is not None}
        for each, weight in zip(chosen.members, chosen.weights, strict=True)
    ]
    found: dict[str, Any] = {"members": told, "best_single": single.to_dict(), "seconds": chosen.candidate.seconds}
    if run.data.task != "regression":
        own = next((each.answers[0] for each in library if each.candidate is single), None)
        losses = {"committee": answers, "single": own}
        found["log_loss"] = {
            name: None if each is None else log_loss_of(chance_of(each, table.true, table.classes), table.weight)
            for name, each in losses.items()
        }
    found["difference"] = chosen.candidate.mean - single.mean
    if len(run.folds) > 1:
        said = {**run.kept(), id(chosen.candidate): chosen.predictions}
        found |= difference(run.uncertainty, chosen.candidate, single, said)
    return found | {"sentence": _sentence(run, chosen, found)}


def _sentence(run: SearchRun, chosen: Committee, found: dict[str, Any]) -> str:
    if chosen.is_one:
        return "a committee did not pay: no other model improved on the best one"
    scoring = score_name(run.scoring, run.data.task)
    what = f"a committee of {len(chosen.members)}"
    if "ci95" not in found:
        verb = "scored more than" if found["difference"] > 0 else "did not pay: it scored no more than"
        return f"{what} {verb} the best single model"
    if found.get("same_answers") and not found["difference"]:
        return f"{what} did not pay: it and the best single model {SAME_ANSWERS}"
    return f"{paid_text(what, found)}: {gain_text(found, scoring)} against the best single model"


def _frozen(given: GivenMember | None) -> Pipeline:
    assert given is not None  # a member without a group was given
    *before, (name, last) = given.model.steps
    return Pipeline([*before, (name, FrozenEstimator(last))])


def _kept(calibrator: Any) -> Any:
    """Return a calibrator that stays as it is when the committee is cloned and fitted on other rows."""
    return None if calibrator is None else FrozenEstimator(calibrator)
