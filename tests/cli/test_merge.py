from featurebank import Bank


def test_banks_are_merged_into_a_new_one(own_bank, run_cli, run_json, tmp_path):
    done = run_json("merge", tmp_path / "all.bank", own_bank)
    assert done["copied"] == len(list(own_bank.rglob("*.h5")))
    assert Bank(tmp_path / "all.bank").load("layer3").tolist() == Bank(own_bank).load("layer3").tolist()
    assert run_cli("merge", tmp_path / "all.bank", own_bank).stdout == (
        f"0 files copied, 0.0 MB, {done['copied']} were there already\n"
    )


def test_what_is_no_bank_is_refused_before_anything_is_made(own_bank, run_cli, tmp_path):
    result = run_cli("merge", tmp_path / "all.bank", own_bank, tmp_path / "none.bank")
    assert result.exit_code == 1
    assert "does not exist" in result.stderr
    assert not (tmp_path / "all.bank").exists()
    assert run_cli("merge", tmp_path / "all.bank").exit_code == 2
