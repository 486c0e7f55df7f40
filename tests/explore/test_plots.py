import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from featurebank import fit
from featurebank.bank.spec import layer_order
from featurebank.errors import ColumnError, NotInstalledError, PlotError
from featurebank.explore import (
    plot_abstention,
    plot_candidates,
    plot_layer_curve,
    plot_learning_curve,
    plot_map,
    plots,
)
from featurebank.explore.plots import classes_of, figure_bytes

PLOTS = [plot_candidates, plot_layer_curve, plot_learning_curve, plot_abstention]


@pytest.fixture(scope="module")
def report(two_class_bank):
    return fit(two_class_bank, models={"logreg": {"C": [0.01]}, "ridge": {}}, learning_curve=True).report


def candidate(features, mean, model="svm"):
    low, high = mean - 0.1, mean + 0.1
    return {"features": features, "model": model, "normalize": "l2", "select": None, "mean": mean, "ci95": [low, high]}


@pytest.mark.parametrize("plot", PLOTS)
def test_every_plot_of_a_report_draws_on_the_axes_it_is_given(report, plot):
    ax = Figure().subplots()
    assert plot(report, ax=ax) is ax
    assert ax.get_xlabel()
    assert figure_bytes(plot(report).get_figure(), ".svg") == figure_bytes(plot(report).get_figure(), ".svg")


def test_the_layer_curve_goes_from_the_first_layer_to_the_last():
    found = [candidate([f"net/{layer}"], mean) for layer, mean in (("penultimate", 0.7), ("b.10", 0.9), ("b.9", 0.8))]
    found += [candidate(["net/b.9"], 0.85, "ridge"), candidate(["net/b.9", "net/b.10"], 0.99)]
    ax = plot_layer_curve({"candidates": found, "scoring": "accuracy"})
    assert [label.get_text() for label in ax.get_xticklabels()] == ["b.9", "b.10", "penultimate"]
    assert ax.lines[0].get_ydata().tolist() == [0.85, 0.9, 0.7]
    with pytest.raises(PlotError, match="no candidate of a single layer"):
        plot_layer_curve({"candidates": found[-1:], "scoring": "accuracy"})


def test_layers_sort_by_their_numbers():
    names = ["layer1.10", "conv1", "layer1.9", "logits", "penultimate", "layer1"]
    assert sorted(names, key=layer_order) == ["conv1", "layer1", "layer1.9", "layer1.10", "penultimate", "logits"]


def test_candidates_stand_from_the_best_down():
    report = {"candidates": [candidate(["a"], 0.5), candidate(["b"], 0.8), candidate(["a"], 0.6)], "scoring": "r2"}
    ax = plot_candidates(report)
    labels = dict(zip(ax.get_yticks(), [label.get_text() for label in ax.get_yticklabels()], strict=True))
    assert labels == {1: "b, svm", 0: "a, svm"}


def test_the_learning_curve_shows_what_was_measured(report):
    points = report["learning_curve"]["points"]
    ax = plot_learning_curve(report)
    assert ax.lines[0].get_xdata().tolist() == [each["n_train"] for each in points]


@pytest.mark.parametrize("plot", [plot_learning_curve, plot_abstention])
def test_what_the_fit_did_not_make_is_an_error(plot):
    with pytest.raises(PlotError, match="the report has no"):
        plot({"candidates": [], "scoring": "r2"})


# --- the map -----------------------------------------------------------------------------------------------


def points(**columns):
    count = len(next(iter(columns.values())))
    return pd.DataFrame({"path": "a", "x": np.arange(count) * 1.0, "y": 0.0, **columns})


def count_drawn(ax):
    return sum(len(each.get_offsets()) for each in ax.collections)


@pytest.mark.parametrize(
    ("values", "legend"),
    [
        (["b", "a", None, "a"], ["a", "b"]),
        ([True, False, True], ["False", "True"]),
        (pd.array([1, 2, None], "Int64"), ["1", "2"]),
        (["$x_1$", "a\nb"], [r"\$x_1\$", "a?b"]),
        ([f"{i:02}" for i in range(30)] * 2, [f"{i:02}" for i in range(20)]),
    ],
)
def test_classes_get_a_legend_and_every_sample_is_drawn(values, legend):
    ax = plot_map(points(label=values), color="label")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == legend
    assert count_drawn(ax) == len(values)
    figure_bytes(ax.get_figure(), ".png")


@pytest.mark.parametrize("values", [[0.5, 1.5, None], list(range(30))])
def test_numbers_get_a_scale(values):
    ax = plot_map(points(p=values), color="p")
    assert ax.get_legend() is None
    assert len(ax.get_figure().axes) == 2
    assert count_drawn(ax) == len(values)


def test_a_column_without_values_and_no_column_are_drawn():
    assert count_drawn(plot_map(points(label=pd.Series([None, None], dtype=object)), color="label")) == 2
    assert count_drawn(plot_map(points(label=["a"]))) == 1


def test_a_column_that_is_not_there_is_an_error():
    with pytest.raises(ColumnError, match="the points have no column 'site'"):
        plot_map(points(label=["a"]), color="site")


def test_classes_of_a_column():
    assert classes_of(pd.Series([], dtype=object)) == []
    assert classes_of(pd.Series([2.0, 1.0])) == [1.0, 2.0]


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(NotInstalledError, match=r"pip install 'featurebank\[plot\]'"):
        plot_map(points(label=["a"]))


def test_no_share_of_right_answers_is_drawn_beyond_one():
    for accuracy, low in ((1.0, 0.9), (0.98, 0.9)):
        rows = [{"coverage": 1.0, "accuracy": low}, {"coverage": 0.5, "accuracy": accuracy}]
        ax = plot_abstention({"abstention": rows})
        assert ax.get_ylim()[1] <= 1
        assert ax.get_ylim()[0] < low
        assert ax.get_xlim() == (0, 1)
