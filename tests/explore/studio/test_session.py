"""What the page asks for and gets, from no labels to a predictor; background work is done step by step."""

import io
import json
import resource

import numpy as np
import pandas as pd
import pytest
from made_bank import make_bank, planted
from PIL import Image
from studio_run import add_pictures, picture_bank, start, until

from featurebank import Bank, Predictor
from featurebank.errors import BankError
from featurebank.explore.studio import evidence, looking
from featurebank.explore.studio.finishing import check_labels
from featurebank.explore.studio.place import NotYetError
from featurebank.topmodels.scores import wilson_interval

JSON = {"content-type": "application/json"}


def test_before_there_are_labels_nothing_is_claimed(planted_run):
    found = planted_run.get("progress")
    assert (found["honest"]["n"], found["honest"]["score"], found["cross_validated"]["score"]) == (0, None, None)
    assert found["confusion"] == {"classes": [], "counts": []}
    assert planted_run.client.get("/token/api/map").status_code == 503


def test_from_no_label_to_scores_that_are_known(annotated_run):
    run, whys = annotated_run
    assert whys.count("random") in (5, 6, 7)
    assert set(whys[:50]) == {"coverage", "random"}
    assert "uncertain" in whys[50:] or set(whys[50:]) <= {"coverage", "random"}
    found = run.get("progress")
    n = found["honest"]["n"]
    assert found["honest"]["score"] == 1.0
    assert (found["honest"]["low"], found["honest"]["high"]) == pytest.approx(wilson_interval(n, n))
    assert found["cross_validated"]["score"] == 1.0
    assert sum(found["counts"].values()) == 60
    assert np.trace(found["confusion"]["counts"]) == 60
    assert found["confusion"]["classes"] == ["ant", "bee", "cat"]
    assert found["features"] == "net/penultimate"
    assert [point["labels"] for point in found["curve"]] == [10, 20, 35, 50, 60 - len(run.work.now.tested)][
        : len(found["curve"])
    ]
    assert found["verdict"]["text"].split(":")[0] == "Stop"
    assert "known yet" in found["paid"]["text"]


def test_where_all_images_are_labelled_no_more_labels_are_asked_for(tmp_path):
    X, numbers = planted(np.random.default_rng(0), groups=2, size=20, width=8, away=7.0)
    bank, digests = picture_bank(tmp_path / "pictures", X)
    run = start(bank, digests, np.array(["ant", "bee"])[numbers])
    first = next(iter(run.truth))
    run.label(first, run.truth[first])
    run.work.step()
    assert evidence.verdict(run.work.now, 0) == "Label more: 1 label is too few to say what more would bring."
    run.annotate(34, every=17)
    assert evidence.verdict(run.work.now, 0).endswith(" There are 40 images in all.")
    run.annotate(5)
    found = looking.weighed(run.work.now, run.work.answers.stamps, 0)
    assert found["verdict"].startswith("All images have a label (40), so more labels take more images. Stop: ")
    assert found["paid"]["text"].endswith(f"one in ten is, and there are {len(run.work.draw_now.asked)}.")
    assert "-0.0" not in found["verdict"]


def test_suggestions_and_neighbours_are_of_the_kind_and_never_of_the_test_part(annotated_run):
    run, _ = annotated_run
    items = run.get("grid", label="bee", count=30)["items"]
    assert {run.truth[each["digest"]] for each in items} == {"bee"}
    assert all(each["suggestion"]["label"] == "bee" and each["label"] is None for each in items)
    sure = [each["suggestion"]["probability"] for each in items]
    assert sure == sorted(sure, reverse=True)
    some = next(digest for digest, label in run.truth.items() if label == "cat")
    near = run.get("similar", digest=some, count=20)["items"]
    assert {run.truth[each["digest"]] for each in near} == {"cat"}
    tested = {bytes(run.work.answers.digests[each]).hex() for each in run.work.draw_now.asked}
    grid = run.get("grid", count=200)
    assert not tested & {each["digest"] for each in [*items, *near, *grid["items"]]}
    assert len(grid["items"]) + grid["tests"] == 150 - 60  # and nobody has to guess where the rest is


def test_what_is_asked_of_the_test_part_comes_without_a_suggestion(annotated_run):
    run, _ = annotated_run
    items = run.get("next", count=40)["items"]
    assert {each["why"] for each in items} >= {"random", "uncertain"}
    assert all((each["suggestion"] is None) == (each["why"] == "random") for each in items)


