import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from featurebank import Bank, extract
from featurebank.backbones.request import Request
from featurebank.bank.features import as_keys
from featurebank.errors import BankError, DeviceError, ImageError, SourceError
from featurebank.extraction import pipeline
from featurebank.extraction.extract import run_extraction
from featurebank.extraction.pipeline import Compute
from featurebank.images.scanning import scan

NET = {"backbone": "resnet18", "weights": "random:0", "size": 32}
NAME = "resnet18/penultimate"


def make_images(folder, count, seed=0, size=(40, 32)):
    random = np.random.default_rng(seed)
    for number in range(count):
        path = folder / ("ab"[number % 2]) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (*size, 3), "uint8")).save(path)
    return folder


def run(source, bank, layers="penultimate", **options):
    compute = Compute(
        **{name: options.pop(name) for name in ("device", "engine", "batch_size", "workers") if name in options}
    )
    return run_extraction(scan(source), Bank.create(bank), Request(layers=layers, **NET), compute, **options)


def segments(bank):
    return sorted(bank.path.glob("features/*/*.h5"))


@pytest.fixture
def photos(tmp_path):
    return make_images(tmp_path / "photos", 12)


def test_a_second_run_embeds_nothing_and_ten_more_images_embed_ten(photos, tmp_path):
    first = run(photos, tmp_path / "a.bank")
    assert (first.samples, first.embedded, first.reused, first.failed) == (12, 12, 0, 0)
    second = run(photos, tmp_path / "a.bank")
    assert (second.samples, second.embedded, second.reused) == (12, 0, 12)
    make_images(tmp_path / "more", 10, seed=1)
    (tmp_path / "more").rename(photos / "c")
    third = run(photos, tmp_path / "a.bank")
    assert (third.samples, third.embedded, third.reused) == (22, 10, 12)
    assert Bank(tmp_path / "a.bank").load(NAME).shape == (22, 512)


