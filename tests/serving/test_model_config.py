"""Keys and values of `config.json` and `generation_config.json`: what is not known is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.huggingface import SpecialTokens, to_config
from models.rope import RopeScaling
from models.sizes import Architecture, config_for_size
from serving.errors import ModelRefusedError
from serving.model_config import (
    ARCHITECTURES,
    COMMON,
    CONFIG_REASONS,
    GENERATION,
    LEGACY,
    ROPE_ENTRIES,
    check_config,
    check_generation_config,
)
from tests.serving.gateways import CONFIG
from tests.support import examples

FILE = Path("m/config.json")
CLASSES = {
    "Qwen3ForCausalLM": "Qwen3Config",
    "LlamaForCausalLM": "LlamaConfig",
    "MistralForCausalLM": "MistralConfig",
    "Qwen2ForCausalLM": "Qwen2Config",
    "GPTNeoXForCausalLM": "GPTNeoXConfig",
    "GPT2LMHeadModel": "GPT2Config",
}


SCALINGS = (
    None,
    RopeScaling("linear", 2.0),
    RopeScaling("yarn", 4.0, original_max_position_embeddings=64),
    RopeScaling("llama3", 8.0, original_max_position_embeddings=64, low_freq_factor=1.0, high_freq_factor=4.0),
)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_what_we_export_is_accepted(scaling: RopeScaling | None, architecture: Architecture) -> None:
    size = dataclasses.replace(config_for_size("1m", 512, 64), head_size=32, rope_scaling=scaling)
    shape = dataclasses.replace(size, architecture=architecture)
    for tokens in (SpecialTokens.from_scratch(0), SpecialTokens((3, 4), bos_id=1), SpecialTokens((0,), 1, 2)):
        check_config(FILE, json.loads(json.dumps(to_config(shape, tokens, "bfloat16"))))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_table_has_the_fields_of_transformers_own_config(name: str) -> None:
    import transformers

    own, known = getattr(transformers, CLASSES[name]), ARCHITECTURES[name]
    theirs = {field.name for field in dataclasses.fields(own)}
    missing = theirs - known.kinds.keys() - CONFIG_REASONS.keys()
    assert not missing, f"decide on these fields of {own.__name__}: {missing}"
    gone = known.kinds.keys() - theirs - LEGACY - {"model_type", "output_attentions"}  # these are no fields
    assert not gone, f"{own.__name__} no longer has {gone}"
    assert known.model_type == own.model_type
    content = json.loads(own(architectures=[name], dtype="bfloat16").to_json_string(use_diff=False))
    check_config(FILE, {key: value for key, value in content.items() if key not in CONFIG_REASONS})
    check_config(FILE, json.loads(own(architectures=[name], dtype="bfloat16").to_json_string()))


def test_the_entries_of_rotary_settings_are_those_of_transformers() -> None:
    from transformers.modeling_rope_utils import RopeParameters

    lists = {"short_factor", "long_factor", "mrope_section"}  # of longrope and of images: no architecture here has them
    assert RopeParameters.__annotations__.keys() - lists == ROPE_ENTRIES.keys() - {"type"}


def test_the_keys_of_generation_config_are_those_of_transformers() -> None:
    from transformers import GenerationConfig

    assert GENERATION.keys() <= vars(GenerationConfig()).keys()
    chosen = {"_from_model_config": True, "transformers_version": "5.24.0", "eos_token_id": [0, 2], "top_p": 0.9}
    check_generation_config(FILE, chosen | {"temperature": 1, "stop_strings": ["a b"], "suppress_tokens": [3]})


ELSEWHERE = {"verifier": {"name_or_path": "/elsewhere/model", "architectures": ["LlamaForCausalLM"]}}

ROUTES: dict[str, tuple[Any, str]] = {
    # vllm/transformers_utils/config.py, maybe_override_with_speculators: the model is replaced by the named one
    "speculators_config": (ELSEWHERE, "names another model"),
    # transformers/configuration_utils.py sets it on the config, and vLLM's model_arch_config_convertor.py reads
    # config.json, and joint_head_config.json, from there
    "_name_or_path": ("/elsewhere/model", "names another model"),
    "name_or_path": ("owner/model", "names another model"),
    # transformers loads a kernel `owner/name` from the Hub and imports it
    "attn_implementation": ("owner/kernel", "kernel"),
    "_attn_implementation": ("owner/kernel", "kernel"),
    "_attn_implementation_internal": ("owner/kernel", "kernel"),
    "_experts_implementation_internal": ("owner/kernel", "kernel"),
    # vllm/model_executor/models/registry.py imports classes from the folder or a repository
    "auto_map": ({"AutoModel": "owner/model--modeling.Model"}, "names code"),
    "trust_remote_code": (True, "names code"),
    # vllm/transformers_utils/config.py chooses other layers, and sets the engine's environment variables, by it
    "quantization_config": ({"quant_method": "fp8", "scale_fmt": "ue8m0"}, "quantized"),
    "compression_config": ({"quant_method": "compressed-tensors"}, "quantized"),
    # nested configs are read as configs, with all of the routes above
    "text_config": ({"_name_or_path": "/elsewhere"}, "text alone"),
    "vision_config": ({"auto_map": {}}, "text alone"),
    "per_layer_config": ([{"hidden_size": 1}], "text alone"),
    "adapter_config": ({"base_model_name_or_path": "owner/model"}, "adapters are not served"),
    "base_model_name_or_path": ("owner/model", "names another model"),
    # vLLM serves a pooling model
    "is_causal": (False, "embeddings"),
    "id2label": ({"0": "yes"}, "classifier"),
    # transformers loads these files instead of model.safetensors
    "transformers_weights": ("../other.safetensors", "another file"),
    "gguf_file": ("../other.gguf", "another file"),
    # transformers/configuration_utils.py reads another file instead of config.json
    "configuration_files": (["config.4.0.0.json"], "another config"),
    # no route known, but not known as a key of the architecture either
    "tokenizer_class": ("MyTokenizer", "not a known key of Qwen3ForCausalLM"),
    "eagle_config": ({}, "not a known key"),
    "temperature": (1.0, "not a known key"),
    "n_embd": (4, "not a known key"),
}


@pytest.mark.parametrize("key", ROUTES)
def test_keys_that_lead_elsewhere_are_refused(key: str) -> None:
    value, words = ROUTES[key]
    with pytest.raises(ModelRefusedError, match=rf"m/config\.json: '{key}' .*{words}.*(remove|export)"):
        check_config(FILE, CONFIG | {key: value})
    with pytest.raises(ModelRefusedError, match=key):
        check_config(FILE, CONFIG | {key: None})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("hidden_size", "256", "an integer"),
        ("hidden_size", True, "an integer"),
        ("hidden_size", 2.5, "an integer"),
        ("hidden_size", 2**40, "an integer below"),
        ("hidden_size", [256], "an integer"),
        ("rms_norm_eps", "1e-6", "a finite number"),
        ("rms_norm_eps", float("nan"), "a finite number"),
        ("rms_norm_eps", float("inf"), "a finite number"),
        ("use_cache", 1, "true or false"),
        ("is_encoder_decoder", True, "false"),
        ("hidden_act", "owner/activation", "a plain name"),
        ("hidden_act", "../silu", "a plain name"),
        ("hidden_act", {"name_or_path": "x"}, "a plain name"),
        ("transformers_version", "https://x", "a plain name"),
        ("dtype", "float8_e4m3fn", "'bfloat16' or 'float16' or 'float32'"),
        ("dtype", "torch.bfloat16", "'bfloat16'"),
        ("dtype", {"": "bfloat16", "text_config": "float32"}, "'bfloat16'"),
        ("torch_dtype", ["float32"], "'bfloat16'"),
        ("eos_token_id", ["0"], "token ids"),
        ("eos_token_id", [[0]], "token ids"),
        ("bos_token_id", [0], "a token id"),
        ("layer_types", ["full_attention", "owner/kernel"], "a list of full_attention"),
        ("layer_types", "full_attention", "a list of full_attention"),
        ("rope_parameters", "default", "rotary settings"),
        ("rope_parameters", {"rope_type": "longrope"}, "rotary settings"),
        ("rope_parameters", {"rope_type": ["default"]}, "rotary settings"),
        ("rope_parameters", {"factor": "2"}, "rotary settings"),
        ("rope_parameters", {"factor": {"name_or_path": "x"}}, "rotary settings"),
        ("rope_parameters", {"mrope_section": [1]}, "rotary settings"),
        ("rope_parameters", {"full_attention": {"auto_map": "x"}}, "rotary settings"),
        ("rope_parameters", {"full_attention": {"full_attention": {}}}, "rotary settings"),
        ("rope_scaling", {"type": "su"}, "rotary settings"),
    ],
)
def test_values_of_another_kind_are_refused(key: str, value: object, words: str) -> None:
    with pytest.raises(ModelRefusedError, match=rf"m/config\.json: '{key}' is .*, must be .*{words}"):
        check_config(FILE, CONFIG | {key: value})


def test_rotary_settings_may_differ_by_layer_type() -> None:
    rope = {"rope_type": "yarn", "factor": 4.0, "truncate": False, "attention_factor": None}
    check_config(FILE, CONFIG | {"rope_parameters": {"full_attention": rope, "sliding_attention": {}}})
    check_config(FILE, CONFIG | {"layer_types": ["full_attention", "sliding_attention"], "rope_scaling": None})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architectures": ["SpeculatorsModel"]}, "'architectures' is .*must be one of Qwen3ForCausalLM"),
        ({"architectures": ["Qwen3ForCausalLM", "LlamaForCausalLM"]}, "'architectures' is"),
        ({"architectures": "Qwen3ForCausalLM"}, "'architectures' is"),
        ({"architectures": [["Qwen3ForCausalLM"]]}, "'architectures' is"),
        ({"architectures": []}, "names no architecture"),
        ({"model_type": "speculators"}, "'model_type' is 'speculators', must be 'qwen3'"),
        ({"model_type": "llama"}, "'model_type' is 'llama', must be 'qwen3'"),
        ({"model_type": None}, "'model_type' is None"),
        ({"model_type": ["qwen3"]}, "'model_type' is"),
    ],
)
def test_other_architectures_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ModelRefusedError, match=words):
        check_config(FILE, CONFIG | change)


@pytest.mark.parametrize("content", [[], "x", 1, None, {}])
def test_other_json_than_a_config_is_refused(content: object) -> None:
    with pytest.raises(ModelRefusedError, match="names no architecture"):
        check_config(FILE, content)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("custom_generate", "owner/loop", "names code"),
        ("auto_map", {}, "names code"),
        ("compile_config", {"backend": "x"}, "not a known key"),
        ("cache_implementation", "x", "not a known key"),
        ("watermarking_config", {}, "not a known key"),
        ("assistant_model", "owner/model", "not a known key"),
        ("temperature", "1", "a finite number"),
        ("eos_token_id", "0", "token ids"),
        ("stop_strings", {"a": 1}, "a list of strings"),
    ],
)
def test_other_keys_of_generation_config_are_refused(key: str, value: object, words: str) -> None:
    with pytest.raises(ModelRefusedError, match=rf"'{key}' .*{words}"):
        check_generation_config(FILE, {"eos_token_id": 0, key: value})
    with pytest.raises(ModelRefusedError, match="not a JSON object"):
        check_generation_config(FILE, [{key: value}])


@examples(50)
@given(
    st.text(),
    st.recursive(st.none() | st.booleans() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)),
)
def test_no_other_key_is_ever_accepted(key: str, value: object) -> None:
    if key not in ARCHITECTURES["Qwen3ForCausalLM"].kinds:
        with pytest.raises(ModelRefusedError, match=r"m/config\.json"):
            check_config(FILE, CONFIG | {key: value})


@examples(50)
@given(st.sampled_from(sorted(COMMON)), st.text(alphabet="ab/.:-", min_size=1))
def test_no_value_names_another_place(key: str, name: str) -> None:
    if "/" in name or ":" in name:
        for value in (name, [name], {"a": name}):
            with pytest.raises(ModelRefusedError, match=key):
                check_config(FILE, CONFIG | {key: value})
