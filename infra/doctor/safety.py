"""What is set in the environment or readable on the disk that makes services unsafe, or leads clients elsewhere."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from infra.doctor.result import Check
from infra.settings import Settings

_OURS = (None, "ephemeral", "headwater")
"""Active profiles of Prefect that `headwater up` replaces, or wrote."""


def api_key(path: Path) -> Check:
    """The endpoint's key is its owner's alone; the gateway does not start with one that is not."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return Check("API key", "ok", f"made at the first start ({path})")
    if mode & 0o077:
        mend = f"`chmod 600 {path}`; if others may have read it: remove it, a new one is made at the next start"
        return Check("API key", "problem", f"{path} has mode {mode:o}: others can read it", mend)
    return Check("API key", "ok", f"{path}, readable by its owner alone")


def state_folder(home: Path) -> list[Check]:
    """What others may write is not a safe place for databases and process records."""
    if home.is_dir() and home.stat().st_mode & stat.S_IWOTH and not home.stat().st_mode & stat.S_ISVTX:
        return [Check("state folder", "warning", f"{home} can be written by everybody", f"`chmod o-w {home}`")]
    return []


def environment(environ: Mapping[str, str], settings: Settings, profiles: str | None) -> list[Check]:
    """Variables and Prefect's profiles.

    Args:
        profiles: text of Prefect's profiles.toml, None if there is none.
    """
    name = "environment"
    checks = [Check(name, "warning", found, mend) for found, mend in _variables(environ, settings)]
    checks += [Check(name, "warning", found, mend) for found, mend in _profile(environ, settings, profiles)]
    if proxy := _caught(environ):
        found = f"requests to the local services, with their keys, go to the proxy {proxy}"
        checks.append(
            Check(name, "problem", found, "export NO_PROXY=127.0.0.1,localhost (and no_proxy, which some read)")
        )
    return checks or [Check(name, "ok", "no variable leads clients elsewhere or opens a service")]


def read_profiles(environ: Mapping[str, str]) -> str | None:
    """Prefect's profiles of this user."""
    prefect = environ.get("PREFECT_HOME") or os.path.join(os.path.expanduser("~"), ".prefect")
    path = Path(environ.get("PREFECT_PROFILES_PATH") or os.path.join(prefect, "profiles.toml")).expanduser()
    try:
        return path.read_text()
    except OSError:
        return None


def _variables(environ: Mapping[str, str], settings: Settings) -> list[tuple[str, str]]:
    found = []
    if environ.get("PREFECT_API_KEY"):
        found.append(("PREFECT_API_KEY is set: it goes to the local server, and takes the place of its password",
                      "unset PREFECT_API_KEY"))  # fmt: skip
    url = environ.get("PREFECT_API_URL", "").rstrip("/")
    if url and url != settings.prefect_api_url:
        found.append((f"PREFECT_API_URL is {_bare(url)}: `prefect` and `prefect deployment run` go there",
                      f"unset it, or export PREFECT_API_URL={settings.prefect_api_url}"))  # fmt: skip
    if _true(environ.get("VLLM_SERVER_DEV_MODE")):
        found.append(("VLLM_SERVER_DEV_MODE opens vLLM's routes for developers (the gateway withholds it from its "
                      "engines; one started by hand has it)", "unset VLLM_SERVER_DEV_MODE"))  # fmt: skip
    mode = environ.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token":
        found.append((f"RAY_AUTH_MODE={mode}: whoever reaches Ray's ports can run code", "unset RAY_AUTH_MODE"))
    return found


def _profile(environ: Mapping[str, str], settings: Settings, profiles: str | None) -> list[tuple[str, str]]:
    mend = f"`prefect profile use headwater`, or export PREFECT_API_URL={settings.prefect_api_url}"
    try:
        content = tomllib.loads(profiles or "")
    except tomllib.TOMLDecodeError as error:
        return [(f"Prefect's profiles.toml cannot be read ({error}), so neither can any command of Prefect", "mend it")]
    chosen = environ.get("PREFECT_PROFILE") or content.get("active")
    if chosen in _OURS or environ.get("PREFECT_API_URL", "").rstrip("/") == settings.prefect_api_url:
        return []
    told = content.get("profiles", {}).get(chosen, {})
    if told.get("PREFECT_API_URL", "").rstrip("/") == settings.prefect_api_url and not told.get("PREFECT_API_KEY"):
        return []
    where = _bare(told["PREFECT_API_URL"]) if told.get("PREFECT_API_URL") else "a server of its own"
    return [(f"Prefect's profile {chosen!r} is active: `prefect deployment run` goes to {where}", mend)]


def _caught(environ: Mapping[str, str]) -> str:
    """The proxy that plain HTTP to loopback goes through; empty: none."""
    names = {
        name.lower(): value for name, value in sorted(environ.items()) if name.lower().endswith("_proxy") and value
    }
    proxy = names.get("http_proxy") or names.get("all_proxy")
    if not proxy or proxy_bypass_environment("127.0.0.1", {"no": names.get("no_proxy", "")}):
        return ""
    return _bare(proxy)


def _bare(url: str) -> str:
    """Without user and password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else url.rpartition("@")[2]


def _true(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true", "yes")
