"""Search spaces as text: what is read, and how what cannot be read is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from autotune_model.config import TrainingConfig
from autotune_model.knobs import KNOBS
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.errors import BadInput, ExitCode
from autotune.space.load import load_space, parse_duration
from autotune.space.space import Choice, FloatRange, IntRange, SearchSpace

SHIPPED = sorted((Path(__file__).parent.parent / "search_spaces").glob("*.toml"))
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


def load(folder: Path, text: str) -> SearchSpace:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load_space(path)


def spoiled(old: str, new: str) -> str:
    """The space with one text in it replaced."""
    assert SPACE.count(old) == 1
    return SPACE.replace(old, new)


def test_a_space_is_read_as_it_is_written(tmp_path: Path) -> None:
    space = load(tmp_path, SPACE)
    assert space.name == "mine"
    assert (space.workload.gpt.layers, space.workload.horizon_tokens, space.workload.device) == (2, 40_000, "cpu")
    assert (space.workload.data.corpus, space.workload.data.tokenizer) == ("stdlib", "bytes")
    assert (space.plan.tokens, space.plan.runs, space.plan.currency) == (20_000_000, 3, "device-hours")
    assert space.budget_seconds == 90.0
    assert space.baseline == TrainingConfig(micro_batch=4, global_batch=8, learning_rate=1e-3, clip_norm=1.0)
    assert {d.knob.name: d.domain for d in space.dimensions} == {
        "micro_batch": Choice(values=(2, 4)),
        "dtype": Choice(values=("fp32", "bf16_autocast")),
        "learning_rate": FloatRange(low=3e-4, high=1e-2, log=True),
        "tied_head": Choice(values=(False, True)),
    }


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    text = spoiled('[search]\nbudget = "90s"\n', "").replace("evaluation_tokens = 8_192\n", "")
    space = load(tmp_path, text.replace('device = "cpu"\n', "").replace('corpus = "stdlib"\n', ""))
    assert space.budget_seconds == 600.0
    assert (space.workload.evaluation_tokens, space.workload.device) == (16_384, "auto")
    assert space.workload.data.corpus == "stdlib"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_space_loads(path: Path) -> None:
    space = load_space(path)
    assert space.name == path.stem
    order = list(KNOBS)
    names = [d.knob.name for d in space.dimensions]
    assert names == sorted(names, key=order.index)
    assert space.workload.horizon_tokens >= 10 * space.baseline.global_batch * space.workload.gpt.sequence_length


def test_spaces_are_shipped() -> None:
    assert {path.stem for path in SHIPPED} == {"quickstart", "gpt_cpu", "gpt2_small_gpu", "techniques", "power_of_two"}


def test_whole_numbers_stand_for_floats_and_the_reverse_where_nothing_is_lost(tmp_path: Path) -> None:
    text = spoiled("runs = 3", "runs = 3.0\ndevice_hour_usd = 2").replace("[2, 4]", "{ low = 1, high = 8, log = true }")
    space = load(tmp_path, text.replace("{ low = 3e-4, high = 1e-2, log = true }", "[1e-3, 1]"))
    assert (space.plan.runs, space.plan.device_hour_usd, space.plan.currency) == (3, 2.0, "USD")
    domains = {d.knob.name: d.domain for d in space.dimensions}
    assert domains["micro_batch"] == IntRange(low=1, high=8, log=True)
    assert domains["learning_rate"] == Choice(values=(1e-3, 1.0))


@pytest.mark.parametrize("corpus", ["texts", "./texts/../texts", "texts/*.txt"])
def test_a_relative_corpus_is_taken_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: str
) -> None:
    folder = tmp_path / "spaces"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (folder / "mine.toml").write_text(spoiled('"stdlib"', f'"{corpus}"'))
    space = load_space(Path("../spaces/mine.toml"))
    assert space.workload.data.corpus == str(folder / corpus)


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
            "there is no table 'serach' here: use one of workload, plan, search, baseline, knobs",
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
            "[search] there is no key 'limit' here: use one of budget",
        ),
        (
            "clip_norm = 1",
            '"clip norm" = 1  # <<',
            f"[baseline] there is no key 'clip norm' here: use one of {', '.join(KNOBS)}",
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
            "[workload] GPTConfig needs every field; got 'no layers': add it",
        ),
        ("layers = 2", 'layers = "2"  # <<', "[workload] GPTConfig.layers must be int; got '2': write a int"),
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
            "[workload] ~ must stand for a user's folder; got '~no-such-user/text': write the path out",
        ),
        (
            "horizon_tokens = 40_000",
            "horizon_tokens = 4e4  # <<",
            "[workload] horizon_tokens must be a positive int; got 40000.0: try 50_000",
        ),
        (
            "horizon_tokens = 40_000",
            "horizon_tokens = 100  # <<",
            "[workload] horizon_tokens must hold at least one sequence of 128; got 100: try 12800",
        ),
        (
            "evaluation_tokens = 8_192",
            "evaluation_tokens = 0  # <<",
            "[workload] evaluation_tokens must be a positive int; got 0: try 50_000",
        ),
        (
            'device = "cpu"',
            'device = "gpu"  # <<',
            "[workload] device must be auto, cpu, cuda or mps; got 'gpu': use \"auto\"",
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
            "[plan] device_hour_usd must be finite and not negative; got -0.1: use 0 or more",
        ),
        (
            "runs = 3",
            "kwh_usd = nan  # <<",
            "[plan] kwh_usd must be finite and not negative; got nan: use 0 or more",
        ),
        (
            "runs = 3",
            "engineer_hour_usd = inf  # <<",
            "[plan] engineer_hour_usd must be finite and not negative; got inf: use 0 or more",
        ),
        ("runs = 3", "runs = 0  # <<", "[plan] runs must be at least 1; got 0: use 1"),
        ("runs = 3", "runs = 2.5  # <<", "[plan] runs must be int; got 2.5: write a int"),
        ("runs = 3", "runs = true  # <<", "[plan] runs must be int; got True: write a int"),
        ("runs = 3", "devices = 0  # <<", "[plan] devices must be at least 1; got 0: use 1"),
        ("runs = 3", "owned = 1  # <<", "[plan] owned must be bool; got 1: write a bool"),
        ("runs = 3", "pue = 0.5  # <<", "[plan] pue must be at least 1; got 0.5: use 1.0 for a machine in a room"),
        # budget
        ('"90s"', "90  # <<", '[search] budget must be a duration; got 90: write "10m"'),
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
            "[baseline] TrainingConfig.clip_norm must be float; got 'off': write a float",
        ),
        (
            "clip_norm = 1",
            "warmup_fraction = 0.95  # <<",
            "[baseline] warmup_fraction must be in [0, 0.9]; got 0.95: choose a value in the range",
        ),
        # domains
        ("[2, 4]", "[]  # <<", "[knobs] a domain must not be empty; got []: list the values to try"),
        ("[2, 4]", "[2, 4, 2]  # <<", "[knobs] a domain must not repeat a value; got [2, 4, 2]: list each once"),
        ("[2, 4]", "[2, 4.0]  # <<", "[knobs] micro_batch must be int; got 4.0: write a int"),
        ("[2, 4]", "[  # <<\n  2,\n  4,\n  true,\n]", "[knobs] micro_batch must be int; got True: write a int"),
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
    with pytest.raises(BadInput, match=r"mine\.toml:2: \[search\] budget must be a duration; got 5"):
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
