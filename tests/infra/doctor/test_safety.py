"""Checks of the environment and of the state folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.doctor import safety
from infra.settings import load_settings


@pytest.mark.parametrize(
    ("environ", "profiles", "states", "words"),
    [
        ({}, None, ["ok"], ""),
        ({"PREFECT_API_KEY": "pnu_1"}, None, ["warning"], "PREFECT_API_KEY"),
        ({"PREFECT_API_URL": "https://me:pw@cloud/api"}, None, ["warning"], "https://cloud/api"),
        ({"PREFECT_API_URL": "http://127.0.0.1:4200/api/"}, 'active = "mine"', ["ok"], ""),
        ({}, 'active = "ephemeral"', ["ok"], ""),
        ({}, 'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "http://x/api"', ["warning"], "http://x/api"),
        ({"PREFECT_PROFILE": "mine"}, 'active = "headwater"', ["warning"], "'mine'"),
        ({"PREFECT_API_AUTH_STRING": "me:pw@"}, None, ["warning"], "PREFECT_API_AUTH_STRING"),
        ({}, "active = ", ["warning"], "profiles.toml"),
        ({"http_proxy": "http://me:pw@proxy:3128"}, None, ["problem"], "http://proxy:3128"),
        ({"ALL_PROXY": "socks5://proxy:1"}, None, ["problem"], "socks5://proxy:1"),
        ({"HTTP_PROXY": "http://proxy", "NO_PROXY": "localhost,127.0.0.1"}, None, ["ok"], ""),
        ({"https_proxy": "http://proxy"}, None, ["ok"], ""),
        ({"VLLM_SERVER_DEV_MODE": "1"}, None, ["warning"], "VLLM_SERVER_DEV_MODE"),
        ({"VLLM_SERVER_DEV_MODE": "0"}, None, ["ok"], ""),
        ({"RAY_AUTH_MODE": "disabled", "PREFECT_API_KEY": "x"}, None, ["warning", "warning"], "RAY_AUTH_MODE"),
    ],
)
def test_the_environment(environ: dict[str, str], profiles: str | None, states: list[str], words: str) -> None:
    checks = safety.check_environment(environ, load_settings({}), profiles)
    text = " ".join(check.found for check in checks)
    assert [check.state for check in checks] == states and words in text and "pw@" not in text


def test_only_the_owner_may_read_a_secret(tmp_path: Path) -> None:
    key = tmp_path / "api-key"
    assert safety.check_secret("API key", key).state == "ok"
    key.write_text("")
    assert safety.check_secret("API key", key).state == "problem", "empty"
    key.write_text("hw-secret-of-some-length")
    key.chmod(0o640)
    bad = safety.check_secret("API key", key)
    assert bad.state == "problem" and f"chmod 600 {key}" in bad.remedy and "hw-secret" not in bad.found
    key.chmod(0o600)
    assert safety.check_secret("API key", key).state == "ok"


def test_nobody_else_may_enter_a_private_folder_or_read_what_is_in_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert safety.check_private_folder("state folder access", home).state == "ok"
    (home / "store" / "corpus").mkdir(mode=0o700, parents=True)
    home.chmod(0o700)
    (home / "store").chmod(0o700)
    document = home / "store" / "corpus" / "shard"
    document.touch(mode=0o600)
    (home / "link").symlink_to(document)  # links have mode 777
    assert safety.check_private_folder("state folder access", home).state == "ok"
    for mode in (0o604, 0o620, 0o601):
        document.chmod(mode)
        seen = safety.check_private_folder("state folder access", home)
        assert seen.state == "warning" and "store/corpus/shard" in seen.found and f"chmod -R go= {home}" in seen.remedy
    home.chmod(0o711)
    assert safety.check_private_folder("state folder access", home).state == "problem"