def test_what_the_page_has_or_passed_over_does_not_come_again(planted_run):
    run = planted_run
    first = [each["digest"] for each in run.get("next", count=20)["items"]]
    second = [each["digest"] for each in run.get("next", count=20, skip=",".join(first))["items"]]
    assert len(set(first) | set(second)) == 40
    assert sum(each["why"] == "random" for each in run.get("next", count=8, skip=",".join(first))["items"]) <= 2


def test_undo_goes_back_as_often_as_one_likes_in_its_own_tab(planted_run):
    run = planted_run
    digests = list(run.truth)[:3]
    for digest in digests:
        run.label(digest, "ant")
    run.label(digests[0], "bee", seen="ant", tab="two")
    assert run.post("undo", {"tab": "one"}).json()["answers"] == [
        {"digest": digests[2], "name": "002.png", "label": None}
    ]
    assert run.post("undo", {"tab": "one"}).json()["answers"] == [
        {"digest": digests[1], "name": "001.png", "label": None}
    ]
    refused = run.post("undo", {"tab": "one"}).json()
    assert refused["answers"] == []
    assert [each["label"] for each in refused["conflicts"]] == ["bee"]  # the other tab's answer stays
    assert run.post("undo", {"tab": "two"}).json()["answers"] == [
        {"digest": digests[0], "name": "000.png", "label": "ant"}
    ]
    assert run.post("undo", {"tab": "three"}).json()["answers"] == []


def test_two_tabs_never_cover_each_other(planted_run):
    run = planted_run
    digest = next(iter(run.truth))
    assert run.label(digest, "ant")["conflicts"] == []
    found = run.label(digest, "bee", tab="two")
    assert (found["saved"], found["conflicts"][0]["label"]) == ([], "ant")
    assert run.label(digest, "bee", seen="ant", tab="two")["saved"] == [digest]


def test_classes_keep_the_order_in_which_they_came(planted_run):
    run = planted_run
    digests = list(run.truth)
    for number, name in enumerate(["wasp", "ant", "wasp", "moth"]):
        run.label(digests[number], name)
    assert run.get("state")["classes"] == [
        {"name": "wasp", "count": 2},
        {"name": "ant", "count": 1},
        {"name": "moth", "count": 1},
    ]
    run.post("undo", {"tab": "one"})
    assert [each["name"] for each in run.get("state")["classes"]] == ["wasp", "ant"]
    Bank(run.bank.path).label(pd.DataFrame({"path": ["140.png"], "label": ["aaa"]}))
    assert [each["name"] for each in run.get("state")["classes"]] == ["wasp", "ant", "aaa"]


def test_a_cell_of_the_confusion_matrix_opens_its_pictures_and_errors_are_suspected(planted_run):
    run = planted_run
    pytest.importorskip("cleanlab")
    is_test = dict(zip(run.work.answers.digests, run.work.draw_now.is_test, strict=True))
    cats = [digest for digest, label in list(run.truth.items())[:60] if label == "cat"]
    wrong = next(digest for digest in cats if not is_test[np.bytes_(bytes.fromhex(digest))])
    given = {**run.truth, wrong: "ant"}
    answers = [{"digest": digest, "label": given[digest], "seen": None} for digest in list(run.truth)[:60]]
    assert len(run.post("labels", {"tab": "one", "answers": answers}).json()["saved"]) == 60
    run.work.step()
    items = run.get("confusion", truth="ant", predicted="cat")["items"]
    assert [each["digest"] for each in items] == [wrong]
    assert items[0]["suggestion"]["label"] == "cat"
    first = run.get("issues")["items"][0]
    assert (first["digest"], first["label"], first["suggestion"]["label"]) == (wrong, "ant", "cat")


def test_the_map_has_every_image_with_what_is_thought_of_it(annotated_run):
    run, _ = annotated_run
    found = run.get("map")
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(found, 150)
    assert set(found["digests"]) == set(run.truth)
    assert sum(each is not None for each in found["labels"]) == 60
    right = [run.truth[digest] == said for digest, said in zip(found["digests"], found["predictions"], strict=True)]
    assert np.mean(right) > 0.95


def test_labels_of_whole_numbers_stay_numbers(tmp_path):
    bank, digests = picture_bank(tmp_path / "pictures", np.eye(6), digit=pd.array([1, 2, *[None] * 4], "Int64"))
    run = start(bank, digests, ["1", "2"] * 3, target="digit")
    run.label(digests[2].hex(), "1")
    refused = run.post(
        "labels", {"tab": "one", "answers": [{"digest": digests[3].hex(), "label": "cat", "seen": None}]}
    )
    assert refused.status_code == 400
    assert "holds whole numbers" in refused.json()["error"]
    assert Bank(bank.path).samples["digit"].tolist()[:3] == [1, 2, 1]


