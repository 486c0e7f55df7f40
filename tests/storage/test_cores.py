"""The cores of this process: what Slurm, taskset and containers leave of the machine's."""

import pytest

from featurebank.images.reading import worker_count
from featurebank.storage import cores


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 5),
        ({"cpu.max": "max 100000"}, 5),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "900000 100000"}, 5),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 5),
    ],
)
def test_cores_are_counted_by_affinity_and_quota(files, count, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cores, "_CGROUP", tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(5)))
    assert cores.usable_cores() == count
    assert worker_count() == count
    assert worker_count(7) == 7
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr(cores, "_CGROUP", tmp_path / "none")
    assert cores.usable_cores() == 64
