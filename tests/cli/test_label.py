import shutil

import pandas as pd
import pytest

from featurebank import Bank

NET = ["--backbone", "resnet18", "--weights", "random:0", "--size", "64", "--layer", "layer3", "--layer", "penultimate"]


def column(bank, name):
    return Bank(bank).samples.set_index("path")[name]


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_columns_are_attached_and_corrected(run_json, own_bank, tmp_path):
    labels = write(
        tmp_path / "labels.csv", "path,label,site", "cat/00.png,dog,north", "dog/00.png,,south", "dog/01.png,dog,"
    )
    assert run_json("label", own_bank, labels) == {"rows": 3, "changed": 2, "columns": ["label", "site"]}
    assert column(own_bank, "label")["cat/00.png"] == "dog"
    assert column(own_bank, "label")["dog/00.png"] == "dog"
    assert column(own_bank, "site").dropna().to_dict() == {"cat/00.png": "north", "dog/00.png": "south"}
    assert Bank(own_bank).load("resnet18/layer3", "label")[1].tolist().count("dog") == 21
    assert run_json("label", own_bank, labels)["changed"] == 0


def test_a_path_column_of_another_name_and_parquet(run_cli, own_bank, tmp_path):
    pd.DataFrame({"file": ["cat/00.png"], "age": [3]}).to_parquet(tmp_path / "labels.parquet")
    result = run_cli("label", own_bank, tmp_path / "labels.parquet", "--path-column", "file")
    assert result.stdout == "1 of 1 sample changed: age\n"
    assert column(own_bank, "age")["cat/00.png"] == 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,label", "cat/00.png,dog", "cow/00.png,cow"], "path 'cow/00.png' is not in the bank"),
        (["path,label", "photos/cat/00.png,dog"], "did you mean 'cat/00.png'? `featurebank info BANK --samples` lists"),
        (["path,label", "cat/OO.png,dog"], "path 'cat/OO.png' is not in the bank; did you mean 'cat/00.png'?"),
        (["path,label", "cat/00.png,dog", "cat/00.png,cat"], "labels name a path more than once"),
        (["file,label", "cat/00.png,dog"], "labels have the columns file, label; expected 'path'"),
        (["path", "cat/00.png"], "labels have the columns path; expected 'path' and at least one more"),
        (["path,label"], "has no rows; expected one a sample"),
    ],
)
def test_labels_that_do_not_fit_are_an_error_and_write_nothing(run_cli, own_bank, tmp_path, lines, message):
    before = sorted(own_bank.rglob("*.h5"))
    result = run_cli("label", own_bank, write(tmp_path / "labels.csv", *lines))
    assert result.exit_code == 1
    assert message in result.stderr
    assert sorted(own_bank.rglob("*.h5")) == before
    assert column(own_bank, "label")["cat/00.png"] == "cat"


def test_a_corrected_label_survives_an_extraction_of_the_unchanged_folder(run_json, own_bank, two_classes, tmp_path):
    run_json("label", own_bank, write(tmp_path / "labels.csv", "path,label", "cat/00.png,dog"))
    report = run_json("extract", two_classes, "--bank", own_bank, *NET)
    assert (report["embedded"], report["reused"]) == (0, 40)
    assert column(own_bank, "label")["cat/00.png"] == "dog"


def test_a_value_edited_in_the_manifest_wins_over_a_correction(run_json, two_classes, tmp_path):
    for name in ("a.png", "b.png"):
        shutil.copy(two_classes / "cat" / "00.png", tmp_path / name)
    bank, manifest = tmp_path / "a.bank", tmp_path / "photos.csv"

    def extracted(*rows):
        run_json("extract", write(manifest, "path,label", *rows), "--bank", bank, *NET)
        return column(bank, "label").tolist()

    assert extracted("a.png,cat", "b.png,cat") == ["cat", "cat"]
    run_json("label", bank, write(tmp_path / "labels.csv", "path,label", "a.png,lynx", "b.png,lynx"))
    assert extracted("a.png,cat", "b.png,cat") == ["lynx", "lynx"]
    assert extracted("a.png,tiger", "b.png,cat") == ["tiger", "lynx"]


def test_a_folder_in_place_of_a_table_is_an_error_of_one_line(run_cli, own_bank, two_classes):
    result = run_cli("label", own_bank, two_classes)
    ending = "is a folder; expected a file that ends in .csv, .tsv, .txt, .parquet, .pq, .jsonl, .ndjson"
    assert (result.exit_code, result.stderr) == (1, f"Error: {str(two_classes)!r} {ending}\n")