@pytest.mark.slow
def test_random_labels_are_never_claimed_to_be_learned(tmp_path):
    random = np.random.default_rng(0)
    claims = 0
    for seed in range(4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        bank = make_bank(folder / "a.bank", random.normal(size=(600, 16)))
        digests = [int(number).to_bytes(32, "big") for number in range(600)]
        run = start(bank, digests, random.choice(["a", "b"], 600), seed=seed)
        for way in (lambda each: each.annotate(80, every=20), _label_suggested):
            way(run)
            run.work.step()
            honest = run.get("progress")["honest"]
            claims += honest["n"] > 0 and honest["low"] > 0.5
            run.work.look(run.work.now)
            assert not run.work.evidence["paid"]["text"].startswith("Choosing pays")
    assert claims == 0


def _label_suggested(run):
    """Agree with what the model suggests, which makes the labels look as if they could be learned."""
    items = run.get("grid", count=100)["items"]
    answers = [{"digest": each["digest"], "label": each["suggestion"]["label"], "seen": None} for each in items]
    assert run.post("labels", {"tab": "one", "answers": answers}).status_code == 200


@pytest.mark.slow
def test_the_final_fit_is_written_beside_the_bank_and_compared_with_the_one_before(planted_run):
    run = planted_run
    run.annotate(45, every=15)
    proposed = run.get("finish")["path"]
    assert proposed == str(run.bank.path.with_suffix(".featurebank"))
    options = {"models": ["ridge"], "folds": 3, "n_jobs": 1, "learning_curve": True}
    assert run.post("finish", {"path": None, "options": options}).json() == {"started": True}
    first = until(lambda: (found := run.get("finish"))["state"] != "running" and found)
    assert (first["state"], first["comparison"], first["path"]) == ("done", None, proposed)
    assert first["message"].startswith("ridge on net/penultimate: 100.0 % (95 % ")
    assert first["written"]["commands"] == [
        f"featurebank predict {proposed} IMAGES",
        f"featurebank report {run.bank.path} --predictor {proposed}",
    ]
    assert [point["labels"] for point in first["written"]["curve"]][-1] == 30
    assert first["written"]["verdict"].startswith("Stop")
    assert first["proposed"] == str(run.bank.path.with_name("pictures-2.featurebank"))
    assert Predictor.load(proposed).target == "label"
    run.post("finish", {"path": "second", "options": options})
    second = until(lambda: (found := run.get("finish"))["state"] != "running" and found)
    assert second["state"] == "done", second
    assert second["path"] == str(run.bank.path.with_name("second.featurebank"))
    assert second["comparison"]["rows"] == [["the new predictor", "100.0 %"], ["pictures.featurebank", "100.0 %"]]
    assert (second["comparison"]["n"], second["comparison"]["difference"]) == (45, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "a.txt"}, "is no place for a predictor"),
        ({"path": "nowhere/a.featurebank"}, "is no place for a predictor"),
        ({"path": "a\0b.featurebank"}, "is no place for a predictor"),
        ({"path": "\ud800.featurebank"}, "is no place for a predictor"),
        ({"path": "x" * 5000}, "is no place for a predictor"),
        ({"path": None, "options": {"folds": "x"}}, "fit's option 'folds' is 'x'; expected one like 5"),
        ({"path": None, "options": {"nested": 1}}, "fit's option 'nested' is 1; expected one like False"),
        ({"path": 7}, "a path has to be text"),
        ({"path": None, "options": {"bank": "x"}}, "fit has no option 'bank'"),
        ({"path": None, "options": [1]}, "have to be names with values"),
    ],
)
def test_a_fit_that_cannot_be_is_refused(annotated_run, fields, message):
    run, _ = annotated_run
    answer = run.client.post("/token/api/finish", content=json.dumps(fields), headers=JSON)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "there are no labels; expected two classes"),
        ("aaa", "all labels are of one class, 'a'; expected two classes: label images of another, then finish"),
        ("ab", "class 'a' has one label; expected two at least"),
        ("aaab", "class 'b' has one label; expected two at least"),
        ("aaabbb", "the largest class has 3 labels; expected 5, one for each fold: label more, or ask for fewer folds"),
    ],
)
def test_too_few_labels_to_finish_are_told_of_before_anything_is_fitted(labels, message):
    with pytest.raises(BankError, match=message):
        check_labels(np.array([*labels, None], object), 5)


