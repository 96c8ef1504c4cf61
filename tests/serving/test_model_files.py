"""Names of files in a model folder, and the index of weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import ModelRefusedError
from serving.model_files import check_name, check_weights_index

INDEX = Path("m/model.safetensors.index.json")
PARTS = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "generation_config.json", "model.safetensors", *sorted(PARTS), "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"),
        *("added_tokens.json", "tokenizer.model", "chat_template.jinja", "additional_chat_templates/tool_use.jinja"),
        *("README.md", "LICENSE", "LICENSE.txt", "NOTICE"),
    ],
)
def test_files_of_a_stock_folder_are_accepted(name: str) -> None:
    check_name(Path("m", name), name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        # vllm/transformers_utils/config.py: with both, the config is read from params.json, in Mistral's format
        ("params.json", "Mistral's format"),
        ("consolidated.safetensors", "Mistral's format"),
        ("consolidated-00001.safetensors", "not a known file"),
        # vllm/tokenizers: another tokenizer
        ("tekken.json", "Mistral's format"),
        ("tokenizer.model.v3", "files are refused"),
        ("tiktoken.model", "not a known file"),
        # vllm/transformers_utils/config.py and the quantization methods' get_config_filenames
        ("hf_quant_config.json", "quantized"),
        ("quantize_config.json", "quantized"),
        ("my_quant_config.json", "not a known file"),  # vLLM takes every name with such an end
        # get_pooling_config and get_sentence_transformer_tokenizer_config: read the folders named in modules.json
        ("modules.json", "sentence encoder"),
        ("sentence_bert_config.json", "sentence encoder"),
        ("config_sentence_transformers.json", "sentence encoder"),
        ("1_Pooling/config.json", "not a known file"),
        # vllm/transformers_utils/processor.py
        ("preprocessor_config.json", "images"),
        ("processor_config.json", "images"),
        ("video_preprocessor_config.json", "images"),
        ("chat_template.json", "images"),
        # vllm/model_executor/model_loader/weight_utils.py and model_arch_config_convertor.py
        ("sparse_attention_config.json", "not a known file"),
        ("joint_head_config.json", "not a known file"),
        # transformers loads an adapter's base model from elsewhere
        ("adapter_config.json", "adapters are not served"),
        ("adapter_model.safetensors", "adapters are not served"),
        ("config.4.0.0.json", "not a known file"),  # transformers takes the newest config below its own version
        ("tokenizer.5.0.0.json", "not a known file"),
        ("sub/config.json", "not a known file"),
        ("additional_chat_templates/deep/x.jinja", "not a known file"),
        ("dtypes.json", "not a known file"),
        ("modeling_x.py", r"\.py files are refused"),
        (".env", "not a known file"),
    ],
)
def test_files_that_change_what_is_loaded_are_refused(name: str, words: str) -> None:
    with pytest.raises(ModelRefusedError, match=f"m/{name}.*{words}"):
        check_name(Path("m", name), name)


def test_an_index_that_names_the_files_of_the_folder_is_accepted() -> None:
    first, second = sorted(PARTS)
    check_weights_index(
        INDEX, {"metadata": {"total_size": 4}, "weight_map": {"a": first, "b": second, "c": second}}, PARTS
    )


@pytest.mark.parametrize(
    "file",
    [
        *("/etc/model.safetensors", "../model.safetensors", "./model-00001-of-00002.safetensors", "", ".", ".."),
        *("sub/model.safetensors", "https://x/model.safetensors", "model-00003-of-00003.safetensors", "config.json"),
    ],
)
def test_weights_elsewhere_are_refused(file: str) -> None:
    content = {"weight_map": {**{str(n): part for n, part in enumerate(PARTS)}, "layer.0": file}}
    with pytest.raises(ModelRefusedError, match=r"index\.json: 'layer\.0' is in .*not a file of weights"):
        check_weights_index(INDEX, content, PARTS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "not a JSON object"),
        ({}, "has no weight_map"),
        ({"weight_map": {}}, "has no weight_map"),
        ({"weight_map": {"a": ["model.safetensors"]}}, "an object of file names"),
        ({"weight_map": {"a": None}}, "an object of file names"),
        ({"weight_map": {"a": "model.safetensors"}, "auto_map": {}}, "not a known key"),
        ({"metadata": {"x": {"y": 1}}}, "an object of numbers"),
        ({"weight_map": {"a": sorted(PARTS)[0]}}, "model-00002-of-00002.safetensors is not in"),
    ],
)
def test_another_index_is_refused(content: object, words: str) -> None:
    with pytest.raises(ModelRefusedError, match=words):
        check_weights_index(INDEX, content, PARTS)