@pytest.mark.parametrize("about", [["score"], ["given", "suggested", "quality"]])
def test_of_our_own_lists_only_what_was_filled_in_is_taken(run_json, own_bank, tmp_path, about):
    (source,) = {*Bank(own_bank).samples["source"]}
    header, told = ["source", "path", *about, "kind", "site"], ["0.5"] * len(about)
    lines = [[source, "cat/00.png", *told, "tabby", ""], [source, "dog/00.png", *told, "", ""]]
    table = write(tmp_path / "list.csv", *(",".join(line) for line in [header, *lines]))
    assert run_json("label", own_bank, table) == {"rows": 2, "changed": 1, "columns": ["kind", "site"]}
    assert not {*about} & {*Bank(own_bank).samples.columns}
    assert run_json("label", own_bank, table, "--column", about[0])["columns"] == [about[0]]


def test_labels_of_an_excel_file_written_on_windows(run_cli, own_bank, tmp_path):
    rows = "Datei;Größe;Name\r\n" + "C:\\fotos\\cat\\00.png;1,5;Käfer\r\n" + "cat\\01;2;Öl\r\n;3;Nichts\r\n"
    (tmp_path / "labels.csv").write_bytes(rows.encode("cp1252"))
    wrong = run_cli("label", own_bank, tmp_path / "labels.csv")
    assert wrong.exit_code == 1
    assert "expected 'path' and at least one more; name the one with the paths (--path-column, such as" in wrong.stderr
    result = run_cli("label", own_bank, tmp_path / "labels.csv", "--path-column", "Datei")
    assert result.stdout == "2 of 3 samples changed: Größe, Name\n"
    said = result.stderr.splitlines()
    assert "labels.csv: separated by semicolons; encoding cp1252 ('Größe'); Größe: decimal commas" in said
    assert "1 path fits a file, ignoring its suffix: 'cat\\01' is 'cat/01.png'" in said
    assert "Warning: 1 row has no path and is left out: 3" in said
    assert "columns: Größe: numbers, 1.5 to 2; Name: text, 2 classes" in said
    assert column(own_bank, "Größe").dropna().to_dict() == {"cat/00.png": 1.5, "cat/01.png": 2.0}
    assert column(own_bank, "Name").dropna().to_dict() == {"cat/00.png": "Käfer", "cat/01.png": "Öl"}


def test_the_user_decides_separator_encoding_and_what_columns_become(run_cli, own_bank, tmp_path):
    (tmp_path / "labels.csv").write_bytes("path;a,b\ncat/00.png;ko\u010dka,1\n".encode("cp1250"))
    ambiguous = run_cli("label", own_bank, tmp_path / "labels.csv")
    assert "name the separator with --separator comma, semicolon, tab or pipe" in ambiguous.stderr
    unclear = run_cli("label", own_bank, tmp_path / "labels.csv", "--separator", "semicolon")
    assert "'ko\\xe8ka,1' reads 'koèka,1' as cp1252, 'kočka,1' as cp1250; name the right one" in unclear.stderr
    told = ["--separator", "semicolon", "--encoding", "cp1250", "--labels-as", "text"]
    assert run_cli("label", own_bank, tmp_path / "labels.csv", *told).exit_code == 0
    assert column(own_bank, "a,b")["cat/00.png"] == "kočka,1"
    write(tmp_path / "codes.csv", "path,code", "cat/00.png,1", "cat/01.png,2")
    assert run_cli("label", own_bank, tmp_path / "codes.csv", "--labels-as", "text").exit_code == 0
    assert column(own_bank, "code").dropna().tolist() == ["1", "2"]


def test_a_cell_that_makes_text_of_numbers_is_named_and_the_advice_works(run_cli, own_bank, tmp_path):
    paths = sorted(column(own_bank, "label").index)
    sizes = [f"{path},{row}.5" for row, path in enumerate(paths)]
    odd = write(tmp_path / "sizes.csv", "path,size", f"{paths[0]},n. a.", *sizes[1:])
    said = run_cli("label", own_bank, odd).stderr
    first = (
        f"size: text, since 1 of {len(paths)} cells is no number: 'n. a.' ({paths[0]}); for numbers, write one there"
    )
    assert f"Warning: {first}" in said
    assert f"Error: {first}" in run_cli("fit", own_bank, "--target", "size", "--model", "ridge").stderr
    assert first not in run_cli("label", own_bank, odd, "--labels-as", "text").stderr
    write(tmp_path / "sizes.csv", "path,size", f"{paths[0]},", *sizes[1:])
    kept = run_cli("label", own_bank, tmp_path / "sizes.csv").stderr
    assert (
        "size: text, 40 different values; size: text, as the bank has it already (numbers under another name)" in kept
    )
    write(tmp_path / "sizes.csv", "path,diameter", f"{paths[0]},", *sizes[1:])
    assert "text" not in run_cli("label", own_bank, tmp_path / "sizes.csv").stderr
    fitted = run_cli("fit", own_bank, "--target", "diameter", "--model", "ridge", "-o", tmp_path / "a.featurebank")
    assert (fitted.exit_code, "diameter" in fitted.stderr + fitted.stdout) == (0, True), fitted.stderr
