"""A checkpoint is data: no file of it blocks, and none loads code, files or models from elsewhere."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipeline.checkpoint.checkpoint import Checkpoint, resolve
from pipeline.checkpoint.files import bounded_memory, check, check_attention, check_numbers, read_json
from pipeline.core.errors import ConfigError
from pipeline.encoders.clip import ClipConfig, ClipEncoder
from pipeline.tokenizers.patch import PatchConfig
from pipeline.tokenizers.text import TextTokenizer, TextTokenizerConfig
from tests.support import ROOT, bounded

WHERE = "features.caption.encoder.checkpoint"
SOCKET = "socket"


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint that a test may modify."""
    return Path(shutil.copytree(models / "clip", tmp_path / "clip"))


def refused(folder: Path) -> str:
    """Returns the error, which is one line and is raised without delay."""
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        resolve(str(folder), None, WHERE)
    assert time.monotonic() - started < 5
    line = str(caught.value)
    assert line.startswith(f"{WHERE}: ")
    assert line.isprintable()
    assert caught.value.allowed
    return line


def changed(folder: Path, file: str, **values: Any) -> Path:
    """Replaces values in one of the JSON files of ``folder``."""
    path = folder / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **values}))
    return folder


def image_encoder(folder: Path) -> ClipEncoder:
    checkpoint = resolve(str(folder), None, WHERE)
    return ClipEncoder(ClipConfig(kind="clip", checkpoint=str(folder)), checkpoint, "image", PatchConfig(kind="patch"))


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        before = os.getcwd()
        os.chdir(path.parent)  # a socket's path may not be long
        try:
            one.bind(path.name)
        finally:
            os.chdir(before)


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (_pipe, "is a pipe; a file must be there"),
    "socket": (_socket, "is a socket"),
    "folder": (Path.mkdir, "is a folder"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "process": (lambda path: path.symlink_to("/proc/self/environ"), "leads to /proc/"),
    "circle": (lambda path: path.symlink_to(path.name), "cannot be read (OSError"),
    "nowhere": (lambda path: path.symlink_to("not-there"), "cannot be read (FileNotFoundError"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "processor_config.json",
        "vocab.txt",
        "spiece.model",
        "chat_template.jinja",
    ],
)
def test_what_is_no_file_is_told_with_its_path(folder: Path, file: str, kind: str) -> None:
    make, words = KINDS[kind]
    (folder / file).unlink(missing_ok=True)
    make(folder / file)
    line = refused(folder)
    assert f"{folder / file} " in line
    assert words in line
    tokenizer = TextTokenizer(TextTokenizerConfig(kind="text", checkpoint=str(folder)), None)  # without the weights
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.checkpoint: "):
        tokenizer.check("features.x.tokenizer")


