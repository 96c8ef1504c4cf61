"""Collection removes exactly what nothing reaches; verification names whatever is damaged or missing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from stages.store import Artifact, ArtifactWriter, Config, Stage, Store, StoreError, load, write_ref
from stages.store.gc import DAY, Collection, collect, plan_collection
from stages.store.lease import Lease
from stages.store.reach import Root, Roots, ref_roots
from stages.store.verify import Damage, plan_verification, verify
from tests.support import damaged_files, examples


class Toy(Config):
    text: str = "hello"
    """What is written."""


class Files:
    """A listing: an input that is no artifact."""

    digest = "f" * 64


def build(config: Toy, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    writer.put("data/text.txt", config.text.encode())
    if config.text == "stop":
        step = writer.store.local_path(writer.folder) / "checkpoints" / "step-00000001"
        step.mkdir(parents=True)
        (step / "weights").write_bytes(b"half")
        raise KeyboardInterrupt


toy = Stage("toy", 1, build)
runs = Stage("runs", 1, build, separate_runs=True)


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store on local files, and one on an object store."""
    return Store(tmp_path / "store" if request.param == "file" else f"{request.getfixturevalue('bucket')}/store")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def make(store: Store, text: str, **inputs: Artifact) -> Artifact:
    return toy.run(Toy(text=text), inputs, store)


def to_delete(plan: Collection) -> set[str]:
    return {item.name for item in plan.to_delete}


def sweep(store: Store, **options: Any) -> dict[str, str]:
    """Collects; why each planned item was not removed, by name: empty where it was."""
    return {item.name: left for item, left in collect(store, plan_collection(store, **options))}


@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_exactly_what_no_ref_reaches_is_removed(data: st.DataObject, tmp_path: Path) -> None:
    store = (
        Store(f"memory://{secrets.token_hex(8)}")
        if data.draw(st.booleans())
        else Store(tmp_path / secrets.token_hex(8))
    )
    artifacts: list[Artifact] = []
    inputs: list[set[int]] = []
    for number in range(data.draw(st.integers(1, 9))):
        sources = data.draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        text = f"{data.draw(st.integers(0, 5))}"  # some of one content, and so of one digest
        into: dict[str, Any] = {f"in{i}": artifacts[i] for i in sources} | {"source/x": Files, "number": Artifact}
        into["number"] = type("Number", (), {"digest": f"{number:064}"})
        artifacts.append(toy.run(Toy(text=text), into, store))
        inputs.append(sources)
    refs = data.draw(st.sets(st.integers(0, len(artifacts) - 1)))
    for number in refs:
        write_ref(store, f"recipe{number % 2}", f"kind{number}", artifacts[number])

    reached, ahead = set[int](), list(refs)
    while ahead:
        number = ahead.pop()
        if number not in reached:
            reached.add(number)
            digests = {artifacts[i].digest for i in inputs[number]}
            ahead += [i for i, artifact in enumerate(artifacts) if artifact.digest in digests]
    expected = {artifact.folder for i, artifact in enumerate(artifacts) if i not in reached}

    before = store.list("")
    plan = plan_collection(store)
    assert to_delete(plan) == expected
    assert {kept.name for kept in plan.kept} == {artifacts[i].folder for i in reached}
    assert store.list("") == before, "a plan removes nothing"
    assert set(dict.fromkeys(item.name for item, left in collect(store, plan) if not left)) == expected
    left = {name for name in before if "/".join(name.split("/")[:2]) not in expected}
    assert set(store.list("")) == left
    assert to_delete(plan_collection(store)) == set()


def test_other_roots_and_foreign_files_stay(store: Store) -> None:
    served, lost = make(store, "served"), make(store, "lost")
    store.put("documents/2024/notes.txt", b"mine")
    store.put("toy/backup-of-mine/manifest.json", served.manifest.model_dump_json().encode())
    record = Roots({"deployments/record.json": Root(served.folder, served.digest)}, {})
    assert sweep(store, more_roots=lambda: record) == {lost.folder: ""}
    assert load(store, served.folder)
    assert store.exists("documents/2024/notes.txt")
    assert store.exists("toy/backup-of-mine/manifest.json")


