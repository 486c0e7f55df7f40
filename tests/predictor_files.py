"""Predictor files taken apart and put together by hand."""

import hashlib
import json
import zipfile


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, members, compression=zipfile.ZIP_STORED):
    """Write a predictor file by hand, the digests of its members mended."""
    if members.get("predictor.json", b"").startswith(b"{\n"):
        facts = json.loads(members["predictor.json"])
        given = {name: data for name, data in members.items() if name != "predictor.json"}
        facts["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in given.items()}
        members = {**members, "predictor.json": json.dumps(facts).encode()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def with_facts(source, path, change):
    """Write a copy of a predictor file whose predictor.json was changed in place by `change`."""
    members = members_of(source)
    facts = json.loads(members["predictor.json"])
    change(facts)
    return write_members(path, {**members, "predictor.json": json.dumps(facts, indent=1).encode()})