def test_links_of_a_hub_s_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0"
    folder.rename(blobs)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(blobs.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert resolve(str(snapshot), None, WHERE).model_type == "clip"


def test_a_checkpoint_in_memory(models: Path, tmp_path: Path) -> None:
    """A folder in /dev/shm is ordinary, unless a link from elsewhere leads to it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        folder = Path(shutil.copytree(models / "clip", Path(place) / "clip"))
        assert resolve(str(folder), None, WHERE).model_type == "clip"
        (tmp_path / "clip").mkdir()
        for path in folder.iterdir():
            (tmp_path / "clip" / path.name).symlink_to(path)
        assert "leads to /dev/shm/" in refused(tmp_path / "clip")


def test_labels_may_have_any_name(folder: Path) -> None:
    changed(
        folder, "config.json", id2label={"0": "use_kernels"}, label2id={"kernel_config": 1, "attn_implementation": 2}
    )
    assert resolve(str(folder), None, WHERE).model_type == "clip"


def test_weights_that_are_a_hole(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 38)
    assert "model.safetensors has 274877906944 bytes, and is nearly all hole" in refused(folder)


def test_a_config_of_millions_of_values(folder: Path) -> None:
    """Nested lists within the size limit: the path of each value would be as long."""
    values = "[" * 50 + "1," * 3_000_000 + "1" + "]" * 50
    (folder / "config.json").write_text('{"model_type": "clip", "x": ' + values + "}")
    assert "config.json has 3000052 values; at most 2500000" in refused(folder)
    values = "[" * 50 + "1," * 2_000_000 + "1" + "]" * 50
    (folder / "config.json").write_text('{"model_type": "clip", "x": ' + values + "}")
    assert bounded.run("tests.checkpoint.programs.check_files", folder, timeout=60).peak_mb < 250


DEEP = 100_000


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", '{"a":' * DEEP + "1" + "}" * DEEP, "config.json is nested too deep; at most 64 levels"),
        ("config.json", "[" * DEEP, "config.json is nested too deep"),
        ("config.json", '{"a":' * 70 + "1" + "}" * 70, "config.json is nested too deep"),
        ("config.json", "{", "config.json cannot be read (JSONDecodeError"),
        ("config.json", '{"a": ' + "9" * 5000 + "}", "config.json cannot be read (ValueError"),
        ("config.json", '{"a": 1' + " " * (33 << 20) + "}", f"at most {32 << 20}"),
        ("processor_config.json", "[" * DEEP, "processor_config.json is nested too deep"),
        ("tokenizer_config.json", "[" * DEEP, "tokenizer_config.json is nested too deep"),
        ("special_tokens_map.json", "[1]", "special_tokens_map.json holds list; only special tokens"),
        ("generation_config.json", "{'a'}", "generation_config.json cannot be read"),
        ("model.safetensors.index.json", "[" * DEEP, "model.safetensors.index.json is nested too deep"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../../x.safetensors"}}', "lacks ../../x.safetensors"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "/x.safetensors"}}', "lacks /x.safetensors"),
        ("model.safetensors.index.json", '{"weight_map": {"a": {"b": 1}}}', "lacks {'b': 1}"),
    ],
)
def test_json_that_is_none(folder: Path, file: str, content: str, words: str) -> None:
    (folder / file).write_text(content)
    assert words in refused(folder)


def test_a_deep_tokenizer_is_a_mistake_too(folder: Path) -> None:
    """Another library reads this file, and has a limit of its own."""
    (folder / "tokenizer.json").write_text("[" * DEEP)
    with pytest.raises(ConfigError, match="has no tokenizer that loads"):
        TextTokenizer(TextTokenizerConfig(kind="text", checkpoint=str(folder)), None).check("features.x.tokenizer")


HUB = "kernels-community/flash-attn2"


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("config.json", {"_attn_implementation": HUB}, f"_attn_implementation is '{HUB}'; built in are eager and sdpa"),
        ("config.json", {"attn_implementation": HUB}, f"attn_implementation is '{HUB}'"),
        ("config.json", {"attn_implementation": "flash_attention_2"}, "attn_implementation is 'flash_attention_2'"),
        ("config.json", {"attn_implementation": {"text_config": HUB}}, f"attn_implementation is '{HUB}'"),
        ("config.json", {"_attn_implementation_internal": HUB}, f"_attn_implementation_internal is '{HUB}'"),
        ("config.json", {"text_config": {"attn_implementation": HUB}}, f"text_config.attn_implementation is '{HUB}'"),
        ("config.json", {"vision_config": {"a": [{"_attn_implementation": HUB}]}}, f"_attn_implementation is '{HUB}'"),
        ("config.json", {"attribute_map": {"x": "_attn_implementation_internal"}, "x": HUB}, "has attribute_map"),
        ("config.json", {"experts_implementation": "x/y"}, "experts_implementation is 'x/y'"),
        ("config.json", {"use_kernels": True}, "has use_kernels"),
        ("config.json", {"kernel_config": {"a": HUB}}, "has kernel_config"),
        ("config.json", {"fusion_config": {"patch_embeddings": True}}, "has fusion_config"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "has quantization_config"),
        ("config.json", {"text_config": {"quantization_config": {"x": 1}}}, "has text_config.quantization_config"),
        ("config.json", {"transformers_weights": "../x.safetensors"}, "has transformers_weights"),
        ("config.json", {"configuration_files": ["config.4.0.0.json"]}, "has configuration_files"),
        ("processor_config.json", {"audio_tokenizer": {"audio_tokenizer_name_or_path": "x/y"}}, "has audio_tokenizer"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.4.0.json"]}, "has fast_tokenizer_files"),
        ("tokenizer_config.json", {"init_inputs": ["/etc/passwd"]}, "has init_inputs"),
        ("special_tokens_map.json", {"vocab_file": "/etc/passwd"}, "has vocab_file; only special tokens"),
        ("special_tokens_map.json", {"tokenizer_file": "/etc/passwd"}, "has tokenizer_file"),
        ("adapter_config.json", {"base_model_name_or_path": "x/y"}, "adapter_config.json names another model"),
        ("audio_tokenizer_config.json", {}, "audio_tokenizer_config.json names another model"),
    ],
)
def test_what_comes_from_elsewhere_is_refused(folder: Path, file: str, values: dict[str, Any], words: str) -> None:
    line = refused(changed(folder, file, **values))
    assert f"{folder / file}" in line
    assert words in line


def test_parts_of_a_distributed_checkpoint_are_not_taken_for_the_whole(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "shard-00001-model-00001-of-00001.safetensors")
    assert "is a part of a distributed checkpoint" in refused(folder)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"feature_size": 16_000, "n_fft": 16_000}, "filters of 8001 frequencies in 16000 bands; at most 8388608"),
        ({"feature_size": 1, "nested": {"n_mels": 60_000}}, "filters of 513 frequencies in 60000 bands"),
        ({"n_fft": 100_000}, "n_fft is 100000; at most 65536"),
        ({"n_fft": 10**400}, "at most 65536"),
        ({"n_fft": float("inf")}, "n_fft is inf; a number"),
        ({"fft_window_size": "many"}, "fft_window_size is 'many'; a number"),
    ],
)
def test_filters_of_sound_that_no_extractor_has(
    models: Path, tmp_path: Path, values: dict[str, Any], words: str
) -> None:
    """The filters are created when it is loaded: 16,000 frequencies in 16,000 bands took 4.9 GB."""
    whisper = Path(shutil.copytree(models / "whisper", tmp_path / "whisper"))
    resolve(str(whisper), None, WHERE)
    assert words in refused(changed(whisper, "preprocessor_config.json", **values))


def test_what_says_nothing_is_no_mistake(folder: Path) -> None:
    changed(
        folder,
        "config.json",
        _attn_implementation="sdpa",
        attn_implementation={"text_config": "eager", "": None},
        _attn_implementation_autoset=True,
        quantization_config=None,
        custom_pipelines={"x": {"impl": "code.Pipeline"}},
    )
    assert resolve(str(folder), None, WHERE).model_config().vision_config.hidden_size == 48


def test_an_attention_that_a_config_took_in_another_way(folder: Path) -> None:
    config = resolve(str(folder), None, WHERE).model_config()
    check_attention(config, "x", WHERE)
    vars(config.text_config)["_attn_implementation_internal"] = HUB
    with pytest.raises(ConfigError, match="_attn_implementation is 'kernels-community/flash-attn2'"):
        check_attention(config, "x", WHERE)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"text_config": {"hidden_size": 10**12}}, "text_config.hidden_size is 1000000000000; at most 2147483648"),
        ({"projection_dim": -(10**12)}, "projection_dim is -1000000000000"),
        ({"vision_config": {"image_size": 10**4000}}, "vision_config.image_size is a number of 13288 bits"),
        (
            {"text_config": {"num_hidden_layers": 10**9}},
            "text_config.num_hidden_layers is 1000000000; the weights hold",
        ),
        ({"vision_config": {"num_hidden_layers": 5000}}, "vision_config.num_hidden_layers is 5000"),
        ({"depths": [2, 10**6]}, "depths.1 is 1000000"),
        ({"num_labels": 10**8}, "num_labels is 100000000; at most 1000000"),
    ],
)
def test_sizes_that_no_weights_have_are_told_before_anything_is_built(
    folder: Path, values: dict[str, Any], words: str
) -> None:
    assert words in refused(changed(folder, "config.json", **values))


def test_ordinary_numbers_are_none_of_these() -> None:
    check_numbers(
        {
            "rope_theta": 10**12,
            "seed": 2**60,
            "image_token_id": 262144,
            "vocab_size": 1_000_000,
            "num_hidden_layers": 96,
        },
        500,
        "config.json",
        WHERE,
    )


def test_a_model_whose_weights_are_of_another_shape_is_a_mistake_of_its_checkpoint(folder: Path) -> None:
    """The model is first built without memory; the error is one line."""
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["hidden_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))
    encoder = image_encoder(folder)
    with pytest.raises(ConfigError, match="no model can be built from"):
        encoder.setup()


def test_a_missing_weight_of_immense_size_takes_no_memory(folder: Path) -> None:
    """Weights that are missing in the file would be initialized at random, with the size in the config."""
    weights = load_file(folder / "model.safetensors")
    name = next(one for one in weights if one.endswith("text_model.embeddings.token_embedding.weight"))
    save_file({one: value for one, value in weights.items() if one != name}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 2**30  # 192 GB
    (folder / "config.json").write_text(json.dumps(config))
    encoder = image_encoder(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match="no model can be built from"):
        encoder.setup()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kB
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.getrlimit(resource.RLIMIT_DATA)[1]


def test_memory_is_bounded_while_a_checkpoint_is_read_and_free_again_after() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(MemoryError), bounded_memory(1 << 20), bounded_memory(1 << 40):  # the outer one holds
        np.ones(1 << 40, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with bounded_memory(8 << 30):
        assert np.zeros(9 << 30, np.uint8).nbytes == 9 << 30
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, before[1]))
    try:
        with bounded_memory():  # somebody's own limit stays
            assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 1 << 40
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 1 << 40
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def test_a_checkpoint_runs_no_code_opens_nothing_else_and_connects_nowhere(folder: Path, tmp_path: Path) -> None:
    """Modules next to it that its configs name, templates, files elsewhere: none of them is used."""
    mark, secret = tmp_path / "ran", tmp_path / "secret.txt"
    secret.write_text("secret")
    code = f"open({str(mark)!r}, 'w').write('x')\n"
    for name in ("modeling_x", "configuration_x", "tokenization_x", "processing_x", "__init__", "setup"):
        (folder / f"{name}.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
    (folder / "chat_template.jinja").write_text("{% for i in range(10 ** 12) %}{{ cycler.__init__ }}{% endfor %}")
    everywhere = {
        "AutoConfig": "configuration_x.C",
        "AutoModel": "modeling_x.M",
        "AutoTokenizer": ["tokenization_x.T", "tokenization_x.T"],
        "AutoProcessor": "processing_x.P",
        "AutoImageProcessor": "processing_x.P",
    }
    changed(folder, "config.json", auto_map=everywhere, custom_pipelines={"x": {"impl": "modeling_x.P"}})
    changed(folder, "generation_config.json", custom_generate="x/y")
    changed(folder, "processor_config.json", auto_map=everywhere)
    files = dict.fromkeys(("vocab_file", "merges_file", "tokenizer_file", "added_tokens_file"), str(secret))
    changed(folder, "tokenizer_config.json", auto_map=everywhere, name_or_path="x/y", **files)
    done = subprocess.run(
        [sys.executable, "-m", "tests.checkpoint.programs.audit_loading", str(folder), str(mark)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    reported = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert done.returncode == 0, done.stderr
    assert reported["OUTSIDE"] == "[]"
    assert reported["CALLS"] == "[]"
    assert reported["CODE"] == "False"
    assert "config.json" in reported["INSIDE"]
    assert not {".py", ".bin"} & {Path(name).suffix for name in reported["INSIDE"].split("'")}


def test_json_is_read_as_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, null, NaN, "ä"]}')
    assert str(read_json(str(path), WHERE)) == "{'a': [1, None, nan, 'ä']}"
    (tmp_path / "b.txt").write_text("b")
    check(str(tmp_path), WHERE)
    assert Checkpoint(str(tmp_path), "x", None, WHERE).json("a.json")["a"][0] == 1
