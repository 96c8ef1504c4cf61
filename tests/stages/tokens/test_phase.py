"""The values that a phase accepts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from stages.tokens.phase import Phase, check_repeat, check_rows_per_sample, check_weights


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": 0}, "samples: 0; must be positive"),
        ({"rows_per_sample": 0}, "rows_per_sample: 0 is not a power of two"),
        ({"rows_per_sample": 3}, "rows_per_sample: 3 is not a power of two"),
        ({"weights": {}}, "weights: all weights are 0"),
        ({"weights": {"a": 0.0}}, "weights: all weights are 0"),
        ({"weights": {"a": -1.0, "b": 2.0}}, "weights: source 'a' has -1.0; a weight must be"),
        ({"weights": {"a": 1.0, "b": math.nan}}, "weights: source 'b' has nan"),
        ({"weights": {"a": math.inf}}, "weights: source 'a' has inf"),
        ({"repeat": 0.0}, "repeat: it is 0.0; the maximum epochs"),
        ({"repeat": {"b": -2.0}}, "repeat: source 'b' has -2.0; the maximum epochs"),
        ({"repeat": math.nan}, "repeat: it is nan"),
    ],
)
def test_values_that_no_run_can_use_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Phase(**{"samples": 8} | values)


def test_checks_return_valid_values() -> None:
    assert check_rows_per_sample(4) == 4
    assert check_weights({"a": 0, "b": 0.5}) == {"a": 0, "b": 0.5}
    assert check_repeat(1.5) == 1.5 and check_repeat({"a": 2.0}) == {"a": 2.0}
