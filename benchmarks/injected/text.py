"""Faults of the text: what folders hold, what lines hold, what tokenizers choke on, and what becomes of the cache."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from injected.bench import SPACE, Bench, Done, Fault, Outcome, error

_SPACE = SPACE.replace('cache_dir = "cache"\n', "")  # no key of a space; each bench has a cache of its own
_BYTES = _SPACE.replace('tokenizer = "bpe:512"', 'tokenizer = "bytes"')


def _prepare(bench: Bench, space: str = _SPACE, *, documents: int = 60) -> Path:
    """The folder of the text, with a cache of its own beside it."""
    bench.environment = {**bench.environment, "XDG_CACHE_HOME": str(bench.folder / "cache")}
    return bench.prepare(space, documents=documents).parent / "text"


def _dry(bench: Bench) -> Done:
    return bench.run("search", "tiny.toml", "--dry-run", "--json")


def _told(done: Done) -> Mapping[str, Any]:
    """What a dry run says of the text."""
    told: Mapping[str, Any] = json.loads(done.out)["text"] if done.code == 0 else {}
    return told


def _left_out(text: Mapping[str, Any]) -> dict[str, int]:
    return {row["reason"]: row["count"] for row in text.get("left_out", ())}


def _refused(prepare: Callable[[Bench], None], *words: str, code: int = 2) -> Callable[[Bench], Outcome]:
    """A corpus that a search must refuse with those words, before a study exists."""

    def run(bench: Bench) -> Outcome:
        prepare(bench)
        done = bench.search()
        outcome = error(done, code=code, words=words)
        is_there = bench.study().exists()
        return Outcome(outcome.happened + ("; left a study" if is_there else ""), outcome.survived and not is_there)

    return run


def _holds(name: str, content: bytes) -> Callable[[Bench], None]:
    def prepare(bench: Bench) -> None:
        (_prepare(bench) / name).write_bytes(content)

    return prepare


def _only(content: bytes, space: str = _SPACE) -> Callable[[Bench], None]:
    def prepare(bench: Bench) -> None:
        shutil.rmtree(_prepare(bench, space))
        (bench.folder / "text").write_bytes(content)

    return prepare


def _a_folder_of_everything(bench: Bench) -> Outcome:
    text = _prepare(bench)
    os.mkfifo(text / "pipe")
    (text / "null").symlink_to("/dev/zero")
    (text / "gone").symlink_to("nowhere")
    (text / "self").symlink_to("self")
    (text / "around").symlink_to(text)
    (text / "old.txt").write_bytes("café ".encode("latin-1") * 1000)
    (text / "wide.txt").write_bytes("read too ".encode("utf-16-le") * 100)
    (text / "marked.txt").write_text("read indeed " * 100, encoding="utf-16")
    (text / "ROWS.NDJSON.GZ").write_bytes(gzip.compress(b'{"text": "a row of text"}\n' * 100))
    (text / "rows.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd text")
    (text / "rows.parquet").write_bytes(b"PAR1 text")
    done = _dry(bench)
    found, told = _left_out(_told(done)), _told(done)
    expected = {
        "not_regular": 2,
        "broken_link": 2,
        "linked_folder": 1,
        "encoding": 1,
        "binary": 1,
        "packed": 1,
        "table": 1,
    }
    happened = f"exit {done.code}, {told.get('documents')} documents, left out: {found}"
    return Outcome(happened, done.code == 0 and found == expected and told["documents"] == 161)


def _a_pathological_text(text: str, space: str = _SPACE) -> Callable[[Bench], Outcome]:
    def run(bench: Bench) -> Outcome:
        (_prepare(bench, space, documents=400) / "odd.txt").write_text(text, encoding="utf-8")
        done = bench.run("search", "tiny.toml", "--dry-run", "--json", seconds=60.0)
        told = _told(done)
        share = told["holdout_tokens"] / (told["holdout_tokens"] + told["train_tokens"]) if told else 0.0
        words = f"{told['documents']} documents, {share:.1%} of the tokens held out" if told else done.last_line
        return Outcome(f"exit {done.code}: {words}", bool(told) and told["documents"] == 401 and 0.05 < share < 0.2)

    return run


def _a_book_and_a_readme(bench: Bench) -> Outcome:
    text = _prepare(bench, _BYTES)
    pages = [path.read_text(encoding="utf-8") for path in sorted(text.iterdir())]
    shutil.rmtree(text)
    text.mkdir()
    (text / "book.txt").write_text("\n".join(pages), encoding="utf-8")
    (text / "README").write_text("A readme of the usual kind. " * 5, encoding="utf-8")
    told = _told(_dry(bench))
    share = told["holdout_tokens"] / (told["holdout_tokens"] + told["train_tokens"])
    return Outcome(f"{share:.1%} of the tokens are held out, 10 % were asked for", 0.1 / 1.5 < share < 0.15)


def _cached(bench: Bench, name: str) -> Path:
    (path,) = (bench.folder / "cache").rglob(name)
    return path


def _a_damaged_cache(damage: Callable[[Path], None]) -> Callable[[Bench], Outcome]:
    def run(bench: Bench) -> Outcome:
        _prepare(bench)
        before = _told(_dry(bench))
        content = _cached(bench, "train.bin").read_bytes()
        damage(_cached(bench, "train.bin"))
        after = _told(_dry(bench))
        is_mended = _cached(bench, "train.bin").read_bytes() == content
        happened = f"tokens made again: {is_mended}; said: {after.get('cache_damage')!r}"
        return Outcome(happened, is_mended and bool(after["cache_damage"]) and not before["cache_damage"])

    return run


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _another_text_of_equal_size_and_time(bench: Bench) -> Outcome:
    _prepare(bench)
    before = _told(_dry(bench))
    for path in (bench.folder / "text").iterdir():
        state = path.stat()
        path.write_bytes(path.read_bytes().translate(bytes.maketrans(b"aeiou", b"eioua")))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = _told(_dry(bench))
    is_another = before["content_sha256"] != after["content_sha256"]
    return Outcome("read again" if is_another else "taken for the old one", is_another)


def _leftovers(bench: Bench) -> Outcome:
    _prepare(bench)
    _dry(bench)
    left = bench.folder / "cache" / "autotune" / "tokens" / ".0000.killed.unfinished"
    left.mkdir()
    (left / "train.bin").write_bytes(b"half")
    os.utime(left, (1, 1))
    (bench.folder / "text" / "new.txt").write_text("a new text, to be encoded", encoding="utf-8")
    done = _dry(bench)
    return Outcome(f"exit {done.code}; swept: {not left.exists()}", done.code == 0 and not left.exists())


def _private(bench: Bench) -> Outcome:
    _prepare(bench)
    before = os.umask(0)
    try:
        _dry(bench)
    finally:
        os.umask(before)
    below = [
        path
        for name in ("tokens", "sources", "vocabularies")
        for path in (bench.folder / "cache" / "autotune" / name).rglob("*")
    ]
    open_to_others = [path for path in below if stat.S_IMODE(path.stat().st_mode) & 0o077]
    return Outcome(
        f"{len(below)} files and folders, {len(open_to_others)} open to others", bool(below) and not open_to_others
    )


def _a_full_disk(bench: Bench) -> Outcome:
    """A limit on the size of files stands in for the disk: writing fails in the middle of one, as it does on a disk."""
    _prepare(bench, _BYTES)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = bench.start("search", "tiny.toml", "--dry-run", preexec_fn=limit)
    code = process.wait(timeout=60.0)
    done = Done(code, "", (bench.folder / "output").read_text(encoding="utf-8"))
    outcome = error(done, code=6, words=("cache of tokens", "free space"))
    left = [path.name for path in (bench.folder / "cache").rglob("*.unfinished")]
    goes_on = _dry(bench).code == 0
    happened = f"{outcome.happened}; left over: {left or 'nothing'}; with room: {'goes on' if goes_on else 'fails'}"
    return Outcome(happened, outcome.survived and not left and goes_on)


def _zero(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def _a_pipe(bench: Bench) -> None:
    shutil.rmtree(_prepare(bench))
    os.mkfifo(bench.folder / "text")


FAULTS: tuple[Fault, ...] = (
    Fault(
        name="a folder of everything",
        how="pipe, device, link to nothing, to itself and to its folder, Latin-1, UTF-16, gzip, zstandard, parquet",
        run=_a_folder_of_everything,
    ),
    Fault(
        name="a pipe as corpus",
        how="mkfifo in the place of the text",
        run=_refused(_a_pipe, "no regular file"),
    ),
    Fault(
        name="JSON nested 100,000 deep",
        how="a line of [[[...]]] in a .jsonl file",
        run=_refused(
            _holds("rows.jsonl", b"[" * 100_000 + b"]" * 100_000), "nested too deeply in line 1", "rows.jsonl"
        ),
    ),
    Fault(
        name="a number of 5,000 digits",
        how="in a field beside the text of a .jsonl file",
        run=_refused(_holds("rows.jsonl", b'{"n": ' + b"9" * 5000 + b"}"), "too many digits in line 1", "rows.jsonl"),
    ),
    Fault(
        name="half of a surrogate pair",
        how="an escape in the second line of a .jsonl file",
        run=_refused(_holds("rows.jsonl", b'{"text": "x"}\n{"text": "\\ud83d"}'), "surrogate pair there in line 2"),
    ),
    Fault(
        name="nothing to hold out",
        how="5 MB of the same letter",
        run=_refused(_only(b"a" * 5_000_000), "use more text"),
    ),
    Fault(
        name="too little to evaluate on",
        how="a text of 2 kB where an evaluation takes 2,048 tokens",
        run=_refused(_only(b"".join(b"line %d of it\n" % n for n in range(150))), "held-out text must hold"),
    ),
    Fault(name="a book and a readme", how="one large file and one of 140 bytes", run=_a_book_and_a_readme),
    Fault(
        name="a megabyte of blanks",
        how="in a file of the corpus",
        run=_a_pathological_text("a" + " " * 1_000_000 + "b"),
    ),
    Fault(name="5 MB of one letter", how="in a file of the corpus", run=_a_pathological_text("a" * 5_000_000)),
    Fault(
        name="50 MB without a blank",
        how="a line of hexadecimal digits in a file of the corpus",
        run=_a_pathological_text("".join(f"{n * 2654435761 % 2**32:08x}" for n in range(6_250_000)), _BYTES),
    ),
    Fault(name="zeroed tokens", how="all bytes of train.bin", run=_a_damaged_cache(_zero)),
    Fault(name="a flipped bit in the tokens", how="in the middle of train.bin", run=_a_damaged_cache(_flip)),
    Fault(
        name="another text of equal size and time",
        how="letters exchanged, mtime set back",
        run=_another_text_of_equal_size_and_time,
    ),
    Fault(name="leftovers of a killed build", how="an unfinished folder in the cache", run=_leftovers),
    Fault(name="tokens of a private text", how="umask 0 while they are cached", run=_private),
    Fault(name="no room for the cache", how="a limit of 20 kB on the size of a file", run=_a_full_disk),
)
