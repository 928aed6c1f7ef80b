"""Encodes in an address space with little room: one long row fails, the others give their own values. FOLDER.

Then, with more room, the batch size grows to its old value.
"""

import resource
import sys

import numpy as np
import psutil
import torch
from transformers import BertConfig as ModelConfig
from transformers import BertModel

from pipeline.checkpoint.checkpoint import Checkpoint
from pipeline.core.errors import SampleError
from pipeline.encoders.bert import BertConfig, BertEncoder
from pipeline.tokenizers.base import ModelInputs
from pipeline.tokenizers.text import TextTokenizerConfig


def row(length):
    return ModelInputs({"input_ids": draw.integers(1, 50, length), "special_mask": np.zeros(length, np.uint8)}, None)


def limit_room(megabytes):
    most_bytes = psutil.Process().memory_info().vms + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most_bytes, resource.RLIM_INFINITY))


torch.set_num_threads(1)
torch.manual_seed(0)
folder = sys.argv[1]
size = ModelConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16384)
BertModel(size).save_pretrained(folder)
where = Checkpoint(folder, "bert", None, "x")
config = BertConfig(kind="bert", checkpoint=folder, batch_size=32)
encoder = BertEncoder(config, where, "text", TextTokenizerConfig(kind="text"))
encoder.pad_id = 0
super(BertEncoder, encoder).setup()
draw = np.random.default_rng(0)

short, long = [row(16) for _ in range(48)], row(512)  # 1 MiB and 32 MiB of activations, several times over
separate = [encoder.encode([one], True)[0] for one in short]
encoder.encode(short[:4], True)

limit_room(24)
encoded = encoder.encode([*short[:32], long, *short[32:]], True)
failed = [i for i, one in enumerate(encoded) if isinstance(one, SampleError)]
assert failed == [32], failed
assert encoded[32].kind == "memory", encoded[32]
assert "DefaultCPUAllocator" in encoded[32].message, encoded[32]
for one, other in zip([*encoded[:32], *encoded[33:]], separate, strict=True):
    np.testing.assert_allclose(one.pooled, other.pooled, atol=1e-5)
    np.testing.assert_allclose(one.tokens, other.tokens, atol=1e-5)
assert encoder.batch_size < 32, encoder.batch_size
small = encoder.batch_size
limit_room(4096)
assert not isinstance(encoder.encode([long], True)[0], SampleError)
for _ in range(40):
    encoder.encode(short[:2], False)
assert encoder.batch_size == 32
print("halved to", small, "and back")