def test_an_undo_that_the_disk_refused_can_be_done_later_and_no_answer_is_lost(planted_run):
    run = planted_run
    first, second = list(run.truth)[:2]
    run.label(first, "ant")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        answer = {"digest": second, "label": "bee", "seen": None}
        refused = [run.post("labels", {"tab": "one", "answers": [answer]}), run.post("undo", {"tab": "one"})]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [each.status_code for each in refused] == [400, 400]
    assert all("File too large; free the disk" in each.json()["error"] for each in refused)
    assert run.get("state")["labelled"] == 1
    assert [each["digest"] for each in run.post("undo", {"tab": "one"}).json()["answers"]] == [first]
    assert run.bank.verify() == []


def test_a_damaged_file_of_another_writer_is_told_of_and_what_was_read_stays(planted_run):
    run = planted_run
    run.label(next(iter(run.truth)), "ant")
    (run.bank.path / "samples" / "zzz.h5").write_bytes(b"no segment")
    state = run.get("state")
    assert "zzz.h5' is damaged or not a segment" in state["message"]
    assert (state["ready"], state["labelled"]) == (True, 1)
    (run.bank.path / "samples" / "zzz.h5").unlink()
    assert run.get("state")["message"] is None


def test_a_bank_that_grows_keeps_its_labels_and_nothing_is_said_by_numbers_of_before(planted_run):
    run = planted_run
    answers = [{"digest": digest, "label": run.truth[digest], "seen": None} for digest in list(run.truth)[:60]]
    run.post("labels", {"tab": "one", "answers": answers})
    run.work.step()
    view, labels = run.work.now, run.get("state")["labelled"]
    add_pictures(run.bank, run.bank.path.parent / "pictures", np.eye(8)[:5], first=150)
    assert (run.get("state")["images"], run.get("state")["labelled"]) == (155, labels)
    assert (run.get("confusion", truth="ant", predicted="ant")["items"], run.get("issues")["items"]) == ([], [])
    with pytest.raises(NotYetError, match="other images have come meanwhile; ask again"):
        run.session._with_judgement(view, np.array([0]))
    assert run.client.get("/token/api/map").status_code == 503
    run.work.step()
    items = run.get("confusion", truth="ant", predicted="ant")["items"]
    assert items
    assert {run.truth[each["digest"]] for each in items} == {"ant"}


def test_a_class_of_the_bank_is_answered_as_it_is_there_and_names_may_be_joined(tmp_path):
    there = ["  spaced ", "a\nb", *[None] * 6]
    bank, digests = picture_bank(tmp_path / "pictures", np.eye(8), label=there)
    run = start(bank, digests, list("abababab"))
    assert [each["name"] for each in run.get("state")["classes"]] == ["  spaced ", "a\nb"]
    for digest, label in zip(digests[2:], [*there[:2], "👩\u200d🔬", "می\u200cخواهم", "a\u00a0b", "NA"], strict=True):
        assert run.label(digest.hex(), label)["saved"]
    assert Bank(bank.path).samples["label"].tolist()[2:] == [
        *there[:2],
        "👩\u200d🔬",
        "می\u200cخواهم",
        "a\u00a0b",
        "NA",
    ]


def test_a_predictor_that_is_there_stays(planted_run):
    there = planted_run.bank.path.with_name("mine.featurebank")
    there.write_bytes(b"precious")
    for name in ("mine.featurebank", "mine"):
        answer = planted_run.post("finish", {"path": name})
        assert "is there already and stays" in answer.json()["error"]
    assert there.read_bytes() == b"precious"


def test_a_picture_comes_as_jpeg_of_the_size_that_is_asked(planted_run):
    digest = next(iter(planted_run.truth))
    answer = planted_run.client.get(f"/token/api/image/{digest}", params={"size": 96})
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (30, 20)
    assert planted_run.client.get(f"/token/api/image/{digest}", params={"size": 97}).status_code == 404


def test_a_picture_whose_file_has_gone_is_told_of(planted_run):
    digest = planted_run.work.answers.digests[0].hex()
    name = planted_run.work.answers.name(0)
    (planted_run.bank.path.parent / "pictures" / name).unlink()
    answer = planted_run.client.get(f"/token/api/image/{digest}")
    assert answer.status_code == 404
    assert name in answer.json()["error"]


def test_a_bank_without_embeddings_can_be_labelled_and_new_images_are_taken_in(tmp_path):
    bank, digests = picture_bank(tmp_path / "pictures", np.eye(4))
    run = start(bank, digests, list("abab"))
    for segment in (bank.path / "features").glob("*/*.h5"):
        segment.unlink()
    run = start(bank, digests, list("abab"))
    items = run.get("next", count=8)["items"]
    assert len(items) == 4
    assert {each["why"] for each in items} <= {"any", "random"}
    assert run.post("predict", None).status_code in (400, 503)
