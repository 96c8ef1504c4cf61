"""Store, artifact, manifest, identity, refs and events: what the stages agree on."""

from stages.artifact.artifact import Artifact, ArtifactWriter, all_artifacts, by_digest, load
from stages.artifact.config import Config, canonical, canonical_json, how
from stages.artifact.errors import ConfigError, HeadwaterError, InputError, LeaseHeldError, StoreError
from stages.artifact.events import EventLog
from stages.artifact.lease import Holder
from stages.artifact.manifest import FileEntry, Manifest, digest, fingerprint
from stages.artifact.refs import list_refs, read_ref, write_ref
from stages.artifact.stage import HasDigest, Plan, Stage
from stages.artifact.store import Store

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
    "how",
    "list_refs",
    "load",
    "read_ref",
    "write_ref",
]
