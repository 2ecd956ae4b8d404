"""Search spaces as text: what is read, and how what cannot be read is told."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.errors import BadInput, ExitCode
from autotune.space.document import parse_duration, read_document
from autotune.space.knobs import Choice, FloatRange, IntRange, contains
from autotune.space.shipped import shipped_spaces
from autotune.workload.gpt import GPTWorkload
from autotune.workload.gpt_knobs import KNOBS
from autotune.workload.space import SearchSpace, load_space
from autotune_model.config import DataConfig, TrainingConfig

SPACE = """\
# A space to spoil.
[search]
budget = "90s"

[workload]
corpus = "stdlib"
tokenizer = "bytes"
layers = 2
heads = 2
width = 64
sequence_length = 128
horizon_tokens = 40_000
evaluation_tokens = 8_192
device = "cpu"

[plan]
tokens = 2e7
runs = 3

[baseline]
micro_batch = 4
global_batch = 8
learning_rate = 1e-3
clip_norm = 1

[knobs]
micro_batch = [2, 4]
dtype = ["fp32", "bf16_autocast"]
learning_rate = { low = 3e-4, high = 1e-2, log = true }
tied_head = [false, true]
"""


@dataclass(frozen=True)
class Loaded:
    """A space of the built-in GPT, with its workload by its own type."""

    space: SearchSpace
    workload: GPTWorkload


def load(folder: Path, text: str) -> Loaded:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return loaded(path)


def loaded(path: Path) -> Loaded:
    space = load_space(path)
    assert isinstance(space.workload, GPTWorkload)
    return Loaded(space=space, workload=space.workload)


def spoiled(old: str, new: str) -> str:
    """The space with one text in it replaced."""
    assert SPACE.count(old) == 1
    return SPACE.replace(old, new)


def test_a_space_is_read_as_it_is_written(tmp_path: Path) -> None:
    read = load(tmp_path, SPACE)
    space, workload = read.space, read.workload
    assert space.name == "mine"
    assert (workload.gpt.layers, workload.horizon_tokens, workload.evaluation_tokens) == (2, 40_000, 8_192)
    assert (workload.data.corpus, workload.data.tokenizer, workload.device) == ("stdlib", "bytes", "cpu")
    assert (space.plan.tokens, space.plan.runs, space.plan.currency) == (20_000_000, 3, "device-hours")
    assert space.budget_seconds == 90.0
    assert workload.training == TrainingConfig(micro_batch=4, global_batch=8, learning_rate=1e-3, clip_norm=1.0)
    assert {d.knob.name: d.domain for d in space.dimensions} == {
        "micro_batch": Choice(values=(2, 4)),
        "dtype": Choice(values=("fp32", "bf16_autocast")),
        "learning_rate": FloatRange(low=3e-4, high=1e-2, log=True),
        "tied_head": Choice(values=(False, True)),
    }


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    text = spoiled('[search]\nbudget = "90s"\n', "").replace("evaluation_tokens = 8_192\n", "")
    for line in ('device = "cpu"\n', 'corpus = "stdlib"\n', 'tokenizer = "bytes"\n'):
        text = text.replace(line, "")
    read = load(tmp_path, text)
    assert read.space.budget_seconds == 600.0
    assert (read.workload.evaluation_tokens, read.workload.device) == (16_384, "auto")
    assert read.workload.data == DataConfig()


@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_loads(name: str) -> None:
    read = loaded(shipped_spaces()[name])
    assert read.space.name == name
    order = list(KNOBS)
    names = [d.knob.name for d in read.space.dimensions]
    assert names == sorted(names, key=order.index)
    step_tokens = read.space.workload.cost(read.space.baseline).tokens
    assert read.workload.horizon_tokens >= 10 * step_tokens


def test_spaces_are_shipped() -> None:
    assert list(shipped_spaces()) == ["gpt2_small_gpu", "gpt_cpu", "power_of_two", "quickstart", "techniques"]


def test_a_byte_order_mark_is_no_part_of_the_space(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("\ufeff" + SPACE, encoding="utf-8")
    assert path.read_bytes().startswith(codecs.BOM_UTF8)
    assert read_document(path).text == SPACE
    assert load_space(path) == load(tmp_path, SPACE).space


INTEGERS = (
    "layers = 2",
    "heads = 2",
    "width = 64",
    "sequence_length = 128",
    "horizon_tokens = 40_000",
    "evaluation_tokens = 8_192",
    "runs = 3",
    "micro_batch = 4",
    "global_batch = 8",
)


@pytest.mark.parametrize("line", INTEGERS)
def test_every_integer_may_be_written_as_a_power_of_ten(tmp_path: Path, line: str) -> None:
    key, _, number = line.partition(" = ")
    space = load(tmp_path, SPACE).space
    same = load(tmp_path, spoiled(line + "\n", f"{key} = {int(number) / 1000}e3\n")).space
    assert same == space
    assert repr(same) == repr(space), "an int, not a float that equals one"


def test_whole_numbers_stand_for_floats_and_the_reverse_where_nothing_is_lost(tmp_path: Path) -> None:
    text = spoiled("runs = 3", "devices = 3.0\ndevice_hour_usd = 2").replace("[2, 4]", "{ low = 1.0, high = 8 }")
    space = load(tmp_path, text.replace("{ low = 3e-4, high = 1e-2, log = true }", "[1e-3, 1]")).space
    assert (space.plan.devices, space.plan.device_hour_usd, space.plan.currency) == (3, 2.0, "USD")
    assert [type(v) for v in (space.plan.devices, space.plan.device_hour_usd)] == [int, float]
    domains = {d.knob.name: d.domain for d in space.dimensions}
    assert domains["micro_batch"] == IntRange(low=1, high=8, listed=(1, 2, 4, 8))
    assert domains["learning_rate"] == Choice(values=(1e-3, 1.0))
    listed = {d.knob.name: d.domain for d in load(tmp_path, spoiled("[2, 4]", "[2, 4.0]")).space.dimensions}
    assert contains(listed["micro_batch"], 4)


@pytest.mark.parametrize("corpus", ["texts", "./texts/../texts", "texts/*.txt"])
def test_a_relative_corpus_is_taken_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: str
) -> None:
    folder = tmp_path / "spaces"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (folder / "mine.toml").write_text(spoiled('"stdlib"', f'"{corpus}"'))
    assert loaded(Path("../spaces/mine.toml")).workload.data.corpus == str(folder / corpus)


def test_an_absolute_corpus_and_the_home_folder_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load(tmp_path, spoiled('"stdlib"', '"/data/text"')).workload.data.corpus == "/data/text"
    assert load(tmp_path, spoiled('"stdlib"', '"~/text"')).workload.data.corpus == "/home/somebody/text"


# `<<` marks the line that the message has to name; without it that is the first.
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # tables and keys
        (
            "[search]",
            "[serach]  # <<",
            "there is no table 'serach' here: did you mean search?",
        ),
        (
            "# A space to spoil.",
            "\nseed = 1  # <<",
            "there is no table 'seed' here: use one of workload, plan, search, baseline, knobs",
        ),
        (
            "[baseline]\nmicro_batch = 4\nglobal_batch = 8\nlearning_rate = 1e-3\nclip_norm = 1\n",
            "",
            "a search space needs a table [baseline]; got none: copy it from a shipped space",
        ),
        (
            '[search]\nbudget = "90s"',
            "[[search]]  # <<",
            "[search] search must be a table; got [{}]: write [search]",
        ),
        (
            '[search]\nbudget = "90s"',
            "search = 7  # <<",
            "[search] search must be a table; got 7: write [search]",
        ),
        (
            'budget = "90s"',
            'limit = "90s"  # <<',
            "[search] there is no key 'limit' here: use one of budget, share_of_plan",
        ),
        (
            "clip_norm = 1",
            '"clip norm" = 1  # <<',
            "[baseline] there is no key 'clip norm' here: did you mean clip_norm?",
        ),
        (
            "tied_head = [false, true]",
            "batch_size = [1, 2]  # <<",
            f"[knobs] there is no key 'batch_size' here: use one of {', '.join(KNOBS)}",
        ),
        (
            "{ low = 3e-4, high = 1e-2, log = true }",
            "{ low = 3e-4, high = 1e-2, step = 2 }  # <<",
            "[knobs.learning_rate] there is no key 'step' here: use one of low, high, log",
        ),
        (
            "learning_rate = { low = 3e-4, high = 1e-2, log = true }\ntied_head = [false, true]",
            "tied_head = [false, true]\n[knobs.learning_rate]\nlow = 3e-4\nhigh = 1e-2\nstep = 2  # <<",
            "[knobs.learning_rate] there is no key 'step' here: use one of low, high, log",
        ),
        # workload
        (
            '[workload]\ncorpus = "stdlib"\ntokenizer = "bytes"\nlayers = 2\n',
            '[workload]  # <<\ncorpus = "stdlib"\n',
            "[workload] layers must be given; got none: add it",
        ),
        (
            "heads = 2\nwidth = 64\n",
            "with = 64  # <<\n",
            "[workload] there is no key 'with' here: did you mean width?",
        ),
        (
            '[workload]\ncorpus = "stdlib"\ntokenizer = "bytes"\nlayers = 2\nheads = 2\n',
            "[workload]  # <<\n",
            "[workload] layers, heads must be given; got none: add them",
        ),
        (
            "layers = 2",
            'layers = "2"  # <<',
            "[workload] layers must be an integer; got '2': write a whole number such as 12",
        ),
        (
            "layers = 2",
            "layers = true  # <<",
            "[workload] layers must be an integer; got True: write a whole number such as 12",
        ),
        (
            "layers = 2",
            "layers = 2\nholdout_fraction = 0  # <<",
            "[workload] holdout_fraction must be above 0; got 0.0: use a larger one",
        ),
        (
            "layers = 2",
            "layers = 2\nholdout_fraction = 0.6  # <<",
            "[workload] holdout_fraction must be at most 0.5; got 0.6: use 0.5 or less",
        ),
        (
            '"bytes"',
            "257  # <<",
            '[workload] tokenizer must be a string; got 257: write it in quotes such as "bpe:2048"',
        ),
        ("layers = 2", "layers = 0  # <<", "[workload] layers must be at least 1; got 0: use 1 or more"),
        (
            "heads = 2",
            "heads = 3  # <<",
            "[workload] width must be a multiple of heads; got '64 with 3 heads': try width 63",
        ),
        (
            '"bytes"',
            '"bpe:9"  # <<',
            "[workload] tokenizer bpe:<vocabulary> needs a size between 257 and 1000000; got 'bpe:9': try \"bpe:2048\"",
        ),
        ('"stdlib"', '""  # <<', "[workload] corpus must name a text; got '': use a path or \"stdlib\""),
        (
            '"stdlib"',
            '"~no-such-user/text"  # <<',
            (
                "[workload] corpus starts with ~, which must name a user's home folder; got '~no-such-user/text': "
                "write the path out"
            ),
        ),
        (
            "horizon_tokens = 40_000",
            "horizon_tokens = 4.5  # <<",
            "[workload] horizon_tokens must be an integer; got 4.5: write a whole number such as 50000",
        ),
        (
            "horizon_tokens = 40_000",
            "horizon_tokens = 100  # <<",
            "[workload] horizon_tokens must hold at least one sequence of 128; got 100: try 12800",
        ),
        (
            "evaluation_tokens = 8_192",
            "evaluation_tokens = 0  # <<",
            "[workload] evaluation_tokens must be at least 1; got 0: use 1 or more",
        ),
        (
            'device = "cpu"',
            'device = "gpu"  # <<',
            "[workload] device must be 'auto', 'cpu', 'cuda' or 'mps'; got 'gpu': choose one of them",
        ),
        # plan
        (
            "[plan]\ntokens = 2e7\n",
            "[plan]  # <<\n",
            "[plan] a plan has either tokens or target_loss; got tokens 0 and target_loss 0: give exactly one of them",
        ),
        (
            "tokens = 2e7",
            "tokens = 2e7  # <<\ntarget_loss = 3.5",
            (
                "[plan] a plan has either tokens or target_loss; got tokens 20000000 and target_loss 3.5: "
                "give exactly one of them"
            ),
        ),
        (
            "runs = 3",
            "device_hour_usd = -0.1  # <<",
            "[plan] device_hour_usd must be at least 0; got -0.1: use 0 or more",
        ),
        (
            "runs = 3",
            "kwh_usd = nan  # <<",
            "[plan] kwh_usd must be finite; got nan: write an ordinary number",
        ),
        (
            "runs = 3",
            "engineer_hour_usd = inf  # <<",
            "[plan] engineer_hour_usd must be finite; got inf: write an ordinary number",
        ),
        ("runs = 3", "runs = 0  # <<", "[plan] runs must be at least 1; got 0: use 1 or more"),
        ("runs = 3", "runs = 2.5  # <<", "[plan] runs must be an integer; got 2.5: write a whole number"),
        ("runs = 3", "runs = true  # <<", "[plan] runs must be an integer; got True: write a whole number"),
        ("runs = 3", "devices = 0  # <<", "[plan] devices must be at least 1; got 0: use 1 or more"),
        ("runs = 3", "owned = 1  # <<", "[plan] owned must be true or false; got 1: write one of them"),
        ("runs = 3", "pue = 0.5  # <<", "[plan] pue must be at least 1; got 0.5: use 1 or more"),
        # budget
        ('"90s"', "90  # <<", '[search] budget must be a string; got 90: write it in quotes such as "20m"'),
        (
            '"90s"',
            '"soon"  # <<',
            "[search] a duration is a number with s, m, h or d; got 'soon': write 90s, 20m or 1h30m",
        ),
        # baseline
        (
            "micro_batch = 4",
            "micro_batch = 3  # <<",
            "[baseline] global_batch must be a multiple of micro_batch; got '8 with micro_batch 3': try global_batch 9",
        ),
        (
            "clip_norm = 1",
            'clip_norm = "off"  # <<',
            "[baseline] clip_norm must be a number; got 'off': write one",
        ),
        (
            "clip_norm = 1",
            "warmup_fraction = 0.95  # <<",
            "[baseline] warmup_fraction must be in [0, 0.9]; got 0.95: choose a value in the range",
        ),
        # domains
        ("[2, 4]", "[]  # <<", "[knobs] a domain must not be empty; got []: list the values to try"),
        ("[2, 4]", "[2, 4, 2]  # <<", "[knobs] a domain must not repeat a value; got [2, 4, 2]: list each once"),
        ("[2, 4]", "[2, 4.5]  # <<", "[knobs] micro_batch must be an integer; got 4.5: write a whole number"),
        (
            "[2, 4]",
            "[  # <<\n  2,\n  4,\n  true,\n]",
            "[knobs] micro_batch must be an integer; got True: write a whole number",
        ),
        (
            "[2, 4]",
            "4  # <<",
            (
                "[knobs] a domain is a list of values or, for a number, { low = .., high = .. }; got 4: "
                "list the values to try"
            ),
        ),
        (
            "[2, 4]",
            "[2, 8]  # <<",
            (
                "[knobs] the domain of micro_batch must contain the baseline's value; got [2, 8] without 4: "
                "add it, or change [baseline] micro_batch"
            ),
        ),
        (
            '["fp32", "bf16_autocast"]',
            '["fp32", "fp8"]  # <<',
            (
                "[knobs] dtype must be one of fp32, bf16_autocast, fp16_autocast, bf16_master, bf16_pure; "
                "got 'fp8': choose one of them"
            ),
        ),
        (
            '["fp32", "bf16_autocast"]',
            "{ low = 1, high = 2 }  # <<",
            (
                "[knobs] a domain is a list of values or, for a number, { low = .., high = .. }; "
                "got {'low': 1, 'high': 2}: list the values to try"
            ),
        ),
        (
            "{ low = 3e-4, high = 1e-2, log = true }",
            "{ low = 3e-4 }  # <<",
            (
                "[knobs] a domain is a list of values or, for a number, { low = .., high = .. }; "
                "got {'low': 0.0003}: list the values to try"
            ),
        ),
        (
            "{ low = 3e-4, high = 1e-2, log = true }",
            "{ low = 1e-2, high = 3e-4 }  # <<",
            "[knobs] a range needs low below high; got 0.01 and 0.0003: widen it",
        ),
        (
            "{ low = 3e-4, high = 1e-2, log = true }",
            "{ low = 1e-3, high = 1e-3 }  # <<",
            "[knobs] a range needs low below high; got 0.001 and 0.001: widen it",
        ),
        (
            "{ low = 3e-4, high = 1e-2, log = true }",
            "{ low = 3e-4, high = 20 }  # <<",
            "[knobs] learning_rate must be in [1e-08, 10]; got 20.0: choose a value in the range",
        ),
        (
            "{ low = 3e-4, high = 1e-2, log = true }",
            '{ low = 3e-4, high = 1e-2, log = "yes" }  # <<',
            "[knobs] log must be true or false; got 'yes': use true for learning rates",
        ),
        (
            "tied_head = [false, true]",
            "weight_decay = { low = 0, high = 0.3, log = true }  # <<",
            "[knobs] a log range needs a positive low; got 0.0: try 1e-5",
        ),
        (
            "{ low = 3e-4, high = 1e-2, log = true }",
            "{ low = 2e-3, high = 1e-2 }  # <<",
            (
                "[knobs] the domain of learning_rate must contain the baseline's value; "
                "got {'low': 0.002, 'high': 0.01} without 0.001: add it, or change [baseline] learning_rate"
            ),
        ),
    ],
)
def test_bad_input_is_told_with_place_rule_value_and_remedy(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = spoiled(old, new)
    line = next((n for n, content in enumerate(text.splitlines(), start=1) if "<<" in content), 1)
    with pytest.raises(BadInput) as refused:
        load(tmp_path, text)
    assert str(refused.value) == f"{tmp_path / 'mine.toml'}:{line}: {message}"
    assert refused.value.exit_code == ExitCode.BAD_INPUT


def test_dotted_keys_have_a_place_too(tmp_path: Path) -> None:
    text = spoiled('[search]\nbudget = "90s"\n', "").replace("# A space to spoil.\n", '\nsearch . "budget" = 5\n')
    with pytest.raises(BadInput, match=r"mine\.toml:2: \[search\] budget must be a string; got 5: write it in quotes"):
        load(tmp_path, text)


def test_no_knob_at_all_is_no_search(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"mine\.toml:26: \[knobs\] a search needs at least one knob; got none: choose"):
        load(tmp_path, SPACE[: SPACE.index("[knobs]")] + "[knobs]\n")


def test_text_that_is_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"mine\.toml: a search space must be valid TOML; .*\(at line 8, column \d+\): mend that line"
    ):
        load(tmp_path, spoiled("layers = 2", "layers = = 2"))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes("# Größe\n".encode("latin-1"))
    (tmp_path / "folder.toml").mkdir()
    for name, reason in (
        ("none.toml", "No such file or directory"),
        ("latin.toml", "it is no UTF-8 text"),
        ("folder.toml", "Is a directory"),
    ):
        with pytest.raises(BadInput) as refused:
            load_space(tmp_path / name)
        said = f"a space is a readable TOML file; got {str(tmp_path / name)!r} ({reason}): check the path"
        assert str(refused.value) == said


SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
PARTS = st.lists(
    st.tuples(st.integers(0, 10_000) | st.decimals(0, 1000, places=2), st.sampled_from("smhd")), min_size=1, max_size=4
)


@settings(deadline=None)
@given(PARTS)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[float, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    expected = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if expected:
        assert parse_duration(text) == pytest.approx(expected)
    else:
        with pytest.raises(BadInput):
            parse_duration(text)


@settings(deadline=None)
@given(
    PARTS, st.sampled_from(["", " ", "-", "+", "x", "1", "ms", "e3s", "\n"]), st.sampled_from(["", " ", "-", "x", "."])
)
def test_nothing_else_is_a_duration(parts: list[tuple[float, str]], after: str, before: str) -> None:
    text = before + "".join(f"{number}{unit}" for number, unit in parts) + after
    if before or after:
        with pytest.raises(
            BadInput, match=r"a duration is a number with s, m, h or d; got .*: write 90s, 20m or 1h30m"
        ):
            parse_duration(text)


@pytest.mark.parametrize("text", ["", "0s", "90", "m", "1.s", ".5h", "1h 30m", "inf", "nans", "9" * 400 + "h"])
def test_a_budget_without_end_or_beginning_is_none(text: str) -> None:
    with pytest.raises(BadInput):
        parse_duration(text)
