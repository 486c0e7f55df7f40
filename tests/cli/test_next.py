import csv
import io

import pytest

from featurebank import Bank


@pytest.fixture
def partly_labelled(run_json, own_bank, tmp_path):
    """A bank in which the column `kind` is known of half of the images, and its predictor."""
    rows = [f"{c}/{i:02}.png,{c}" for c in ("cat", "dog") for i in range(10)]
    (tmp_path / "kind.csv").write_text("\n".join(["path,kind", *rows]))
    run_json("label", own_bank, tmp_path / "kind.csv")
    options = ["--target", "kind", "--model", "logreg", "--features", "layer3", "-o", tmp_path / "kind.featurebank"]
    run_json("fit", own_bank, *options)
    return own_bank, tmp_path / "kind.featurebank"


@pytest.mark.parametrize("strategy", ["uncertainty", "margin", "coverage"])
def test_the_csv_asks_for_the_target_of_images_without_one(run_cli, partly_labelled, strategy):
    bank, predictor = partly_labelled
    result = run_cli("next", bank, "--predictor", predictor, "--strategy", strategy, "-n", 5)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(rows[0]) == ["source", "path", "score", "kind"]
    assert len(rows) == 5
    assert all(row["kind"] == "" and int(row["path"][4:6]) >= 10 for row in rows)
    assert [float(row["score"]) for row in rows] == sorted((float(row["score"]) for row in rows), reverse=True)


def test_filled_in_it_is_read_back_and_json_says_the_same(run_cli, run_json, partly_labelled, tmp_path):
    bank, predictor = partly_labelled
    out = tmp_path / "next.csv"
    result = run_cli("next", bank, "--predictor", predictor, "-o", out)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"20 images to label in {out}   then: featurebank label {bank} {out}\n"
    report = run_json("next", bank, "--predictor", predictor)
    lines = out.read_text().splitlines()
    assert (report["target"], report["strategy"]) == ("kind", "uncertainty")
    assert [row["path"] for row in report["next"]] == [line.split(",")[1] for line in lines[1:]]
    assert {row["kind"] for row in report["next"]} == {None}
    out.write_text("\n".join([lines[0], *(line + line.split(",")[1][:3] for line in lines[1:])]) + "\n")
    run_json("label", bank, out)
    samples = Bank(bank).samples
    assert (samples["kind"] == samples["label"]).all()
    assert "score" not in samples
    done = run_cli("next", bank, "--predictor", predictor)
    assert done.exit_code == 1
    assert "nothing to label" in done.stderr


def test_a_predictor_is_needed(run_cli, two_class_bank):
    assert run_cli("next", two_class_bank).exit_code == 2
    result = run_cli("next", two_class_bank, "--predictor", "nowhere.featurebank")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: no predictor at 'nowhere.featurebank'")
