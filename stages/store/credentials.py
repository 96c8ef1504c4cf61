"""Credentials in locations: found, so that they are refused before anything is written.

A location goes into manifests, events, reports, logs and Prefect's database, which many people may read and which are
kept. So a URL must not have a password, a token or a signature in it; each protocol has another place for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from stages.store.errors import ConfigError

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,30}://"
_URL = re.compile(_SCHEME)
_CHAIN = re.compile(rf"::(?={_SCHEME})")
_AUTHORITY = re.compile(r"[^/?#]*")
_HOST_AND_PORT = re.compile(r"\[.*\](:\d*)?|[^:]*(:\d*)?")
_PARAMETER = re.compile(r"[?&;#]([^?&;#=]+)=([^&;#]*)")
_NO_LETTER_OR_DIGIT = re.compile(r"[^a-z0-9]")

_LOCAL = frozenset({"file", "local", "memory", "sample", "zip", "tar", "libarchive", "dir"})
"""Protocols without credentials, in whose names `@` and `?` are characters like others."""
_REVISIONS = frozenset({"github", "git"})
"""Protocols that write `owner:repository@revision`."""
_USERS = frozenset({"http", "https", "webdav", "webdavs", "s3", "s3a", "gs", "gcs", "hf"})
"""Protocols where a user without a password is a token or an access key; elsewhere it may be a name (`sftp://me@host`),
or a container (`abfs://container@account`)."""

_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs"})
"""Protocols whose URLs have a bucket's name in place of a host, so no port."""

_PARTS = (
    "signature",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "credential",
    "apikey",
    "accesskey",
    "delegation",
    "hmac",
)
_PARTS_OF_KEYS = (
    "accountkey",
    "sharedkey",
    "privatekey",
    "subscriptionkey",
    "authkey",
    "sessionkey",
    "bearer",
    "delegation",
)
_NAMES = frozenset(
    {"sig", "sas", "key", "auth", "authorization", "pwd", "pw", "pass", "jwt", "cred", "pat", "otp", "sid", "sessionid"}
)
"""Names of query parameters, in lower case without other characters than letters and digits."""

_PASSWORDS = frozenset({"password", "passwd", "pwd", "pw", "pass", "passphrase"})
"""Those whose value is a secret however short it is."""
_SECRET_CHARACTERS = 8
"""Values of other parameters are secrets from this length on."""

_S3 = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or a profile of ~/.aws/credentials in "
    "AWS_PROFILE or storage.profile"
)
_GOOGLE = "set GOOGLE_APPLICATION_CREDENTIALS in the environment to the file with the key"
_AZURE = "set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN in the environment"
_HTTP = (
    'write user and password into ~/.netrc and set FSSPEC_HTTPS=\'{"client_kwargs": {"trust_env": true}}\' in the '
    "environment; what a signed URL leads to, download first"
)
_SSH = "use a key of ~/.ssh or ssh-agent"
_REMEDIES = {
    **dict.fromkeys(("s3", "s3a"), _S3),
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
    **dict.fromkeys(("az", "abfs", "abfss", "adl", "wasb", "wasbs"), _AZURE),
    **dict.fromkeys(("http", "https"), _HTTP),
    **dict.fromkeys(("sftp", "ssh"), _SSH),
    "hf": "set HF_TOKEN in the environment",
}


class CredentialsError(ConfigError):
    """A location has credentials in it."""


class Credentials(NamedTuple):
    """What was found in a location, without its value."""

    kind: str
    remedy: str
    """Where credentials of this protocol belong."""


def find_credentials(location: str) -> Credentials | None:
    """The credentials that a location has in it, if any.

    Looks at user and password, and at query parameters whose names say key, token, secret, signature and the like, in
    every URL of a chain (`simplecache::https://...`), also percent-encoded.
    """
    for text in _decoded(location):
        if "://" not in text:
            continue
        for part in _CHAIN.split(text):
            for url in _URL.finditer(part):
                protocol, rest = url[0][:-3].lower().rpartition("+")[2], part[url.end() :]
                if protocol not in _LOCAL and (kind := _in_authority(protocol, rest) or _in_parameters(rest)):
                    return Credentials(kind, _remedy(protocol))
    return None


def refuse_credentials(where: str, value: Any) -> None:
    """Refuses a location, or any JSON value with locations in it, that has credentials.

    Args:
        where: the setting or parameter, for the message.

    Raises:
        CredentialsError: naming the setting and where credentials belong. The message does not repeat them.
    """
    for path, text in _strings(where, value):
        if found := find_credentials(text):
            raise CredentialsError(
                f"{path}: the location has {found.kind} in it, and locations are written to manifests, logs and "
                f"Prefect's database; remove it, and {found.remedy}"
            )


def redact(text: str) -> str:
    """`text`, without what comes after the protocol if that has credentials: for names that are made of a location."""
    if find_credentials(text) is None:
        return text
    return f"{text.partition('://')[0]}://redacted" if "://" in text else "redacted"


def _in_authority(protocol: str, rest: str) -> str | None:
    """Credentials in what comes after `://`."""
    found = _AUTHORITY.match(rest)
    authority = found[0] if found else ""
    user, at, _ = authority.rpartition("@")
    has_port = _HOST_AND_PORT.fullmatch(authority) and not (protocol in _BUCKETS and ":" in authority)
    if not at and not has_port and not authority.startswith("arn:"):
        # No port follows the colon, so a password does, which has a `/`, `?` or `#` in it.
        user, at, _ = rest.rpartition("@")
    if not at or protocol in _REVISIONS:
        return None
    name, colon, password = user.partition(":")
    if colon and password:
        return "a user and a password"
    return "a user or a token before the @" if name and protocol in _USERS else None


def _in_parameters(rest: str) -> str | None:
    """Credentials in the query or the fragment of a URL."""
    for parameter in _PARAMETER.finditer(rest):
        name = _NO_LETTER_OR_DIGIT.sub("", parameter[1].lower())
        secret = name in _NAMES or any(part in name for part in (*_PARTS, *_PARTS_OF_KEYS))
        # A short value of a name that only contains such a word is none: `tokens=1000`, `key=genes`.
        value = parameter[2].strip("* ")
        if secret and value and (name in _PASSWORDS or len(value) >= _SECRET_CHARACTERS):
            return f"the query parameter {parameter[1][:40]!r}"
    return None


def _remedy(protocol: str) -> str:
    general = f"write it into fsspec's configuration (~/.config/fsspec/*.json, or FSSPEC_{protocol.upper()})"
    return _REMEDIES.get(protocol, general)


def _decoded(location: str) -> Iterator[str]:
    """The location as it is, and with percent-encoding undone as often as some clients do."""
    for _ in range(3):
        yield location
        location, before = unquote(location), location
        if location == before:
            return


def _strings(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every string of a JSON value, with its path. Not recursive: the depth is not ours to trust."""
    left: list[tuple[str, Any]] = [(where, value)]
    while left:
        path, item = left.pop()
        if isinstance(item, str):
            yield path, item
        elif isinstance(item, dict):
            for key, entry in item.items():
                yield path, str(key)
                left.append((f"{path}.{key}" if path else str(key), entry))
        elif isinstance(item, list | tuple):
            left += [(f"{path}.{number}", entry) for number, entry in enumerate(item)]
