"""What executors have in common: what ranks share, errors that travel, and the folder that all of them see."""

from __future__ import annotations

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from stages.corpus import CorpusConfig
from stages.corpus.execution.executor import Shared, picklable, work_folder
from stages.store import ArtifactWriter, ConfigError, HeadwaterError, InputError, Store, StoreError
from tests.stages.corpus.execution.executor_steps import OddError


def test_ranks_share_what_is_marked_as_shared():
    shared = Shared([["a"], ["b"]])
    assert deepcopy({"x": shared})["x"] is shared
    again = pickle.loads(pickle.dumps(shared))
    assert type(again) is Shared and again == shared


def test_picklable_errors():
    error = InputError("x")
    assert picklable(error) is error
    assert str(picklable(OddError("odd", 7))) == "corpus: OddError: odd 7"
    held = ValueError(lambda: None)  # a lambda cannot be pickled
    assert type(picklable(held)) is HeadwaterError


def _writer(root: str | Path) -> ArtifactWriter:
    return ArtifactWriter(Store(root), "corpus/0123456789abcdef", "corpus", 1, "0" * 64, {}, {})


def _config(**fields: Any) -> CorpusConfig:
    return CorpusConfig.model_validate({"sources": {"a": {"location": "x"}}, **fields})


def test_work_folder_is_the_writers_own_or_below_scratch(tmp_path: Path):
    writer = _writer(tmp_path / "store")
    with work_folder(_config(executor="ray"), writer) as folder:
        assert folder.is_dir() and folder.is_relative_to(tmp_path / "store")
    scratch = tmp_path / "new/scratch"
    config = _config(scratch=str(scratch))
    with pytest.raises(ValueError), work_folder(config, writer) as folder:
        assert folder.is_dir() and folder.is_relative_to(scratch)
        (folder / "left").touch()
        raise ValueError
    assert not list(scratch.iterdir())
    killed = folder / "deep"
    killed.mkdir(parents=True)
    with work_folder(config, writer) as folder:
        assert not killed.exists() and not list(folder.iterdir())
    assert not list(scratch.iterdir())
    scratch.rmdir()
    scratch.touch()
    with pytest.raises(StoreError, match=r"corpus\.scratch"), work_folder(config, writer):
        pass


def test_scratch_must_be_named_where_the_store_is_no_folder():
    writer = _writer("memory://store")
    with work_folder(_config(), writer) as folder:
        assert folder.is_dir()
    with pytest.raises(ConfigError, match=r"set corpus\.scratch"), work_folder(_config(executor="ray"), writer):
        pass
    with pytest.raises(ConfigError, match="must be a folder"), work_folder(_config(scratch="s3://x/y"), writer):
        pass
    writer.discard()
