"""What the common top models of a predictor file say, from their arrays alone: nothing that fits models is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurebank.errors import CorruptError, one_line
from featurebank.predictor.arrays import Fitted, read_fitted
from featurebank.topmodels import formulas

Rows = NDArray[Any]
_SCALES = "sklearn.preprocessing._data."
_OURS = "featurebank.topmodels."
_STEPS = {
    f"{_SCALES}StandardScaler": "StandardScaler",
    f"{_SCALES}Normalizer": "Normalizer",
    **{f"{_OURS}transforms.{name}": name for name in ("SignedSquareRoot", "SelectRelevant", "SelectDimensions")},
}
_PROBED = 2


class Light(NamedTuple):
    """A fitted pipeline and what goes with it, as functions of rows.

    Attributes
    ----------
    classes : ndarray, shape (k,)
        Empty for numbers.
    predict, chances, share : callable
        Labels or numbers; probabilities, None for numbers; and `Unlike.share`, None where the file has none.
    """

    classes: Rows
    predict: Callable[[Rows], Rows]
    chances: Callable[[Rows], Rows] | None
    share: Callable[[Rows], Rows] | None


def read_light(model: bytes, calibrator: bytes | None, unlike: bytes | None, kind: str) -> Light:
    """Return what the members of a predictor file say of rows.

    Parameters
    ----------
    model, calibrator, unlike : bytes or None
        Skops archives.
    kind : str
        ``"classification"`` or ``"regression"``.

    Raises
    ------
    CorruptError
        When they hold anything but the models that are known here, or arrays that do not fit together.
    """
    try:
        more = [None if data is None else read_fitted(data) for data in (calibrator, unlike)]
        return _light(read_fitted(model), more[0], more[1], kind)
    except CorruptError:
        raise
    except Exception as error:  # attributes that are missing, arrays of other shapes: whoever asks falls back to skops
        raise CorruptError(f"arrays that do not fit together ({one_line(error)[:100]})") from error


def _light(model: Fitted, calibrator: Fitted | None, unlike: Fitted | None, kind: str) -> Light:
    if model.kind != "sklearn.pipeline.Pipeline" or kind not in ("classification", "regression"):
        raise CorruptError("no pipeline of one target")
    *steps, (_, last) = model.steps
    before = _before([step for _, step in steps])
    if kind == "regression":
        number = _known(_NUMBERS, last)
        found = Light(np.empty(0), lambda X: number(before(X)), None, _share(unlike))
    else:
        found = _classifier(before, last, calibrator)._replace(share=_share(unlike))
    width = int((steps[0][1] if steps else last).n_features_in_)
    _probe(found, np.zeros((_PROBED, width), np.float32))
    return found


def _classifier(before: Callable[[Rows], Rows], last: Fitted, calibrator: Fitted | None) -> Light:
    labels, scores, chances = _known(_CLASSIFIERS, last)
    classes = last.classes_
    if classes.ndim != 1 or len(classes) < 2:
        raise CorruptError("classes that are none")
    if calibrator is None and chances is None:
        raise CorruptError("no probabilities")
    if calibrator is not None and calibrator.kind != f"{_OURS}calibration.Calibrator":
        raise CorruptError("another calibrator")

    def proba(X: Rows) -> Rows:
        X = before(X)
        if calibrator is None:
            return chances(last, X)
        if chances is None:
            return formulas.calibrated(calibrator, scores(last, X).reshape(len(X), -1))
        with np.errstate(divide="ignore"):
            return formulas.calibrated(calibrator, np.log(chances(last, X)))

    return Light(classes, lambda X: classes[labels(last, before(X))], proba, None)


def _before(steps: list[Any]) -> Callable[[Rows], Rows]:
    for step in steps:
        if getattr(step, "kind", None) not in _STEPS or getattr(step, "norm", "l2") != "l2":
            raise CorruptError("another step before the model")

    def transform(X: Rows) -> Rows:
        for step in steps:
            X = formulas.TRANSFORMS[_STEPS[step.kind]](step, X)
        return X

    return transform


def _share(unlike: Fitted | None) -> Callable[[Rows], Rows] | None:
    if unlike is None:
        return None
    model, usual = unlike.model_, unlike.usual_
    if (unlike.kind, model.kind) != (f"{_OURS}novelty.Unlike", f"{_OURS}novelty.Mahalanobis") or not len(usual):
        raise CorruptError("another measure of what is unlike")
    arrays = (model.means_, model.components_, model.variances_, usual, np.asarray(model.noise_))
    if not all(np.isfinite(each).all() for each in arrays) or not model.noise_ > 0:
        raise CorruptError("numbers that are none")
    return lambda X: np.searchsorted(usual, formulas.unusual(model, X)) / len(usual)


def _probe(found: Light, X: Rows) -> None:
    """Refuse arrays that do not fit together: whatever rows of zeros raise, and results of other shapes."""
    shapes: list[tuple[Rows, tuple[int, ...]]] = [(found.predict(X), (len(X),))]
    shapes += [(found.chances(X), (len(X), len(found.classes)))] if found.chances else []
    shapes += [(found.share(X), (len(X),))] if found.share else []
    if any(values.shape != shape for values, shape in shapes):
        raise CorruptError("results of other shapes")


# --- the models that are known -----------------------------------------------------------------------------


def _known(known: dict[str, Callable[[Fitted], Any]], last: Any) -> Any:
    if getattr(last, "kind", None) not in known:
        raise CorruptError("another model")
    return known[last.kind](last)


def _refuse(is_other: bool) -> None:
    if is_other:
        raise CorruptError("another kind of this model")


def _binary_or_highest(decision: Rows) -> Rows:
    return (decision > 0).astype(np.int64) if decision.ndim == 1 else decision.argmax(axis=1)


def _logistic(fitted: Fitted) -> Any:
    own = vars(fitted)
    _refuse(own.get("multi_class", "auto") not in ("auto", "deprecated") or own.get("solver") == "liblinear")
    return lambda f, X: _binary_or_highest(formulas.linear(f, X)), formulas.linear, formulas.logistic_chances


def _machine(fitted: Fitted) -> Any:
    _check_kernel(fitted)
    is_simple = fitted.probability in (False, "deprecated") and not fitted.break_ties
    _refuse(not is_simple or fitted.decision_function_shape != "ovr")
    return formulas.machine_labels, formulas.machine, None


def _perceptron(fitted: Fitted) -> Any:
    is_pair = fitted.out_activation_ == "logistic" and fitted.n_outputs_ == 1
    _refuse(
        fitted.activation not in ("relu", "tanh", "identity") or not (is_pair or fitted.out_activation_ == "softmax")
    )

    def labels(f: Fitted, X: Rows) -> Rows:
        chances = formulas.perceptron_chances(f, X)
        return (chances[:, 1] > 0.5).astype(np.int64) if is_pair else chances.argmax(axis=1)

    return labels, None, formulas.perceptron_chances


def _check_kernel(fitted: Fitted) -> None:
    _refuse(fitted.kernel not in ("rbf", "linear") or bool(fitted._sparse))


def _ridge(fitted: Fitted) -> Any:
    return lambda X: formulas.linear(fitted, X)


def _vectors(fitted: Fitted) -> Any:
    _check_kernel(fitted)
    return lambda X: formulas.numbers_of_vectors(fitted, X)


def _perceptron_number(fitted: Fitted) -> Any:
    _refuse(fitted.activation not in ("relu", "tanh", "identity") or fitted.out_activation_ != "identity")
    return lambda X: formulas.perceptron(fitted, X)[:, 0]


_CLASSIFIERS: dict[str, Callable[[Fitted], Any]] = {
    "sklearn.linear_model._logistic.LogisticRegression": _logistic,
    "sklearn.svm._classes.SVC": _machine,
    "sklearn.neural_network._multilayer_perceptron.MLPClassifier": _perceptron,
}
"""Of each its labels (numbers of classes), its decision values, and its probabilities; None for what it has not."""
_NUMBERS: dict[str, Callable[[Fitted], Any]] = {
    "sklearn.linear_model._ridge.Ridge": _ridge,
    "sklearn.svm._classes.SVR": _vectors,
    "sklearn.neural_network._multilayer_perceptron.MLPRegressor": _perceptron_number,
}
