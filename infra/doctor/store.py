"""Check of the store: reachable, writable, refuses to create an object twice, and has the right time.

The probe runs in a subprocess (`python -m infra.doctor.store URL`): if it hangs it can be killed, and its short
timeouts affect nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass

from infra.doctor.result import Check, Run, nearest_existing
from stages.store import Store

FOLDER = ".doctor"
"""Folder in the store below which probes are created and removed."""

PROBE_TIMEOUT_SECONDS = 10
"""A store that takes longer for a few small requests is too slow to work with."""

TIMEOUT_SECONDS = 20.0
"""After this the subprocess is killed, and its object may remain."""

MAX_SKEW_SECONDS = 30.0
"""Half of the time after which a lease is stale (`stages.store.lease`)."""

_UNREACHED = "make sure that it runs and is reachable; AWS_ENDPOINT_URL sets the endpoint of your own object store"
_LEFTOVER_SECONDS = 3600.0
"""A probe of this age was left by a doctor that was killed."""


@dataclass(frozen=True)
class Probe:
    """What the store did with an object of ours."""

    url: str
    error: str = ""
    """Why the probe failed; empty: it did not."""
    exclusive: bool = True
    """A second creation under the same name was refused."""
    skew: float | None = None
    """Seconds by which the store's clock is ahead of this machine's; None: unknown."""
    note: str = ""


def probe(url: str) -> Probe:
    """Creates, reads and removes an object. It leaves nothing behind, and does not create a store that is missing."""
    try:
        store = Store(url)
        if store.is_local and not os.path.isdir(store.root):
            parent = nearest_existing(store.root)
            if not os.path.isdir(parent):
                return Probe(url, f"{parent} is a file")
            # Not in the store's own folder, which another process might be about to create.
            temporary = tempfile.mkdtemp(prefix=".headwater-doctor-", dir=parent)
            try:
                return _probe(Store(temporary), url, f"does not exist yet; probed in {parent}")
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return _probe(store, store.url, "")
    except Exception as error:  # object stores' clients have errors of their own: no credentials, wrong region
        return Probe(url, _message(error))


def _probe(store: Store, url: str, note: str) -> Probe:
    _remove_leftovers(store)
    name = f"{FOLDER}/{time.time():.0f}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        found = _try(store, url, name, note)
        store.remove(name)
        return found
    except Exception as error:
        message = _message(error)
        try:
            store.remove(name)
        except Exception:  # the first error is the one to report
            message += f"; {name} may remain in the store"
        return Probe(url, message, note=note)
    except KeyboardInterrupt:
        store.remove(name)
        raise
    finally:
        _remove_folder(store)


def _message(error: Exception) -> str:
    """The store's own message, without the advice that our errors add: `interpret` gives it here."""
    return str(error.__cause__ or error) or type(error).__name__


def _try(store: Store, url: str, name: str, note: str) -> Probe:
    data = secrets.token_bytes(16)
    began = time.time()
    if not store.create(name, data):
        return Probe(url, f"{name} is reported to exist, although its name is new", note=note)
    ended = time.time()
    if store.read(name) != data:
        return Probe(url, f"{name} was read back with different bytes than were written", note=note)
    # With different bytes: a store may accept the same bytes as a retry of the first request.
    exclusive = not store.create(name, secrets.token_bytes(16)) and store.read(name) == data
    return Probe(url, exclusive=exclusive, skew=_skew(store, name, began, ended) if exclusive else None, note=note)


def _skew(store: Store, name: str, began: float, ended: float) -> float | None:
    try:
        created = store.fs.modified(store.path(name)).timestamp()
    except (NotImplementedError, AttributeError, KeyError, TypeError):  # not every kind of store has this
        return None
    # It was created between `began` and `ended`, and stores record whole seconds.
    return float(min(0.0, created - (began - 1.0)) + max(0.0, created - (ended + 1.0)))


def _remove_leftovers(store: Store) -> None:
    for name in store.list(FOLDER):
        created = name.removeprefix(f"{FOLDER}/").split("-")[0]
        if created.isdigit() and time.time() - int(created) > _LEFTOVER_SECONDS:
            store.remove(name)


