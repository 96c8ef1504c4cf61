"""Starting the services: the endpoint's API key is shown to a person at a terminal, and to nobody else."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from rich.console import Console

import flows.prefect_setup
import infra.services
from flows.cli import services
from infra.settings import load_settings


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_the_api_key_is_printed_to_a_terminal_only(
    stream: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as CI sets it: rich then takes every stream for a terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(services, "err", Console(file=stream, highlight=False))
    monkeypatch.setattr(infra.services, "service_process", lambda *_: SimpleNamespace(find=lambda: 1))
    monkeypatch.setattr(infra.services, "up", lambda *_, **__: {})
    monkeypatch.setattr(flows.prefect_setup, "register", lambda *_: None)
    settings = load_settings({"HEADWATER_HOME": str(tmp_path)})
    with patch.dict(os.environ):  # the passwords are set in it
        services.start_services(settings, set())
    key, shown = settings.api_key_file.read_text().strip(), stream.getvalue()
    assert "API key of the endpoint" in shown and str(settings.api_key_file) in shown
    assert (key in shown) == isinstance(stream, Terminal)
    with patch.dict(os.environ):
        services.start_services(settings, set())
    assert stream.getvalue() == shown, "it is shown once"
