"""Text encoders of the BERT family, loaded with `transformers`' AutoModel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field

from pipeline.core.errors import ConfigError, SampleError
from pipeline.encoders._shared import text
from pipeline.encoders._shared.microbatches import SATURATING_TOKENS
from pipeline.encoders._shared.transformers_encoder import TransformersEncoder, TransformersEncoderConfig
from pipeline.encoders._shared.weights import native_dtype, space_id
from pipeline.encoders.base import Encoded, EncoderSpec
from pipeline.tokenizers.base import ModelInputs

if TYPE_CHECKING:
    import torch

_WITH_POOLER = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet")
_WITHOUT_POOLER = ("distilbert", "electra", "modernbert", "deberta-v2")


class BertConfig(TransformersEncoderConfig):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["bert"]
    batch_tokens: int = Field(default=16_384, ge=1)
    """Tokens, padding included, in one forward pass; a longer row gets a pass by itself. The memory that attention
    takes grows with the square of a row's length: 32 rows of 8,192 tokens would take 8 GB for the mask."""
    pool: Literal["mean", "cls", "pooler"] = "mean"
    """``mean``: over all tokens except padding, including CLS and SEP, as in sentence-transformers. ``cls``: the first
    token. ``pooler``: the model's pooling layer on top of the first token, if the checkpoint has one."""


class BertEncoder(TransformersEncoder):
    """Tokens: the last hidden states [N, hidden_size] of the tokens that are not special."""

    model_types = _WITH_POOLER + _WITHOUT_POOLER
    modalities = ("text",)
    tokenizer_kinds = ("text",)
    config: BertConfig
    saturating_units = SATURATING_TOKENS

    def check(self, where: str) -> None:
        super().check(where)
        text.check_tokenizer_files(self.checkpoint)
        if self.config.pool == "pooler" and self.checkpoint.model_type not in _WITH_POOLER:
            raise ConfigError(
                f"{where}.encoder.pool", f"'pooler', but a {self.checkpoint.model_type} has none", "mean or cls"
            )

    def spec(self) -> EncoderSpec:
        config = self.model_config()
        return EncoderSpec(
            dim=config.hidden_size,
            token_dim=config.hidden_size,
            space=space_id(self.checkpoint, self.config.pool),
            normalized=False,
            native_dtype=native_dtype(self.checkpoint),
            model_type=self.checkpoint.model_type,
            processor=text.tokenizer_name(self.checkpoint),
        )

    def load_key(self) -> tuple[object, ...]:
        return (super().load_key(), self.config.pool == "pooler")

    def load(self) -> torch.nn.Module:
        from transformers import AutoModel

        # Checkpoints of masked language models have no pooler, so it is loaded only if it is used.
        options: dict[str, Any] = (
            {"add_pooling_layer": self.config.pool == "pooler"} if self.checkpoint.model_type in _WITH_POOLER else {}
        )
        model: torch.nn.Module = self.from_pretrained(AutoModel, **options)
        return model

    def setup(self) -> None:
        super().setup()
        self.pad_id = int(self.model.config.pad_token_id or 0)

    def bucket(self, row: ModelInputs) -> tuple[()]:
        return ()

    def length(self, row: ModelInputs) -> int:
        return len(row.inputs["input_ids"])

    def max_units(self) -> float:
        return self.config.batch_tokens

    def forward(self, rows: Sequence[ModelInputs], want_tokens: bool) -> list[Encoded | SampleError]:
        ids, mask = text.pad(rows, self.pad_id, self.device)
        output = self.model(input_ids=ids, attention_mask=mask)
        hidden = output.last_hidden_state
        if self.config.pool == "pooler":
            pooled = output.pooler_output
        elif self.config.pool == "cls":
            pooled = hidden[:, 0]
        else:
            weights = mask[:, :, None].float()
            pooled = (hidden.float() * weights).sum(1) / weights.sum(1)
        return [*text.split(rows, pooled, hidden if want_tokens else None)]
