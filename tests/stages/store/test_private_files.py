"""Secrets in files: whole, created once, and readable by their owner alone."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stages.store import ConfigError
from stages.store.private_files import ensure_secret, make_private_folder, read_secret


def test_several_that_create_a_secret_at_once_get_the_same_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: ensure_secret(tmp_path / "folder" / "key", "key"), range(64)))
    assert len({secret for secret, _ in found}) == 1
    assert sum(is_new for _, is_new in found) == 1
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["key"]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_its_mode_does_not_depend_on_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        ensure_secret(tmp_path / "below" / "key", "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "below" / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "below").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        ("a" * 40, 0o644, "mode 644: other users can read it"),
        ("a" * 40, 0o610, "mode 610"),
        ("short", 0o600, "contains no API key"),
        ("", 0o600, "contains no API key"),
    ],
)
def test_a_file_that_is_not_private_or_has_no_secret_is_refused(
    tmp_path: Path, content: str, mode: int, reason: str
) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    path.chmod(mode)
    for use in (read_secret, ensure_secret):
        with pytest.raises(ConfigError, match=reason):
            use(path, "API key")


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff" * 40)
    (tmp_path / "binary").chmod(0o600)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("folder", "broken", "binary", "pipe"):
        with pytest.raises(ConfigError):
            ensure_secret(tmp_path / name, "API key")
    with pytest.raises(ConfigError, match="there is no API key"):
        read_secret(tmp_path / "none", "API key")


def test_every_folder_that_is_created_is_private_and_none_that_exists_changes(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        make_private_folder(tmp_path / "shared" / "a" / "b")
        make_private_folder(tmp_path / "shared" / "a" / "b")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "shared", *(tmp_path / "shared").rglob("*"))]
    assert modes == [0o755, 0o700, 0o700]
