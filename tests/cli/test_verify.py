import json


def test_a_whole_bank_is_fine(run_cli, run_json, two_class_bank):
    assert run_json("verify", two_class_bank) == {"ok": True, "problems": []}
    result = run_cli("verify", two_class_bank)
    assert (result.exit_code, result.stdout) == (0, "every file is whole\n")


def test_a_damaged_file_is_named_and_ends_with_exit_code_1(run_cli, own_bank):
    file = sorted(own_bank.glob("features/*/*.h5"))[0]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    result = run_cli("verify", own_bank, "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"]) == (1, False)
    assert [problem["file"] for problem in report["problems"]] == [str(file)]
    shown = run_cli("verify", own_bank)
    assert shown.exit_code == 1
    assert str(file) in shown.stdout.splitlines()[0]
    assert shown.stdout.splitlines()[-1] == "1 damaged files"


def test_a_bank_of_a_missing_folder_is_an_error(run_cli, tmp_path):
    assert run_cli("verify", tmp_path / "none.bank").exit_code == 1
