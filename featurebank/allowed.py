"""The types that a predictor file may hold beyond skops's own list; nothing else is ever loaded or saved."""

ALLOWED_TYPES = (
    "featurebank.transforms.SelectDimensions",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
)
