import pandas as pd

from featurebank import Bank
from featurebank.explore.clustering import cluster


def test_json_is_the_librarys_report_and_the_csv_its_table(run_json, two_class_bank, tmp_path):
    options = {"features": "layer3", "method": "agglomerative", "clusters": 2, "seed": 1}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    report = run_json("cluster", two_class_bank, *flags, "-o", tmp_path / "clusters.csv")
    found = cluster(two_class_bank, **options)
    assert report == found.report
    table = pd.read_csv(tmp_path / "clusters.csv")
    assert list(table) == ["source", "path", "cluster", "distance"]
    assert table["cluster"].tolist() == found.table["cluster"].tolist()


def test_the_tables_show_each_feature_set_and_each_cluster(run_cli, two_class_bank):
    result = run_cli("cluster", two_class_bank, "--clusters", 2)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.stdout.startswith("kmeans, 40 images, compared with label, resnet18")
    rows = {line[0]: line for line in lines if line[:1] in (["layer3"], ["penultimate"])}
    assert rows["layer3"][1:2] == rows["penultimate"][1:2] == ["2"]
    assert ["features", "clusters", "silhouette", "stability", "NMI", "ARI", "in", "none"] in lines
    clusters = [line for line in lines if line[:1] in (["0"], ["1"])]
    assert sum(int(line[1]) for line in clusters) == 40
    assert all(line[2] in ("cat", "dog") and line[4].endswith(".png") for line in clusters)
    assert result.stdout.rstrip().endswith(".")


def test_the_csv_is_read_back_by_label(run_cli, run_json, own_bank, tmp_path):
    run_cli("cluster", own_bank, "--features", "layer3", "--clusters", 3, "-o", tmp_path / "clusters.csv")
    answer = run_json("label", own_bank, tmp_path / "clusters.csv")
    assert answer["rows"] == answer["changed"] == 40
    table = pd.read_csv(tmp_path / "clusters.csv")
    assert Bank(own_bank).samples["cluster"].tolist() == table["cluster"].tolist()
    assert run_json("fit", own_bank, "--target", "cluster", "--model", "ridge", "--folds", 2)["classes"] == [0, 1, 2]


def test_what_cannot_be_had_is_an_error(run_cli, two_class_bank):
    result = run_cli("cluster", two_class_bank, "--method", "hdbscan", "--clusters", 3)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: 3 clusters are asked for; hdbscan finds the number itself\n"
    assert run_cli("cluster", two_class_bank, "--clusters", 1).exit_code == 2
