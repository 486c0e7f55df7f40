"""A small predictor over made-up embeddings; shared by the tests of trust."""

import numpy as np
from bank_maker import SPEC, WIDTH
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featurebank.predictor.features import PredictorFeature
from featurebank.predictor.predictor import Predictor
from featurebank.predictor.task import Task
from featurebank.topmodels.calibration import Calibrator


def rows(classes=3):
    random = np.random.default_rng(0)
    y = np.repeat([f"class {i}" for i in range(classes)], 20)
    return (random.normal(size=(len(y), WIDTH)) + np.arange(classes).repeat(20)[:, None]).astype(np.float32), y


def make_predictor(weights="DEFAULT", spec=SPEC, model=None, unlike=None):
    X, y = rows()
    model = model or Pipeline([("scale", StandardScaler()), ("model", SVC(C=3.0))]).fit(X, y)
    calibrator = None
    if not hasattr(model, "predict_proba"):
        calibrator = Calibrator().fit(model.decision_function(X), y)
    task = Task([PredictorFeature(spec, weights, None)], model, "label", calibrator=calibrator, unlike=unlike)
    return Predictor(task)


def probabilities(predictor):
    X, _ = rows()
    return [tuple(row) for row in predictor.probabilities(X).tolist()]
