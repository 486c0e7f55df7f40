import pandas as pd


def test_an_image_of_the_bank_is_compared_with_the_others(run_json, two_class_bank, tmp_path):
    report = run_json("similar", two_class_bank, "cat/04.png", "-k", 30, "-o", tmp_path / "a.csv")
    assert report["image"] == "cat/04.png"
    assert len(report["similar"]) == 30
    assert report["similar"][0].keys() == {"source", "path", "similarity"}
    table = pd.read_csv(tmp_path / "a.csv")
    assert table["path"].tolist() == [each["path"] for each in report["similar"]]


def test_a_new_file_is_compared_and_the_table_shows_all(run_cli, two_class_bank, noise, tmp_path):
    noise(64, 64).save(tmp_path / "new.png")
    result = run_cli("similar", two_class_bank, tmp_path / "new.png", "-k", 25, "--metric", "whitened")
    assert result.exit_code == 0
    assert sum(".png" in line for line in result.stdout.splitlines()) == 26  # and the title
