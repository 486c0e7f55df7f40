"""Tables of text as other programs write them: separators, decimal commas, encodings, spaces; what is not guessed."""

import logging

import pandas as pd
import pytest

from featurebank.errors import SourceError
from featurebank.images.cells import describe
from featurebank.images.encodings import code_page
from featurebank.images.separators import find_dialect
from featurebank.images.table_options import TableOptions
from featurebank.images.tables import read_table

ROWS = [("a/1.png", "Käfer", "0.5", "1"), ("a/2.png", "Öl", "1.25", "2")]


@pytest.fixture
def table(tmp_path, caplog):
    """Write a table and read it: its columns as lists, and what the log says of it."""
    caplog.set_level(logging.INFO, "featurebank")

    def write(text, encoding="utf-8", name="t.csv", path_column=None, is_name=None, **options):
        caplog.clear()
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        found = read_table(tmp_path / name, TableOptions(**options), path_column=path_column, is_name=is_name)
        values = {key: [None if pd.isna(cell) else cell for cell in found[key]] for key in found}
        return values, " ".join(record.getMessage() for record in caplog.records)

    return write


def text_of(separator, decimal=".", head=("path", "label", "score", "n")):
    rows = [head, *((path, label, score.replace(".", decimal), n) for path, label, score, n in ROWS)]
    return "".join(separator.join(row) + "\n" for row in rows)


EXPECTED = {"path": ["a/1.png", "a/2.png"], "label": ["Käfer", "Öl"], "score": [0.5, 1.25], "n": [1, 2]}


# --- separators --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("separator", "decimal", "name", "said"),
    [
        (",", ".", "t.csv", ""),
        (";", ",", "t.csv", "separated by semicolons; score: decimal commas"),
        (";", ".", "t.csv", "separated by semicolons"),
        ("\t", ",", "t.csv", "separated by tabs; score: decimal commas"),
        ("\t", ".", "t.tsv", "separated by tabs"),
        ("|", ".", "t.txt", "separated by pipes"),
        (", ", ".", "t.csv", ""),
        ("; ", ",", "t.csv", "separated by semicolons; score: decimal commas"),
    ],
)
def test_the_separator_is_found_and_said(table, separator, decimal, name, said):
    values, log = table(text_of(separator, decimal), name=name)
    assert values == EXPECTED
    assert log == (f"{name}: {said}" if said else "")


