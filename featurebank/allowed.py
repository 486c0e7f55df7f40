"""The types that a predictor file may hold beyond skops's own list; nothing else is ever loaded or saved."""

ALLOWED_TYPES = (
    "featurebank.calibration.Calibrator",
    "featurebank.calibration.LabelsCalibrator",
    "featurebank.multitask.network.NetworkClassifier",
    "featurebank.multitask.network.NetworkRegressor",
    "featurebank.multiview.ClassifierOverViews",
    "featurebank.multiview.RegressorOverViews",
    "featurebank.novelty.Mahalanobis",
    "featurebank.novelty.Unlike",
    "featurebank.transforms.SelectDimensions",
    "featurebank.transforms.SelectRelevant",
    "featurebank.transforms.SignedSquareRoot",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
)
