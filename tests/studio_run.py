"""Banks of small pictures with given embeddings, and a studio over one without a server."""

import io
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from featurebank import Bank
from featurebank.bank import samples
from featurebank.bank.spec import FeatureSpec
from featurebank.images.columns import tidy
from featurebank.images.decoding import content_digest

TOKEN = "token"


def one_colour(number):
    """Return a small picture as the bytes of its file; no two numbers have the same."""
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), (number % 256, number // 256, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def picture_bank(folder, X, picture=one_colour, **columns):
    """Make a bank of pictures, ``000.png`` …, with these embeddings; return it and their digests."""
    folder.mkdir(exist_ok=True)
    bank = Bank.create(folder.parent / "pictures.bank")
    return bank, add_pictures(bank, folder, X, picture, **columns)


def add_pictures(bank, folder, X, picture=one_colour, first=0, **columns):
    """Add pictures with these embeddings, numbered from the first; return their digests."""
    numbers, digests = range(first, first + len(X)), []
    for number in numbers:
        data = picture(number)
        (folder / f"{number:03}.png").write_bytes(data)
        digests.append(content_digest(data))
    spec = FeatureSpec(
        "net", "1", "0" * 64, "penultimate", "vector", 0, "none", {"crop": [4, 4]}, 1, "none", "fp32", "float32"
    )
    bank.add_spec(spec)
    bank.add_features(spec, digests, np.asarray(X)[:, None].astype(np.float32))
    plain = {"source": str(folder), "root": str(folder), "size": 1, "mtime_ns": 1, "status": samples.OK, "error": ""}
    fields = {name: [value] * len(X) for name, value in {**plain, "row_hash": 0, "stamp": 0}.items()}
    fields |= {"path": [b"%03d.png" % number for number in numbers], "digest": digests}
    bank.add_samples(samples.make_table(fields, tidy(pd.DataFrame(columns, index=range(len(X))))), newest=0)
    return digests


@dataclass
class Run:
    """A studio whose background work is done step by step, its page, and what an annotator knows."""

    bank: Bank
    work: object
    session: object
    client: object
    truth: dict

    def get(self, address, **params):
        answer = self.client.get(f"/{TOKEN}/api/{address}", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, address, value):
        return self.client.post(f"/{TOKEN}/api/{address}", json=value)

    def label(self, digest, label, seen=None, tab="one"):
        answer = self.post(
            "labels", {"tab": tab, "answers": [{"digest": digest, "label": label, "seen": seen, "why": None}]}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def annotate(self, count, every=5):
        """Answer what comes next, and refit now and then; return why each came."""
        whys = []
        for number in range(count):
            (item,) = self.get("next", count=1)["items"]
            whys.append(item["why"])
            assert self.label(item["digest"], self.truth[item["digest"]])["saved"] == [item["digest"]]
            if number % every == every - 1:
                self.work.step()
        return whys


def start(bank, digests=(), labels=(), **options):
    """Open a studio over a bank without threads."""
    from starlette.testclient import TestClient

    from featurebank.explore.studio.app import make_app
    from featurebank.explore.studio.opening import Opening
    from featurebank.explore.studio.place import Place
    from featurebank.explore.studio.session import Session
    from featurebank.explore.studio.work import Work

    options = {"target": "label", "by": "", "features": None, "seed": 0, **options}
    work = Work(Place(bank.path, None, {}), **options)
    session = Session(work, options["target"])
    opening = Opening(lambda: session, title="pictures.bank", target=options["target"], by=options["by"])
    opening._session = session
    work.open()
    work.step()
    client = TestClient(make_app(opening, TOKEN), base_url="http://127.0.0.1:8000")
    truth = {digest.hex(): label for digest, label in zip(digests, labels, strict=True)}
    return Run(bank, work, session, client, truth)


def until(ask, seconds=300):
    """Return what a question gives once it is true."""
    end = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)
    return found
