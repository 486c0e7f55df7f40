"""Candidates of a search: features × normalisation × top model × parameters, and how they are ranked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from featurebank.topmodels.models import TopModel
from featurebank.topmodels.solvers.problem import Prediction
from featurebank.topmodels.transforms import Step, normalization

T = TypeVar("T")
C = TypeVar("C", bound="Candidate | Mapping[str, Any]")


@dataclass(eq=False, repr=False)
class Candidate:
    """One features × normalisation × top model × parameters, with its scores on the shared folds.

    Attributes
    ----------
    features : tuple of str
        Names of the blocks it sees, concatenated.
    model : str
        Name of the top model.
    params : dict
        In the estimator's own names.
    normalize : str
        Name of the normalisation (`featurebank.topmodels.transforms.normalization`).
    select : float or None
        Share of the dimensions that are selected in the fold.
    views : str
        ``"mean"`` or ``"first"`` of an image's views, or ``"all"`` of them as rows of their own.
    fold_scores : list of float
        One score a fold.
    ci95 : tuple of float
        95 % interval of the mean.
    interval : str
        Its method: ``"korn-graubard"``, ``"wilson"``, ``"log-jackknife"``, ``"jackknife"`` or ``"nadeau-bengio"``;
        empty before.
    extra : dict
        Scores beside the one that is searched: ``balanced_accuracy`` for classes.
    seconds : float
        Time spent in its fits and scores, added up over the folds.
    """

    features: tuple[str, ...]
    model: str
    params: dict[str, Any]
    normalize: str = "standardize"
    select: float | None = None
    views: str = "mean"
    fold_scores: list[float] = field(default_factory=list)
    ci95: tuple[float, float] = (0.0, 0.0)
    interval: str = ""
    extra: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def __repr__(self) -> str:
        score = f", {self.mean:.3f} on {len(self.fold_scores)} folds" if self.fold_scores else ""
        return f"<Candidate: {called(self)} {self.params}{score}>"

    @property
    def mean(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.fold_scores))

    @property
    def std(self) -> float:
        """Standard deviation over the folds (ddof 0)."""
        return float(np.std(self.fold_scores))

    @property
    def recipe(self) -> tuple[Any, ...]:
        """What candidates of one line of the table share: all but the parameters."""
        return self.features, self.views, self.select, self.normalize, self.model

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that ``featurebank fit --json`` prints."""
        return {
            "features": list(self.features),
            "views": self.views,
            "select": self.select,
            "normalize": self.normalize,
            "model": self.model,
            "params": self.params,
            "mean": self.mean,
            "std": self.std,
            "ci95": list(self.ci95),
            "interval": self.interval,
            "fold_scores": self.fold_scores,
            **self.extra,
            "seconds": self.seconds,
        }


@dataclass(eq=False)
class CandidateGroup:
    """Candidates that differ in their parameters only, so that one solver shares their work.

    Attributes
    ----------
    features : tuple of str
    select : float or None
    normalize : str
    model : TopModel
    params : sequence of dict
        Parameters of the first candidates; see `add`.
    views : str
    widths : tuple of int
        Columns of each feature set, where it sees several.
    candidates : list of Candidate
    scores : dict
        Score by the candidate's number in the group, and fold.
    predictions : dict
        What a candidate said of the test rows, by its number; not kept for all of them.
    """

    features: tuple[str, ...]
    select: float | None
    normalize: str
    model: TopModel
    params: InitVar[Sequence[dict[str, Any]]]
    views: str = "mean"
    widths: tuple[int, ...] = ()
    candidates: list[Candidate] = field(default_factory=list)
    scores: dict[int, dict[int, float]] = field(default_factory=dict)
    predictions: dict[int, list[Prediction]] = field(default_factory=dict)

    def __post_init__(self, params: Sequence[dict[str, Any]]) -> None:
        self.add(params)

    def add(self, params: Sequence[dict[str, Any]]) -> range:
        """Add a candidate for each of some parameters; return their numbers."""
        start = len(self.candidates)
        self.candidates += [
            Candidate(self.features, self.model.name, each, self.normalize, self.select, self.views) for each in params
        ]
        return range(start, len(self.candidates))

    def before(self) -> list[Step]:
        """Return fresh steps that stand before the model."""
        return normalization(self.normalize, self.select, self.widths)

    @property
    def cells(self) -> dict[int, dict[str, Any]]:
        """Parameters by the candidate's number in the group."""
        return {number: candidate.params for number, candidate in enumerate(self.candidates)}


