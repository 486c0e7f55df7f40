import shlex

import numpy as np
import pandas as pd
import pytest

from featurebank import Bank
from featurebank.bank import samples
from featurebank.bank.repair_hints import extract_command, is_missing, missing_rows, prune_command, roots
from featurebank.bank.spec import FeatureSpec

SPEC = FeatureSpec("net", "", "0" * 64, "map", "NCHW", 0, "avgmax", {"crop": [4, 4]}, 1, "none", "fp32", "float32")
REQUEST = {"backbone": "net", "weights": "random:1", "size": 64}
ASKED = "--backbone net --weights random:1 --size 64 --store float32 --layer map:avgmax"


def add(bank, source, count, root=None):
    """Add samples of a source without rows in any feature set."""
    plain = {"root": root or source, "size": 1, "mtime_ns": 1, "status": samples.OK, "error": "", "row_hash": 0}
    fields = {name: [value] * count for name, value in {"source": source, "stamp": 0, **plain}.items()}
    fields["path"] = [b"%d.png" % number for number in range(count)]
    fields["digest"] = [source.encode().ljust(31)[-31:] + bytes([number]) for number in range(count)]
    table = samples.make_table(fields, pd.DataFrame(index=range(count)))
    bank.add_samples(table, newest=bank.table.newest_stamp)


@pytest.fixture
def bank(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bank = Bank.create("a.bank")
    bank.add_spec(SPEC, REQUEST)
    return bank


def message(bank):
    return missing_rows(bank, bank.feature_set("map:avgmax"), bank.table)


def test_nothing_is_said_when_every_sample_has_a_row(bank, tmp_path):
    add(bank, str(tmp_path), 2)
    bank.add_features(SPEC, list(bank.table.rows["digest"]), np.zeros((2, 1, 8), np.float32))
    assert message(bank) == ""


def test_the_command_is_the_one_that_made_the_other_rows(bank, tmp_path):
    add(bank, str(tmp_path), 3)
    command = f"featurebank extract {tmp_path} --bank a.bank {ASKED}"
    assert message(bank) == (
        f"3 of 3 samples have no row in 'net/map:avgmax': run `{command}` (3 samples); "
        "or choose other sets with --features"
    )


def test_a_source_whose_files_moved_is_named_with_their_root(bank, tmp_path):
    add(bank, "/no/such/folder", 1, root=str(tmp_path))
    assert f"run `featurebank extract /no/such/folder --bank a.bank {ASKED} --root {tmp_path}` (1" in message(bank)


def test_a_manifest_in_its_own_folder_needs_no_root(bank, tmp_path):
    (tmp_path / "list.csv").write_text("path\n0.png\n")
    add(bank, str(tmp_path / "list.csv"), 1, root=str(tmp_path))
    assert "--root" not in message(bank)


def test_a_source_that_is_gone_can_be_found_again_or_pruned(bank):
    add(bank, "/no/such/folder", 2)
    assert message(bank) == (
        "2 of 2 samples have no row in 'net/map:avgmax': '/no/such/folder' (2 samples) is no longer there, run "
        f"`featurebank extract /no/such/folder --bank a.bank {ASKED} --root FOLDER` if it moved, "
        "`featurebank prune a.bank --source /no/such/folder` if not; or choose other sets with --features"
    )


def test_images_in_memory_and_modules_of_ones_own_are_extracted_from_python(bank, tmp_path):
    add(bank, "memory", 2)
    assert "extract 'memory' again from Python with layers='map:avgmax' (2 samples)" in message(bank)
    (request,) = bank.feature_folder(SPEC).glob("requests/*.json")
    request.write_text("damaged")
    add(bank, str(tmp_path), 1)
    assert f"extract '{tmp_path}' again from Python" in message(bank)
    flipped = FeatureSpec(**{**SPEC.to_dict(), "layer": "other", "views": "flips"})
    bank.add_spec(flipped)
    text = missing_rows(bank, bank.feature_set_of(flipped), bank.table)
    assert "from Python with layers='other:avgmax', views='flips' (2 samples)" in text


def test_of_many_sources_the_ones_that_lack_most_are_named(bank, tmp_path):
    for count in range(1, 6):
        (tmp_path / f"s{count}").mkdir()
        add(bank, str(tmp_path / f"s{count}"), count)
    text = message(bank)
    assert [f"s{count} --bank" in text for count in range(1, 6)] == [False, False, True, True, True]
    assert "; and alike for 2 more sources; or" in text
    assert "\n" not in text


def test_defaults_are_left_out_and_words_are_quoted(bank):
    plain = FeatureSpec(**{**SPEC.to_dict(), "backbone": "efficientnet_lite0", "pool": "avg", "store": "float16"})
    bank.add_spec(plain, {"weights": "DEFAULT", "size": None})
    assert extract_command(bank, plain, "/my photos") == "featurebank extract '/my photos' --bank a.bank --layer map"
    flipped = FeatureSpec(**{**plain.to_dict(), "views": "flips"})
    assert extract_command(bank, flipped, "/a") == "featurebank extract /a --bank a.bank --views flips --layer map"
    assert shlex.split(prune_command(bank, "/it's"))[-1] == "/it's"
    assert prune_command(bank, "/a\x1b[2J\n").isprintable()


def test_folders_and_manifests_can_go_missing_and_nothing_else(tmp_path):
    here, manifest = str(tmp_path), str(tmp_path / "list.csv")
    assert not is_missing(here, here)
    assert is_missing(f"{here}/gone", f"{here}/gone")
    assert not is_missing(f"{here}/gone", here)  # rebound
    assert is_missing(manifest, here)
    (tmp_path / "list.csv").write_text("")
    assert not is_missing(manifest, here)
    assert is_missing(manifest, f"{here}/gone")
    assert not is_missing("files", "/")
    assert not is_missing("memory", "")


def test_the_newest_root_counts(bank):
    add(bank, "/a", 3, root="/first")
    add(bank, "/a", 1, root="/second")
    assert roots(bank.table) == {"/a": "/second"}
