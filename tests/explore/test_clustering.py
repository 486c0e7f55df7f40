import json

import numpy as np
import pandas as pd
import pytest
from made_bank import make_bank, planted

from featurebank.errors import BankError, ColumnError, FeatureSetError, TopModelError
from featurebank.explore import cluster
from featurebank.explore.clustering import METHODS, choose_number, partitions, reduced, silhouette, stability


@pytest.mark.parametrize("method", METHODS)
def test_planted_clusters_are_found_with_their_number(tmp_path, random, method):
    X, names = planted(random, away=16.0)
    found = cluster(make_bank(tmp_path / "a.bank", X, label=names.astype(str)), method=method)
    assert json.loads(json.dumps(found.report, allow_nan=False)) == found.report
    (row,) = found.report["feature_sets"]
    assert row == found.report["best"]
    assert (row["clusters"], row["unclustered"]) == (4, 0)
    assert row["nmi"] == row["ari"] == row["stability"] == 1.0
    assert row["silhouette"] > 0.45
    assert found.report["note"] == "Stable, well separated clusters"
    assert [each["size"] for each in found.report["clusters"]] == [30] * 4
    assert [each["share"] for each in found.report["clusters"]] == [1.0] * 4


def test_representatives_are_nearest_to_the_mean_and_the_largest_cluster_comes_first(tmp_path, random):
    X, names = planted(random, groups=2, size=10)
    X, names = X[(names == 0) | (np.arange(20) % 2 == 0)], names[(names == 0) | (np.arange(20) % 2 == 0)]
    found = cluster(make_bank(tmp_path / "a.bank", X), clusters=2)
    Z = reduced(X.astype(np.float32))
    for each in found.report["clusters"]:
        rows = np.flatnonzero(found.table["cluster"] == each["cluster"])
        assert len(set(names[rows])) == 1
        distances = np.linalg.norm(Z[rows] - Z[rows].mean(axis=0), axis=1)
        np.testing.assert_allclose(found.table["distance"][rows], distances)
        nearest = [f"{rows[row]:03}.png" for row in np.argsort(distances)[:3]]
        assert each["representatives"] == nearest
    assert [each["size"] for each in found.report["clusters"]] == [10, len(X) - 10]
    assert "class" not in found.report["clusters"][0]


def test_every_feature_set_has_a_row_and_the_best_separated_is_written(tmp_path, random):
    X, names = planted(random)
    layers = {"good": X, "noise": random.normal(size=X.shape), "weak": X + 4 * random.normal(size=X.shape)}
    bank = make_bank(tmp_path / "a.bank", layers, label=names)
    done = []
    found = cluster(bank, progress=lambda *counts: done.append(counts))
    rows = {each["features"]: each for each in found.report["feature_sets"]}
    assert list(rows) == ["net/good", "net/noise", "net/weak"]
    assert found.report["best"]["features"] == "net/good"
    assert rows["net/good"]["nmi"] > rows["net/weak"]["nmi"] > rows["net/noise"]["nmi"]
    assert done == [(1, 3), (2, 3), (3, 3)]
    both = cluster(bank, features=["good+weak"]).report["feature_sets"]
    assert [each["features"] for each in both] == ["net/good+net/weak"]


def test_rows_without_structure_are_no_discovery(tmp_path, random):
    X, names = random.normal(size=(200, 30)), random.integers(0, 3, 200)
    found = cluster(make_bank(tmp_path / "a.bank", X, label=names.astype(str))).report
    assert found["note"].startswith("Look before you trust: ")
    assert "no substantial structure" in found["note"]
    assert abs(found["best"]["ari"]) < 0.05
    assert found["best"]["stability"] < 0.6


def test_hdbscan_leaves_out_what_lies_between_and_says_when_there_is_nothing(tmp_path, random):
    X, _ = planted(random, groups=3, size=40)
    strays = 8 * random.normal(size=(6, 20))
    found = cluster(make_bank(tmp_path / "a.bank", np.concatenate([X, strays])), method="hdbscan")
    assert found.report["best"]["unclustered"] >= 4
    assert found.table["cluster"][120:].isna().sum() >= 4
    assert found.table["distance"].notna().all()
    assert found.table["cluster"].dtype == "Int64"
    flat = make_bank(tmp_path / "b.bank", np.eye(60), label=["a", "b"] * 30)  # all as far from each other
    found = cluster(flat, method="hdbscan")
    assert (found.report["best"]["clusters"], found.report["clusters"]) == (0, [])
    assert found.report["note"].startswith("Fewer than two clusters")
    assert found.report["best"]["nmi"] == 0.0
    assert found.table["cluster"].isna().all()


def test_identical_content_counts_once_and_every_copy_gets_its_cluster(tmp_path, random):
    X, _ = planted(random, groups=2, size=10)
    contents = np.arange(60) % 20
    found = cluster(make_bank(tmp_path / "a.bank", X[contents], contents), clusters=2)
    table = found.table.assign(content=contents)
    assert (table.groupby("content")["cluster"].nunique() == 1).all()
    assert sum(each["size"] for each in found.report["clusters"]) == 60
    for each in found.report["clusters"]:
        shown = [contents[int(path.removesuffix(".png"))] for path in each["representatives"]]
        assert len(set(shown)) == len(shown) == 3


