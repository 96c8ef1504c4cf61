"""Runs libraries offline, without progress bars, and with their logs in a file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}

_NOISY = ("lm_eval", "lm-eval", "datasets", "transformers", "huggingface_hub", "accelerate", "filelock", "fsspec")


def preload() -> None:
    """Imports all modules of the stage (5 s to 15 s, mostly transformers): call it in a thread in advance.

    Sets the offline variables in this process's environment permanently.
    """
    os.environ.update(OFFLINE)
    import datasets  # noqa: F401
    import lm_eval.evaluator
    import lm_eval.models.huggingface  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM  # noqa: F401


@contextmanager
def offline(log: Path) -> Iterator[None]:
    """Within the context, the hub is disabled, also for libraries that are already imported, and logs go to `log`."""
    before = {key: os.environ.get(key) for key in OFFLINE}
    os.environ.update(OFFLINE)
    import datasets
    import huggingface_hub.constants
    import lm_eval.api.task
    import transformers.utils.logging
    from tqdm import tqdm

    # Both read the environment at import, which may have happened before.
    hub, data = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    bars = datasets.are_progress_bars_disabled(), transformers.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    # lm-eval has no option to disable the progress bar of its prompts.
    lm_eval.api.task.tqdm = partial(tqdm, disable=True)
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in _NOISY]
    states = [(item.handlers[:], item.propagate) for item in loggers]
    for item in loggers:
        item.handlers, item.propagate = [handler], False
    try:
        yield
    finally:
        for item, (handlers, propagate) in zip(loggers, states, strict=True):
            item.handlers, item.propagate = handlers, propagate
        handler.close()
        lm_eval.api.task.tqdm = tqdm
        if not bars[0]:
            datasets.enable_progress_bars()
        if bars[1]:
            transformers.utils.logging.enable_progress_bar()
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = hub, data
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
