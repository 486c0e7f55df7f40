def test_the_packaged_backbones_are_here_and_torchvisions_are_listed(run_json):
    found = {each["name"]: each for each in run_json("backbones")["backbones"]}
    lite = found["efficientnet_lite0"]
    assert (lite["input_size"], lite["license"], lite["weights_here"]) == (224, "Apache-2.0", True)
    assert 4.5e6 < lite["parameters"] < 4.8e6
    assert found["resnet18"]["parameters"] == 11689512
    assert len(found) > 70


def test_a_pattern_chooses(run_json):
    assert [each["name"] for each in run_json("backbones", "resnet*0?")["backbones"]] == ["resnet101"]
    found = run_json("backbones", "timm:vit_tiny_patch16_224*")["backbones"]
    assert "timm:vit_tiny_patch16_224" in [each["name"] for each in found]


def test_the_table_names_parameters_input_and_licence(run_cli):
    result = run_cli("backbones", "efficientnet_lite0")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["efficientnet_lite0", "4.7", "M", "224", "Apache-2.0", "here"] in rows
    assert "timm:" in run_cli("backbones").stdout.splitlines()[-1]


def test_a_pattern_that_fits_none_is_an_error(run_cli):
    result = run_cli("backbones", "nothing*")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: no backbone fits 'nothing*'; `featurebank backbones` lists all but timm's\n"
