"""What decides and does an extraction over a cluster, apart from Ray itself (see tests/integration/test_ray.py)."""

import pickle
import shutil
import socket
import sys
from collections import deque
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from featurebank import Backbone, Bank, Preprocessing, extract
from featurebank.backbones.request import Request
from featurebank.bank import sample_segments
from featurebank.errors import (
    BankError,
    ClusterError,
    DeviceError,
    FeatureBankError,
    NotInstalledError,
    SourceError,
    install_hint,
)
from featurebank.extraction.extract import run_extraction
from featurebank.extraction.pipeline import Compute
from featurebank.extraction.ray import cluster, driver
from featurebank.extraction.ray.cluster import PoolSize, check_address, plan_pool
from featurebank.extraction.ray.driver import Dispatch
from featurebank.extraction.ray.jobs import RayThreads
from featurebank.extraction.ray.pool import WorkerPool
from featurebank.extraction.ray.queue import CHANCES, IN_A_ROW, Shard, ShardQueue, make_shards
from featurebank.extraction.ray.worker import ShardTask, Worker
from featurebank.extraction.tracker import Tracker
from featurebank.images.scanning import scan

PATHS = [b"folder/%d.png" % number for number in range(5000)]
OTHERS = [b"another/%d.png" % number for number in range(len(PATHS))]


# --- shards ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 31, 32, 33, 500, 5000])
def test_every_sample_is_in_one_shard_and_all_batches_are_full_but_one(workers, count):
    shards = make_shards(PATHS, range(count), workers, 32)
    assert sorted(np.concatenate([shard.positions for shard in shards])) == list(range(count))
    sizes = [len(shard) for shard in shards]
    assert sum(size % 32 != 0 for size in sizes) == (count % 32 != 0)
    assert max(sizes) - min(sizes) < 64
    assert all((np.diff(shard.positions) > 0).all() for shard in shards)


def test_shards_depend_on_the_paths_alone():
    """Not on the order they are pending in; and each mixes what lies side by side in the source."""
    pending = np.random.default_rng(0).permutation(5000)
    shards, again = (make_shards(PATHS, given, 2, 32) for given in (range(5000), pending))
    assert [shard.positions.tolist() for shard in shards] == [shard.positions.tolist() for shard in again]
    assert [shard.positions.tolist() for shard in make_shards(OTHERS, range(5000), 2, 32)] != [
        shard.positions.tolist() for shard in shards
    ]
    assert all(2000 < shard.positions.mean() < 3000 for shard in shards)


def test_images_of_a_tar_shard_stay_together():
    paths = [b"%d.tar/%d.jpg" % (number % 20, number) for number in range(5000)]
    shards = make_shards(paths, range(5000), 2, 32)
    tars = [{paths[position].partition(b"/")[0] for position in shard.positions} for shard in shards]
    assert sorted(np.concatenate([shard.positions for shard in shards])) == list(range(5000))
    assert max(map(len, tars)) <= 3  # 313 images of 250 a tar
    assert len(tars[0] | tars[1]) <= 4


def test_a_large_job_has_a_segment_a_shard():
    sizes = [len(shard) for shard in make_shards([b"%d" % number for number in range(100_000)], range(100_000), 2, 256)]
    assert max(sizes) <= 4096
    assert len(sizes) % 2 == 0


def test_a_lost_shard_comes_back_in_halves_until_the_image_that_kills_is_alone():
    queue = ShardQueue(deque([Shard(np.arange(100))]), workers=2)
    settled, lost = [], 0
    while queue.waiting:
        shard = queue.waiting.popleft()
        if 37 in shard.positions:
            queue.lose(shard, "killed")
            lost += 1
        else:
            queue.finish(shard)
            settled += shard.positions.tolist()
    assert queue.failed == [37]
    assert sorted(settled) == [number for number in range(100) if number != 37]
    assert queue.finished == 100
    assert queue.lost == lost <= 7 + CHANCES


def test_workers_that_only_die_end_the_job():
    queue = ShardQueue(deque([Shard(np.arange(5000))]), workers=2)
    for _ in range(IN_A_ROW * 2):
        queue.lose(queue.waiting.popleft(), "out of memory")
    with pytest.raises(ClusterError, match=r"9 workers in a row were lost.*\(out of memory\)"):
        queue.lose(queue.waiting.popleft(), "out of memory")


