"""The DNA recipe as it ships, through everything. It trains for minutes.

The file comes last in its folder: its model replaces the one that other tests of the finished installation ask.
"""

from __future__ import annotations

import json

import pytest

from tests.end_to_end.house import House


@pytest.mark.full
def test_the_dna_recipe_as_it_ships(house: House) -> None:
    summary = json.loads(house.headwater("run", "genomics", "--json").stdout)
    assert summary["accepted"] and len(summary["reasons"]) == 2
    model, markov = summary["evaluation"][:2]
    assert "Markov" in markov["measure"] and float(model["value"]) < float(markov["value"]) - 0.1
    assert model["verdict"] == "below unigram and Markov"
    assert all(set(completion["text"]) <= set("ACGTN") for completion in summary["completions"])
    assert [completion["prompt"] for completion in summary["completions"]]