def test_a_ref_to_nothing_stops_the_collection(store: Store) -> None:
    """The inputs of the missing artifact would be taken for unreachable."""
    source = make(store, "source")
    artifact = make(store, "artifact", source=source)
    write_ref(store, "biomed", "toy", artifact)
    store.remove(artifact.folder)
    with pytest.raises(StoreError, match=r"refs/biomed/toy.*points at toy/.*holds no finished artifact"):
        plan_collection(store)
    store.put("refs/biomed/toy", b"{")
    with pytest.raises(StoreError, match=r"refs/biomed/toy is not a valid ref: Invalid JSON"):
        plan_collection(store)
    store.remove("refs/biomed/toy")
    store.put(f"{source.folder}/manifest.json", b"{}")
    with pytest.raises(StoreError, match="damaged"):
        plan_collection(store)


def test_a_ref_that_is_set_after_the_plan_keeps_its_artifact(store: Store) -> None:
    first, second = make(store, "first"), make(store, "second")
    plan = plan_collection(store)
    write_ref(store, "biomed", "toy", first)
    left = {item.name: left for item, left in collect(store, plan)}
    assert left == {first.folder: "a ref points at it by now", second.folder: ""}


def test_two_collections_at_once(store: Store) -> None:
    lost = make(store, "lost")
    first, second = plan_collection(store), plan_collection(store)
    assert [left for _, left in collect(store, first)] == [""]
    assert [left for _, left in collect(store, second)] == ["it has been rebuilt or removed since"]
    assert not list(store.folders("toy"))
    assert make(store, "lost") != lost, "rebuilt"


def test_a_ref_that_is_set_at_the_last_moment_keeps_its_artifact(store: Store) -> None:
    """The run looks for its artifact just before the manifest is removed, and sets its ref just after."""
    artifact = make(store, "artifact")
    asked = 0

    def late() -> Roots:
        nonlocal asked
        asked += 1
        if asked == 3:  # once for the plan, once before and once after the manifest is taken
            assert load(store, artifact.folder) is None
            write_ref(store, "biomed", "toy", artifact)
            return ref_roots(store)
        return Roots({}, {})

    left = list(collect(store, plan_collection(store, late), late))
    assert [reason for _, reason in left] == ["a ref points at it by now"]
    assert load(store, artifact.folder) == artifact
    assert not damaged_files(artifact)


def test_a_stage_that_is_running_keeps_what_it_may_read(store: Store) -> None:
    source, other, last = make(store, "source"), make(store, "other"), make(store, "last")
    working = toy.plan(Toy(text="working"), {"in": source}, store)
    with Lease(store, working.folder):
        assert to_delete(plan_collection(store)) == set(), "what it reads is not known"
        store.put(f"{working.folder}/events/000000.jsonl", json.dumps({"inputs": working.inputs}).encode() + b"\n")
        assert to_delete(plan_collection(store)) == {other.folder, last.folder}
        plan = plan_collection(store)
        with Lease(store, other.folder):
            assert "is being written" in {i.name: left for i, left in collect(store, plan)}[other.folder]
    assert load(store, other.folder)
    assert to_delete(plan_collection(store)) == {other.folder}, "a restart reads the source"
    assert to_delete(plan_collection(store, now=time.time() + 8 * DAY)) == {working.folder, source.folder, other.folder}


def test_an_unfinished_run_is_kept_for_a_week(local: Store) -> None:
    plan = runs.plan(Toy(text="stop"), {}, local)
    with pytest.raises(KeyboardInterrupt):
        runs.run(Toy(text="stop"), {}, local, plan)
    assert to_delete(plan_collection(local)) == set()
    [kept] = plan_collection(local).kept
    assert (kept.name, kept.why) == (plan.folder, "unfinished: a run may resume it")
    assert to_delete(plan_collection(local, now=time.time() + 6 * DAY)) == set()
    later = plan_collection(local, now=time.time() + 8 * DAY)
    assert "nobody resumed it for 8.0 days" in later.to_delete[0].why
    local.put(f"{plan.folder}/events.jsonl", b"resumed")  # written after the plan
    assert [left for _, left in collect(local, later)] == ["a run has resumed it since"]
    assert sweep(local, unfinished_after=0.0, now=time.time() + 1) == {plan.folder: ""}
    assert not local.local_path(plan.folder).exists()


