"""The [workload] table of a space for the built-in GPT, and the JSON Schema of such a space.

`python -m autotune.workload.gpt_table > search_spaces/space.schema.json` regenerates the shipped schema.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from autotune.space.keys import rule
from autotune.space.schema import space_schema
from autotune.workload.gpt_knobs import KNOBS
from autotune_model import config as model

_TEXT = model.DataConfig()
_GPT_KEYS = ("layers", "heads", "width", "sequence_length")
_TEXT_KEYS = ("corpus", "text_field", "tokenizer", "holdout_fraction")


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTTable:
    """The keys of [workload], each with its own rule. The model checks how they fit together."""

    corpus: str = field(
        default=_TEXT.corpus,
        metadata=rule(
            "The text: a file, a folder, a glob, a .jsonl file, or stdlib for the Python library of this machine. "
            "A relative path starts at the folder of this file.",
            examples=["stdlib"],
        ),
    )
    text_field: str = field(
        default=_TEXT.text_field,
        metadata=rule("The field of each line of a .jsonl file that holds the text.", examples=["text"]),
    )
    tokenizer: str = field(
        default=_TEXT.tokenizer,
        metadata=rule(
            "bpe:<vocabulary> trains a vocabulary on the corpus, bytes needs none, "
            "and every other name is an encoding of tiktoken.",
            examples=["bpe:2048", "bytes", "gpt2"],
        ),
    )
    holdout_fraction: float = field(
        default=_TEXT.holdout_fraction,
        metadata=rule("Share of the documents that is held out for validation.", gt=0, le=0.5, examples=[0.1]),
    )
    layers: int = field(metadata=rule("Transformer blocks.", ge=1, le=10**4, examples=[12]))
    heads: int = field(metadata=rule("Attention heads of each block.", ge=1, le=10**4, examples=[12]))
    width: int = field(
        metadata=rule("Size of the residual stream; a multiple of heads.", ge=1, le=10**6, examples=[768])
    )
    sequence_length: int = field(metadata=rule("Tokens of each sequence.", ge=1, le=10**7, examples=[1024]))
    horizon_tokens: int = field(
        metadata=rule(
            "Token budget of a trial: every trial that is judged on its loss runs its own complete schedule to here.",
            ge=1,
            le=10**15,
            examples=[50_000],
        )
    )
    evaluation_tokens: int = field(
        default=16_384,
        metadata=rule("Held-out tokens that the validation loss is taken of.", ge=1, le=10**15, examples=[16_384]),
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = field(
        default="auto", metadata={"description": "What to train on; auto takes a GPU where there is one."}
    )

    def gpt(self) -> model.GPTConfig:
        """The shape of the model.

        Raises:
            autotune_model.config.InvalidConfiguration: the shape is not valid.
        """
        return model.GPTConfig(**{key: getattr(self, key) for key in _GPT_KEYS})

    def text(self, folder: Path) -> model.DataConfig:
        """The text; a relative path is relative to `folder`.

        Raises:
            autotune_model.config.InvalidConfiguration: the text is not validly specified.
        """
        data = model.DataConfig(**{key: getattr(self, key) for key in _TEXT_KEYS})
        if data.corpus == "stdlib":
            return data
        try:
            corpus = str(folder / Path(data.corpus).expanduser())
        except RuntimeError:
            raise model.InvalidConfiguration(
                f"corpus starts with ~, which must name a user's home folder; got {data.corpus!r}: write the path out"
            ) from None
        return model.DataConfig(**asdict(data) | {"corpus": corpus})


def gpt_space_schema() -> dict[str, Any]:
    """The JSON Schema of a space that searches the built-in GPT."""
    return space_schema(workload=GPTTable, knobs=KNOBS, defaults=model.default_knobs())


if __name__ == "__main__":
    print(json.dumps(gpt_space_schema(), indent=2))
