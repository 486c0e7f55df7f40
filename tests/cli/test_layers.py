def test_every_layer_has_shape_depth_layout_and_pool(run_json):
    report = run_json("layers", "resnet18")
    assert report["backbone"] == "resnet18"
    layers = {each["name"]: each for each in report["layers"]}
    assert layers["layer3"] | {"depth": 0} == {
        "name": "layer3",
        "shape": [256, 14, 14],
        "depth": 0,
        "layout": "NCHW",
        "pool": "avg",
    }
    assert (layers["penultimate"]["shape"], layers["logits"]["shape"]) == ([512], [1000])
    depths = [
        layers[name]["depth"] for name in ("conv1", "layer1", "layer2", "layer3", "layer4", "penultimate", "logits")
    ]
    assert depths == sorted(depths)


def test_size_changes_the_shapes(run_json):
    layers = {each["name"]: each["shape"] for each in run_json("layers", "resnet18", "--size", 64)["layers"]}
    assert layers["layer3"] == [256, 4, 4]


def test_the_table_lists_what_extract_takes(run_cli):
    result = run_cli("layers", "resnet18")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["layer3", "256x14x14", "NCHW", "avg"] in [[*row[:2], *row[3:]] for row in rows]


def test_an_unknown_backbone_is_an_error_with_a_hint(run_cli):
    result = run_cli("layers", "resnet19")
    assert result.exit_code == 1
    assert "resnet1" in result.stderr.removeprefix("Error: no backbone 'resnet19'")


def test_the_preview_is_written_and_says_what_is_never_seen(run_cli, run_json, two_classes, tmp_path):
    image, seen = next(two_classes.glob("*/*.png")), tmp_path / "seen.png"
    facts = run_json("layers", "resnet18", "--preview", image, "-o", seen)
    assert facts == {"backbone": "resnet18", "fit": "crop", "unseen": 1 - (224 / 256) ** 2, "file": str(seen)}
    before = seen.read_bytes()
    result = run_cli("layers", "resnet18", "--preview", image, "--fit", "pad", "-o", seen)
    assert "never sees 0% of the image" in result.stdout
    assert before.startswith(b"\x89PNG")
    assert seen.read_bytes() != before


def test_what_goes_with_a_preview_alone_is_refused_without_one(run_cli):
    result = run_cli("layers", "resnet18", "--fit", "pad")
    assert (result.exit_code, "go with --preview IMAGE" in result.stderr) == (2, True)
