import pytest


def test_a_report_is_written_beside_the_bank(run_cli, own_bank):
    result = run_cli("report", own_bank, "--map", "pca")
    assert result.exit_code == 0, result.stderr
    page = own_bank.with_suffix(".report.html")
    assert result.stdout.startswith(f"report: {page}   ")
    assert "40 pictures" in result.stdout
    assert page.read_text().startswith("<!doctype html>")


def test_json_counts_what_is_shown(run_json, two_class_bank, two_class_predictor, tmp_path):
    file = tmp_path / "a.html"
    options = ["--predictor", two_class_predictor, "--map", "pca", "--map", "tsne", "--seed", 1, "-o", file]
    made = run_json("report", two_class_bank, *options)
    assert (made["report"], made["bytes"], made["images"], made["pictures"]) == (str(file), file.stat().st_size, 40, 40)
    assert made["maps"] == ["PCA", "t-SNE"]
    assert made["groups"] == 0
    assert made["mistakes"] == 0


def test_out_of_fold_predictions_are_found_beside_the_predictor(run_cli, run_json, own_bank):
    fitted = run_json("fit", own_bank, "--model", "centroid", "--features", "resnet18/penultimate")
    made = run_json("report", own_bank, "--predictor", fitted["predictor"], "--map", "pca")
    assert made["mistakes"] == round(40 * (1 - fitted["best"]["mean"]))
    assert made["issues"] is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target", "nothing"], "no column 'nothing'"),
        (["--features", "layer9"], "layer9"),
        (["--predictor", "none.featurebank"], "no predictor at"),
        (["-o", "/nowhere/a.html"], "no folder '/nowhere'"),
    ],
)
def test_what_cannot_be_had_is_one_line(run_cli, two_class_bank, options, said):
    result = run_cli("report", two_class_bank, *options)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_unknown_map_is_a_usage_error(run_cli, two_class_bank):
    assert run_cli("report", two_class_bank, "--map", "mds").exit_code == 2
