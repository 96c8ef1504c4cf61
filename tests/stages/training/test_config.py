"""What a recipe's training section accepts, and which of its settings are part of the fingerprint."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from stages.store import canonical
from tests.support import training_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model__size": "5x"}, "no model size '5x'"),
        ({"stpes": 3}, "Extra inputs"),
        (
            {"data__global_batch_size": 9, "data__streams": 2},
            r"global_batch_size \(9\) is not a multiple of .*streams \(2\).*set it to 8 or 10",
        ),
        ({"data__weights": {"a": 1, "b": -1}}, "weights\n.*source 'b' has -1"),
        ({"data__weights": {"a": math.nan}}, "source 'a' has nan"),
        ({"data__weights": {"a": 0, "b": 0}}, "all weights are 0"),
        (
            {"steps": 30, "data__phases": [{"steps": 30, "weights": {"a": math.inf}}]},
            r"phases\.0\.weights\n.*'a' has inf",
        ),
        ({"steps": 30, "data__phases": [{"steps": 30, "repeat": {"a": 0}}]}, r"phases\.0\.repeat\n.*source 'a' has 0"),
        ({"steps": 30, "data__phases": [{"steps": 30, "repeat": -2.0}]}, r"phases\.0\.repeat\n.*it is -2"),
        ({"optimizer__betas": [0.9, 1.0]}, r"betas\.1\n.*less than 1"),
        ({"data__rows_per_sample": 3}, "power of two"),
        ({"steps": 5, "schedule__warmup_steps": 6}, "longer than the run"),
        ({"steps": 30, "recovery__skip_batches": [[10, 10]]}, "not a range"),
        ({"steps": 30, "recovery__skip_batches": [[10, 31]]}, "not a range"),
        ({"steps": 30, "data__phases": [{"steps": 10}]}, "10 steps together"),
        ({"steps": 30, "data__rows_per_sample": 2, "data__phases": [{"steps": 30}]}, "belong to each phase"),
    ],
)
def test_wrong_configs_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        training_config(**values)


def test_runtime_settings_are_not_part_of_the_name():
    config = training_config(
        steps=50,
        parallelism__workers=4,
        parallelism__micro_batch_size=3,
        parallelism__device="cpu",
        checkpoint__every_steps=7,
        recovery__skip_batches=((1, 2),),
    )
    assert canonical(config) == {"steps": 50}


def test_the_schedule_is_part_of_the_name():
    assert canonical(training_config(schedule__kind="cosine")) == {"schedule": {"kind": "cosine"}}
