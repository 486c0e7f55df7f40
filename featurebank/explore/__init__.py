"""Looking at a bank: duplicates, label issues, clusters, outliers, neighbours, maps, plots, and where a model looks.

Importing this package loads none of its modules; a name loads its module when it is first used. No module is called
like a function here: once loaded, it would stand in the function's place.
"""

from typing import TYPE_CHECKING

from featurebank import lazy

if TYPE_CHECKING:
    from featurebank.explore.activation_maps import explain
    from featurebank.explore.clustering import Clusters, cluster
    from featurebank.explore.image_map import ActivationMap
    from featurebank.explore.label_errors import label_issues
    from featurebank.explore.labelling import next_to_label
    from featurebank.explore.near_duplicates import duplicates
    from featurebank.explore.outlier_detection import outliers
    from featurebank.explore.page import map_page
    from featurebank.explore.plots import (
        plot_abstention,
        plot_candidates,
        plot_layer_curve,
        plot_learning_curve,
        plot_map,
        plot_training,
    )
    from featurebank.explore.projection import project
    from featurebank.explore.similarity import similar

_HOMES = {
    "ActivationMap": "image_map",
    "Clusters": "clustering",
    "cluster": "clustering",
    "duplicates": "near_duplicates",
    "explain": "activation_maps",
    "label_issues": "label_errors",
    "map_page": "page",
    "next_to_label": "labelling",
    "outliers": "outlier_detection",
    "plot_abstention": "plots",
    "plot_candidates": "plots",
    "plot_layer_curve": "plots",
    "plot_learning_curve": "plots",
    "plot_map": "plots",
    "plot_training": "plots",
    "project": "projection",
    "similar": "similarity",
}

__all__ = [
    "ActivationMap",
    "Clusters",
    "cluster",
    "duplicates",
    "explain",
    "label_issues",
    "map_page",
    "next_to_label",
    "outliers",
    "plot_abstention",
    "plot_candidates",
    "plot_layer_curve",
    "plot_learning_curve",
    "plot_map",
    "plot_training",
    "project",
    "similar",
]


__getattr__ = lazy("featurebank.explore", _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
