"""The decoder's loss. Its logits are held beside transformers' in test_huggingface.py."""

from __future__ import annotations

import pytest
import torch

from tests.models.small import small_decoder


@pytest.mark.parametrize("tied", [True, False])
def test_loss_is_that_of_the_logits(tied):
    model = small_decoder(tied)
    tokens = torch.randint(0, 96, (3, 11))
    targets = torch.randint(0, 96, (3, 11))
    targets[:, ::3] = -100
    loss, nats = model(tokens, targets, scale=0.5)
    expected = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), reduction="sum")
    torch.testing.assert_close(loss, expected / 2, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(nats.sum(), expected.detach(), atol=1e-3, rtol=1e-5)
