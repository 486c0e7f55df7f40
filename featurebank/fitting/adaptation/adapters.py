"""Adaptations: a top model of a labelled source domain made fit for an unlabelled target domain, through skada."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.metaestimators import available_if

from featurebank.errors import NotInstalledError, TopModelError, install_hint, near_names, one_line
from featurebank.fitting.adaptation.domains import UNKNOWN
from featurebank.topmodels.models import TopModel
from featurebank.topmodels.transforms import Step

ADAPTATIONS = ("none", "coral", "subspace", "reweight", "ot")
COMPONENTS = (8, 32, 128)
"""Dimensions of the subspaces that are tried."""
PAIRS = 25_000_000
"""Pairs of rows up to which methods that need a matrix of them are run."""
LEAST = 1e-9
"""Least weight of a row: libsvm refuses a class whose rows all weigh nothing."""


@dataclass(frozen=True)
class Adaptation:
    """A way to adapt, with its parameters.

    Attributes
    ----------
    name : str
        ``"none"``: the source's model as it is.
        ``"coral"``: the source's rows get the target's mean and covariance (Sun, Feng and Saenko 2016).
        ``"subspace"``: the source's principal axes are turned onto the target's (Fernando et al. 2013).
        ``"reweight"``: source rows that look like target rows weigh more, by kernel mean matching (Huang et al. 2007).
        ``"ot"``: source rows are moved onto the target's by optimal transport (Courty et al. 2017).
    params : dict
        ``{"n_components": …}`` for ``"subspace"``.
    """

    name: str
    params: dict[str, Any] = field(default_factory=dict)

    def adapter(self, seed: int) -> Any:
        """Return skada's adapter, unfitted; None for ``"none"``."""
        if self.name == "none":
            return None
        skada = import_skada()
        makers: dict[str, Callable[[], Any]] = {
            "coral": skada.CORALAdapter,
            "subspace": lambda: skada.SubspaceAlignmentAdapter(**self.params, random_state=seed),
            # not skada's DiscriminatorReweight, whose weights are upside down as of 0.6
            "reweight": skada.KMMReweightAdapter,
            "ot": lambda: skada.OTMappingAdapter(max_iter=10_000_000),
        }
        return makers[self.name]()


def import_skada() -> Any:
    """Return the module skada, leaving scikit-learn's configuration as it is."""
    try:
        with config_context():  # importing skada turns metadata routing on, for everybody
            import skada
            import skada.metrics
    except ImportError as error:
        raise NotInstalledError(
            f"domain adaptation needs skada and POT ({one_line(error)}); expected the extra adapt: "
            + install_hint("adapt")
        ) from error
    return skada


def choose_adaptations(
    methods: str | Sequence[str] | None, models: Sequence[TopModel], n_source: int, n_target: int
) -> tuple[list[str], list[str]]:
    """Return the adaptations that are meant (None: all), and notes about those that cannot be had for these rows.

    One that was named and cannot be had is an error.
    """
    names = list(ADAPTATIONS) if methods is None else [methods] if isinstance(methods, str) else list(methods)
    for name in names:
        if name not in ADAPTATIONS:
            raise TopModelError(f"no adaptation {name!r}; {near_names(name, ADAPTATIONS)}")
    obstacles = _obstacles(models, n_source, n_target)
    found = [name for name in names if name in obstacles]
    if found and methods is not None:
        raise TopModelError(f"{found[0]} cannot be had: {obstacles[found[0]]}")
    if set(names) != {"none"}:
        import_skada()
    return [name for name in names if name not in found], [f"{name} is left out: {obstacles[name]}" for name in found]


def _obstacles(models: Sequence[TopModel], n_source: int, n_target: int) -> dict[str, str]:
    """Return the adaptations that cannot be had here, with the reason and what to do."""
    found: dict[str, str] = {}
    for name, pairs in (("reweight", n_source**2), ("ot", n_source * n_target)):
        if pairs > PAIRS:
            found[name] = f"it needs a matrix of {pairs:,} pairs of rows, over {PAIRS:,}; choose another adaptation"
    unweighted = [model.name for model in models if not model.takes("sample_weight")]
    if unweighted:
        found["reweight"] = f"{unweighted[0]} takes no sample weights; choose another model or adaptation"
    return found


def candidates(names: Sequence[str], n_source: int, n_target: int, width: int) -> list[Adaptation]:
    """Return every adaptation to try, each with its parameters, the unadapted model first.

    No subspace has more dimensions than the rows of a domain that are fitted on, or the columns.

    Examples
    --------
    >>> [(each.name, each.params) for each in candidates(["subspace"], 100, 20, 64)]
    [('none', {}), ('subspace', {'n_components': 8}), ('subspace', {'n_components': 20})]
    """
    sizes = sorted({min(size, n_source, n_target, width) for size in COMPONENTS})
    grids = {"subspace": [{"n_components": size} for size in sizes]}
    wanted = ["none", *(name for name in ADAPTATIONS if name in names and name != "none")]
    return [Adaptation(name, params) for name in wanted for params in grids.get(name, [{}])]


