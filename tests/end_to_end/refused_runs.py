"""Runs the flow with one set of parameters after the other; prints the ids of its runs in Prefect.

    python refused_runs.py '[{"recipe": "biomet"}, ...]'

Every one is to fail; one that does not is an error.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from infra.settings import apply_environment, load_settings


def main(refused: list[dict[str, Any]]) -> None:
    """One run each, in this installation's server."""
    apply_environment(load_settings())
    from flows.pretrain import pretrain

    runs = []
    for parameters in refused:
        state = pretrain(**parameters, return_state=True)
        assert state.is_failed(), (parameters, state)
        runs.append(str(state.state_details.flow_run_id))
    print(json.dumps(runs))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