def test_workers_that_never_start_end_the_job():
    queue = ShardQueue(deque([Shard(np.arange(5000))]), workers=1)
    for _ in range(IN_A_ROW):
        queue.lose(None, "no such module")
    with pytest.raises(ClusterError, match="5 workers in a row were lost"):
        queue.lose(None, "no such module")
    assert len(queue.waiting) == 1


# --- the cluster -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machines", "device", "size"),
    [
        ([{"CPU": 2.0}], "auto", PoolSize(1, 2, 0)),
        ([{"CPU": 64.0}], "cpu", PoolSize(8, 8, 0)),
        ([{"CPU": 0.0}, {"CPU": 1.0}, {"CPU": 1.0}], "auto", PoolSize(2, 1, 0)),
        ([{"memory": 1.0}, {"CPU": 4.0, "GPU": 4.0}, {"CPU": 32.0, "GPU": 2.0}], "auto", PoolSize(6, 1, 1)),
        ([{"CPU": 2.0, "GPU": 4.0}], "cuda", PoolSize(4, 0, 1)),
        ([{"CPU": 16.0, "GPU": 2.0}], "cpu", PoolSize(2, 8, 0)),
    ],
)
def test_a_worker_a_gpu_or_for_some_cores(machines, device, size):
    assert plan_pool(machines, device) == size


@pytest.mark.parametrize(
    ("machines", "device", "error", "message"),
    [
        ([{"CPU": 2.0}], "cuda", DeviceError, "'cuda' is on no machine of the Ray cluster"),
        ([{"CPU": 2.0}], "mps", DeviceError, "expected auto, cpu or cuda"),
        ([{"CPU": 2.0, "GPU": 1.0}], "cuda:1", DeviceError, "Ray deals out the GPUs"),
        ([{"CPU": 0.0}, {}], "auto", ClusterError, "no cores for a worker"),
    ],
)
def test_a_device_that_the_cluster_lacks_is_refused(machines, device, error, message):
    with pytest.raises(error, match=message):
        plan_pool(machines, device)


@pytest.mark.parametrize("address", ["", "here", "host:", ":1", "host:port", "ray://host"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ClusterError, match="expected HOST:PORT"):
        check_address(address)


def test_an_address_that_answers_is_taken_and_one_that_does_not_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        check_address(address)
        check_address(f"ray://{address}")
    with pytest.raises(ClusterError, match="no Ray cluster answers at"):
        check_address(address)


def test_ray_that_is_not_installed_names_the_extra(two_classes, tmp_path, monkeypatch, run_cli):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run_cli("extract", two_classes, "--bank", tmp_path / "a.bank", "--backend", "ray")
    assert result.exit_code == 1
    assert result.stderr == f"Error: --backend ray needs Ray: {install_hint('ray')}\n"
    with pytest.raises(NotInstalledError):
        cluster.import_ray()


def test_commands_name_an_address_that_does_not_answer(two_classes, two_class_bank, tmp_path, run_cli):
    pytest.importorskip("ray")
    for command in (["extract", two_classes, "--bank", tmp_path / "a.bank"], ["fit", two_class_bank]):
        result = run_cli(*command, "--backend", "ray", "--ray-address", "127.0.0.1:1")
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: no Ray cluster answers at '127.0.0.1:1'")
        assert len(result.stderr.splitlines()) == 1


def test_an_address_without_ray_is_refused_but_the_environments_is_left_alone(own_bank, run_cli, monkeypatch):
    result = run_cli("fit", own_bank, "--ray-address", "127.0.0.1:1")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "Error: --ray-address goes with --backend ray"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert run_cli("fit", own_bank, "--model", "ridge").exit_code == 0


def test_a_lost_worker_is_told(two_classes, tmp_path, caplog):
    died = []
    tracker = prepare(two_classes, tmp_path / "a.bank")
    nobody = Nobody(lambda handle, part: not died and not died.append(1))
    dispatch_to(nobody, tracker).run(make_shards(tracker.source.paths, tracker.pending(), 1, 8))
    assert "a worker was lost (it was killed); another starts in its place" in caplog.messages
    assert tracker.bank.feature_set("resnet18/penultimate").rows == 40


def test_images_in_memory_and_unknown_backends_are_refused(two_classes, tmp_path):
    with pytest.raises(SourceError, match="images in memory are not on other machines"):
        extract([np.zeros((8, 8, 3), "uint8")], tmp_path / "a.bank", ids=["a"], weights="random:0", backend="ray")
    with pytest.raises(BankError, match="no backend 'rey'; did you mean ray"):
        extract(two_classes, tmp_path / "a.bank", weights="random:0", backend="rey")


# --- workers, in this process ------------------------------------------------------------------------------


class DeathError(Exception):
    """What this cluster of nobody raises for a lost worker."""


class TaskError(DeathError):
    def __init__(self, cause):
        super().__init__()
        self.cause = cause


class Nobody:
    """As much of Ray as the driver uses, in this process: calls are done when they are asked for."""

    exceptions = SimpleNamespace(RayError=DeathError, RayTaskError=TaskError)

    def __init__(self, dies=lambda worker, part: False, machines=1):
        self.dies = dies
        self.hired = 0
        self.machines = machines

    def put(self, value):
        return value

    def remote(self, kind):
        return SimpleNamespace(
            options=lambda **_: SimpleNamespace(remote=lambda *given: self.start_worker(kind(*given)))
        )

    def start_worker(self, worker):
        self.hired += 1
        return Handle(self, worker)

    def wait(self, references, num_returns=1, timeout=None):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        if isinstance(reference.result, Exception):
            raise reference.result
        return reference.result

    def kill(self, worker):
        worker.is_alive = False

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2.0}}] * self.machines


