"""The API key's file."""

import stat
from pathlib import Path

import pytest

from serving.gateway.keys import ensure_key, read_key, same_key
from stages.store import ConfigError


def test_the_key_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "api-key"
    key, created = ensure_key(path)
    assert created and len(key) > 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_key(path) == (key, False)
    assert same_key(key, key) and not same_key(key[:-1], key) and not same_key("", key)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        ensure_key(path)
    with pytest.raises(ConfigError, match="no API key"):
        read_key(tmp_path / "none")
