"""The types that a predictor file may hold beyond skops's own list; nothing else is ever loaded or saved."""

ALLOWED_TYPES = (
    "featurebank.topmodels.calibration.Calibrator",
    "featurebank.topmodels.calibration.LabelsCalibrator",
    "featurebank.fitting.shared_network.NetworkClassifier",
    "featurebank.fitting.shared_network.NetworkRegressor",
    "featurebank.topmodels.multiview.ClassifierOverViews",
    "featurebank.topmodels.multiview.RegressorOverViews",
    "featurebank.topmodels.novelty.Mahalanobis",
    "featurebank.topmodels.novelty.Unlike",
    "featurebank.topmodels.transforms.SelectDimensions",
    "featurebank.topmodels.transforms.SelectRelevant",
    "featurebank.topmodels.transforms.SignedSquareRoot",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
)

MOVED_MODULES = {  # where the types of files written before 0.2 live now
    "featurebank.calibration": "featurebank.topmodels.calibration",
    "featurebank.multitask.network": "featurebank.fitting.shared_network",
    "featurebank.multiview": "featurebank.topmodels.multiview",
    "featurebank.novelty": "featurebank.topmodels.novelty",
    "featurebank.transforms": "featurebank.topmodels.transforms",
}