class Reference:
    def __init__(self, result):
        self.result = result


class Handle:
    def __init__(self, ray, worker):
        self.ray, self.worker, self.is_alive = ray, worker, True

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *given: Reference(self.call(name, *given)))

    def call(self, name, *given):
        if not self.is_alive or (name == "settle" and self.ray.dies(self, given[0])):
            return DeathError("it was killed")
        try:
            return getattr(self.worker, name)(*given)
        except Exception as error:
            return TaskError(error)


WANTED = {"weights": "random:0", "size": 64, "store": "float32"}


COMPUTE = Compute("cpu", "eager", 8, 2)


def asked(**other):
    return Request("resnet18", ["layer3", "penultimate"], **{**WANTED, **other})


def prepare(photos, bank):
    bank = Bank.create(bank)
    specs = asked().specs(bank)
    asked().register(bank)
    return Tracker(scan(photos), bank, specs, verify=False)


def dispatch_to(ray, tracker, progress=None):
    return Dispatch(WorkerPool(ray, asked(), COMPUTE), tracker, progress)


def begin(tracker, **other):
    """Return a worker that has begun."""
    worker = Worker(asked(**other), COMPUTE)
    worker.start(driver._job(tracker))
    return worker


@pytest.fixture(scope="session")
def plain_bank(two_classes, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "plain.bank"
    extract(two_classes, path, backbone="resnet18", layers=["layer3", "penultimate"], engine="eager", **WANTED)
    return Bank(path)


def rows(bank, name="resnet18/penultimate"):
    """Return the rows that lie in the bank's files, repeats and all."""
    return sum(len(file.read("digest")) for file in bank.feature_set(name).segments)


def test_two_workers_make_the_bank_that_one_process_makes(two_classes, plain_bank, tmp_path, distance):
    tracker = prepare(two_classes, tmp_path / "a.bank")
    pending = tracker.pending()
    dispatch = dispatch_to(Nobody(machines=2), tracker)
    dispatch.run(make_shards(tracker.source.paths, pending, 2, 8))
    tracker.read_back(pending)
    assert tracker.embedded.sum() == len(pending) == 40
    bank = Bank(tmp_path / "a.bank")
    for name in ("resnet18/layer3", "resnet18/penultimate"):
        assert rows(bank, name) == 40
        assert distance(bank.load(name), plain_bank.load(name)) < 1e-5
    assert bank.samples.drop(columns="digest").equals(plain_bank.samples.drop(columns="digest"))
    assert tracker.updates()[0].rows.empty


def test_what_a_lost_worker_was_at_is_done_by_another_and_nothing_twice(two_classes, plain_bank, tmp_path, distance):
    """Workers die after they wrote their rows, and before they could say so."""
    killed = []

    def dies(handle, part):
        if len(killed) < 3:
            killed.append(handle.worker.settle(part))
            return True
        return False

    tracker = prepare(two_classes, tmp_path / "a.bank")
    pending = tracker.pending()
    dispatch = dispatch_to(Nobody(dies, machines=2), tracker)
    dispatch.run(make_shards(tracker.source.paths, pending, 2, 8))
    tracker.read_back(pending)
    bank = Bank(tmp_path / "a.bank")
    assert dispatch.queue.lost == 3
    assert tracker.embedded.all()
    assert rows(bank) == len(bank.samples) == 40
    assert distance(bank.load("resnet18/penultimate"), plain_bank.load("resnet18/penultimate")) < 1e-5


def test_a_worker_reads_no_samples_that_another_of_its_run_wrote(two_classes, tmp_path, monkeypatch):
    """A run of many shards would else read each of their segments again for every shard."""
    tracker = prepare(two_classes, tmp_path / "a.bank")
    shards = [Shard(part) for part in np.array_split(tracker.pending(), 4)]
    read, decode = [], sample_segments.decode_table
    monkeypatch.setattr(sample_segments, "decode_table", lambda file: read.append(file.path.name) or decode(file))
    lost = []

    def dies(handle, part):
        if lost:
            return False
        lost.append(handle.worker.settle(part))
        return True

    dispatch_to(Nobody(dies), tracker).run(shards)
    assert set(read) == set(lost[0].written)  # what the lost worker could not tell
    assert len(Bank(tracker.bank.path).samples) == 40


def test_an_image_that_kills_its_workers_ends_as_failed(two_classes, tmp_path):
    def dies(handle, part):
        return b"cat/07.png" in part.source.paths

    tracker = prepare(two_classes, tmp_path / "a.bank")
    pending = tracker.pending()
    dispatch = dispatch_to(Nobody(dies, machines=2), tracker)
    dispatch.run(make_shards(tracker.source.paths, pending, 2, 8))
    driver._note_failed(tracker, dispatch.queue.failed)
    tracker.read_back([position for position in pending if not tracker.done[position]])
    tracker.finish()
    samples = Bank(tmp_path / "a.bank").samples
    failed = samples[samples["status"] == "failed"]
    assert failed["path"].tolist() == ["cat/07.png"]
    assert failed["error"].str.contains("every worker that took it was lost").all()
    again = prepare(two_classes, tmp_path / "a.bank")
    assert again.pending() == []  # not in the next run either, until the file changes


def test_a_worker_that_is_told_to_stop_writes_what_it_has(two_classes, tmp_path):
    tracker = prepare(two_classes, tmp_path / "a.bank")
    worker = begin(tracker)
    worker.stop()
    source, known = tracker.part(np.arange(40))
    worker.settle(ShardTask(source, known, is_new=True))
    assert rows(Bank(tmp_path / "a.bank")) == 8  # one batch


def test_an_error_of_a_worker_is_the_error_of_the_job(two_classes, tmp_path):
    tracker = prepare(two_classes, tmp_path / "a.bank")
    shutil.rmtree(tmp_path / "a.bank" / "features" / tracker.specs[0].fingerprint)
    with pytest.raises(ClusterError, match="must lie under the same path on all machines"):
        dispatch_to(Nobody(), tracker).run([Shard(np.arange(40))])


def test_other_weights_on_another_machine_are_refused(two_classes, tmp_path):
    tracker = prepare(two_classes, tmp_path / "a.bank")
    with pytest.raises(ClusterError, match="has another resnet18/layer3 than the bank"):
        begin(tracker, weights="random:1")


def test_only_workers_load_the_network_and_the_first_says_what_it_leads_to(two_classes, plain_bank, tmp_path, distance):
    with nobody_connected() as ray:
        request, bank = asked(), Bank.create(tmp_path / "a.bank")
        report = run_extraction(scan(two_classes), bank, request, Compute("cpu", "eager", 8, 2, "ray"))
        assert (report.embedded, ray.hired, request.loaded) == (40, 1, None)
        names = ("resnet18/layer3", "resnet18/penultimate")
        for name in names:
            assert bank.feature_set(name).spec == plain_bank.feature_set(name).spec
            assert distance(bank.load(name), plain_bank.load(name)) < 1e-5
        again = run_extraction(scan(two_classes), bank, asked(), Compute("cpu", "eager", 8, 2, "ray"))
        assert (again.reused, ray.hired) == (40, 1)  # what the bank knows, and has, needs no cluster


@pytest.mark.parametrize(("layer", "backbone"), [("layer9", "resnet18"), ("penultimate", "resnet_18")])
def test_what_no_network_has_is_the_same_error_as_without_a_cluster(two_classes, tmp_path, layer, backbone):
    errors = []
    for backend in ("local", "ray"):
        with nobody_connected(), pytest.raises(FeatureBankError) as raised:
            run_extraction(
                scan(two_classes),
                Bank.create(tmp_path / f"{backend}.bank"),
                Request(backbone, layer, **WANTED),
                Compute("cpu", "eager", backend=backend),
            )
        errors.append((raised.type, str(raised.value)))
    assert errors[0] == errors[1]


def test_a_worker_that_is_lost_over_the_network_itself_is_one_line(two_classes, tmp_path):
    ray = Nobody()
    pool = WorkerPool(ray, asked(), COMPUTE)
    pool._first = pool.start_worker()
    ray.kill(pool._first)
    with pytest.raises(ClusterError, match=r"lost while it loaded the network \(it was killed\); expected"):
        pool.spec("layer3")


def test_what_the_machine_of_a_worker_lacks_is_refused_there(two_classes, tmp_path):
    tracker = prepare(two_classes, tmp_path / "a.bank")
    with pytest.raises(DeviceError, match="nvjpeg"):
        begin(tracker, decoder="nvjpeg")


def test_progress_never_goes_back_and_ends_at_the_whole(two_classes, tmp_path):
    shown, killed = [], []

    def dies(handle, part):
        killed.append(part)
        return len(killed) == 2

    tracker = prepare(two_classes, tmp_path / "a.bank")
    pending = tracker.pending()
    dispatch = dispatch_to(Nobody(dies), tracker, lambda *now: shown.append(now))
    dispatch.run([Shard(part) for part in np.array_split(np.array(pending), 4)])
    assert {total for _, total in shown} == {40}
    assert [done for done, _ in shown] == sorted(done for done, _ in shown)
    assert shown[-1] == (40, 40)


def test_labels_and_failures_are_those_of_the_plain_path(two_classes, tmp_path):
    """Through all of `run_extraction`, with a file that cannot be decoded, a copy, and a label corrected before."""
    photos = shutil.copytree(two_classes, tmp_path / "photos")
    (photos / "cat" / "bad.png").write_bytes(b"no image")
    shutil.copy(photos / "cat" / "00.png", photos / "dog" / "copy.png")
    reports = {}
    for name, backend in (("a", "local"), ("b", "ray")):
        bank = Bank.create(tmp_path / f"{name}.bank")
        request = Request("resnet18", "penultimate", **WANTED)
        with nobody_connected() if backend == "ray" else nullcontext():
            compute = Compute("cpu", "eager", 8, 2, backend)
            first = run_extraction(scan(photos), bank, request, compute)
            bank.label(pd.DataFrame({"path": ["cat/01.png"], "label": ["dog"]}))
            (photos / "dog" / "01.png").touch()
            again = run_extraction(scan(photos), bank, request, compute)
        kept = ("samples", "embedded", "reused", "failed", "gone", "failures", "feature_sets", "labels", "warnings")
        reports[name] = [{key: each.to_dict()[key] for key in kept} for each in (first, again)]
        assert bank.samples.set_index("path").loc["cat/01.png", "label"] == "dog"
    assert reports["a"] == reports["b"]
    assert (reports["a"][0]["embedded"], reports["a"][0]["failed"]) == (41, 1)


@contextmanager
def nobody_connected():
    """A context in which extraction on Ray meets workers in this process."""
    ray = Nobody()
    ray.nodes = lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {}}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "connected", lambda address: nullcontext(ray))
        patch.setattr(driver, "import_ray", lambda: ray)
        yield ray


# --- jobs --------------------------------------------------------------------------------------------------


def test_jobs_count_from_the_cores_of_the_cluster():
    ray = SimpleNamespace(
        remote=lambda function: SimpleNamespace(options=lambda **_: None), cluster_resources=lambda: {"CPU": 12.0}
    )
    backend = RayThreads(ray)
    assert [backend.effective_n_jobs(jobs) for jobs in (-1, -2, 3, 1)] == [12, 11, 3, 1]


def test_a_module_of_ones_own_goes_to_the_workers_as_a_backbone_on_the_cpu():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    half = Preprocessing(8, (8, 8), "bilinear", (0.5,) * 3, (0.5,) * 3)
    own = Backbone.from_module(net, name="tiny", version="1", transform=half)
    own.network_on(torch.device("meta"))
    given = []
    ray = SimpleNamespace(
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}],
        put=given.append,
        remote=lambda worker: SimpleNamespace(options=lambda **options: None),
    )
    WorkerPool(ray, Request(own, "penultimate"), Compute())
    again = pickle.loads(pickle.dumps(given[0]))  # noqa: S301
    assert again.load().weights == own.weights
    assert {parameter.device.type for parameter in again.load().model.parameters()} == {"cpu"}
