import pandas as pd
import pytest


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".html", b"<!doctype html>")])
def test_a_map_is_drawn_in_the_format_that_is_named(run_json, two_class_bank, tmp_path, suffix, start):
    path = tmp_path / f"map{suffix}"
    report = run_json("map", two_class_bank, "-o", path)
    assert report == {
        "bank": str(two_class_bank),
        "method": "pca",
        "color": "label",
        "samples": 40,
        "output": str(path),
    }
    data = path.read_bytes()
    assert data.startswith(start)
    run_json("map", two_class_bank, "-o", path)
    assert path.read_bytes() == data


def test_the_points_can_be_had_and_the_default_lies_beside_the_bank(run_cli, own_bank, tmp_path):
    result = run_cli("map", own_bank, "--method", "tsne", "--color", "path", "-o", tmp_path / "a.csv")
    assert (result.exit_code, result.stdout) == (1, "")
    assert run_cli("map", own_bank, "--method", "tsne", "-o", tmp_path / "a.csv").exit_code == 0
    assert pd.read_csv(tmp_path / "a.csv").columns.tolist() == ["source", "path", "x", "y", "label"]
    assert run_cli("map", own_bank).stdout == f"40 samples in {own_bank.with_suffix('.map.png')}\n"


def test_an_unknown_format_is_an_error_before_any_work(run_cli, two_class_bank):
    result = run_cli("map", two_class_bank, "-o", "map.gif")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: a plot in '.gif'; expected one of .png, .svg, .pdf, .html, .csv\n"
