import hashlib
import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurebank.bank.spec import (
    LAYOUTS,
    POOLS,
    FeatureName,
    FeatureSpec,
    canonical_json,
    default_pool,
    parse_name,
    resolve_name,
    split_pool,
    unique_names,
)
from featurebank.errors import CorruptError, FeatureSetError

SPEC = FeatureSpec(
    backbone="resnet18",
    version="",
    weights="ab" * 32,
    layer="layer3",
    layout="NCHW",
    prefix=0,
    pool="avg",
    preprocessing={"resize": 256, "crop": [224, 224], "mean": [0.5, 0.25, 0.125]},
    pixel_policy=1,
    views="none",
    precision="fp32",
    store="float16",
)
OTHER = {
    "backbone": "resnet34",
    "version": "2",
    "weights": "cd" * 32,
    "layer": "layer4",
    "layout": "NHWC",
    "prefix": 1,
    "pool": "max",
    "preprocessing": {"resize": 256, "crop": [225, 225], "mean": [0.5, 0.25, 0.125]},
    "pixel_policy": 2,
    "views": "hflip",
    "precision": "bf16",
    "store": "float32",
}


def test_the_fingerprint_is_the_sha256_of_the_canonical_json():
    text = (
        '{"backbone":"resnet18","layer":"layer3","layout":"NCHW","pixel_policy":1,"pool":"avg","precision":"fp32",'
        '"prefix":0,"preprocessing":{"crop":[224,224],"mean":[0.5,0.25,0.125],"resize":256},"store":"float16",'
        '"version":"","views":"none","weights":"' + "ab" * 32 + '"}'
    )
    assert SPEC.fingerprint == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("field", [field.name for field in fields(FeatureSpec)])
def test_every_field_changes_the_fingerprint(field):
    assert replace(SPEC, **{field: OTHER[field]}).fingerprint != SPEC.fingerprint


def test_canonical_json_ignores_order_and_refuses_nan():
    assert (
        canonical_json({"b": [1, "é"], "a": None})
        == canonical_json({"a": None, "b": [1, "é"]})
        == b'{"a":null,"b":[1,"\\u00e9"]}'
    )
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"mean": float("nan")})


def test_a_spec_survives_json():
    again = FeatureSpec.from_dict(json.loads(canonical_json(SPEC.to_dict())))
    assert again == SPEC
    assert hash(again) == hash(SPEC)
    assert again.fingerprint == SPEC.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"prefix": True},
        {"prefix": "0"},
        {"layer": 3},
        {"preprocessing": []},
        {"layout": "HWC"},
        {"pool": "sum"},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_damaged_spec_is_refused(change):
    with pytest.raises(CorruptError):
        FeatureSpec.from_dict({**SPEC.to_dict(), **change})


@pytest.mark.parametrize(
    "values",
    [None, [], {key: value for key, value in SPEC.to_dict().items() if key != "store"}],
    ids=["null", "list", "no store"],
)
def test_something_else_than_a_spec_is_refused(values):
    with pytest.raises(CorruptError, match="other fields"):
        FeatureSpec.from_dict(values)


@pytest.mark.parametrize(
    ("layout", "pool"), [("vector", "none"), ("NCHW", "avg"), ("NHWC", "avg"), ("tokens", "avg"), ("cls-tokens", "cls")]
)
def test_the_name_leaves_out_the_default_pool_and_shows_any_other(layout, pool):
    spec = replace(SPEC, layout=layout, pool=pool)
    assert default_pool(layout) == pool
    assert (spec.name, spec.layer_name) == ("resnet18/layer3", "layer3")
    assert replace(spec, pool="gem").name == "resnet18/layer3:gem"
    assert replace(spec, pool="gem").layer_name == "layer3:gem"


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("resnet18/penultimate", FeatureName("resnet18", "penultimate")),
        ("timm:vit_tiny_patch16_224/blocks.9:cls", FeatureName("timm:vit_tiny_patch16_224", "blocks.9", "cls")),
        ("resnet18/layer3@ab12", FeatureName("resnet18", "layer3", "", "ab12")),
        ("resnet18/layer3:gem@ab12", FeatureName("resnet18", "layer3", "gem", "ab12")),
        ("my/own/net/layer3", FeatureName("my/own/net", "layer3")),
        ("net/odd:name", FeatureName("net", "odd:name")),
        ("net/odd:name:max", FeatureName("net", "odd:name", "max")),
    ],
)
def test_names_are_parsed_from_the_right(name, parsed):
    assert parse_name(name) == parsed


