"""A GGUF file becomes a model's folder of the usual form: config.json, SafeTensors weights, tokenizer.

transformers reads the file: it makes numbers of the blocks, undoes llama.cpp's order of rows and builds the tokenizer.
Before, the header is read within bounds (`gguf_header.py`), and what transformers would make another model of is
refused (`gguf_check.py`). Nothing in the file is run: a chat template is text until it is asked for a prompt.

The weights are float32. A quantized number is a scale times a small integer, plus an offset: float32 holds it as
llama.cpp computes it, bfloat16 would round it a second time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.huggingface import WEIGHTS_INDEX, from_config, to_config
from models.weight_files import plan_weight_files, write_weight_file
from stages.base.gguf_check import CLASSES, DIGIT_SPLITS, check, head_size
from stages.base.gguf_header import Header, read_header

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".gguf"
_OF_THIS_CALL = ("is_local", "local_files_only")
"""What transformers 5 writes into a tokenizer's settings about how it was loaded."""


def convert(file: Path, folder: Path) -> Header:
    """Writes a folder in Hugging Face's form from a GGUF file. The checks of any base are still to be made on it.

    Args:
        file: it should be alone in its folder, from which transformers would also take other files.
        folder: exists; gets config.json, the weights in float32 and the tokenizer's files.

    Returns:
        The file's header.

    Raises:
        ValueError: the file is damaged, of an architecture, feature or quantization type that is not read, or its
            tokenizer is not a byte-level BPE.
        OSError: the disk is full.
    """
    header = read_header(file)
    check(header)
    with _offline():
        try:
            config, weights, tokenizer = _read(file, header)
        except Exception as error:  # transformers, gguf and tokenizers raise errors of any kind on a damaged file
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
                raise  # of the machine, not of the file
            reason = str(error).strip().split("\n", 1)[0]
            raise ValueError(f"transformers cannot read it ({type(error).__name__}: {reason})") from error
        shape, tokens = from_config(config)
        (folder / "config.json").write_text(json.dumps(to_config(shape, tokens), indent=2) + "\n")
        _write_weights(weights, folder)
        tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    own = {key: value for key, value in settings.items() if key not in _OF_THIS_CALL}
    (folder / "tokenizer_config.json").write_text(json.dumps(own, indent=2, ensure_ascii=False) + "\n")
    return header


def _read(file: Path, header: Header) -> tuple[dict[str, Any], dict[str, Tensor], Any]:
    """Config, weights by Hugging Face's names, and tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    architecture = header.settings["general.architecture"]
    own: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(file.parent, **own)
    if size := head_size(header, architecture):
        config.head_dim = size  # transformers does not take it for every architecture
    model, loaded = AutoModelForCausalLM.from_pretrained(
        file.parent, config=config, dtype=torch.float32, output_loading_info=True, **own
    )
    lost = [*loaded["missing_keys"], *loaded["mismatched_keys"]]
    if lost := sorted(str(name) for name in lost if name != "lm_head.weight"):
        raise ValueError(f"{lost[0]} was not found in it")  # and has random numbers now
    if type(model).__name__ != CLASSES[architecture]:
        raise ValueError(f"it was read as {type(model).__name__}")
    entries = model.config.to_dict() | {"architectures": [CLASSES[architecture]]}
    entries.pop("quantization_config", None)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **own)
    tokenizer.model_max_length = header.settings[f"{architecture}.context_length"]
    if header.text("tokenizer.ggml.pre") in DIGIT_SPLITS:
        _split_digits(tokenizer)
    return entries, weights, tokenizer


def _split_digits(tokenizer: Any) -> None:
    """Puts the splitting of digits before GPT-2's, which transformers leaves out: `a  2` has other ids with it."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    )


def _write_weights(weights: dict[str, Tensor], folder: Path) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    files, index = plan_weight_files(shapes, "float32")
    for file in files:
        write_weight_file(file, shapes, "float32", weights.__getitem__, folder / file.name)
    if index is not None:
        (folder / WEIGHTS_INDEX).write_bytes(index)


@contextmanager
def _offline() -> Iterator[None]:
    """Within the context no hub is asked, also by libraries that are imported already, and no progress bar is drawn."""
    import huggingface_hub.constants
    import transformers.modeling_gguf_pytorch_utils as reader
    from tqdm import tqdm
    from transformers.utils import logging

    before, bars, level = huggingface_hub.constants.HF_HUB_OFFLINE, reader.tqdm, logging.get_verbosity()
    shown = logging.is_progress_bar_enabled()
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    reader.tqdm = partial(tqdm, disable=True)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, reader.tqdm = before, bars
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