@pytest.mark.parametrize("line", ["sep=;\n", '"sep=;"\r\n', "SEP=;\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_excels_line_about_the_separator_is_read(table, line, mark):
    assert table(mark + line + text_of(";", ","))[0] == EXPECTED


def test_quoted_cells_hold_separators_and_spaces_may_stand_before_the_quotes(table):
    text = 'path,label, note\na.png,"x, y", "1; 2"\nb.png,z, "3"\n'
    assert table(text)[0] == {"path": ["a.png", "b.png"], "label": ["x, y", "z"], "note": ["1; 2", "3"]}


def test_spaces_around_values_are_left_out_and_said_but_those_of_paths_stay(table):
    values, log = table("path,label\n a.png,cat \nb.png, cat\n")
    assert values == {"path": [" a.png", "b.png"], "label": ["cat", "cat"]}
    assert log == "t.csv: spaces around the values of 'label' left out"


def test_of_two_signs_in_the_header_the_one_that_divides_all_rows_is_the_separator(table):
    assert list(table("path;note, in words;n\na.png;x;1\nb.png;y, z;2\n")[0]) == ["path", "note, in words", "n"]
    with pytest.raises(SourceError, match="holds commas and semicolons, and each could separate its columns; name the"):
        table("path;a,b\na.png;1,2\n")
    assert list(table("path;a,b\na.png;1,2\n", separator="semicolon")[0]) == ["path", "a,b"]
    assert list(table("path;a,b\na.png;1,2\n", separator=",")[0]) == ["path;a", "b"]


def test_spaces_separate_only_when_that_is_said(table):
    text = "path   prob type\na.png  0.5  mono\nb.png  1.0  poly\n"
    assert table(text, separator="space")[0] == {
        "path": ["a.png", "b.png"],
        "prob": [0.5, 1.0],
        "type": ["mono", "poly"],
    }
    assert list(table(text)[0]) == ["path   prob type"]


@pytest.mark.parametrize("separator", ["comm", "", '"', "ab", "x"])
def test_what_is_no_separator_is_refused(separator):
    with pytest.raises(
        SourceError, match=r"no separator .* expected comma, semicolon, tab, pipe, space, or one character"
    ):
        find_dialect("path\n", separator, "a.csv")


def test_options_of_text_are_refused_for_parquet(tmp_path):
    pd.DataFrame({"path": ["a"], "n": ["007"]}).to_parquet(tmp_path / "t.parquet")
    for options in (TableOptions(separator=";"), TableOptions(encoding="cp1252")):
        with pytest.raises(SourceError, match="is no table of text"):
            read_table(tmp_path / "t.parquet", options)
    assert read_table(tmp_path / "t.parquet", TableOptions(labels_as="numbers"))["n"].tolist() == [7.0]
    with pytest.raises(SourceError, match="no labels_as 'txt'; did you mean text"):
        TableOptions(labels_as="txt")


def test_thousands_are_left_out_where_the_decimal_sign_is_certain(table):
    cells, said = table('path;n;m\na;"1.234,5";"1\u202f000,25"\nb;"4,5";"7,5"\n')
    assert (cells["n"], cells["m"]) == ([1234.5, 4.5], [1000.25, 7.5])
    assert "n: decimal commas; m: decimal commas" in said
    cells, said = table('path,n\na,"1,234.5"\nb,"12,000"\n')
    assert (cells["n"], said.count("n: commas between thousands")) == ([1234.5, 12000], 1)


def test_commas_that_may_mean_either_stay_text_and_it_is_said(table):
    text = 'path,n,m,tags\na,"0,5","1,250","x,y"\nb,"1,75","2,500",z\n'
    cells, said = table(text)
    assert cells["n"] == ["0,5", "1,75"]
    assert "n: text, though all of it reads as numbers with decimal commas; --labels-as numbers makes it" in said
    assert "m: text, since its commas may be decimal ones or between thousands" in said
    assert "tags: text, " not in said.partition("columns of")[0]
    cells, said = table(text, labels_as="numbers")
    assert (cells["n"], cells["m"]) == ([0.5, 1.75], ["1,250", "2,500"])


def test_columns_without_a_name_are_left_out_where_they_are_empty(table):
    cells, _ = table("path;label;;\na;x;;1\nb;y; ;2\n")
    assert cells == {"path": ["a", "b"], "label": ["x", "y"], "Unnamed: 3": [1, 2]}


# --- encodings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "t.csv: encoding utf-16 ('Käfer')"),
        ("utf-16-le", "t.csv: encoding utf-16-le ('Käfer')"),
        ("utf-16-be", "t.csv: encoding utf-16-be ('Käfer')"),
        ("utf-32", "t.csv: encoding utf-32 ('Käfer')"),
        ("cp1252", "t.csv: encoding cp1252 ('Käfer')"),
        ("latin-1", "t.csv: encoding cp1252 ('Käfer')"),
        ("cp1250", "t.csv: encoding cp1252 ('Käfer')"),
        ("mac-roman", "t.csv: encoding mac-roman ('Käfer')"),
    ],
)
def test_the_encoding_is_found_and_said(table, encoding, said):
    text = text_of(",").replace("Öl", "Nagekäfer")  # Mac's Ö is another page's capital
    values, log = table(text, encoding)
    assert values == {**EXPECTED, "label": ["Käfer", "Nagekäfer"]}
    assert log == said


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        (["Käfer", "Müller", "Größe"], "cp1252"),
        (["crème", "forêt"], "cp1252"),
        (["grøn", "blå"], "cp1252"),
        (["maçã", "limão"], "cp1252"),
        (["5 µm", "20 °C"], "cp1252"),
        (["kedi", "köpek", "ağaç"], "cp1254"),
        (["katė", "šuo"], "cp1257"),
        (["Кошка", "Собака"], "koi8-r"),
        (["γάτα", "σκύλος"], "cp1253"),
        (["猫", "犬"], "shift-jis"),
    ],
)
def test_a_code_page_in_which_alone_all_words_are_words_is_taken(words, encoding):
    data = [word.encode(encoding) for word in words if not word.isascii()]
    page = code_page(data, "a.csv")[0]
    assert [word.decode(page) for word in data] == [word for word in words if not word.isascii()]


@pytest.mark.parametrize(
    ("words", "encoding", "readings"),
    [
        (["kočka"], "cp1250", "'ko\\xe8ka' reads 'koèka' as cp1252, 'kočka' as cp1250"),
        (["España"], "cp1252", "'Espa\\xf1a' reads 'España' as cp1252, 'Espańa' as cp1250"),
        (["кошка", "собака"], "cp1251", "reads 'кошка' as cp1251, 'ЙНЬЙЮ' as koi8-r"),
        (["狗"], "gb18030", "'狗' as gb18030, '뭍' as euc-kr"),
        (["Käfer"], "cp850", "'Käfer' as cp850"),
    ],
)
def test_an_encoding_that_is_not_clear_is_an_error_with_the_readings(table, words, encoding, readings):
    text = "path,label\n" + "".join(f"{n}.png,{word}\n" for n, word in enumerate(words))
    with pytest.raises(SourceError) as caught:
        table(text, encoding)
    assert readings in str(caught.value)
    assert "name the right one with --encoding" in str(caught.value)


def test_an_encoding_that_is_named_is_taken_or_refused(tmp_path):
    file = tmp_path / "t.csv"
    file.write_bytes("path,label\na.png,kočka\n".encode("cp1250"))
    assert read_table(file, TableOptions(encoding="cp1250"))["label"].tolist() == ["kočka"]
    with pytest.raises(SourceError, match=r"line 2 of .* is not utf-8; name its encoding"):
        read_table(file, TableOptions(encoding="utf-8"))
    with pytest.raises(SourceError, match="no encoding 'windows'; expected a name such as cp1252"):
        read_table(file, TableOptions(encoding="windows"))


