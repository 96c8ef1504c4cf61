"""Typed configuration: settings that decide the result (hashed) and run-time settings (not hashed) in one model.

A field declared with `runtime_field()` is a run-time setting: workers, devices, paths, retries. All other fields are
part of an artifact's fingerprint. Fields at their default are left out of the canonical form, so that a new option
changes no existing fingerprint; a changed default must come with a new stage version.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_RUNTIME = "headwater_runtime"


class Config(BaseModel):
    """Base of every stage's configuration: immutable, unknown keys refused, docstrings are the fields' descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def runtime_field(default: Any = ..., **kwargs: Any) -> Any:
    """A field that cannot change the result, only how it is computed: it is left out of the fingerprint."""
    return Field(default, json_schema_extra={_RUNTIME: True}, **kwargs)


def canonical(config: BaseModel) -> dict[str, Any]:
    """The part of `config` that decides the result, without fields at their default; plain JSON values."""
    return _canonical_model(config)


def canonical_json(value: Any) -> bytes:
    """One byte string for equal JSON values: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _canonical_model(model: BaseModel) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get(_RUNTIME):
            continue
        value = getattr(model, name)
        if field.is_required():
            out[name] = _canonical_value(value)
            continue
        default, entry = field.get_default(call_default_factory=True), _canonical_value(value)
        # A group that differs from its default in runtime fields only is left out too.
        if value != default and not (isinstance(default, BaseModel) and entry == _canonical_value(default)):
            out[name] = entry
    return out


def _canonical_value(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _canonical_model(value)
    if isinstance(value, dict):
        return {str(key): _canonical_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical_value(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_canonical_value(item) for item in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a configuration value must be plain JSON, got {type(value).__name__}: {value!r}")
