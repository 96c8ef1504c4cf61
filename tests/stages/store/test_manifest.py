"""Identity: fingerprints do not depend on run-time settings, on order, or on fields at their default."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.store import Config, FileEntry, Manifest, canonical, canonical_json, digest, fingerprint, runtime_field

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


class Inner(Config):
    ratio: float = 0.5
    """A number."""


class Toy(Config):
    steps: int = 10
    """Steps."""
    names: list[str] = []
    """Names."""
    inner: Inner = Inner()
    """A section."""
    workers: int = runtime_field(2)
    """Workers."""


class ToyLater(Toy):
    """The same configuration after somebody added an option."""

    option: str = "new"
    """A new option."""


@given(st.integers(0, 100), st.integers(1, 64), st.lists(st.text(max_size=3), max_size=3))
def test_runtime_settings_do_not_change_the_canonical_config(steps: int, workers: int, names: list[str]) -> None:
    assert canonical(Toy(steps=steps, names=names, workers=workers)) == canonical(Toy(steps=steps, names=names))


@given(st.integers(0, 100))
def test_a_new_option_at_its_default_changes_no_old_name(steps: int) -> None:
    assert canonical(Toy(steps=steps)) == canonical(ToyLater(steps=steps))
    assert canonical(Toy(steps=steps)) != canonical(ToyLater(steps=steps, option="other"))


def test_defaults_are_left_out_at_every_depth() -> None:
    assert canonical(Toy(inner=Inner(ratio=0.5))) == {}
    assert canonical(Toy(inner=Inner(ratio=0.25))) == {"inner": {"ratio": 0.25}}


@given(st.dictionaries(st.text(max_size=5), _json, max_size=5))
def test_canonical_json_ignores_the_order_of_keys(value: dict) -> None:
    reordered = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(reordered)
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.sampled_from("abcdef"), st.text(max_size=4), max_size=4))
def test_fingerprint_depends_on_each_part(inputs: dict[str, str]) -> None:
    name = fingerprint("corpus", 1, {"a": 1}, inputs)
    assert name == fingerprint("corpus", 1, {"a": 1}, dict(reversed(list(inputs.items()))))
    assert len(name) == 32
    others = [
        fingerprint("tokens", 1, {"a": 1}, inputs),
        fingerprint("corpus", 2, {"a": 1}, inputs),
        fingerprint("corpus", 1, {"a": 2}, inputs),
        fingerprint("corpus", 1, {"a": 1}, inputs | {"new": "x"}),
    ]
    assert name not in others


_entry = st.builds(
    FileEntry,
    path=st.lists(st.sampled_from(["a", "b", ".c", "d.e"]), min_size=1, max_size=3).map("/".join),
    bytes=st.integers(0, 9),
    sha256=st.sampled_from("0f").map(lambda digit: digit * 64),
)
_entries = st.lists(_entry, max_size=6, unique_by=lambda entry: entry.path)


@given(_entries, st.randoms())
def test_digest_ignores_the_order_of_files(entries: list[FileEntry], random: object) -> None:
    shuffled = list(entries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert digest(entries) == digest(shuffled)


def test_digest_ignores_files_that_only_describe_the_artifact() -> None:
    entries = [FileEntry(path="a", bytes=1, sha256="0" * 64)]
    about = [
        FileEntry(path=path, bytes=1, sha256="1" * 64)
        for path in ("events.jsonl", "report/index.html", "manifest.json")
    ]
    assert digest(entries) == digest(entries + about)
    assert digest(entries) != digest([*entries, FileEntry(path="b", bytes=1, sha256="1" * 64)])


def test_names_stay_what_they_are() -> None:
    """Golden: a change here re-addresses every artifact that people have."""
    assert (
        fingerprint("corpus", 1, {"heldout_fraction": 0.02}, {"source/a": "00"}) == "967aff80cd001f074f050df078d84261"
    )
    assert (
        digest([FileEntry.model_construct(path="a", bytes=1, sha256="x")])
        == "aa46ba1bd01741be2f1503f4a4232558132bb3a45535866bd08a0062dbedec13"
    )


def test_a_manifest_from_before_resolved_config_had_its_name_still_loads() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    manifest = Manifest(
        kind="toy",
        fingerprint="0" * 32,
        digest="0" * 64,
        stage_version=1,
        config={},
        resolved_config={"workers": 2},
        inputs={},
        files=[],
        started=now,
        finished=now,
    )
    data = json.loads(manifest.model_dump_json())
    assert data["resolved_config"] == {"workers": 2}
    data["how"] = data.pop("resolved_config")
    assert Manifest.model_validate_json(json.dumps(data)) == manifest


def test_config_refuses_what_is_not_plain() -> None:
    class Odd(Config):
        value: object = None
        """Anything."""

    with pytest.raises(TypeError, match="plain JSON"):
        canonical(Odd(value=object()))