def test_labels_that_only_some_rows_have_are_compared_where_they_are(tmp_path, random):
    X, names = planted(random, groups=3)
    given = np.where(np.arange(90) < 30, names.astype(str), None)
    found = cluster(make_bank(tmp_path / "a.bank", X, kind=given), target="kind").report
    assert found["best"]["nmi"] == 1.0
    none = cluster(make_bank(tmp_path / "b.bank", X, label=[None] * 90)).report
    assert (none["target"], none["best"]["nmi"]) == ("label", None)


def test_a_repeat_gives_the_same(tmp_path, random):
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(80, 10)))
    one, two = (cluster(bank, random_state=3) for _ in range(2))
    assert one.report == two.report
    pd.testing.assert_frame_equal(one.table, two.table)


def test_the_clusters_can_be_read_back_as_labels(tmp_path, random):
    from featurebank.images.tables import read_table
    from featurebank_cli.output import csv_text

    X, _ = planted(random, groups=3, size=20)
    bank = make_bank(tmp_path / "a.bank", X)
    found = cluster(bank)
    (tmp_path / "clusters.csv").write_text(csv_text(found.table))
    assert bank.label(read_table(tmp_path / "clusters.csv")) == 60
    assert bank.samples["cluster"].tolist() == found.table["cluster"].tolist()
    np.testing.assert_allclose(bank.samples["distance"].astype(float), found.table["distance"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "dbscan"}, TopModelError, "no clustering 'dbscan'; did you mean hdbscan?"),
        ({"clusters": 1}, TopModelError, "1 clusters are asked for; expected at least 2"),
        ({"clusters": 3, "method": "hdbscan"}, TopModelError, "hdbscan finds the number itself"),
        ({"clusters": 10}, TopModelError, "10 different embeddings of net/penultimate; expected more than clusters"),
        ({"target": "age"}, ColumnError, "column 'age' holds fractions; expected classes"),
        ({"target": "species"}, ColumnError, "the bank has no column 'species'"),
        ({"features": "layer9"}, FeatureSetError, "layer9"),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path, random, options, error, message):
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(10, 4)), age=random.normal(size=10))
    with pytest.raises(error, match=message):
        cluster(bank, **options)


def test_too_few_or_equal_images_are_an_error(tmp_path):
    with pytest.raises(BankError, match="2 different images; expected at least 3 to find clusters among"):
        cluster(make_bank(tmp_path / "a.bank", np.eye(2)))
    with pytest.raises(TopModelError, match="1 different embeddings of net/penultimate"):
        cluster(make_bank(tmp_path / "b.bank", np.ones((9, 4))))


@pytest.mark.parametrize("method", METHODS)
def test_three_images_are_enough(tmp_path, method):
    found = cluster(make_bank(tmp_path / "a.bank", np.array([[1.0, 0, 0], [1, 0.1, 0], [0, 0, 1]])), method=method)
    assert len(found.table) == 3
    if method != "hdbscan":
        assert found.table["cluster"].tolist() == [0, 0, 1]


def test_clusters_show_themselves_and_the_old_name_of_the_seed_is_taken(tmp_path, random):
    X, names = planted(random, away=16.0)
    bank = make_bank(tmp_path / "a.bank", X, label=names.astype(str))
    found = cluster(bank)
    assert repr(found) == "<Clusters: 4 of 120 images by net/penultimate; Stable, well separated clusters>"
    assert found.to_dict() is found.report
    assert found.to_frame() is found.table
    assert found._repr_html_().startswith("<p>&lt;Clusters: 4 of 120 images")
    with pytest.warns(FutureWarning, match="random_state"):
        assert cluster(bank, seed=3).report["seed"] == 3


@pytest.mark.parametrize(
    ("away", "said"),
    [
        (16.0, "Stable, well separated clusters"),
        (12.0, "Stable, reasonably separated clusters"),
        (8.0, "Look before you trust: the silhouette of 0.49 shows a weak structure (reasonable from 0.5), which"),
        (4.0, "Look before you trust: the silhouette of 0.20 shows no substantial structure (from 0.25)"),
    ],
)
def test_what_is_said_of_clusters_follows_their_silhouette(tmp_path, random, away, said):
    found = cluster(make_bank(tmp_path / "a.bank", planted(random, away=away)[0]), clusters=4)
    assert found.report["best"]["stability"] > 0.9
    assert found.report["note"].startswith(said)


# --- partitions of rows ------------------------------------------------------------------------------------


def test_the_number_has_the_highest_silhouette(random):
    Z = reduced(planted(random, groups=5)[0])
    partition = partitions(Z, "kmeans")
    scores = {k: silhouette(Z, partition(k)) for k in range(2, 16)}
    assert choose_number(Z, partition) == max(scores, key=scores.get) == 5


def test_unstable_clusters_are_told_from_stable_ones(random):
    Z, flat = reduced(planted(random)[0]), reduced(random.normal(size=(120, 20)))
    assert stability(Z, partitions(Z, "agglomerative")(4), "agglomerative", 4) == 1.0
    assert stability(flat, partitions(flat, "kmeans")(4), "kmeans", 4) < 0.5


def test_reduced_rows_keep_the_distances_of_rows_of_length_1(random):
    X = random.normal(size=(12, 8)) * random.uniform(1, 9, size=(12, 1))
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    Z = reduced(X)
    np.testing.assert_allclose(
        np.linalg.norm(Z[:, None] - Z, axis=2), np.linalg.norm(unit[:, None] - unit, axis=2), atol=1e-6
    )
