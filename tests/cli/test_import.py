import numpy as np
import pandas as pd

from featurebank import Bank


def test_numpy_beside_the_images_of_a_bank(run_cli, run_json, own_bank, two_classes, tmp_path):
    np.save(tmp_path / "clip.npy", np.random.default_rng(0).normal(size=(40, 6)).astype("f4"))
    Bank(own_bank).samples[["path"]].assign(site="a").to_csv(tmp_path / "clip.csv", index=False)
    line = ["import", tmp_path / "clip.npy", "--bank", own_bank, "--backbone", "clip", "--source", f"{two_classes}/"]
    facts = run_json(*line)
    assert (facts["kind"], facts["samples"], facts["new"]) == ("numpy", 40, 0)
    assert facts["feature_sets"][0]["origin"]["url"] == (tmp_path / "clip.npy").as_uri()
    shown = run_cli(*line).stdout.splitlines()
    assert shown == [
        "40 samples from numpy: 0 new to the bank",
        "  clip/features  0 rows written, 40 of 1x6 float32",
        f"bank: {own_bank}   next: featurebank fit {own_bank}",
    ]
    assert "imported" in run_cli("info", own_bank).stdout


def test_what_was_exported_comes_back(run_cli, run_json, two_class_bank, tmp_path):
    assert run_cli("export", two_class_bank, "-o", tmp_path / "a.h5").exit_code == 0
    facts = run_json("import", tmp_path / "a.h5", "--bank", tmp_path / "b.bank")
    assert (facts["kind"], facts["new"]) == ("hdf5", 40)
    names = [each["name"] for each in facts["feature_sets"]]
    assert np.array_equal(Bank(tmp_path / "b.bank").load(names), Bank(two_class_bank).load(names))


def test_errors_are_one_line(run_cli, tmp_path):
    pd.DataFrame({"path": ["a"]}).to_csv(tmp_path / "a.csv")
    (tmp_path / "a.npy").write_bytes(b"x")
    for path in ("none", "a.csv", "a.npy"):
        result = run_cli("import", tmp_path / path, "--bank", tmp_path / "a.bank")
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert len(result.stderr.splitlines()) == 1
