"""Presets: they fit, they prefer the cheapest choice, and the documentation lists them."""

from __future__ import annotations

import itertools

import pytest

from models.presets import RESERVED_BYTES, USABLE_RATIO, Preset, preset
from models.sizes import SIZES, ModelConfig, config_for_size, parameters
from tests.support import REPOSITORY

GIB = 1 << 30
CLUSTERS = (1, 8, 128)


def _config(name: str) -> ModelConfig:
    """Of a size with the vocabulary that goes with it."""
    small = {"1m": 4_096, "nano": 4_096, "7m": 8_192, "11m": 16_384, "30m": 16_384}
    return config_for_size(name, small.get(name, 32_000), 2048)


@pytest.mark.parametrize(("name", "gpus", "gib"), itertools.product(SIZES, CLUSTERS, (24, 40, 80, 141)))
def test_a_preset_fits_and_twice_as_much_would_not(name, gpus, gib):
    found = preset(_config(name), 2048, gpus, gib * GIB)
    assert found.replicas * found.shards == gpus
    assert found.fits == (found.memory.total <= gib * GIB * USABLE_RATIO - RESERVED_BYTES)
    if not found.fits:
        assert (found.activation_checkpointing, found.replicas, found.micro_batch) == ("full", 1, 1)
    elif found.micro_batch * 2048 < 32768:
        settings = {"replicas": found.replicas, "activation_checkpointing": found.activation_checkpointing}
        assert not preset(_config(name), 2048, gpus, gib * GIB, micro_batch=2 * found.micro_batch, **settings).fits


def test_more_memory_means_less_recomputation():
    order = ["none", "selective", "full"]
    found = [preset(_config("2.7b"), 2048, 1, gib * GIB) for gib in (40, 60, 80, 100, 141)]
    assert [one.fits for one in found] == [False, True, True, True, True]
    ranks = [order.index(one.activation_checkpointing) for one in found]
    assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) == 3


def test_a_replica_stays_within_a_machine_where_possible():
    shards = {name: preset(_config(name), 2048, 128, 80 * GIB).shards for name in ("125m", "7b", "13b", "30b", "70b")}
    assert shards == {"125m": 8, "7b": 8, "13b": 16, "30b": 16, "70b": 32}


def test_fixed_choices_are_kept():
    found = preset(
        _config("1.3b"),
        2048,
        8,
        80 * GIB,
        max_micro_batch=6,
        replicas=2,
        micro_batch=3,
        activation_checkpointing="full",
    )
    assert (found.replicas, found.shards, found.micro_batch, found.activation_checkpointing) == (2, 4, 3, "full")
    assert preset(_config("1.3b"), 2048, 8, 80 * GIB, max_micro_batch=6).micro_batch == 6
    assert preset(_config("1.3b"), 65_536, 8, 80 * GIB).micro_batch == 1


def _line(name: str) -> str:
    """A size's line of the table in docs/sizes.md."""
    config = _config(name)
    count = parameters(config)
    shape = f"{config.layers} x {config.hidden_size}"
    heads = f"{config.heads}/{config.key_value_heads} x {config.head_size}"
    columns = [
        f"`{name}`",
        f"{count / 1e6:.1f}M" if count < 1e9 else f"{count / 1e9:.2f}B",
        shape,
        heads,
        f"{config.intermediate_size:,}",
        "tied" if config.tied else "own",
        *(_cell(preset(config, 2048, gpus, 80 * GIB)) for gpus in CLUSTERS),
    ]
    return f"| {' | '.join(columns)} |"


def _cell(found: Preset) -> str:
    if not found.fits:
        return f"does not fit ({found.memory.total / GIB:.0f} GiB)"
    copies = f"{found.replicas} x {found.shards}, " if found.gpus > 1 else ""
    return f"{copies}{found.micro_batch}, {found.activation_checkpointing}, {found.memory.total / GIB:.1f} GiB"


def test_the_documentation_shows_them():
    page = (REPOSITORY / "docs/sizes.md").read_text().splitlines()
    expected = [_line(name) for name in SIZES]
    assert [line for line in page if line.startswith("| `")] == expected, "\n".join(expected)
