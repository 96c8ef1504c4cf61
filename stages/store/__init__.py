"""Store, artifact, manifest, identity, refs and events: what the stages agree on.

Each name is imported from its module when it is asked for: a process that needs only the errors, as one that loads
batches, does not wait for pydantic and fsspec.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.store.artifact import Artifact, ArtifactWriter, all_artifacts, by_digest, load
    from stages.store.config import Config, canonical, canonical_json, runtime_field
    from stages.store.errors import ConfigError, HeadwaterError, InputError, LeaseHeldError, StoreError
    from stages.store.events import EventLog
    from stages.store.lease import Holder
    from stages.store.manifest import FileEntry, Manifest, digest, fingerprint
    from stages.store.refs import list_refs, read_ref, write_ref
    from stages.store.stage import HasDigest, Plan, Stage
    from stages.store.store import Store

__all__ = [
    "Artifact",
    "ArtifactWriter",
    "Config",
    "ConfigError",
    "EventLog",
    "FileEntry",
    "HasDigest",
    "HeadwaterError",
    "Holder",
    "InputError",
    "LeaseHeldError",
    "Manifest",
    "Plan",
    "Stage",
    "Store",
    "StoreError",
    "all_artifacts",
    "by_digest",
    "canonical",
    "canonical_json",
    "digest",
    "fingerprint",
    "list_refs",
    "load",
    "read_ref",
    "runtime_field",
    "write_ref",
]

_HOMES = {
    "artifact": "Artifact, ArtifactWriter, all_artifacts, by_digest, load",
    "config": "Config, canonical, canonical_json, runtime_field",
    "errors": "ConfigError, HeadwaterError, InputError, LeaseHeldError, StoreError",
    "events": "EventLog",
    "lease": "Holder",
    "manifest": "FileEntry, Manifest, digest, fingerprint",
    "refs": "list_refs, read_ref, write_ref",
    "stage": "HasDigest, Plan, Stage",
    "store": "Store",
}
"""Module: the names that come from it."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names.split(", "):
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