def test_a_run_with_nothing_missing_loads_no_torch_and_writes_nothing(photos, tmp_path):
    run(photos, tmp_path / "a.bank")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "a.bank").rglob("*") if path.is_file())
    code = (
        "import sys; from featurebank import extract\n"
        f"extract({str(photos)!r}, {str(tmp_path / 'a.bank')!r}, **{NET!r})\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert before == sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "a.bank").rglob("*") if p.is_file())


def test_identical_content_is_embedded_once_and_kept_as_two_samples(photos, tmp_path):
    (photos / "copy.png").write_bytes((photos / "a" / "000.png").read_bytes())
    report = run(photos, tmp_path / "a.bank")
    bank = Bank(tmp_path / "a.bank")
    assert (report.samples, report.embedded) == (13, 13)
    assert bank.feature_set(NAME).rows == 12
    X, paths = bank.load(NAME, return_paths=True)
    np.testing.assert_array_equal(X[paths.index("copy.png")], X[paths.index("a/000.png")])


def test_a_renamed_image_costs_nothing_and_the_old_path_is_gone(photos, tmp_path):
    run(photos, tmp_path / "a.bank")
    (photos / "a" / "000.png").rename(photos / "b" / "new.png")
    report = run(photos, tmp_path / "a.bank")
    assert (report.embedded, report.reused, report.gone) == (0, 12, 1)
    samples = Bank(tmp_path / "a.bank").samples.set_index("path")
    assert samples.loc["a/000.png", "status"] == "gone"
    assert samples.loc["b/new.png", "label"] == "b"
    again = run(photos, tmp_path / "a.bank")
    assert again.gone == 0
    (photos / "b" / "new.png").rename(photos / "a" / "000.png")
    assert run(photos, tmp_path / "a.bank").gone == 1
    assert Bank(tmp_path / "a.bank").samples.set_index("path").loc["a/000.png", "status"] == "ok"


def test_an_edited_image_is_embedded_again(photos, tmp_path):
    run(photos, tmp_path / "a.bank")
    old = Bank(tmp_path / "a.bank").load(NAME, paths=["a/000.png"])
    Image.new("RGB", (40, 40), "red").save(photos / "a" / "000.png")
    assert run(photos, tmp_path / "a.bank").embedded == 1
    assert np.abs(Bank(tmp_path / "a.bank").load(NAME, paths=["a/000.png"]) - old).max() > 0.01


def test_a_file_changed_behind_its_stat_is_seen_by_verify_only(photos, tmp_path):
    run(photos, tmp_path / "a.bank")
    file = photos / "a" / "000.png"
    status, data = file.stat(), bytearray(file.read_bytes())
    Image.new("RGB", (8, 8), "blue").save(file)
    file.write_bytes(file.read_bytes().ljust(len(data), b"\0"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(photos, tmp_path / "a.bank").embedded == 0
    assert run(photos, tmp_path / "a.bank", verify=True).embedded == 1


def test_a_new_layer_computes_just_that_layer_for_the_known_images(photos, tmp_path):
    run(photos, tmp_path / "a.bank")
    report = run(photos, tmp_path / "a.bank", ["penultimate", "layer2:max"])
    bank = Bank(tmp_path / "a.bank")
    assert report.embedded == 12
    assert [(each["name"], each["rows"]) for each in report.feature_sets] == [(NAME, 12), ("resnet18/layer2:max", 12)]
    assert len(segments(bank)) == 2


def test_unreadable_images_are_listed_and_the_rest_go_on(photos, tmp_path):
    (photos / "a" / "empty.jpg").write_bytes(b"")
    (photos / "a" / "text.png").write_text("hello")
    (photos / "a" / "cut.png").write_bytes((photos / "a" / "000.png").read_bytes()[:500])
    with pytest.warns(UserWarning, match="3 of 15 images could not be read"):
        bank = extract(photos, tmp_path / "a.bank", **NET)
    failed = bank.samples.query("status == 'failed'").set_index("path")["error"]
    assert failed["a/empty.jpg"] == "the file is empty"
    assert failed["a/text.png"].startswith("not a readable image")
    assert "cut.png" in failed.index[0]
    assert bank.load(NAME).shape == (12, 512)
    with pytest.raises(ImageError, match="3 of 15"):
        extract(photos, tmp_path / "a.bank", strict=True, **NET)
    Image.new("RGB", (9, 9)).save(photos / "a" / "empty.jpg")
    assert run(photos, tmp_path / "a.bank").failed == 2


def test_a_file_that_could_not_even_be_read_is_tried_again(photos, tmp_path):
    link = photos / "a" / "later.png"
    link.symlink_to(tmp_path / "target.png")
    assert run(photos, tmp_path / "a.bank").failed == 1
    Image.new("RGB", (9, 9)).save(tmp_path / "target.png")
    report = run(photos, tmp_path / "a.bank")
    assert (report.failed, report.embedded) == (0, 1)


def test_an_emptied_or_missing_root_is_an_error_and_marks_nothing_gone(photos, tmp_path):
    run(photos, tmp_path / "a.bank")
    photos.rename(tmp_path / "moved")
    with pytest.raises(SourceError, match="does not exist"):
        run(photos, tmp_path / "a.bank")
    photos.mkdir()
    with pytest.raises(SourceError, match="no images in"):
        run(photos, tmp_path / "a.bank")
    assert Bank(tmp_path / "a.bank").info()["samples"]["gone"] == 0


def test_root_rebinds_a_source_whose_files_moved(photos, tmp_path):
    run(photos, tmp_path / "a.bank")
    photos.rename(tmp_path / "moved")
    source = scan(photos, root=tmp_path / "moved")
    report = run_extraction(source, Bank(tmp_path / "a.bank"), Request(**NET))
    assert (report.embedded, report.reused, report.gone) == (0, 12, 0)
    assert len(Bank(tmp_path / "a.bank").samples) == 12


def test_a_partial_list_marks_nothing_gone(photos, tmp_path):
    paths = sorted(photos.rglob("*.png"))
    extract(paths, tmp_path / "a.bank", columns={"label": [p.parent.name for p in paths]}, **NET)
    bank = extract(paths[:3], tmp_path / "a.bank", **NET)
    assert bank.info()["samples"] == {"ok": 12, "failed": 0, "gone": 0}
    assert bank.classes("label").tolist() == ["a", "b"]


def test_labels_corrected_in_the_bank_survive_and_a_changed_manifest_wins(photos, tmp_path):
    manifest = tmp_path / "photos.csv"
    manifest.write_text("path,label,site\na/000.png,cat,1\nb/001.png,dog,2\n")

    def extracted():
        return extract(manifest, tmp_path / "a.bank", root=photos, **NET).samples.set_index("path")

    assert extracted()["label"].tolist() == ["cat", "dog"]
    import pandas as pd

    Bank(tmp_path / "a.bank").label(pd.DataFrame({"path": ["a/000.png"], "label": ["lynx"]}))
    assert extracted()["label"].tolist() == ["lynx", "dog"]
    manifest.write_text("path,label,site\na/000.png,cat,1\nb/001.png,wolf,2\n")
    assert extracted()["label"].tolist() == ["lynx", "wolf"]
    manifest.write_text("path,label,site\na/000.png,tiger,1\nb/001.png,wolf,2\n")
    assert extracted()["label"].tolist() == ["tiger", "wolf"]


def test_images_in_memory_are_found_by_their_pixels(tmp_path):
    pixels = list(np.random.default_rng(0).integers(0, 255, (4, 20, 20, 3), "uint8"))
    ids = ["a", "b", "c", "d"]
    extract(pixels, tmp_path / "a.bank", ids=ids, columns={"label": [0, 1, 0, 1]}, **NET)
    bank = extract([Image.fromarray(each) for each in pixels], tmp_path / "a.bank", ids=ids, **NET)
    assert len(segments(bank)) == 1
    assert bank.load(NAME, "label")[1].tolist() == [0, 1, 0, 1]


def test_rows_do_not_depend_on_batch_neighbours_bit_by_bit(photos, tmp_path):
    whole = extract(photos, tmp_path / "a.bank", batch_size=8, **NET).load(NAME)
    paths = sorted(photos.rglob("*.png"))
    bank = Bank.create(tmp_path / "b.bank")
    for path in reversed(paths):
        extract([path], bank, batch_size=8, **NET)
    one_by_one = bank.load(NAME)
    np.testing.assert_array_equal(whole, one_by_one)


def test_workers_and_batch_size_change_features_by_less_than_1e_5(photos, tmp_path):
    a = extract(photos, tmp_path / "a.bank", batch_size=5, workers=1, store="float32", **NET).load(NAME)
    b = extract(photos, tmp_path / "b.bank", batch_size=12, workers=4, store="float32", **NET).load(NAME)
    assert (np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max() < 1e-5


def test_float16_differs_from_float32_by_its_rounding_only(photos, tmp_path):
    a = extract(photos, tmp_path / "a.bank", store="float16", **NET).load(NAME)
    b = extract(photos, tmp_path / "a.bank", store="float32", **NET)
    (name,) = [each.name for each in b.feature_sets if each.spec.store == "float32"]
    np.testing.assert_array_equal(a, b.load(name).astype(np.float16))


def test_what_was_asked_for_and_cannot_be_had_is_an_error(photos, tmp_path):
    with pytest.raises(BankError, match="store 'float64'; expected one of float16, float32"):
        extract(photos, tmp_path / "a.bank", store="float64", **NET)
    with pytest.raises(BankError, match="expected at least 1"):
        extract(photos, tmp_path / "a.bank", batch_size=0, **NET)
    with pytest.raises(DeviceError, match="expected one of auto, cpu, cuda, mps"):
        extract(photos, tmp_path / "a.bank", device="tpu", **NET)


def test_progress_reaches_the_end(photos, tmp_path):
    steps = []
    run(photos, tmp_path / "a.bank", progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (12, 12)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_an_interrupt_keeps_what_was_computed(photos, tmp_path):
    def stop(done, total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "a.bank", batch_size=4, progress=stop)
    assert Bank(tmp_path / "a.bank").feature_set(NAME).rows == 8
    report = run(photos, tmp_path / "a.bank", batch_size=4)
    assert (report.embedded, report.reused) == (4, 8)


def test_a_segment_is_written_at_its_size_limit(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "SEGMENT_ROWS", 4)
    run(photos, tmp_path / "a.bank", batch_size=2)
    bank = Bank(tmp_path / "a.bank")
    assert [file.shape("digest")[0] for file in bank.feature_set(NAME).segments] == [4, 4, 4]


KILLED = f"""
import os, signal, sys
from featurebank import extract
from featurebank.extraction import pipeline
pipeline.SEGMENT_ROWS = 4
def kill(done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
extract(sys.argv[1], sys.argv[2], batch_size=4, progress=kill, **{NET})
"""


@pytest.mark.parametrize("at", [pytest.param(2, marks=pytest.mark.slow), 7, pytest.param(11, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_and_ends_with_the_same_features(photos, tmp_path, at):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(photos), str(tmp_path / "a.bank"), str(at)])
    assert killed.returncode == -signal.SIGKILL
    kept = set(segments(Bank(tmp_path / "a.bank")))
    assert len(kept) == -(-at // 4)  # an image is done once its batch is
    report = run(photos, tmp_path / "a.bank", batch_size=4)
    assert report.embedded == 12 - 4 * len(kept)
    bank = Bank(tmp_path / "a.bank")
    assert kept <= set(segments(bank))
    whole = extract(photos, tmp_path / "b.bank", batch_size=4, **NET)
    digests = as_keys(whole.table.rows["digest"])
    np.testing.assert_array_equal(bank.feature_set(NAME).read(digests), whole.feature_set(NAME).read(digests))
    assert bank.verify() == []


@pytest.mark.slow
def test_two_processes_fill_one_bank_at_once(photos, tmp_path):
    code = f"import sys; from featurebank import extract\nextract(sys.argv[1], sys.argv[2], batch_size=4, **{NET!r})"
    command = [sys.executable, "-c", code, str(photos), str(tmp_path / "a.bank")]
    Bank.create(tmp_path / "a.bank")
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    bank = Bank(tmp_path / "a.bank")
    assert bank.load(NAME).shape == (12, 512)
    assert bank.verify() == []


def test_ctrl_c_on_the_command_line_says_how_to_go_on(tmp_path):
    photos = make_images(tmp_path / "photos", 600)
    command = [sys.executable, "-m", "featurebank", "extract", str(photos), "--bank", str(tmp_path / "a.bank")]
    process = subprocess.Popen(
        [*command, "--backbone", "resnet18", "--weights", "random:0"],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    while not list((tmp_path / "a.bank").glob("features/*/spec.json")):
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1].decode()
    assert process.returncode == 1, error
    assert "interrupted; what a bank holds by now is kept" in error
    assert "Traceback" not in error


def test_no_warning_when_every_image_is_read(photos, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        extract(photos, tmp_path / "a.bank", **NET)


def test_rows_that_no_longer_agree_are_warned_about(photos, tmp_path):
    request = Request(**NET)
    bank = Bank.create(tmp_path / "a.bank")
    (spec,) = request.specs(bank)
    request.register(bank)
    few = scan(sorted(photos.rglob("*.png"))[:2])
    drifted = np.full((2, 1, 512), 0.5, np.float32)
    bank.add_features(spec, [few.read(i)[0] for i in range(2)], drifted)
    assert run_extraction(few, bank, request).warnings == []  # nothing is computed, so nothing is compared
    report = run_extraction(scan(sorted(photos.rglob("*.png"))), bank, request)
    (warning,) = report.warnings
    assert "rows of resnet18/penultimate computed now differ from stored ones" in warning
    assert run(make_images(tmp_path / "other", 3, seed=9), tmp_path / "b.bank").warnings == []


def test_the_record_says_which_libraries_and_device_made_the_rows(photos, tmp_path):
    import torch

    report = run(photos, tmp_path / "a.bank")
    (made_by,) = report.feature_sets[0]["made_by"]
    assert made_by["torch"] == str(torch.__version__)
    assert made_by["device"].startswith(("cpu ", "cuda ", "mps "))


def test_a_damaged_segment_is_repaired_by_embedding_only_its_rows(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "SEGMENT_ROWS", 4)
    run(photos, tmp_path / "a.bank", batch_size=4)
    bank = Bank(tmp_path / "a.bank")
    before = bank.load(NAME)
    file = segments(bank)[1]
    data = bytearray(file.read_bytes())
    data[-3] ^= 64
    file.write_bytes(data)
    report = run(photos, tmp_path / "a.bank", batch_size=4)
    assert (report.embedded, report.reused) == (4, 8)
    assert file.name in report.repaired[0]
    np.testing.assert_array_equal(bank.load(NAME), before)
    assert bank.verify() == []


def test_a_damaged_sample_table_is_made_again_from_the_source(photos, tmp_path):
    run(photos, tmp_path / "a.bank")
    bank = Bank(tmp_path / "a.bank")
    before = bank.samples
    (file,) = bank.path.glob("samples/*.h5")
    file.write_bytes(file.read_bytes()[:-10])
    report = run(photos, tmp_path / "a.bank")
    assert (report.embedded, report.reused) == (0, 12)
    assert len(report.repaired) == 1
    assert bank.samples.equals(before)


def test_a_damaged_spec_is_written_again(photos, tmp_path):
    run(photos, tmp_path / "a.bank")
    bank = Bank(tmp_path / "a.bank")
    (file,) = bank.path.glob("features/*/spec.json")
    file.write_text("{}")
    assert len(bank.verify()) == 1
    report = run(photos, tmp_path / "a.bank")
    assert report.embedded == 0
    assert bank.verify() == []
    assert bank.load(NAME).shape == (12, 512)


def test_explain_says_what_would_hit_and_which_field_differs(photos, tmp_path):
    from featurebank.extraction.planning import explain

    run(photos, tmp_path / "a.bank")
    make_images(tmp_path / "more", 2, seed=1)
    (tmp_path / "more").rename(photos / "c")
    Image.new("RGB", (9, 9)).save(photos / "a" / "000.png")
    bank = Bank(tmp_path / "a.bank")
    before = sorted(bank.path.rglob("*"))
    request = Request(layers=["penultimate", "layer3"], **NET)
    facts = explain(scan(photos), bank, request)
    assert [facts[name] for name in ("samples", "unchanged", "changed", "new")] == [14, 11, 1, 2]
    hit, miss = facts["feature_sets"]
    assert (hit["hits"], hit["misses"], "nearest" in hit) == (11, 0, False)
    assert (miss["hits"], miss["misses"]) == (0, 11)
    assert set(miss["differs"]) == {"layer", "layout", "pool"}
    other = explain(scan(photos), bank, Request(**{**NET, "weights": "random:1"}))
    assert list(other["feature_sets"][0]["differs"]) == ["weights"]
    assert sorted(bank.path.rglob("*")) == before


def test_a_device_that_is_not_there_is_an_error_even_with_nothing_to_compute(photos, tmp_path):
    run(photos, tmp_path / "a.bank")
    with pytest.raises(DeviceError):
        run(photos, tmp_path / "a.bank", device="tpu")


# --- views -------------------------------------------------------------------------------------------------

SMALL = {**NET, "size": 64, "store": "float32"}


def saved_as(photos, folder, change):
    """Save a changed copy of every photo under its own path."""
    for path in photos.rglob("*.png"):
        copy = folder / path.relative_to(photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        change(Image.open(path)).save(copy)
    return folder


@pytest.fixture
def odd(tmp_path):
    """Six photos whose crops lie off the middle by half a pixel."""
    return make_images(tmp_path / "odd", 6, size=(41, 66))


def test_each_view_is_what_a_changed_copy_of_the_file_gives(odd, tmp_path, distance):
    turned = Image.Transpose
    changes = [
        lambda image: image,
        *[
            lambda image, method=method: image.transpose(method)
            for method in (
                turned.FLIP_LEFT_RIGHT, turned.FLIP_TOP_BOTTOM, turned.ROTATE_180,
                turned.TRANSPOSE, turned.ROTATE_90, turned.ROTATE_270, turned.TRANSVERSE,
            )
        ],
    ]  # fmt: skip
    views = extract(odd, tmp_path / "a.bank", views="dihedral", **SMALL).load(NAME, views="all")
    assert views.shape == (6, 8, 512)
    for number, change in enumerate(changes):
        copies = saved_as(odd, tmp_path / f"odd{number}", change)
        plain = extract(copies, tmp_path / f"{number}.bank", **SMALL).load(NAME)
        assert distance(views[:, number], plain) < 1e-5


def test_views_of_maps_keep_their_shape(odd, tmp_path):
    options = {**SMALL, "layers": ["layer4:none", "penultimate"]}
    bank = extract(odd, tmp_path / "a.bank", views="hflip", **options)
    assert [each.shape for each in bank.feature_sets] == [(2, 512, 2, 2), (2, 512)]
    maps = bank.load("resnet18/layer4:none", views="all").reshape(6, 2, 512, 4)
    np.testing.assert_allclose(maps.mean(-1), bank.load(NAME, views="all"), rtol=1e-4, atol=1e-5)


def test_a_bank_loads_the_mean_the_first_or_all_views(odd, tmp_path):
    bank = extract(odd, tmp_path / "a.bank", views="flips", **{**SMALL, "store": "float16"})
    everything = bank.load(NAME, views="all")
    assert everything.shape == (6, 4, 512)
    np.testing.assert_array_equal(bank.load(NAME), everything.mean(axis=1, dtype=np.float32))
    np.testing.assert_array_equal(bank.load(NAME, views="first"), everything[:, 0])
    assert (np.abs(everything - everything[:, :1]).max(axis=2) > 0).tolist() == [[False, True, True, True]] * 6


def test_other_views_are_another_feature_set(odd, tmp_path):
    for views in ("none", "hflip", "augment:2", "augment:3"):
        bank = extract(odd, tmp_path / "a.bank", views=views, **SMALL)
    sets = {each.spec.views: each for each in bank.feature_sets}
    assert [sets[views].shape[0] for views in ("none", "hflip", "augment:2", "augment:3")] == [1, 2, 2, 3]
    assert all(each.name == f"{NAME}@{each.fingerprint[:8]}" for each in sets.values())
    assert len({each.name for each in sets.values()}) == 4
    with pytest.raises(LookupError, match="fits 4 feature sets"):
        bank.load(NAME)
    assert bank.load(sets["augment:3"].name, views="all").shape == (6, 3, 512)


def test_views_that_the_bank_has_are_not_computed_again_and_need_no_torch(odd, tmp_path):
    extract(odd, tmp_path / "a.bank", views="augment:3", **SMALL)
    code = (
        "import sys; from featurebank import extract\n"
        f"extract({str(odd)!r}, {str(tmp_path / 'a.bank')!r}, views='augment:3', **{SMALL!r})\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(segments(Bank(tmp_path / "a.bank"))) == 1


def test_random_views_depend_on_the_content_alone_bit_by_bit(odd, tmp_path):
    options = {**SMALL, "views": "augment:4", "batch_size": 8}
    whole = extract(odd, tmp_path / "a.bank", **options).load(NAME, views="all")
    one_by_one = Bank.create(tmp_path / "b.bank")
    for path in sorted(odd.rglob("*.png"), reverse=True):
        extract([path], one_by_one, workers=1, **options)
    np.testing.assert_array_equal(one_by_one.load(NAME, views="all"), whole)
    (odd / "a" / "000.png").rename(odd / "b" / "zzz.png")
    renamed = extract(odd, tmp_path / "c.bank", **options).load(NAME, views="all", paths=["b/zzz.png"])
    np.testing.assert_array_equal(renamed[0], whole[0])
    assert len(np.unique(whole.reshape(-1, 512), axis=0)) == 24


def test_batch_size_and_workers_change_views_by_less_than_1e_5(odd, tmp_path, distance):
    options = {**SMALL, "views": "augment:3"}
    loaded = [
        extract(odd, tmp_path / f"{batch}.bank", batch_size=batch, workers=workers, **options).load(NAME, views="all")
        for batch, workers in ((1, 1), (2, 3), (7, 2), (32, None))
    ]
    assert max(distance(each.reshape(-1, 512), loaded[0].reshape(-1, 512)) for each in loaded[1:]) < 1e-5


@pytest.mark.parametrize(("batch_size", "passes"), [(32, [32, 32]), (8, [8] * 6), (5, [4] * 12), (1, [1] * 48)])
def test_no_forward_pass_holds_more_views_than_the_batch_size(odd, tmp_path, monkeypatch, batch_size, passes):
    from featurebank.backbones.engine import Engine

    seen = []
    batch = Engine._pixels
    monkeypatch.setattr(Engine, "_pixels", lambda self, prepared: seen.append(batch(self, prepared)) or seen[-1])
    extract(odd, tmp_path / "a.bank", views="dihedral", batch_size=batch_size, **SMALL)
    assert [len(images) for images in seen] == passes


def test_few_images_are_in_flight_when_each_has_many_views(tmp_path, monkeypatch):
    from featurebank.backbones.base import Backbone

    photos = make_images(tmp_path / "photos", 30)
    prepared, largest = [], 0
    prepare = Backbone.prepare_views

    def count(self, *arguments):
        prepared.append(1)
        return prepare(self, *arguments)

    def progress(done, total):
        nonlocal largest
        largest = max(largest, len(prepared) - done)

    monkeypatch.setattr(Backbone, "prepare_views", count)
    extract(photos, tmp_path / "a.bank", views="dihedral", batch_size=8, workers=2, progress=progress, **SMALL)
    assert 0 < largest <= 4


def test_views_that_no_longer_agree_are_warned_about(odd, tmp_path):
    request = Request("resnet18", "penultimate", weights="random:0", size=64, views="hflip")
    bank = Bank.create(tmp_path / "a.bank")
    few = scan(sorted(odd.rglob("*.png"))[:2])
    run_extraction(few, bank, request)
    (stored,) = bank.feature_sets
    digests = [few.read(i)[0] for i in range(2)]
    rows = stored.read(as_keys(digests), "all")
    rows[:, 1] *= 1.1  # the image itself still agrees
    segments(bank)[0].unlink()
    bank.add_features(stored.spec, digests, rows)
    (warning,) = run_extraction(scan(sorted(odd.rglob("*.png"))), bank, request).warnings
    assert "rows of resnet18/penultimate computed now differ from stored ones" in warning


def test_unknown_views_are_an_error_before_anything_is_made(odd, tmp_path):
    with pytest.raises(BankError, match=r"no views 'flps'; did you mean flips\?"):
        extract(odd, tmp_path / "a.bank", views="flps", **SMALL)
    assert Bank(tmp_path / "a.bank").feature_sets == []