def test_half_written_files_of_killed_processes_are_removed(local: Store) -> None:
    """A writer is killed while it writes; what it had finished before, and what a restart resumes from, stays."""
    kept = make(local, "kept")
    write_ref(local, "biomed", "toy", kept)
    plan = toy.plan(Toy(text="killed"), {}, local)
    script = (
        "import os, signal\n"
        "from stages.store import ArtifactWriter, Store\nfrom stages.store.lease import Lease\n"
        f"store = Store({local.root!r})\nLease(store, {plan.folder!r}).__enter__()\n"
        f"writer = ArtifactWriter(store, {plan.folder!r}, 'toy', 1, {plan.fingerprint!r}, {{}}, {{}})\n"
        "writer.events.emit('started')\nwriter.put('x', b'half')\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert [name[-8:] for name in local.list(f"{plan.folder}/.scratch")] == ["/files/x"]
    local.put(f"{kept.folder}/.scratch/files/x", b"half")
    old, new = "refs/biomed/.toy.4711-0123abcd.tmp", "refs/biomed/.toy.4711-0123abce.tmp"
    local.put(old, b"half")
    local.put(new, b"half")
    os.utime(local.local_path(old), (time.time() - 7200,) * 2)
    events = local.read(f"{plan.folder}/events.jsonl")
    assert set(sweep(local)) == {plan.folder, kept.folder, old}
    assert local.list(plan.folder) == [f"{plan.folder}/events.jsonl"]
    assert local.read(f"{plan.folder}/events.jsonl") == events
    assert load(local, kept.folder) and not damaged_files(kept)
    assert local.exists(new) and not local.exists(old)


def test_saved_offsets_are_removed_with_their_folder(store: Store) -> None:
    lost, kept = make(store, "lost"), make(store, "kept")
    write_ref(store, "biomed", "toy", kept)
    for artifact in (lost, kept):
        store.put(f"forwarded/{artifact.folder.replace('/', '-')}.json", b"{}")
    orphan = f"forwarded/runs-{'0' * 16}-{'1' * 8}.json"
    store.put(orphan, b"{}")
    assert sweep(store) == {lost.folder: ""}
    assert store.list("forwarded") == sorted([orphan, f"forwarded/{kept.folder.replace('/', '-')}.json"])
    assert sweep(store, now=time.time() + 7200) == {orphan: ""}


def test_what_is_new_stays_on_request(store: Store) -> None:
    old = make(store, "old")
    new = make(store, "new", old=old)
    assert to_delete(plan_collection(store, keep_newer=3600.0)) == set()
    assert to_delete(plan_collection(store, keep_newer=3600.0, now=time.time() + 7200)) == {old.folder, new.folder}


def test_a_collection_that_is_killed_leaves_nothing_that_looks_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends at every removal in turn; then every manifest that is left has all its files and inputs."""
    source = make(store, "source")
    make(store, "downstream", source=source)
    remove, calls = Store.remove, 0
    for end in range(1, 100):
        calls = 0

        def killed(self: Store, name: str, end: int = end) -> None:
            nonlocal calls
            if "lease-" not in name:
                calls += 1
                if calls == end:
                    raise KeyboardInterrupt
            remove(self, name)

        monkeypatch.setattr(Store, "remove", killed)
        try:
            list(collect(store, plan_collection(store)))
        except KeyboardInterrupt:
            monkeypatch.setattr(Store, "remove", remove)
            plan = plan_collection(store)
            whole = [artifact for item in plan.to_delete if item.digest and (artifact := load(store, item.name))]
            for artifact in whole:
                artifact.check_sizes()
                assert set(artifact.manifest.inputs.values()) <= {each.digest for each in whole}
            continue
        break
    monkeypatch.setattr(Store, "remove", remove)
    assert end > 2
    assert store.list("") == []


def test_a_full_disk_has_no_room_for_a_lease(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = make(local, "lost")
    create = Store.create

    def full(self: Store, name: str, data: bytes) -> bool:
        if self.exists(f"{lost.folder}/manifest.json"):
            raise StoreError("full") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return create(self, name, data)

    monkeypatch.setattr(Store, "create", full)
    assert sweep(local) == {lost.folder: ""}
    assert local.list("") == []


def findings(store: Store, start: str = "") -> list[Damage]:
    return list(verify(store, plan_verification(store, ref_roots(store), start), lambda count: None))


def test_one_flipped_byte_is_found_wherever_it_is(local: Store) -> None:
    source = make(local, "source")
    artifact = make(local, "downstream", source=source)
    write_ref(local, "biomed", "toy", artifact)
    step = f"{artifact.folder}/checkpoints/step-00000001"
    local.put(f"{step}/weights", b"weights")
    entry = {"path": "weights", "bytes": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}
    local.put(f"{step}/manifest.json", json.dumps({"step": 1, "files": [entry]}).encode())
    assert findings(local) == []
    plan = plan_verification(local, ref_roots(local))
    assert (plan.artifacts, plan.checkpoints, plan.bytes) == (2, 1, len("sourcedownstreamweights"))

    names = [name for name in local.list("") if not name.endswith("events.jsonl")]
    assert len(names) == 7
    dice = random.Random(1)
    for name in names:
        data = local.read(name)
        # In a manifest or a ref, the letters of what is hashed; anywhere else, any byte.
        start = max(data.find(b'"digest"') + 12, 0) if name.endswith("manifest.json") or "refs" in name else 0
        if "step-" in name and name.endswith("manifest.json"):
            start = data.find(b'"sha256"') + 12
        at = start + dice.randrange(min(4, len(data) - start))
        local.put(name, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        culprits = {name, f"{step}/weights"} if name == f"{step}/manifest.json" else {name}
        assert {local.where(each) for each in culprits} & {damage.path for damage in findings(local)}, name
        local.put(name, data)
    assert findings(local) == []


def test_verification_continues_after_the_first_damage(store: Store) -> None:
    source = make(store, "source")
    artifact = make(store, "downstream", source=source)
    other = make(store, "other")
    write_ref(store, "biomed", "toy", artifact)
    store.put(f"{source.folder}/data/text.txt", b"sourcf")
    store.remove(f"{artifact.folder}/data/text.txt")
    store.put(f"{other.folder}/data/text.txt", b"other, longer")
    store.put("refs/biomed/gone", json.dumps({"folder": "toy/" + "0" * 16, "digest": "0" * 64}).encode())
    found = {damage.path: damage for damage in findings(store)}
    assert found[store.where(f"{source.folder}/data/text.txt")].problem == "its sha256 is not the manifest's"
    assert found[store.where(f"{artifact.folder}/data/text.txt")].problem == "missing"
    assert "13 bytes, the manifest says 5" in found[store.where(f"{other.folder}/data/text.txt")].problem
    assert "holds no finished artifact" in found[store.where("refs/biomed/gone")].problem
    assert len(found) == 4
    remedy = found[store.where(f"{artifact.folder}/data/text.txt")].remedy
    assert remedy == f"remove {store.where(artifact.folder)} and run the recipe again, which rebuilds it"

    named = {damage.path for damage in findings(store, "biomed/toy")}
    expected = {store.where(f"{a.folder}/data/text.txt") for a in (source, artifact)}
    assert named == expected, "with its inputs, and no other"
    assert [d.of for d in findings(store, other.digest[:9])] == [other.id]
    assert [d.of for d in findings(store, "refs/biomed/gone")] == ["refs/biomed/gone"]
    with pytest.raises(StoreError, match="no artifact 'toy/ffff'"):
        findings(store, "toy/ffff")
    store.remove(source.folder)
    assert findings(store, "biomed/toy")[0].problem.startswith("its input source")


def test_files_that_are_removed_during_verification_are_no_damage(local: Store) -> None:
    lost = make(local, "lost")
    plan = plan_verification(local, ref_roots(local))
    assert sweep(local) == {lost.folder: ""}
    assert list(verify(local, plan, lambda count: None)) == []
