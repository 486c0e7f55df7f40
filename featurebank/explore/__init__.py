"""Looking at a bank: neighbours, duplicates, label issues, maps, plots, and what a network and a model look at.

Importing this package loads none of its parts; a name loads its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurebank.explore.activation_maps import ActivationMap, explain
    from featurebank.explore.channels import ChannelPatches, draw_channels, top_patches
    from featurebank.explore.label_errors import label_issues
    from featurebank.explore.near_duplicates import duplicates
    from featurebank.explore.page import map_page
    from featurebank.explore.plots import (
        plot_abstention,
        plot_candidates,
        plot_layer_curve,
        plot_learning_curve,
        plot_map,
    )
    from featurebank.explore.projection import project
    from featurebank.explore.similarity import similar

_HOMES = {
    "ActivationMap": "activation_maps",
    "ChannelPatches": "channels",
    "draw_channels": "channels",
    "duplicates": "near_duplicates",
    "explain": "activation_maps",
    "label_issues": "label_errors",
    "map_page": "page",
    "plot_abstention": "plots",
    "plot_candidates": "plots",
    "plot_layer_curve": "plots",
    "plot_learning_curve": "plots",
    "plot_map": "plots",
    "project": "projection",
    "similar": "similarity",
    "top_patches": "channels",
}

__all__ = [
    "ActivationMap",
    "ChannelPatches",
    "draw_channels",
    "duplicates",
    "explain",
    "label_issues",
    "map_page",
    "plot_abstention",
    "plot_candidates",
    "plot_layer_curve",
    "plot_learning_curve",
    "plot_map",
    "project",
    "similar",
    "top_patches",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"featurebank.explore.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'featurebank.explore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
