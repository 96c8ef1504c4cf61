"""Credentials in locations: found in every form that a client would use, and never repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus import list_files
from stages.store import ArtifactWriter, Config, Stage, Store, runtime_field
from stages.store.credentials import CredentialsError, find_credentials, redact, refuse_credentials
from tests.support import examples

SECRET = "wJalrXUtnFEMI-K7MDENG"

LEAKS = {
    "user and password": (f"https://me:{SECRET}@host.org/data", "a user and a password", "netrc"),
    "s3": (f"s3://AKIAEXAMPLE:{SECRET}@bucket/data", "a user and a password", "AWS_ACCESS_KEY_ID"),
    "sftp": (f"sftp://me:{SECRET}@host/data", "a user and a password", "ssh-agent"),
    "ftp": (f"ftp://me:{SECRET}@host/data", "a user and a password", "FSSPEC_FTP"),
    "token alone": (f"https://{SECRET}@host.org/data", "a token before the @", "netrc"),
    "access key alone": (f"s3://{SECRET}@bucket/data", "a token before the @", "AWS_ACCESS_KEY_ID"),
    "password alone": (f"ftp://:{SECRET}@host/data", "a user and a password", "FSSPEC_FTP"),
    "slash in a password": (f"https://me:a/{SECRET}@host.org/data", "a user and a password", "netrc"),
    "@ in a password": (f"https://me:a@{SECRET}@host.org/data", "a user and a password", "netrc"),
    "encoded": (f"sftp://me%3A{SECRET}%40host/data", "a user and a password", "ssh-agent"),
    "encoded twice": (f"https%253A%252F%252Fme:{SECRET}@host/data", "a user and a password", "netrc"),
    "upper case": (f"HTTPS://me:{SECRET}@host.org/data", "a user and a password", "netrc"),
    "presigned": (
        f"https://b.s3.amazonaws.com/k?X-Amz-Date=1&X-Amz-Signature={SECRET}",
        "'X-Amz-Signature'",
        "download",
    ),
    "security token": (
        f"https://b.s3.amazonaws.com/k?X-Amz-Security-Token={SECRET}",
        "'X-Amz-Security-Token'",
        "netrc",
    ),
    "old presigned": (f"https://b.s3.amazonaws.com/k?AWSAccessKeyId={SECRET}", "'AWSAccessKeyId'", "netrc"),
    "google": (f"https://storage.googleapis.com/b/k?X-Goog-Credential={SECRET}", "'X-Goog-Credential'", "netrc"),
    "azure": (f"abfs://box@account.dfs.core.windows.net/k?sv=2024&sig={SECRET}", "'sig'", "AZURE_STORAGE_SAS_TOKEN"),
    "token": (f"https://host.org/data?token={SECRET}", "'token'", "netrc"),
    "api key": (f"https://host.org/data?a=1;api_key={SECRET}", "'api_key'", "netrc"),
    "key": (f"https://host.org/data?Key={SECRET}", "'Key'", "netrc"),
    "fragment": (f"https://host.org/data#access_token={SECRET}", "'access_token'", "netrc"),
    "encoded name": (f"https://host.org/data?%73ig={SECRET}", "'sig'", "netrc"),
    "chained": (f"simplecache::https://me:{SECRET}@host.org/data", "a user and a password", "netrc"),
    "archive": (f"zip://*.csv::s3://AKIA:{SECRET}@bucket/data.zip", "a user and a password", "AWS_ACCESS_KEY_ID"),
    "chained query": (f"filecache::https://host.org/a::b?sas={SECRET}", "'sas'", "netrc"),
    "within a query": (
        f"https://host.org/get?url=https%3A%2F%2Fme%3A{SECRET}%40inner",
        "a user and a password",
        "netrc",
    ),
    "git": (f"git+https://{SECRET}@host.org/repository", "a token before the @", "netrc"),
    "google storage": (f"gs://{SECRET}@bucket/x", "a token before the @", "GOOGLE_APPLICATION_CREDENTIALS"),
    "hub": (f"hf://datasets/owner/set?token={SECRET}", "'token'", "HF_TOKEN"),
    "slash before a secret": (f"s3://AKIAEXAMPLE:/{SECRET}@bucket/x", "a user and a password", "AWS_ACCESS_KEY_ID"),
    "number before a secret": (f"s3://AKIAEXAMPLE:7/{SECRET}@bucket/x", "a user and a password", "AWS_ACCESS_KEY_ID"),
    "hub token": (f"hf://{SECRET}@datasets/x", "a token before the @", "HF_TOKEN"),
    "delegation": (f"webhdfs://namenode:9870/x?delegation={SECRET}", "'delegation'", "FSSPEC_WEBHDFS"),
    "short password": ("https://host.org/data?password=abc1", "'password'", "netrc"),
    "key=value before": (f"corpus.sources.a.location=https://me:{SECRET}@host.org", "a user and a password", "netrc"),
}
PLAIN = [
    *("", "/data/me:secret@host/token=x", "relative/a:b@c", "/data/x?token=abc", "owner/name@revision", "é/日本語"),
    *(
        "file:///data/me:secret@host",
        "memory://x/a:b@c?token=d",
        "sample://documents/notes",
        "s3://bucket/a:b@c/d.jsonl",
    ),
    *("s3://bucket/x::y@z", "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/mine/a@b", "https://host.org:8443/a@b"),
    *(
        "https://host.org/data?version=3&format=jsonl",
        "https://host.org/?token=",
        "https://[::1]:80/x@y",
        "http://h:80",
    ),
    *("sftp://me@host/data", "hdfs://me@namenode:8020/data", "abfs://container@account.dfs.core.windows.net/data"),
    *("github://owner:repository@main/data", "hf://datasets/owner/set@main/x", "oci://bucket@namespace/x"),
    *("https://host.org/x?key=genes", "https://host.org/x?tokens=1000", "https://host.org/x?tokenizer=bpe"),
    *("s3://bucket/a#key=1", "gs://bucket/year=2024&key=5/x", "https://host.org/x?secretary=1"),
    *("simplecache::s3://bucket/x", "zip://a.csv::s3://bucket/x@y.zip", "https://example.org/*?token=*"),
]


@pytest.mark.parametrize("case", LEAKS)
def test_credentials_are_found_and_not_repeated(case: str) -> None:
    location, kind, remedy = LEAKS[case]
    with pytest.raises(CredentialsError) as caught:
        refuse_credentials("data", location)
    message = str(caught.value)
    assert message.startswith("data: the location has ") and kind in message and remedy in message
    assert SECRET not in message and SECRET not in redact(location)
    assert "host" not in redact(location)


@pytest.mark.parametrize("location", PLAIN)
def test_other_locations_are_accepted(location: str) -> None:
    assert find_credentials(location) is None
    assert redact(location) == location


@examples(50)
@given(
    st.sampled_from(["https", "s3", "ftp", "sftp", "simplecache::https"]),
    st.text(alphabet="abc:@/?#%!&=. é", min_size=1, max_size=12),
)
def test_no_character_of_a_password_hides_it(protocol: str, password: str) -> None:
    assert find_credentials(f"{protocol}://me:x{password}x@host/data") is not None


def test_every_text_of_a_config_is_looked_at() -> None:
    leak = LEAKS["s3"][0]
    for value, path in (
        ({"a": [{"b": leak}]}, "config.a.0.b"),
        ({leak: 1}, "config"),
        ([1, None, [True, leak]], "config.2.1"),
    ):
        with pytest.raises(CredentialsError, match=rf"^{path}: ") as caught:
            refuse_credentials("config", value)
        assert SECRET not in str(caught.value)
    deep: Any = leak
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CredentialsError):
        refuse_credentials("", deep)


class Toy(Config):
    """A stage with a location."""

    location: str = runtime_field("", description="Where it reads.")


def test_no_stage_writes_a_config_with_credentials(tmp_path: Path) -> None:
    def build(config: Toy, inputs: Any, writer: ArtifactWriter) -> None:
        writer.put("a.txt", b"a")

    stage, store = Stage("toy", 1, build), Store(tmp_path / "store")
    with pytest.raises(CredentialsError, match=r"^toy\.location: .*AWS_ACCESS_KEY_ID"):
        stage.run(Toy(location=LEAKS["s3"][0]), {}, store)
    assert list(tmp_path.rglob("*")) == []
    assert (
        stage.run(Toy(location="s3://bucket/data"), {}, store).manifest.resolved_config["location"]
        == "s3://bucket/data"
    )


def test_a_store_and_a_listing_refuse_them_before_they_are_opened() -> None:
    for open_location in (Store, list_files):
        for location, _, remedy in LEAKS.values():
            with pytest.raises(CredentialsError, match=remedy) as caught:
                open_location(location)
            assert SECRET not in str(caught.value)
