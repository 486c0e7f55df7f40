import numpy as np
import pytest
import tifffile
from PIL import Image


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
    for options in (["--fit", "pad"], ["--range", "full"], ["--pages", "max"], ["--channels", "0"]):
        result = run_cli("layers", "resnet18", *options)
        assert (result.exit_code, "go with --preview IMAGE" in result.stderr) == (2, True)


@pytest.fixture
def stack(tmp_path):
    """A stack of three grey pages of 16 bits, of which the second is the lightest."""
    pages = [np.full((64, 64), value, np.uint16) for value in (1000, 3000, 2000)]
    pages[0][:2, :2] = 4000
    tifffile.imwrite(tmp_path / "stack.tif", np.stack(pages), photometric="minisblack")
    return tmp_path / "stack.tif"


@pytest.mark.parametrize(
    ("options", "grey"),
    [
        (["--range", "0..4000"], 64),
        (["--range", "0..4000", "--pages", "max"], 191),
        (["--range", "0..4000", "--pages", "mean"], 128),
        (["--range", "full", "--pages", "first"], 4),
        (["--pages", "first"], 0),
        (["--range", "0..4000", "--pages", "each"], 64),
    ],
)
def test_the_preview_opens_an_image_as_extract_does(run_cli, stack, tmp_path, options, grey):
    result = run_cli("layers", "resnet18", "--size", 32, "--preview", stack, *options, "-o", tmp_path / "seen.png")
    assert result.exit_code == 0, result.stderr
    seen = np.asarray(Image.open(tmp_path / "seen.png"))  # the image, 448 pixels, a gap, then the network's input
    assert seen[16, 448 + 8 + 16].tolist() == [grey] * 3
    said = {
        "--range": "1 image is a stack of several pages" if "--pages" not in options else "",
        "--pages": "range: 1000 is black and 4000 white" if "--range" not in options else "",
    }
    assert all(line in result.stderr for line in said.values())
    assert ("page 1 of 3; --preview" in result.stderr) == ("each" in options)


def test_the_preview_opens_an_image_as_a_bank_was_read(run_cli, stack, tmp_path):
    net = ["--backbone", "resnet18", "--weights", "random:0", "--size", 32]
    run_cli("extract", stack.parent, "--bank", tmp_path / "a.bank", *net, "--range", "0..4000", "--pages", "max")
    options = ["--preview", stack, "--bank", tmp_path / "a.bank", "-o", tmp_path / "seen.png"]
    result = run_cli("layers", "resnet18", "--size", 32, *options)
    assert "range: 0..4000, as in the bank" in result.stderr
    assert np.asarray(Image.open(tmp_path / "seen.png"))[16, 448 + 8 + 16].tolist() == [191] * 3
    both = run_cli("layers", "resnet18", *options, "--range", "full")
    assert (both.exit_code, "give --bank, or --range" in both.stderr) == (2, True)


def test_the_preview_of_chosen_channels(run_cli, tmp_path):
    Image.fromarray(np.full((64, 64, 3), (10, 20, 90), np.uint8)).save(tmp_path / "a.png")
    for channels, colour in (("2,1,0", [90, 20, 10]), ("mean", [40, 40, 40])):
        options = ["--preview", tmp_path / "a.png", "--channels", channels, "-o", tmp_path / "seen.png"]
        run_cli("layers", "resnet18", "--size", 32, *options)
        assert np.asarray(Image.open(tmp_path / "seen.png"))[16, 448 + 8 + 16].tolist() == colour
