"""Checks of variables, profiles and file modes that make services unsafe, or send clients to another server."""

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
from stages.store.private_files import LEAST_CHARACTERS

_SHOWN = 3
"""How many files a check names."""
_OURS = (None, "ephemeral", "headwater")
"""Active Prefect profiles that `headwater up` replaces, or has written."""


def check_secret(name: str, path: Path) -> Check:
    """Whether only its owner can read a key or password; else what it locks does not start."""
    try:
        entry = path.stat()
    except FileNotFoundError:
        return Check(name, "ok", f"the first start creates it ({path})")
    mode = stat.S_IMODE(entry.st_mode)
    if not stat.S_ISREG(entry.st_mode) or entry.st_size < LEAST_CHARACTERS:
        return Check(name, "problem", f"{path} contains none", "remove it: the next start creates a new one")
    if mode & 0o077:
        remedy = f"`chmod 600 {path}`; if others may have read it, remove it: the next start creates a new one"
        return Check(name, "problem", f"{path} has mode {mode:o}: other users can read it", remedy)
    return Check(name, "ok", f"{path}, readable by its owner only")


def check_private_folder(name: str, folder: Path, within: bool = True) -> Check:
    """Whether other users can enter a folder that has documents.

    Args:
        within: also look for what they could read in it if they could enter.
    """
    remedy = f"`chmod -R go= {folder}`"
    if not folder.is_dir():
        return Check(name, "ok", f"the first start creates it ({folder})")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        return Check(name, "problem", f"{folder} has mode {mode:o}: other users can enter it", remedy)
    if within and (found := _open_to_others(folder)):
        shown = ", ".join(str(path.relative_to(folder)) for path in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return Check(name, "warning", f"other users could read, if they could enter {folder}: {shown}{more}", remedy)
    return Check(name, "ok", f"{folder} and what is in it, for its owner only")


def _open_to_others(below: Path) -> list[Path]:
    """What other users may read, write or enter below a folder; links have no mode of their own."""
    found = []
    for folder, folders, files in os.walk(below):
        for name in (*folders, *files):
            path = Path(folder, name)
            try:
                entry = path.lstat()
            except FileNotFoundError:  # removed meanwhile
                continue
            if not stat.S_ISLNK(entry.st_mode) and stat.S_IMODE(entry.st_mode) & 0o077:
                found.append(path)
    return found


def check_environment(environ: Mapping[str, str], settings: Settings, profiles: str | None) -> list[Check]:
    """Checks environment variables and Prefect's profiles.

    Args:
        profiles: text of Prefect's profiles.toml; None if there is none.
    """
    name = "environment"
    checks = [Check(name, "warning", found, remedy) for found, remedy in _variables(environ, settings)]
    checks += [Check(name, "warning", found, remedy) for found, remedy in _profile(environ, settings, profiles)]
    if proxy := _loopback_proxy(environ):
        found = f"requests to the local services, with their keys, are sent to the proxy {proxy}"
        checks.append(
            Check(
                name, "problem", found, "export NO_PROXY=127.0.0.1,localhost (and no_proxy, which some programs read)"
            )
        )
    return checks or [Check(name, "ok", "no variable redirects clients or exposes a service")]


def read_profiles(environ: Mapping[str, str]) -> str | None:
    """Text of this user's Prefect profiles; None if there are none."""
    prefect = environ.get("PREFECT_HOME") or os.path.join(os.path.expanduser("~"), ".prefect")
    path = Path(environ.get("PREFECT_PROFILES_PATH") or os.path.join(prefect, "profiles.toml")).expanduser()
    try:
        return path.read_text()
    except OSError:
        return None


def _variables(environ: Mapping[str, str], settings: Settings) -> list[tuple[str, str]]:
    found = []
    if environ.get("PREFECT_API_KEY"):
        found.append(("PREFECT_API_KEY is set: it is sent to the local server, in place of its password",
                      "unset PREFECT_API_KEY"))  # fmt: skip
    if environ.get("PREFECT_API_AUTH_STRING"):
        found.append(("PREFECT_API_AUTH_STRING is set: `prefect` sends it to this server, in place of its password",
                      "unset PREFECT_API_AUTH_STRING"))  # fmt: skip
    url = environ.get("PREFECT_API_URL", "").rstrip("/")
    if url and url != settings.prefect_api_url:
        server = _without_credentials(url)
        found.append((f"PREFECT_API_URL is {server}: `prefect` and `prefect deployment run` use that server",
                      "unset PREFECT_API_URL: the profile `headwater` has address and password"))  # fmt: skip
    if _true(environ.get("VLLM_SERVER_DEV_MODE")):
        found.append(("VLLM_SERVER_DEV_MODE exposes vLLM's developer routes (the gateway does not pass it to its "
                      "engines; those started by hand get it)", "unset VLLM_SERVER_DEV_MODE"))  # fmt: skip
    mode = environ.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token":
        found.append((f"RAY_AUTH_MODE={mode}: anyone who reaches Ray's ports can run code", "unset RAY_AUTH_MODE"))
    return found


def _profile(environ: Mapping[str, str], settings: Settings, profiles: str | None) -> list[tuple[str, str]]:
    remedy = "PREFECT_PROFILE=headwater before a command, or `prefect profile use headwater`"
    try:
        content = tomllib.loads(profiles or "")
    except tomllib.TOMLDecodeError as error:
        return [(f"Prefect's profiles.toml is invalid ({error}), so no Prefect command works", "correct or remove it")]
    chosen = environ.get("PREFECT_PROFILE") or content.get("active")
    if chosen in _OURS or environ.get("PREFECT_API_URL", "").rstrip("/") == settings.prefect_api_url:
        return []
    profile = content.get("profiles", {}).get(chosen, {})
    url, key = profile.get("PREFECT_API_URL", ""), profile.get("PREFECT_API_KEY")
    if url.rstrip("/") == settings.prefect_api_url and not key:
        return []
    server = _without_credentials(url) if url else "no server"
    return [(f"Prefect's profile {chosen!r} is active: `prefect deployment run` uses {server}", remedy)]


def _loopback_proxy(environ: Mapping[str, str]) -> str:
    """The proxy that HTTP requests to loopback are sent to; empty: none."""
    names = {
        name.lower(): value for name, value in sorted(environ.items()) if name.lower().endswith("_proxy") and value
    }
    proxy = names.get("http_proxy") or names.get("all_proxy")
    if not proxy or proxy_bypass_environment("127.0.0.1", {"no": names.get("no_proxy", "")}):
        return ""
    return _without_credentials(proxy)


def _without_credentials(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else url.rpartition("@")[2]


def _true(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true", "yes")
