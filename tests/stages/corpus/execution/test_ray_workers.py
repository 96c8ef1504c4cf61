"""The same pipelines on a Ray cluster: the same results, errors that arrive, and nothing left over."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stages.corpus import CorpusConfig, corpus, inputs_of
from stages.corpus.execution.executor import make_workers
from stages.corpus.execution.local_workers import LocalWorkers
from stages.corpus.execution.ray_workers import RayWorkers
from stages.store import HeadwaterError, InputError, Store
from tests.stages.corpus.corpus_world import sentence, write_lines
from tests.stages.corpus.execution.executor_steps import Fail, Numbers, WriteIds, WriteModules
from tests.stages.corpus.execution.parents import killed_at_work, until
from tests.stages.corpus.execution.ray_cluster import Cluster, started


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with started() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def nothing_is_left(cluster: Cluster) -> Iterator[None]:
    """No actor, and no child of this process that was not there before."""
    before = set(psutil.Process().children())
    yield
    until(lambda: not cluster.actors(), 10)
    new = set(psutil.Process().children()) - before
    assert not [process for process in new if "resource_tracker" not in " ".join(process.cmdline())]
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_results_are_those_of_local_workers(cluster: Cluster, tmp_path: Path):
    config = CorpusConfig.model_validate(
        {"sources": {"a": {"location": "x"}}, "executor": "ray", "ray_address": cluster.address, "workers": 2}
    )
    results = []
    for name, workers in (("local", LocalWorkers(1)), ("ray", make_workers(config))):
        out = tmp_path / name
        out.mkdir()
        done: list[int] = []
        with workers:
            workers.run([Numbers(), WriteIds(out)], 30, tmp_path / f"{name}-logs", done.append)
            assert sorted(done) == list(range(30))
            # Another pipeline on the same processes; then again, when only one of its ranks has still to be done.
            more = tmp_path / f"{name}-more"
            workers.run([WriteModules(tmp_path)], 6, more, done.append)
            (more / "completions/00004").unlink()
            (tmp_path / "3").unlink()
            workers.run([WriteModules(tmp_path)], 6, more, done.append)
        assert sorted(done[30:]) == sorted([*range(6), *range(6)]) and not (tmp_path / "3").exists()
        results.append({path.name: path.read_text() for path in out.iterdir()})
    assert results[0] == results[1] and len(results[0]) == 30
    # It was a process of the cluster, which holds no more than it needs.
    assert (tmp_path / "4").read_text().split()[2:] == ["ray"]


def test_what_a_rank_raises_arrives_and_stops_the_others(cluster: Cluster, tmp_path: Path, out: Path):
    done: list[int] = []
    with RayWorkers(2, cluster.address) as workers:
        with pytest.raises(InputError, match=r"what\.jsonl:7 is no document"):
            workers.run([Fail(1, "input", 600, out)], 500, tmp_path / "logs", done.append)
        # Rank 0, which takes ten minutes, was not waited for.
        assert not list((tmp_path / "logs").glob("completions/*"))
        until(lambda: not cluster.actors(), 10)
        with pytest.raises(ValueError, match="no number") as caught:
            workers.run([Fail(1, "value")], 3, tmp_path / "value", lambda rank: None)
        assert "executor_steps.py" in caught.value.__notes__[0]
    assert not done and len(list(out.iterdir())) <= 4


def test_a_lost_process_is_replaced_and_told_when_it_is_lost_again(cluster: Cluster, tmp_path: Path, out: Path):
    done: list[int] = []
    (tmp_path / "began").mkdir()
    with RayWorkers(2, cluster.address) as workers:
        workers.run(
            [Numbers(), WriteIds(out), Fail(3, "die once", 0, tmp_path / "began")], 8, tmp_path / "logs", done.append
        )
        assert sorted(done) == list(range(8)) == sorted(int(path.name) for path in out.iterdir())
        with pytest.raises(HeadwaterError, match=r"process that ran task 2 was lost 4 times: .* memory"):
            workers.run([Fail(2, "die")], 4, tmp_path / "die", lambda rank: None)


def test_an_interrupt_ends_the_ranks(cluster: Cluster, tmp_path: Path, out: Path):
    def interrupted(rank: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), RayWorkers(2, cluster.address) as workers:
        # Rank 0 ends at once; what else has begun would go on for ten minutes.
        workers.run([Fail(0, "end", 600, out)], 50, tmp_path / "logs", interrupted)
    assert len(list(out.iterdir())) <= 3


def test_ranks_end_with_their_parent(cluster: Cluster, tmp_path: Path, out: Path):
    program = (
        "import sys; from pathlib import Path\n"
        "from stages.corpus.execution.ray_workers import RayWorkers\n"
        "from tests.stages.corpus.execution.executor_steps import Fail\n"
        "with RayWorkers(2, sys.argv[1]) as workers:\n"
        "    workers.run([Fail(-1, '', 600, Path(sys.argv[2]))], 2, Path(sys.argv[3]), print)\n"
    )
    command = [sys.executable, "-c", program, cluster.address, str(out), str(tmp_path / "logs")]
    assert not killed_at_work(command, out)[1]


def test_folders_that_machines_do_not_share_are_told(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stages.corpus.execution.ray_workers.FILE_VISIBILITY_SECONDS", 0.0)

    def lose(rank: int) -> None:
        (tmp_path / f"logs/completions/{rank:05}").unlink()

    with RayWorkers(1, cluster.address) as workers, pytest.raises(HeadwaterError, match="machines share that folder"):
        workers.run([Numbers()], 2, tmp_path / "logs", lose)


def test_a_killed_driver_is_told_and_ends_the_ranks(cluster: Cluster, tmp_path: Path, out: Path):
    with RayWorkers(2, cluster.address) as workers, pytest.raises(HeadwaterError, match="connection to Ray was killed"):
        driver = workers._driver
        assert driver is not None
        workers.run([Fail(0, "end", 600, out)], 50, tmp_path / "logs", lambda rank: driver.kill())


def test_a_machine_without_the_code_is_told(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A step that this process can import and the cluster cannot."""
    module = "from tests.stages.corpus.execution.executor_steps import Numbers\n\nclass Here(Numbers):\n    pass\n"
    (tmp_path / "only_here.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    step = importlib.import_module("only_here").Here()
    with (
        RayWorkers(1, cluster.address) as workers,
        pytest.raises(HeadwaterError, match=r"same version.* No module named 'only_here'"),
    ):
        workers.run([step], 2, tmp_path / "logs", lambda rank: None)


def test_no_cluster_is_told():
    with pytest.raises(HeadwaterError, match=r"no Ray cluster at 127\.0\.0\.1:1 \(corpus\.ray_address\)"):
        RayWorkers(2, "127.0.0.1:1").__enter__()


def test_a_cluster_makes_the_same_corpus(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        rows = [{"title": f"subject {i % 40}", "text": f"{sentence(i, 60)} Seen in {name}."} for i in range(120)]
        write_lines(tmp_path / "in" / name / "x.jsonl", [*rows, b"{"])
    described = {name: {"location": str(tmp_path / "in" / name)} for name in ("a", "b", "c")}
    digests = []
    for place, how in (
        ("here", {"workers": 1}),
        ("ray", {"executor": "ray", "ray_address": cluster.address, "workers": 2}),
    ):
        config = CorpusConfig.model_validate({"sources": described, "heldout_fraction": 0.1, **how})
        artifact = corpus.run(config, inputs_of(config), Store(tmp_path / place))
        assert artifact.manifest.counts["removed_near_duplicate"] > 0
        digests.append((artifact.fingerprint, artifact.digest))
    assert digests[0] == digests[1]
    assert not list((tmp_path / "ray").rglob(".scratch"))
