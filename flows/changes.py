"""Why a stage would run: its plan compared with the artifact that the recipe's ref points at, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stages.corpus import ListedFile, Listing
from stages.corpus.reading.inputs import read_input_list
from stages.store import Artifact, Config, HasDigest, Stage, canonical

NAMES = {"source": "source", "evaluation": "decontamination set", "set": "question set"}
"""Readable names of the listings among a stage's inputs, by the first part of their role."""
MAX_FILES = 3
"""Files that are named per sort of change."""
MAX_CHARACTERS = 48
"""Characters of a value that are shown."""
_ABSENT = object()


def config_changes(section: str, config: Config, before: Artifact) -> list[str]:
    """Changed settings that are part of the fingerprint, as `section.key: old -> new`."""
    manifest = before.manifest
    return differences(
        section, manifest.config, canonical(config), manifest.resolved_config, config.model_dump(mode="json")
    )


def version_change(stage: Stage[Any], before: Artifact) -> list[str]:
    """A stage whose version has changed builds its artifacts anew."""
    old = before.manifest.stage_version
    return [] if old == stage.version else [f"the stage itself: version {old} -> {stage.version}"]


def input_changes(inputs: Mapping[str, HasDigest], before: Artifact) -> list[str]:
    """Changed inputs; files by name, if the artifact recorded them."""
    old = before.manifest.inputs
    changed = [role for role in sorted({*old, *inputs}) if role not in inputs or old.get(role) != inputs[role].digest]
    noted = read_input_list(before) if any("/" in role for role in changed) else {}
    lines = []
    for role in changed:
        kind, _, name = role.partition("/")
        label = f"{NAMES.get(kind, kind)} {name}".rstrip()
        item = inputs.get(role)
        if item is None:
            lines.append(f"{label}: removed")
        elif role not in old:
            lines.append(f"{label}: added")
        elif isinstance(item, Listing):
            lines.append(f"{label}: {_file_changes(noted.get(role), item.files)}")
        else:
            lines.append(f"{label}: {old[role][:12]} -> {item.digest[:12]}")
    return lines


def _file_changes(before: Sequence[ListedFile] | None, now: Sequence[ListedFile]) -> str:
    if before is None:
        return "files or their content changed"
    old, new = {file.name: file for file in before}, {file.name: file for file in now}
    sorts = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and new[name] != old[name]],
    }
    return "; ".join(f"{sort} {_some(names)}" for sort, names in sorts.items() if names)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_FILES:,} more" if len(names) > MAX_FILES else ""
    return ", ".join(sorted(names)[:MAX_FILES]) + more


def differences(path: str, old: Any, new: Any, resolved_old: Any, resolved_new: Any) -> list[str]:
    """Differences of two canonical configs, which leave defaults out; the resolved ones have the defaults' values."""
    lines = []
    for key in sorted({*old, *new}):
        before, now = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if before == now:
            continue
        name = f"{path}.{key}"
        all_before, all_now = resolved_old.get(key, before), resolved_new.get(key, now)
        if isinstance(all_before, dict) and isinstance(all_now, dict):
            inner_old, inner_new = (value if isinstance(value, dict) else {} for value in (before, now))
            lines += differences(name, inner_old, inner_new, all_before, all_now)
        elif all_before is _ABSENT or all_now is _ABSENT:
            value = all_now if all_before is _ABSENT else all_before
            change = "added" if all_before is _ABSENT else "removed"
            lines.append(f"{name}: {change}" if isinstance(value, dict) else f"{name}: {change}, {_value(value)}")
        else:
            lines.append(f"{name}: {_value(all_before)} -> {_value(all_now)}")
    return lines


def _value(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}…"
