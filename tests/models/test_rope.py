"""Rotary angles: what stretches them."""

from __future__ import annotations

import pytest

from models.rope import frequencies, ntk_theta


def test_a_longer_base_stretches_the_slowest_pair_alone():
    plain, _ = frequencies(64, 10_000.0)
    stretched, _ = frequencies(64, ntk_theta(10_000.0, 64, 8.0))
    assert stretched[0] == plain[0]
    assert stretched[-1].item() == pytest.approx(plain[-1].item() / 8, rel=1e-5)
