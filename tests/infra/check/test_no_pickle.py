"""What the lint against pickle refuses, and what it lets through."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.check.no_pickle import find_pickles, main


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import numpy, pickle as p",
        "from pickle import loads",
        "def f():\n    import pickle",
        "import importlib\nimportlib.import_module('pickle')",
        "import joblib",
        "import dill",
        "from cloudpickle import dumps",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.save({}, 'x')",
        "from torch import load as read\nread('x')",
        "import torch.distributed.checkpoint as dcp",
        "from torch.distributed import checkpoint",
        "from torch.distributed.checkpoint.state_dict import get_state_dict",
        "import torch\ntorch.distributed.checkpoint.save({})",
        "import torch.distributed as dist\ndist.all_gather_object([], 1)",
        "group.broadcast_object(1)",
        "from torch.distributed import broadcast_object_list",
        "import numpy as np\nnp.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nnp.load('x', allow_pickle=wanted)",
        "from numpy import load\nload('x')",
        "import numpy as np\nread = np.load",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import yaml\nyaml.unsafe_load(text)",
        "import pandas as pd\npd.read_pickle('x')",
    ],
)
def test_each_way_to_a_pickle_is_refused_by_line(source: str) -> None:
    found = [*find_pickles(source)]
    assert found and found[-1].startswith(f"{len(source.splitlines())}: ") and "refused" in found[-1]


@pytest.mark.parametrize(
    "source",
    [
        "import torch\nnumbers = torch.empty(3)\nmodel.load(path)\nsafe.save(path)",
        "import numpy as np\nnp.load('x', mmap_mode='r', allow_pickle=False)",
        "import yaml\nyaml.safe_load(text)\nyaml.load(text, yaml.SafeLoader)\nyaml.load(text, Loader=yaml.CSafeLoader)",
        "'''import pickle; torch.load'''  # np.load(",
        "from .pickle_free import check",
        "import json\njson.load(file)",
        "ranks.all_gather_json(1)",
    ],
)
def test_other_calls_of_equal_names_pass(source: str) -> None:
    assert [*find_pickles(source)] == []


def test_the_command_names_file_and_line_and_this_code_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import json\nimport pickle\n")
    assert main([str(bad)]) == 1
    assert f"{bad}:2: pickle is refused" in capsys.readouterr().out
    assert main([]) == 0
