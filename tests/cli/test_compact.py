from featurebank import Bank


def test_small_segments_are_merged_and_the_old_ones_removed_after_the_grace(run_cli, run_json, own_bank):
    Bank(own_bank).label(Bank(own_bank).samples[["path"]].assign(site="a"))
    assert run_json("compact", own_bank) == {"merged": 2, "removed": 0}
    assert run_cli("compact", own_bank, "--grace", 0).stdout == "0 files merged, 2 replaced files removed\n"


def test_prune_drops_what_no_sample_points_at_and_a_source_that_is_named(run_cli, run_json, own_bank, two_classes):
    assert run_json("prune", own_bank, "--grace", 0) == {"rows": 0, "removed": 0}
    shown = run_cli("prune", own_bank, "--grace", 0, "--source", f"{two_classes}/").stdout
    assert shown == "40 samples marked gone, 80 rows dropped, 2 replaced files removed\n"
    assert run_json("info", own_bank)["samples"] == {"ok": 0, "failed": 0, "gone": 40}
    assert run_json("info", own_bank)["sources"] == []
    assert run_json("prune", own_bank, "--source", two_classes) == {"gone": 0, "rows": 0, "removed": 0}


def test_a_source_that_the_bank_does_not_know_is_an_error(run_cli, own_bank, two_classes):
    result = run_cli("prune", own_bank, "--source", "nowhere")
    assert result.stderr == f"Error: no source 'nowhere' in '{own_bank}'; expected one of its own: '{two_classes}'\n"
    assert run_cli("info", own_bank).stdout.splitlines()[0].endswith("samples: 40 ok, 0 failed, 0 gone")