def test_json_lines_of_another_encoding_are_refused_or_told_which(table, tmp_path):
    text = '{"path": "a", "label": "Öl"}\n'
    with pytest.raises(SourceError, match=r"is not UTF-8, as JSON Lines are .* with --encoding"):
        table(text, "cp1252", "t.jsonl")
    assert read_table(tmp_path / "t.jsonl", TableOptions(encoding="cp1252"))["label"].tolist() == ["Öl"]


def test_a_table_that_is_partly_utf_8_is_refused(table):
    with pytest.raises(SourceError, match=r"is partly UTF-8 \('Öl'\), and 'K\\xe4fer' in it is not"):
        table("path,label\na.png,Öl\n".encode() + "b.png,Käfer\n".encode("cp1252"))


def test_bytes_of_paths_stay_when_there_is_such_a_file(table):
    data = b"path,label\ncaf\xe9.png,th\xe9\n"
    known = {"caf\udce9.png"}
    assert table(data, is_name=known.__contains__)[0] == {"path": ["caf\udce9.png"], "label": ["th\udce9"]}
    assert table(data, is_name=lambda name: False)[0] == {"path": ["café.png"], "label": ["thé"]}
    assert table(b"path,label\ncaf\xe9.png,the\n")[0]["path"] == ["caf\udce9.png"]


def test_names_of_columns_are_read_in_the_tables_encoding_too(table):
    assert table("path;Größe\na.png;1,5\nb.png;2\n", "cp1252")[0] == {"path": ["a.png", "b.png"], "Größe": [1.5, 2.0]}


# --- numbers and words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1e5", "2e5", "3e1"], ["1e5", "2e5", "3e1"]),
        (["1", "2", "1e5"], ["1", "2", "1e5"]),
        (["0.5", "1e3", "2"], [0.5, 1000.0, 2.0]),
        (["1e-3", "5e-4", "2E+05"], [0.001, 0.0005, 2e5]),
        (["1.9", "1.10", "1.11"], ["1.9", "1.10", "1.11"]),
        (["0.50", "1.25", "2.00"], [0.5, 1.25, 2.0]),
        (["1.0", "2.25", "3"], [1.0, 2.25, 3.0]),
        (["+1", "-1", "+1"], ["+1", "-1", "+1"]),
        (["007", "1", "2"], ["007", "1", "2"]),
        (["3", "NA", "5"], [3, None, 5]),
        (["0.5", "n/a", "-", "1.5"], [0.5, None, None, 1.5]),
        (["3", "unknown", "5"], ["3", "unknown", "5"]),
        (["cat", "NA", "dog"], ["cat", "NA", "dog"]),
        (["NA", "3", "NA"], ["NA", "3", "NA"]),
        (["1,5", "2,5"], ["1,5", "2,5"]),
        (["no", "yes", "NULL"], ["no", "yes", "NULL"]),
    ],
    ids=str,
)
def test_a_column_is_numbers_only_if_every_value_is_one_and_nothing_is_lost(table, cells, values):
    text = "path,c\n" + "".join(f'{n}.png,"{cell}"\n' for n, cell in enumerate(cells))
    assert table(text)[0]["c"] == values


def test_missing_numbers_are_said_and_labels_as_decides(table):
    text = "path,c,d\n1.png,3,007\n2.png,NA,008\n3.png,4,1\n"
    assert table(text)[1] == "t.csv: c: 'NA' taken as missing"
    assert table(text, labels_as="text")[0] == {
        "path": ["1.png", "2.png", "3.png"],
        "c": ["3", "NA", "4"],
        "d": ["007", "008", "1"],
    }
    assert table(text, labels_as="numbers")[0]["d"] == [7.0, 8.0, 1.0]


@pytest.mark.parametrize("name", ["id", "image_id", "Image", "filename"])
def test_names_in_the_column_of_paths_stay_as_they_are_written(table, name):
    cells = ["000", "1", "1.50", "NA"]
    assert table(f"{name},label\n" + "".join(f"{cell},x\n" for cell in cells))[0][name] == cells


def test_what_columns_were_taken_for_is_told():
    columns = pd.DataFrame(
        {
            "label": pd.Series(["a", "b", "a", "a", None], dtype=object),
            "name": pd.Series(list("vwxyz"), dtype=object),
            "age": pd.array([1, 90, 3, 4, 5], dtype="Int64"),
            "ok": pd.array([True, None, False, True, True], dtype="boolean"),
            "none": pd.Series([None] * 5, dtype=object),
        }
    )
    assert describe(columns) == (
        "label: text, 2 classes, 1 missing; name: text, 5 different values; age: whole numbers, 1 to 90; "
        "ok: true or false, 1 missing; none: empty"
    )
    assert describe(pd.DataFrame({f"c{n}": [n] for n in range(8)})).endswith("; … (8 columns)")
