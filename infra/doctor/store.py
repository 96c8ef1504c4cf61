"""The store: reachable, writable, does it refuse to create a name twice, and what time is it there?

The probe runs in a process of its own (`python -m infra.doctor.store URL`): one that hangs in a dead store can be
ended, and what it sets to give up soon is set for nobody else.
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

from infra.doctor.result import Check, Run, existing
from stages.store import Store

FOLDER = ".doctor"
"""Below it probes are made and removed."""

SLOW_SECONDS = 10
"""A store that takes longer for a handful of small requests is not fit for work."""

SECONDS = 20.0
"""After this the probe's process is ended, though its object may stay."""

SKEW_SECONDS = 30.0
"""Half of the time after which a lease counts as dead (`stages.store.lease`)."""

_UNREACHED = "see that it runs and is reached from here; AWS_ENDPOINT_URL names the endpoint of your own object store"
_OLD_SECONDS = 3600.0
"""A probe so old was left by a doctor that was killed."""


@dataclass(frozen=True)
class Probe:
    """What a store did with an object of ours."""

    url: str
    error: str = ""
    """Why it could not be done; empty: it could."""
    exclusive: bool = True
    """A second creation under the same name was refused."""
    skew: float | None = None
    """Seconds by which the store's clock is ahead of this machine's; None: it does not tell."""
    note: str = ""


def probe(url: str) -> Probe:
    """Creates, reads and removes an object; nothing of it stays. A store that is not there yet is not made for it."""
    try:
        store = Store(url)
        if store.is_local and not os.path.isdir(store.root):
            there = existing(store.root)
            if not os.path.isdir(there):
                return Probe(url, f"{there} is a file")
            # Not the store's own folder, made and removed: another process might be about to use it.
            beside = tempfile.mkdtemp(prefix=".headwater-doctor-", dir=there)
            try:
                return _probe(Store(beside), url, f"not there yet; tried in {there}")
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        return _probe(store, store.url, "")
    except Exception as error:  # an object store's client raises errors of its own: no credentials, a wrong region
        return Probe(url, _told(error))


def _probe(store: Store, url: str, note: str) -> Probe:
    _remove_old(store)
    name = f"{FOLDER}/{time.time():.0f}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        found = _try(store, url, name, note)
        store.remove(name)
        return found
    except Exception as error:
        told = _told(error)
        try:
            store.remove(name)
        except Exception:  # what it said first is what is told
            told += f"; {name} may still be there"
        return Probe(url, told, note=note)
    except KeyboardInterrupt:
        store.remove(name)
        raise
    finally:
        _remove_folder(store)


def _told(error: Exception) -> str:
    """What the store said, without the advice that our own errors add: here it is given by `judge`."""
    return str(error.__cause__ or error) or type(error).__name__


def _try(store: Store, url: str, name: str, note: str) -> Probe:
    data = secrets.token_bytes(16)
    began = time.time()
    if not store.create(name, data):
        return Probe(url, f"{name} is said to be there, though its name is new", note=note)
    ended = time.time()
    if store.read(name) != data:
        return Probe(url, f"{name} was read back with other bytes than were written", note=note)
    # Other bytes: a store may take the same ones for its own request, sent again after a lost answer.
    exclusive = not store.create(name, secrets.token_bytes(16)) and store.read(name) == data
    return Probe(url, exclusive=exclusive, skew=_skew(store, name, began, ended) if exclusive else None, note=note)


def _skew(store: Store, name: str, began: float, ended: float) -> float | None:
    try:
        made = store.fs.modified(store.path(name)).timestamp()
    except (NotImplementedError, AttributeError, KeyError, TypeError):  # not every kind of store keeps the time
        return None
    # It was made some time between, and stores keep whole seconds.
    return float(min(0.0, made - (began - 1.0)) + max(0.0, made - (ended + 1.0)))


def _remove_old(store: Store) -> None:
    for name in store.list(FOLDER):
        made = name.removeprefix(f"{FOLDER}/").split("-")[0]
        if made.isdigit() and time.time() - int(made) > _OLD_SECONDS:
            store.remove(name)


def _remove_folder(store: Store) -> None:
    if store.is_local:
        with contextlib.suppress(OSError):  # another doctor's probe is in it
            os.rmdir(store.path(FOLDER))


def look(url: str, run: Run) -> list[Check]:
    """Probes the store in a process of its own and says what that means."""
    done = run([sys.executable, "-m", "infra.doctor.store", url], SECONDS)
    if done.code is None:
        return judge(Probe(url, f"it {done.error}"))
    if done.code != 0:
        return judge(Probe(url, (done.error.strip().splitlines() or [f"the probe ended with {done.code}"])[-1]))
    return judge(Probe(**json.loads(done.output.strip().splitlines()[-1])))


def judge(found: Probe) -> list[Check]:
    """What a probe means."""
    where = f"{found.url} ({found.note})" if found.note else found.url
    if found.error:
        return [Check("store", "problem", f"{where}: {found.error}", _mend(found))]
    if not found.exclusive:
        mend = "use a store that honours it (a local disk; S3 with `If-None-Match`): two runs could write one artifact"
        return [Check("store", "problem", f"{where} lets an object be created twice, so leases do not hold", mend)]
    checks = [Check("store", "ok", f"{where}: created, read, refused a second creation, removed")]
    if found.skew is None:
        return checks
    if abs(found.skew) > SKEW_SECONDS:
        told = f"{abs(found.skew):.0f} s {'ahead of' if found.skew > 0 else 'behind'} this machine's"
        mend = "synchronise both clocks (chrony, systemd-timesyncd): leases and signed requests rest on them"
        return [*checks, Check("store clock", "warning", told, mend)]
    return [*checks, Check("store clock", "ok", f"within {SKEW_SECONDS:.0f} s of this machine's")]


def _mend(found: Probe) -> str:
    error = found.error.lower()
    if "relative path" in error:
        return "set HEADWATER_STORE to an absolute path or a URL"
    if "protocol" in error or "install" in error:
        return "use s3://, file:// or another that fsspec knows, or install what it asks for"
    if "://" not in found.url or found.url.startswith(("file:", "local:")):
        return "make the folder writable (`chown`, mount), on a file system with hard links, or set HEADWATER_STORE"
    if any(word in error for word in ("connect", "timed out", "timeout", "resolve", "within")):
        return _UNREACHED
    if any(
        word in error for word in ("credential", "forbidden", "denied", "signature", "access key", "expired", "403")
    ):
        return (
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) and that they may read, write and delete"
        )
    if any(word in error for word in ("bucket", "not found", "404")):
        return "make the bucket, or name another in HEADWATER_STORE"
    return _UNREACHED


def main() -> None:
    """Probes the store named on the command line and prints what it did as JSON."""
    _give_up_soon()
    # An exception, so that the object is removed on the way out.
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(SLOW_SECONDS)
    print(json.dumps(asdict(probe(sys.argv[1]))), flush=True)
    # A client's threads may still wait for a name server, and Python would wait for them.
    os._exit(0)


def _too_slow(number: int, frame: object) -> None:
    raise TimeoutError(f"a handful of small requests was not done within {SLOW_SECONDS} s")


def _give_up_soon() -> None:
    """A store that does not answer is one that does not answer; retries are for runs that have hours."""
    import fsspec.config

    options = fsspec.config.conf.setdefault("s3", {}).setdefault("config_kwargs", {})
    options.update({"connect_timeout": 3, "read_timeout": 3, "retries": {"max_attempts": 0}})
    with contextlib.suppress(ImportError):
        import s3fs

        s3fs.S3FileSystem.retries = 1


if __name__ == "__main__":
    main()