def best_of(candidates: Sequence[Candidate], rule: str, order: Sequence[str]) -> int:
    """Return the number of the candidate to ship.

    Parameters
    ----------
    candidates : sequence of Candidate
    rule : str
        ``"best"``: the highest mean, the first of equals. ``"one-se"``: the simplest whose mean is within one
        standard error of the highest (Breiman et al. 1984): by the model's simplicity, then fewer features, then
        the higher mean.
    order : sequence of str
        Names of the models, the simplest first.
    """
    means = np.array([candidate.mean for candidate in candidates])
    top = int(np.nanargmax(means))
    if rule == "best":
        return top
    scores = candidates[top].fold_scores
    error = float(np.std(scores, ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else 0.0
    near = [number for number, mean in enumerate(means) if mean >= means[top] - error]
    return min(near, key=lambda number: (*_complexity(candidates[number], order), -means[number]))


def _complexity(candidate: Candidate, order: Sequence[str]) -> tuple[int, int]:
    place = order.index(candidate.model) if candidate.model in order else len(order)
    return place, len(candidate.features)


def best_of_each(items: Iterable[T], key: Callable[[T], Hashable], score: Callable[[T], float]) -> dict[Any, T]:
    """Return the item with the highest score of each key, the first of equals, in the order in which keys appear.

    Examples
    --------
    >>> best_of_each(["aa", "b", "ab", "abc"], key=lambda text: text[0], score=len)
    {'a': 'abc', 'b': 'b'}
    """
    best: dict[Any, T] = {}
    for each in items:
        name = key(each)
        if name not in best or score(each) > score(best[name]):
            best[name] = each
    return best


def recipe_of(candidate: Candidate | Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what the candidates of one line of a table share, all but the parameters; a report's are mappings."""
    if isinstance(candidate, Candidate):
        return candidate.recipe
    return tuple(candidate["features"]), *(candidate.get(name) for name in ("views", "select", "normalize", "model"))


def mean_of(candidate: Candidate | Mapping[str, Any]) -> float:
    """Return the mean score of a candidate, which is a mapping in a report."""
    return candidate.mean if isinstance(candidate, Candidate) else candidate["mean"]


def ranked(candidates: Iterable[C], key: Callable[[C], Hashable] = recipe_of) -> list[C]:
    """Return the best candidate of each recipe, or of another key, the best first."""
    return sorted(best_of_each(candidates, key, mean_of).values(), key=lambda each: -mean_of(each))


def called(candidate: Candidate) -> str:
    """Return what a candidate is called in a sentence: its model and features, and what is unusual."""
    views = {"mean": "", "first": ", first view", "all": ", all views"}[candidate.views]
    select = "" if candidate.select is None else f", {candidate.select:g} of the dimensions"
    normalize = "" if candidate.normalize == "standardize" else f", {candidate.normalize}"
    return f"{candidate.model} on {'+'.join(candidate.features)}{views}{normalize}{select}"


def refinement(
    candidate: Candidate, model: TopModel, tried: Sequence[dict[str, Any]], gamma: float
) -> list[dict[str, Any]]:
    """Return cells around a candidate's parameters, half a step of the grid away, that were not tried yet.

    Parameters
    ----------
    candidate : Candidate
        The best of its group.
    model : TopModel
        Names the parameters that are refined, and their grid.
    tried : sequence of dict
        Parameters of all cells of the group.
    gamma : float
        What ``gamma="scale"`` stands for here.
    """
    cells: list[dict[str, Any]] = [dict(candidate.params)]
    for name in model.refined:
        given = candidate.params.get(name, model.estimator.get_params()[name])
        centre = gamma if given == "scale" else given
        if isinstance(centre, (int, float)):
            ratio = np.sqrt(_ratio(name, tried))
            cells += [{**cell, name: _rounded(centre * times)} for cell in cells for times in (1 / ratio, ratio)]
    return [cell for cell in cells if cell not in tried]


def _ratio(name: str, tried: Sequence[dict[str, Any]]) -> float:
    """Return the ratio of neighbours in the grid of a parameter, 4 where it has one value."""
    values = sorted({cell[name] for cell in tried if isinstance(cell.get(name), (int, float))})
    return float(np.median(np.divide(values[1:], values[:-1]))) if len(values) > 1 else 4.0


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def to_results(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return candidates as scikit-learn's ``cv_results_``."""
    scores = np.array([candidate.fold_scores for candidate in candidates])
    means: NDArray[np.float64] = scores.mean(axis=1)
    ranks = np.array([1 + int((means > mean).sum()) for mean in means])
    return {
        "features": [list(candidate.features) for candidate in candidates],
        "views": [candidate.views for candidate in candidates],
        "select": [candidate.select for candidate in candidates],
        "normalize": [candidate.normalize for candidate in candidates],
        "model": [candidate.model for candidate in candidates],
        "params": [candidate.params for candidate in candidates],
        "mean_test_score": means,
        "std_test_score": scores.std(axis=1),
        "rank_test_score": ranks,
        "seconds": np.array([candidate.seconds for candidate in candidates]),
        **{f"split{fold}_test_score": scores[:, fold] for fold in range(scores.shape[1])},
    }
