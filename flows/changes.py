"""Why a stage would run: its plan compared with what the recipe's ref points at, in words for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stages.corpus import ListedFile, Listing
from stages.corpus.reading.inputs import noted_inputs
from stages.store import Artifact, Config, HasDigest, Stage, canonical

NAMES = {"source": "source", "evaluation": "decontamination set", "set": "question set"}
"""What people call the listings that go into a stage, by the first part of their role."""
SHOWN = 3
"""So many files are named of each sort of change."""
LONGEST = 48
"""Characters of a value that are shown."""
_ABSENT = object()


def config_changes(section: str, config: Config, before: Artifact) -> list[str]:
    """Settings that decide what is made and are others than they were, `section.key: old -> new`."""
    manifest = before.manifest
    return differences(
        section, manifest.config, canonical(config), manifest.resolved_config, config.model_dump(mode="json")
    )


def version_change(stage: Stage[Any], before: Artifact) -> list[str]:
    """A stage whose output has changed makes its artifacts anew."""
    old = before.manifest.stage_version
    return [] if old == stage.version else [f"the stage itself: version {old} -> {stage.version}"]


def input_changes(inputs: Mapping[str, HasDigest], before: Artifact) -> list[str]:
    """What goes in and is another than it was; files by name, where it is known which there were."""
    old = before.manifest.inputs
    changed = [role for role in sorted({*old, *inputs}) if role not in inputs or old.get(role) != inputs[role].digest]
    noted = noted_inputs(before) if any("/" in role for role in changed) else {}
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
        return "other files, or other content"
    old, new = {file.name: file for file in before}, {file.name: file for file in now}
    sorts = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and new[name] != old[name]],
    }
    return "; ".join(f"{sort} {_some(names)}" for sort, names in sorts.items() if names)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more


def differences(path: str, old: Any, new: Any, whole_old: Any, whole_new: Any) -> list[str]:
    """Walks the two canonical configs, which leave defaults out; the whole ones say what those are."""
    lines = []
    for key in sorted({*old, *new}):
        before, now = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if before == now:
            continue
        name = f"{path}.{key}"
        all_before, all_now = whole_old.get(key, before), whole_new.get(key, now)
        if isinstance(all_before, dict) and isinstance(all_now, dict):
            inner_old, inner_new = (value if isinstance(value, dict) else {} for value in (before, now))
            lines += differences(name, inner_old, inner_new, all_before, all_now)
        elif all_before is _ABSENT or all_now is _ABSENT:
            value = all_now if all_before is _ABSENT else all_before
            said = "added" if all_before is _ABSENT else "removed"
            lines.append(f"{name}: {said}" if isinstance(value, dict) else f"{name}: {said}, {_value(value)}")
        else:
            lines.append(f"{name}: {_value(all_before)} -> {_value(all_now)}")
    return lines


def _value(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
