"""Credentials in the locations of recipes and parameters are refused before anything is recorded or written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from pydantic import TypeAdapter, ValidationError

from flows import pretrain
from flows.cli import run as command
from flows.inputs import resolve_recipe
from flows.recipe import RECIPES, load_recipe
from infra.settings import load_settings
from stages.store.credentials import CredentialsError

SECRET = "wJalrXUtnFEMI-K7MDENG"
LEAK = f"s3://AKIAEXAMPLE:{SECRET}@bucket/data"
SIGNED = f"https://bucket.s3.amazonaws.com/exam.jsonl?X-Amz-Signature={SECRET}"


def recipe(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A recipe file: biomed's, changed."""
    content = yaml.safe_load((RECIPES / "biomed.yaml").read_text())
    change(content)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def set_source(content: dict[str, Any]) -> None:
    next(iter(content["corpus"]["sources"].values()))["location"] = LEAK


PLACES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "source": (set_source, r"corpus\.sources\.\w+\.location: "),
    "evaluation set": (lambda c: c["evaluation_sets"].update(mine=SIGNED), r"evaluation_sets\.mine: "),
    "decontamination set": (
        lambda c: c["corpus"].update(decontamination={"sets": {"mine": SIGNED}}),
        r"corpus\.decontamination\.sets\.mine: ",
    ),
    "endpoint": (
        lambda c: c.update(storage={"endpoint_url": f"http://me:{SECRET}@localhost:9000"}),
        r"storage\.endpoint_url: ",
    ),
    "tokenizer": (lambda c: c.update(tokens={"tokenizer": LEAK}), r"tokens\.tokenizer: "),
    "unknown key": (lambda c: c.update(plan_b=[LEAK]), r"plan_b\.0: "),
    "name of a set": (lambda c: c["evaluation_sets"].update({LEAK: "/x"}), "evaluation_sets: "),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_recipe_with_credentials_is_refused_and_nothing_is_written(place: str, tmp_path: Path) -> None:
    change, key = PLACES[place]
    path = recipe(tmp_path, change)
    with pytest.raises(
        CredentialsError, match=rf"^{re.escape(str(path))}: {key}the location has .*remove it, and "
    ) as caught:
        resolve_recipe(str(path))
    assert SECRET not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", [f"name: [\nx: {LEAK}\n  y: :", f"name: @{SIGNED}", f'x: "{LEAK}\n'])
def test_a_recipe_that_is_not_valid_yaml_is_not_repeated(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(Exception, match="not valid YAML, line") as caught:
        load_recipe(str(tmp_path / "mine.yaml"))
    assert SECRET not in str(caught.value) and caught.value.__suppress_context__


PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "recipe": ({"recipe": f"https://me:{SECRET}@host/x.yaml"}, "recipe: "),
    "data": ({"data": LEAK}, "data: "),
    "chained data": ({"data": f"zip://*.txt::{SIGNED}"}, "data: "),
    "encoded data": ({"data": f"https%3A//me:{SECRET}@host"}, "data: "),
    "evaluation_data": ({"data": "/x", "evaluation_data": SIGNED}, "evaluation_data: "),
    "source": ({"overrides": [f"corpus.sources.a.location={LEAK}"]}, r"--set corpus\.sources\.a\.location: "),
    "own source": ({"data": "/x", "overrides": [f"corpus.sources.a.location={LEAK}"]}, r"--set corpus\.sources"),
    "set": ({"overrides": [f"evaluation_sets={{a: '{SIGNED}'}}"]}, "--set evaluation_sets: "),
    "endpoint": ({"overrides": [f"storage.endpoint_url=http://me:{SECRET}@host"]}, r"--set storage\.endpoint_url: "),
    "YAML's escapes": ({"overrides": [f'a.b="https:\\x2f\\x2fme:{SECRET}\\x40host"']}, r"--set a\.b: "),
    "no key": ({"overrides": [LEAK]}, r"--set s3://redacted: "),
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_the_command_line_refuses_them_before_a_service_or_a_flow_run_is_started(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, message = PARAMETERS[case]
    monkeypatch.setattr(command, "load", lambda: SimpleNamespace(store=str(tmp_path / "store")))
    monkeypatch.setattr(command, "start_services", lambda *_: pytest.fail("a service was started"))
    monkeypatch.setattr(pretrain, "pretrain", lambda **_: pytest.fail("a flow run was created"))
    arguments = {"evaluation" if name == "evaluation_data" else name: value for name, value in given.items()}
    for dry_run in (False, True):
        with pytest.raises(CredentialsError, match=f"^{message}.*remove it, and ") as caught:
            command.run(**arguments, dry_run=dry_run)
        assert SECRET not in str(caught.value) + "".join(capsys.readouterr())
        assert "Prefect has recorded" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", PARAMETERS)
def test_a_deployment_s_run_is_refused_at_its_start_and_says_that_prefect_has_recorded_them(case: str) -> None:
    given, message = PARAMETERS[case]
    parameters = {
        "recipe": "biomed",
        "data": "",
        "evaluation_data": "",
        "overrides": [],
        "force_new_run": False,
    } | given
    words = "Prefect has recorded this flow run's parameters .* revoke the credentials, then delete the flow run"
    with pytest.raises(CredentialsError, match=f"^{message}.*{words}") as caught:
        pretrain.open_job(**parameters)
    assert SECRET not in str(caught.value) and caught.value.__suppress_context__


def test_the_server_refuses_passwords_in_the_form_before_it_records_them() -> None:
    schema = parameter_schema(pretrain.pretrain).model_dump()
    accepted = [
        *("", "/data/me:x@y", "s3://bucket/a:b@c", "https://host.org:8443/a@b", "abfs://box@account.host/x"),
        *("github://owner:repository@main/x", "sftp://me@host:22/data", "memory://x", "s3://bucket"),
    ]
    check = TypeAdapter(pretrain.Place)
    for place in accepted:
        check.validate_python(place)
        jsonschema.validate({"data": place, "evaluation_data": place}, schema)
    for place in (LEAK, f"https://me:{SECRET}@host", f"ftp://:{SECRET}@host/x"):
        with pytest.raises(ValidationError):
            check.validate_python(place)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"data": place}, schema)


@pytest.mark.parametrize("data", [f"https://me:{SECRET}@host", f"https://host/x?token={SECRET}", f"s3://{SECRET}@b"])
def test_the_flow_run_s_name_does_not_have_them(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flow_run = SimpleNamespace(name="gorgeous-dingo", parameters={"recipe": "biomed", "data": data})
    monkeypatch.setattr(pretrain, "runtime", SimpleNamespace(flow_run=flow_run))
    assert pretrain.run_name() == "biomed+redacted gorgeous-dingo"
    flow_run.parameters["data"] = "s3://bucket/notes"
    assert pretrain.run_name() == "biomed+notes gorgeous-dingo"


def test_the_store_s_url_is_refused_with_its_variable() -> None:
    with pytest.raises(CredentialsError, match=r"^HEADWATER_STORE: .*AWS_ACCESS_KEY_ID") as caught:
        load_settings({"HEADWATER_STORE": LEAK})
    assert SECRET not in str(caught.value)
