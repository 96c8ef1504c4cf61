"""A folder of this machine: links are followed once, and nothing is opened that is not a regular file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from stages.corpus import list_files
from stages.corpus.reading import walk as walking
from stages.corpus.reading.walk import walk
from stages.store import InputError


def write(path: Path, text: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def walked(root: Path) -> tuple[set[str], dict[str, str]]:
    files, unread = walk(str(root))
    assert len(set(files)) == len(files)
    return set(files), {name: reason for reason, name in unread}


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "deep" / "a.txt")
    write(tmp_path / "in" / "sub" / "b.txt")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "sub" / "one.txt").symlink_to(tmp_path / "elsewhere" / "deep" / "a.txt")
    (tmp_path / "in" / "chain").symlink_to("linked")
    files, unread = walked(tmp_path / "in")
    assert files == {"chain/deep/a.txt", "sub/b.txt", "sub/one.txt"}
    assert unread == {"linked/": "link to a folder that is read already"}
    listing = list_files(tmp_path / "in")
    assert listing.open("chain/deep/a.txt").read() == b"text"
    (tmp_path / "door").symlink_to(tmp_path / "in")
    assert list_files(tmp_path / "door").digest == listing.digest


def test_a_folder_is_read_once_under_its_own_name(tmp_path: Path) -> None:
    write(tmp_path / "z" / "a.txt")
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "z" / "up").symlink_to("..")
    (tmp_path / "z" / "here").symlink_to(".")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "out").symlink_to("/")  # the whole machine lies above
    assert walked(tmp_path) == (
        {"z/a.txt"},
        {
            "a/": "link to a folder that is read already",
            "z/up/": "link to a folder that it lies in",
            "z/here/": "link to a folder that it lies in",
            "y/out/": "link to a folder that it lies in",
        },
    )
    assert walked(tmp_path / "z")[0] == {"a.txt"}, "a loop is one wherever the walk begins"


def test_folders_that_link_to_one_another_are_read_once_each(tmp_path: Path) -> None:
    for name in "abcdefgh":
        write(tmp_path / "out" / name / "x.txt")
        for other in "abcdefgh":
            (tmp_path / "out" / name / f"to-{other}").symlink_to(tmp_path / "out" / other)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "first").symlink_to(tmp_path / "out" / "a")
    assert len(walked(tmp_path / "in")[0]) == 8


def test_what_is_no_regular_file_is_named_and_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "null.txt").symlink_to("/dev/null")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    (tmp_path / "self.txt").symlink_to("self.txt")
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.txt")
        files, unread = walked(tmp_path)
    assert files == {"a.txt"}
    assert unread == {
        "pipe.txt": "named pipe, not a regular file",
        "null.txt": "device, not a regular file",
        "gone.txt": "broken link",
        "self.txt": "link loop",
        "socket.txt": "socket, not a regular file",
    }
    with pytest.raises(InputError, match="is a named pipe"):
        list_files(tmp_path / "pipe.txt")


def test_hidden_and_foreign_entries_are_named_without_looking_inside(tmp_path: Path) -> None:
    for name in (".git/x.txt", "a/.hidden", "a/__MACOSX/b.txt", "~$report.docx", "Thumbs.db", "a/c.txt"):
        write(tmp_path / name)
    write(tmp_path / os.fsdecode(b"caf\xe9.txt"))
    files, unread = walked(tmp_path)
    assert files == {"a/c.txt"}
    assert {name for name, reason in unread.items() if reason == "hidden"} == {".git/", "a/.hidden"}
    system = {name for name, reason in unread.items() if "operating system" in reason}
    assert system == {"a/__MACOSX/", "~$report.docx", "Thumbs.db"}
    assert unread[os.fsdecode(b"caf\xe9.txt")] == "name is not UTF-8"


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "open" / "a.txt")
    write(tmp_path / "closed" / "b.txt")
    real = os.listdir

    def refuse(path: str) -> list[str]:  # tests may run as root, who may read everything
        if path.rstrip("/").endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(walking.os, "listdir", refuse)
    assert walked(tmp_path) == ({"open/a.txt"}, {"closed/": "no permission to read"})
    with pytest.raises(InputError, match="cannot be listed"):
        list_files(tmp_path / "closed")


def test_a_link_that_vanishes_during_the_walk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in" / "a.txt")
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    real = os.path.realpath

    def vanish(path: str) -> str:
        (tmp_path / "in" / "link").unlink(missing_ok=True)
        return real(path)

    monkeypatch.setattr(walking.os.path, "realpath", vanish)
    assert walked(tmp_path / "in") == ({"a.txt"}, {"link/": "broken link"})
