"""What a Prefect server needs from us: the deployments of prefect.yaml, and a profile so that `prefect` finds it."""

from __future__ import annotations

import os
import subprocess
import sys

from infra.services import ServiceError
from infra.settings import REPOSITORY, Settings

PROFILE = "headwater"


def register_deployments(settings: Settings) -> None:
    """Registers every deployment of prefect.yaml; harmless to repeat.

    Raises:
        ServiceError: with what the command said.
    """
    result = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        env={**os.environ, **settings.environment()},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise ServiceError(f"`prefect deploy --all` failed:\n{(result.stdout + result.stderr).strip()}")


def use_profile(settings: Settings) -> bool:
    """Points the user's `prefect` command at this server, from any working directory, unless they chose one.

    A profile named `headwater` is written and made active when the active one is Prefect's own default (which has no
    server). Returns False when the user's own profile was left active.
    """
    from prefect.settings import PREFECT_API_URL, Profile, load_profiles, save_profiles

    profiles = load_profiles(include_defaults=True)
    ours = Profile(name=PROFILE, settings={PREFECT_API_URL: settings.prefect_api_url})
    if PROFILE in profiles:
        profiles.update_profile(PROFILE, {PREFECT_API_URL: settings.prefect_api_url})
    else:
        profiles.add_profile(ours)
    chosen = profiles.active_name
    default = chosen in (None, PROFILE, "ephemeral")
    if default:
        profiles.set_active(PROFILE)
    save_profiles(profiles)
    return default


def forget_profile() -> None:
    """Makes Prefect's default profile active again when ours is; called when the server is stopped."""
    from prefect.settings import load_profiles, save_profiles

    profiles = load_profiles(include_defaults=True)
    if profiles.active_name == PROFILE:
        profiles.set_active("ephemeral")
        profiles.remove_profile(PROFILE)
        save_profiles(profiles)
