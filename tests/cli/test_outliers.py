import pandas as pd

from featurebank.explore.outlier_detection import outliers


def test_json_and_csv_are_the_librarys_table(run_json, two_class_bank, tmp_path):
    report = run_json("outliers", two_class_bank, "--method", "knn", "-o", tmp_path / "outliers.csv")
    found = outliers(two_class_bank, method="knn")
    assert (report["method"], report["target"]) == ("knn", None)
    assert report["images"] == found.to_dict("records")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "outliers.csv"), found, check_dtype=False)


def test_the_table_shows_the_most_unusual(run_cli, two_class_bank):
    result = run_cli("outliers", two_class_bank, "--features", "layer3", "--target", "label")
    found = outliers(two_class_bank, features="layer3", target="label")
    assert result.stdout.startswith("mahalanobis, 10 of 40 images")
    shown = [line.split()[0] for line in result.stdout.splitlines() if line.split()[:1] and ".png" in line]
    assert shown == found["path"][:10].tolist()


def test_what_cannot_be_had_is_an_error(run_cli, two_class_bank):
    result = run_cli("outliers", two_class_bank, "--target", "species")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: the bank has no column 'species'")
