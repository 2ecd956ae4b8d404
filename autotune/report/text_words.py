"""What was read as training text, in words: for the start of a search, the dry run, the doctor and the report."""

from __future__ import annotations

from collections.abc import Iterator

from autotune.report.quantities import percent, significant, size
from autotune.report.words import count, plain
from autotune.workload.machine import Corpus, LeftOut, epochs_of
from autotune_model.left_out import WORDS


def text_rows(corpus: Corpus) -> tuple[tuple[str, str], ...]:
    """What was read, as names and values."""
    return tuple(_rows(corpus))


def text_lines(corpus: Corpus, *, horizon_tokens: int) -> list[str]:
    """What was read, a line each, and a line if the trials of `horizon_tokens` read the text more than once."""
    lines = [f"{name}: {value}" for name, value in text_rows(corpus)]
    epochs = epochs_of(corpus, horizon_tokens)
    if epochs > 1:
        lines.append(
            f"too little text: trials of {horizon_tokens:,} tokens read it {significant(epochs)} times, which favours "
            "what learns by heart: use more text or a smaller horizon_tokens"
        )
    return lines


def left_out_words(row: LeftOut) -> str:
    """What was left out for one reason, with paths and remedy."""
    words, remedy = WORDS[row.reason]
    known = f", {size(row.bytes)}" if row.bytes else ""
    more = ", ..." if row.count > len(row.examples) else ""
    advice = f": {remedy}" if row.matters else ""
    return f"{row.count:,}{known}, {words} ({', '.join(map(plain, row.examples))}{more}){advice}"


def _rows(corpus: Corpus) -> Iterator[tuple[str, str]]:
    documents = count(corpus.documents, "document")
    yield "text", f"{documents}, {size(corpus.text_bytes)}" if corpus.text_bytes else documents
    share = corpus.holdout_tokens / max(1, corpus.train_tokens + corpus.holdout_tokens)
    yield "tokens", f"{corpus.train_tokens:,} to train on, {corpus.holdout_tokens:,} held out ({percent(share)})"
    short = f" of {corpus.vocab_wanted:,} wanted: the text has no more" if corpus.is_vocabulary_short else ""
    yield "vocabulary", f"{corpus.vocab_size:,}{short}"
    for row in corpus.left_out:
        yield "left out", left_out_words(row)
    if corpus.cache_damage:
        yield "cache", f"the tokens were damaged ({plain(corpus.cache_damage)}) and made again"