def _remove_folder(store: Store) -> None:
    if store.is_local:
        with contextlib.suppress(OSError):  # it contains the probe of another doctor
            os.rmdir(store.path(FOLDER))


def check_store(url: str, run: Run) -> list[Check]:
    """Probes the store in a subprocess, and interprets the result."""
    done = run([sys.executable, "-m", "infra.doctor.store", url], TIMEOUT_SECONDS)
    if done.code is None:
        return interpret(Probe(url, f"it {done.error}"))
    if done.code != 0:
        return interpret(
            Probe(url, (done.error.strip().splitlines() or [f"the probe exited with code {done.code}"])[-1])
        )
    return interpret(Probe(**json.loads(done.output.strip().splitlines()[-1])))


def interpret(found: Probe) -> list[Check]:
    """The results that follow from a probe."""
    where = f"{found.url} ({found.note})" if found.note else found.url
    if found.error:
        return [Check("store", "problem", f"{where}: {found.error}", _remedy(found))]
    if not found.exclusive:
        remedy = "use a store that refuses it (a local disk; S3 with `If-None-Match`): two runs may write one artifact"
        return [Check("store", "problem", f"{where} lets an object be created twice: leases are not exclusive", remedy)]
    checks = [Check("store", "ok", f"{where}: create, read, exclusive creation and removal work")]
    if found.skew is None:
        return checks
    if abs(found.skew) > MAX_SKEW_SECONDS:
        skew = f"{abs(found.skew):.0f} s {'ahead of' if found.skew > 0 else 'behind'} this machine's"
        remedy = "synchronise both clocks (chrony, systemd-timesyncd): leases and signed requests depend on them"
        return [*checks, Check("store clock", "warning", skew, remedy)]
    return [*checks, Check("store clock", "ok", f"within {MAX_SKEW_SECONDS:.0f} s of this machine's")]


def _remedy(found: Probe) -> str:
    error = found.error.lower()
    if "relative path" in error:
        return "set HEADWATER_STORE to an absolute path or a URL"
    if "protocol" in error or "install" in error:
        return "use s3://, file:// or another protocol of fsspec, or install the package that it needs"
    if "://" not in found.url or found.url.startswith(("file:", "local:")):
        return "make the folder writable (`chown`, mount), on a file system with hard links, or set HEADWATER_STORE"
    if any(word in error for word in ("connect", "timed out", "timeout", "resolve", "within")):
        return _UNREACHED
    if any(
        word in error for word in ("credential", "forbidden", "denied", "signature", "access key", "expired", "403")
    ):
        return (
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (or AWS_PROFILE): they must allow to read, write and delete"
        )
    if any(word in error for word in ("bucket", "not found", "404")):
        return "create the bucket, or set another one in HEADWATER_STORE"
    return _UNREACHED


def main() -> None:
    """Probes the store named on the command line, and prints the result as JSON."""
    _set_short_timeouts()
    # It raises an exception, so that the object is removed.
    signal.signal(signal.SIGALRM, _raise_timeout)
    signal.alarm(PROBE_TIMEOUT_SECONDS)
    print(json.dumps(asdict(probe(sys.argv[1]))), flush=True)
    # A client's threads may still wait for a name server, and a normal exit would wait for them.
    os._exit(0)


def _raise_timeout(number: int, frame: object) -> None:
    raise TimeoutError(f"a few small requests did not end within {PROBE_TIMEOUT_SECONDS} s")


def _set_short_timeouts() -> None:
    """For the S3 client of this process, without retries: a diagnosis must not take minutes."""
    import fsspec.config

    options = fsspec.config.conf.setdefault("s3", {}).setdefault("config_kwargs", {})
    options.update({"connect_timeout": 3, "read_timeout": 3, "retries": {"max_attempts": 0}})
    with contextlib.suppress(ImportError):
        import s3fs

        s3fs.S3FileSystem.retries = 1


if __name__ == "__main__":
    main()
