"""Files of an installed Python package, by `package://DISTRIBUTION/PATH`. The package is not imported.

Some models are published as packages; set-up installs those of `infra/requirements/models.txt`.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from stages.store.errors import ConfigError, InputError

SCHEME = "package://"
_MODELS = Path(__file__).parents[1] / "infra" / "requirements" / "models.txt"
_LOCATION = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)/(?P<path>[^\\]+)")


def find_in_package(setting: str, location: str) -> str:
    """The absolute path of a file or a folder of a package.

    Args:
        setting: the key in the recipe, for messages.
        location: `package://DISTRIBUTION/PATH`, the path as in the package's list of files (RECORD).

    Raises:
        ConfigError: the location is not written so.
        InputError: the package is not installed, lists no such file, or has a link there that leads out of it.
    """
    found = _LOCATION.fullmatch(location.removeprefix(SCHEME))
    parts = found["path"].split("/") if found else [""]
    if found is None or not found["path"].isprintable() or any(part in ("", ".", "..") for part in parts):
        raise ConfigError(f"{setting}: {location!r}: write it as {SCHEME}DISTRIBUTION/PATH, without '.' and '..'")
    name, path = found["name"], found["path"]
    try:
        package = distribution(name)
    except PackageNotFoundError:
        raise InputError(
            f"{setting}: the package {name} is not installed in {sys.prefix}; run `{_install_command(name)}`"
        ) from None
    files = [file for file in package.files or () if _is_below(file.as_posix(), path)]
    if not files:
        near = sorted(file.as_posix() for file in package.files or () if ".dist-info/" not in file.as_posix())
        raise InputError(
            f"{setting}: {name} {package.version} lists no {path}; its files are: {', '.join(near[:5]) or 'none'}"
        )
    _refuse_links(setting, package, path, len(files) > 1 or files[0].as_posix() != path)
    return str(package.locate_file(path))


def _is_below(file: str, path: str) -> bool:
    return file == path or file.startswith(f"{path}/")


def _refuse_links(setting: str, package: Distribution, path: str, is_folder: bool) -> None:
    """Refuses a path at or below which something, listed or not, is elsewhere than its name says; or is missing."""
    root, top = Path(str(package.locate_file(""))).resolve(), Path(str(package.locate_file(path)))
    for file in (top, *(top.rglob("*") if is_folder else ())):
        if file.resolve() != root / file.relative_to(package.locate_file("")):
            raise InputError(f"{setting}: {file} is a link, or below one; name the place that it leads to")
    if not (top.is_dir() if is_folder else top.is_file()):
        raise InputError(
            f"{setting}: {top} is listed by {package.name} and missing; run `{_install_command(package.name)}`"
        )


def _install_command(name: str) -> str:
    """The command that installs a package: in the version and with the digest of `infra/requirements/models.txt`."""
    pip = f"{sys.executable} -m pip install --no-deps"
    try:
        pinned = re.findall(r"^([A-Za-z0-9._-]+)==", _MODELS.read_text(), re.MULTILINE)
    except OSError:  # an installation without the repository
        pinned = []
    if _normal(name) in map(_normal, pinned):
        return f"{pip} --require-hashes -r {_MODELS}"
    return f"{pip} {name}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
