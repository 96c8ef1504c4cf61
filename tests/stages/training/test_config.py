"""What a training section of a recipe may say, and which of it is part of the artifact's name."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from stages.store import canonical
from stages.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "5x"}, "no model size '5x'"),
        ({"stpes": 3}, "Extra inputs"),
        ({"batch": 9, "lanes": 2}, r"training\.batch \(9\) is no multiple of training\.lanes \(2\).*8 or 10 would be"),
        ({"weights": {"a": 1, "b": -1}}, "weights\n.*source 'b' has -1"),
        ({"weights": {"a": math.nan}}, "source 'a' has nan"),
        ({"weights": {"a": 0, "b": 0}}, "all weights are 0"),
        ({"steps": 30, "phases": [{"steps": 30, "weights": {"a": math.inf}}]}, r"phases\.0\.weights\n.*'a' has inf"),
        ({"steps": 30, "phases": [{"steps": 30, "repeat": {"a": 0}}]}, r"phases\.0\.repeat\n.*source 'a' has 0"),
        ({"steps": 30, "phases": [{"steps": 30, "repeat": -2.0}]}, r"phases\.0\.repeat\n.*it is -2"),
        ({"betas": [0.9, 1.0]}, r"betas\.1\n.*less than 1"),
        ({"k": 3}, "power of two"),
        ({"steps": 5, "warmup": 6}, "longer than the run"),
        ({"steps": 30, "skip": [[10, 10]]}, "not a range"),
        ({"steps": 30, "skip": [[10, 31]]}, "not a range"),
        ({"steps": 30, "phases": [{"steps": 10}]}, "10 steps together"),
        ({"steps": 30, "k": 2, "phases": [{"steps": 30}]}, "belong to each phase"),
    ],
)
def test_wrong_configs_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        TrainingConfig.model_validate(values)


def test_how_is_not_part_of_the_name():
    config = TrainingConfig(steps=50, workers=4, micro_batch=3, device="cpu", precision="fp32", checkpoint_every=7)
    assert canonical(config) == {"steps": 50}


def test_the_schedule_is_part_of_the_name():
    assert canonical(TrainingConfig(schedule="cosine")) == {"schedule": "cosine"}
