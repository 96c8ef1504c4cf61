"""The whole stage on a Ray cluster with two workers makes what it makes on one machine."""

from __future__ import annotations

from pathlib import Path

from stages.artifact import Store
from stages.corpus import CorpusConfig, corpus, inputs_of
from tests.stages.corpus.corpus_world import sentence, write_lines


def test_a_cluster_makes_the_same_corpus(ray_cluster: str, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        rows = [{"title": f"subject {i % 40}", "text": f"{sentence(i, 60)} Seen in {name}."} for i in range(120)]
        write_lines(tmp_path / "in" / name / "x.jsonl", [*rows, b"{"])
    described = {name: {"location": str(tmp_path / "in" / name)} for name in ("a", "b", "c")}
    digests = []
    for place, how in (
        ("here", {"workers": 1}),
        ("ray", {"executor": "ray", "ray_address": ray_cluster, "workers": 2}),
    ):
        config = CorpusConfig.model_validate({"sources": described, "heldout_fraction": 0.1, **how})
        artifact = corpus.run(config, inputs_of(config), Store(tmp_path / place))
        assert artifact.manifest.counts["removed_near_duplicate"] > 0
        digests.append((artifact.fingerprint, artifact.digest))
    assert digests[0] == digests[1]
    assert not list((tmp_path / "ray").rglob(".scratch"))
