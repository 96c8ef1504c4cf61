"""Bloomberg's mixture as a recipe: 51 % own and 49 % public tokens in every block, and epochs that the plan shows."""

from pathlib import Path

import numpy as np
import pytest

from flows.recipe import load_recipe, with_own_documents
from flows.steps import STEPS, RunArtifacts, list_inputs
from stages.corpus.config import SourceConfig
from stages.sample.finance import DENIED, OWN, PUBLIC
from stages.store import ConfigError, Store
from stages.tokens.fertility import fertility_rows
from stages.tokens.mixture import BLOCK
from stages.tokens.order import Order
from stages.tokens.plan import plan
from stages.tokens.table import ShardTable
from stages.training.preflight.plan import run_order

ROWS = {
    "synthetic_answers": 755,
    "synthetic_calls": 538,
    "synthetic_encyclopedia": 957,
    "synthetic_filings": 904,
    "synthetic_releases": 494,
    "synthetic_wires": 634,
}
"""Rows of each source of the recipe's sample, about."""


@pytest.fixture
def order() -> Order:
    """The recipe's order over shards of the sample's size."""
    training = load_recipe("finance").training
    table = ShardTable(tuple(ROWS), tuple(np.array([rows]) for rows in ROWS.values()))
    return run_order(table, "digest", training)


def test_weights_are_51_to_49() -> None:
    (phase,) = load_recipe("finance").training.data.phases
    assert phase.weights is not None and set(phase.weights) == {*OWN, *PUBLIC}
    assert sum(phase.weights[source] for source in OWN) == pytest.approx(0.51)
    assert sum(phase.weights[source] for source in PUBLIC) == pytest.approx(0.49)


def test_every_block_holds_the_mixture_to_the_sample(order: Order) -> None:
    drawn = order.at(np.arange(order.samples)).source
    own = np.isin(drawn, [order.shards.sources.index(source) for source in OWN])
    blocks = own[: len(own) // BLOCK * BLOCK].reshape(-1, BLOCK).sum(axis=1)
    assert len(blocks) >= 4
    assert set(blocks.tolist()) == {522}, "51 % of 1,024 is 522.24"
    assert own.mean() == pytest.approx(0.51, abs=0.01)


def test_the_plan_shows_the_mixture_and_epochs_below_the_limit(order: Order) -> None:
    planned = plan(order, sequence_length=256)
    (segment,) = planned.segments
    assert segment.samples == planned.samples == order.samples and segment.exhausted_sources == ()
    assert sum(segment.sources[source].share for source in OWN) == pytest.approx(522 / BLOCK, abs=1e-3)
    assert sum(segment.sources[source].share for source in PUBLIC) == pytest.approx(502 / BLOCK, abs=1e-3)
    for source, rows in ROWS.items():
        assert planned.sources[source].epochs == pytest.approx(planned.sources[source].samples / rows, abs=1e-5)
        assert 0.5 < planned.sources[source].epochs < 4


def test_the_denied_feed_is_a_source_and_in_no_mixture() -> None:
    recipe = load_recipe("finance")
    assert DENIED in recipe.corpus.sources
    assert "LicenseRef-proprietary" in recipe.corpus.policy.denied_licenses


def test_a_mixture_of_unknown_sources_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.data\.phases\.0\.weights: 'synthetic_filings' is no source"):
        load_recipe("finance", ["corpus.sources={mine: {location: /data/mine}}"])
    with pytest.raises(ConfigError, match=r"training\.data\.weights: 'nowhere' is no source"):
        load_recipe("biomed", ["training.data.weights={nowhere: 1}"])


def test_own_documents_in_place_of_the_sample_are_drawn_by_size() -> None:
    mine = {"mine": SourceConfig(location="/data/mine")}
    recipe = with_own_documents(
        load_recipe(
            "finance",
            ["training.data.phases=[{steps: 900, weights: {synthetic_calls: 1}, repeat: {synthetic_calls: 2}}]"],
        ),
        "/data/mine",
        mine,
        {},
    )
    (phase,) = recipe.training.phases
    assert phase.weights is None and phase.repeat is None
    assert phase.steps == recipe.training.steps


def test_from_documents_to_a_verdict(tmp_path: Path) -> None:
    """The whole recipe but for the services, on a small sample and with a model that cannot have learned anything."""
    mixture = load_recipe("finance").training.data.phases[0].model_dump(mode="json") | {"steps": 4}
    short = {"sample.megabytes": 0.4, "corpus.workers": 1, "tokens.sequence_length": 64, "evaluation.default_limit": 12}
    short |= {
        "training.model.size": "1m",
        "training.steps": 4,
        "training.schedule.warmup_steps": 1,
        "training.parallelism.workers": 0,
    }
    recipe = load_recipe(
        "finance", [f"{key}={value}" for key, value in short.items()] + [f"training.data.phases=[{mixture}]"]
    )
    artifacts, store = RunArtifacts(), Store(tmp_path)
    for step in (step for step in STEPS if step.needed(recipe)):
        if step.kind == "corpus":
            list_inputs(recipe, artifacts)
        artifacts[step.kind] = step.stage.run(step.config(recipe, artifacts), step.inputs(recipe, artifacts), store)

    corpus = artifacts["corpus"].manifest
    assert corpus.counts["removed_policy"] == artifacts["sample"].manifest.counts["planted denied_license"]
    assert corpus.counts["removed_exact_duplicate"] == artifacts["sample"].manifest.counts["planted exact_duplicate"]
    assert corpus.counts["removed"] == corpus.counts["removed_policy"] + corpus.counts["removed_exact_duplicate"]
    assert DENIED not in {line["source"] for line in artifacts["tokens"].manifest.details["table"]}
    for line in fertility_rows(artifacts["tokens"]):
        assert line["gpt2_text"] == f"finance/{line['source']}"
        assert line["bytes_per_token"] > 0.7 * line["gpt2_bytes_per_token"]

    measured = artifacts["evaluation"].manifest.metrics
    assert {"bits_per_byte", "bits_per_byte_unigram", "bits_per_byte_markov"} <= measured.keys()
    by_source = {name.removeprefix("bits_per_byte_markov/") for name in measured if "_markov/" in name}
    assert by_source and by_source <= {*OWN, *PUBLIC}
    verdict = artifacts["verdict"].manifest.details["verdict"]
    failed = {reason["rule"] for reason in verdict["reasons"] if not reason["passed"]}
    assert not verdict["accepted"]
    assert failed == {"bits_per_byte < unigram", "bits_per_byte < Markov", "finance_synthetic > baselines"}