class AdaptedModel(BaseEstimator):
    """A top model that learns from labelled rows of a source and unlabelled rows of a target.

    The steps before the model are fitted on the rows of both domains, those of ``"none"`` on the labelled rows alone.
    Then skada's adapter, which sees no label, moves or weighs the rows, the labelled ones are centred, and the model is
    fitted on them.

    Parameters
    ----------
    adaptation : Adaptation
    before : sequence of steps
        Unfitted, as of `featurebank.topmodels.transforms.normalization`.
    model : estimator
        Unfitted classifier; it takes sample weights where the adaptation is ``"reweight"``.
    classes : ndarray, shape (k,)
        Sorted; what the codes in y stand for.
    random_state : int, default 0

    Attributes
    ----------
    pipeline_ : Pipeline
        The same for rows of the target, in plain scikit-learn steps.
    moved_ : ndarray of float64, shape (n, e)
        The rows of both domains that it was fitted on, as the model sees them.
    weight_ : ndarray of float64, shape (n,), or None
        Their weights, where the adaptation weighs; 1 for rows of the target.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y, domain = np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([0, 1, -1, -1]), np.array([1, 1, -2, -2])
    >>> model = AdaptedModel(Adaptation("coral"), [], LogisticRegression(), np.array(["cat", "dog"]))
    >>> model.fit(X, y, domain).pipeline_.predict([[5.0], [6.0]])
    array(['cat', 'dog'], dtype='<U3')
    """

    def __init__(
        self,
        adaptation: Adaptation,
        before: Sequence[Step],
        model: Any,
        classes: NDArray[Any],
        random_state: int = 0,
    ):
        self.adaptation = adaptation
        self.before = before
        self.model = model
        self.classes = classes
        self.random_state = random_state

    def fit(self, X: NDArray[Any], y: NDArray[np.int64], sample_domain: NDArray[np.int64]) -> AdaptedModel:
        """Adapt, and fit the model.

        Parameters
        ----------
        X : ndarray of float, shape (n, d)
        y : ndarray of int64, shape (n,)
            Codes of the classes; `UNKNOWN` for rows without a label.
        sample_domain : ndarray of int64, shape (n,)
            Above 0 for the source, below for the target, as in skada.
        """
        learned = y != UNKNOWN
        seen = learned if self.adaptation.name == "none" else np.ones(len(y), bool)
        steps, Z = [], X
        for name, step in self.before:
            fitted = clone(step).fit(Z[seen])
            steps.append((name, fitted))
            Z = fitted.transform(Z)
        align, Z = self._adapt(Z.astype(np.float64), sample_domain)
        if self.adaptation.name != "none":  # strong penalties want rows around 0, wherever the adapter has put them
            center = StandardScaler(with_std=False).fit(Z[learned])
            align, Z = [*align, ("center", center)], center.transform(Z)
        options = {} if self.weight_ is None else {"sample_weight": self.weight_[learned]}
        model = clone(self.model).fit(Z[learned], self.classes[y[learned]], **options)
        self.moved_ = Z
        self.pipeline_ = Pipeline([*steps, *align, ("model", model)])
        return self

    def _adapt(
        self, Z: NDArray[np.float64], sample_domain: NDArray[np.int64]
    ) -> tuple[list[Step], NDArray[np.float64]]:
        """Return what an adapter does to rows of the target, as plain steps, and all rows as it moves them."""
        adapter, self.weight_ = self.adaptation.adapter(self.random_state), None
        if adapter is None:
            return [], Z
        moved = adapter.fit_transform(Z, sample_domain=sample_domain)
        if isinstance(moved, tuple):  # the rows as they were, and their weights
            moved, found = moved
            weight = np.maximum(found["sample_weight"], LEAST)
            self.weight_ = np.where(sample_domain > 0, weight, 1.0)
        if self.adaptation.name == "coral":
            return [("align", StandardScaler(with_std=False).fit(Z[sample_domain < 0]))], moved
        if self.adaptation.name == "subspace":
            return [("align", adapter.pca_target_.set_params(random_state=self.random_state))], moved
        return [], moved

    @property
    def model_(self) -> Any:
        """The fitted top model, which takes rows like those of `moved_`."""
        return self.pipeline_[-1]

    def predict(self, X: NDArray[Any], sample_domain: Any = None) -> NDArray[np.int64]:
        """Return the codes of the classes of target rows; skada's scorers call this."""
        return np.searchsorted(self.classes, self.pipeline_.predict(X))

    @available_if(lambda self: hasattr(self.model, "predict_proba"))
    def predict_proba(self, X: NDArray[Any], sample_domain: Any = None) -> NDArray[np.float64]:
        """Return the class probabilities of target rows."""
        return self.pipeline_.predict_proba(X)