@pytest.mark.parametrize("name", ["", "penultimate", "/penultimate", "resnet18/", "resnet18@ab12"])
def test_a_name_without_backbone_or_layer_is_refused(name):
    with pytest.raises(FeatureSetError, match=r"BACKBONE/LAYER\[:POOL\]\[@PREFIX\]"):
        parse_name(name)


def test_only_a_known_pool_is_split_off():
    assert split_pool("layer3:avgmax") == ("layer3", "avgmax")
    assert split_pool("layer3:sum") == ("layer3:sum", "")


def test_a_name_finds_the_one_spec_it_fits():
    half, single, gem = SPEC, replace(SPEC, layer="layer4"), replace(SPEC, pool="gem")
    specs = [half, single, gem]
    assert resolve_name("resnet18/layer4", specs) == single
    assert resolve_name("resnet18/layer3", specs) == half
    assert resolve_name("resnet18/layer3:avg", specs) == half
    assert resolve_name("resnet18/layer3:gem", specs) == gem


def test_a_name_that_fits_several_lists_their_prefixes_and_a_prefix_decides():
    specs = [SPEC, replace(SPEC, store="float32")]
    with pytest.raises(FeatureSetError) as caught:
        resolve_name("resnet18/layer3", specs)
    assert all(f"@{spec.fingerprint[:8]}" in str(caught.value) for spec in specs)
    for spec, name in zip(specs, unique_names(specs), strict=True):
        assert name == f"resnet18/layer3@{spec.fingerprint[:8]}"
        assert resolve_name(name, specs) == spec


def test_a_name_without_backbone_finds_the_one_set_with_that_layer_and_pool():
    specs = [SPEC, replace(SPEC, layer="layer4"), replace(SPEC, pool="gem"), replace(SPEC, layer="layer4", pool="max")]
    for name, spec in zip(("layer3", "layer4", "layer3:gem", " layer4:max "), specs, strict=True):
        assert resolve_name(name, specs) == spec
    assert resolve_name("layer3:avg", specs) == SPEC
    assert resolve_name(f"layer3@{SPEC.fingerprint[:8]}", [SPEC, replace(SPEC, store="float32")]) == SPEC
    with pytest.raises(
        FeatureSetError, match="no feature set 'layer5' in the bank; it has: resnet18/layer3, resnet18/"
    ):
        resolve_name("layer5", specs)


def test_a_name_without_backbone_that_fits_several_sets_lists_them():
    specs = [SPEC, replace(SPEC, backbone="resnet34"), replace(SPEC, backbone="resnet34", store="float32")]
    with pytest.raises(FeatureSetError) as caught:
        resolve_name("layer3", specs)
    assert str(caught.value) == f"'layer3' fits 3 feature sets; name one of {', '.join(unique_names(specs))}"


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(FeatureSetError, match="it has: resnet18/layer3"):
        resolve_name("resnet18/layer9", [SPEC])
    with pytest.raises(FeatureSetError, match="it has: none"):
        resolve_name("resnet18/layer9", [])


@given(
    backbone=st.text("abz09:._-/", min_size=1).filter(lambda text: text.strip("/") == text),
    layer=st.text("abz09._:", min_size=1).filter(lambda text: split_pool(text)[1] == ""),
    layout=st.sampled_from(LAYOUTS),
    pool=st.sampled_from(POOLS),
)
def test_every_spec_is_found_by_its_own_name_with_and_without_a_prefix(backbone, layer, layout, pool):
    spec = replace(SPEC, backbone=backbone, layer=layer, layout=layout, pool=pool)
    assert resolve_name(spec.name, [spec]) == spec
    assert resolve_name(f"{spec.name}@{spec.fingerprint[:8]}", [spec, replace(spec, store="float32")]) == spec
