import dataclasses
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from autotune.analysis.decision import Expected
from autotune.analysis.recommendation import Expectation, Recommendation
from autotune.quantity import Interval, Unknown
from autotune.report import build_view, render_report
from autotune.report.html_ import render_html, typeset
from autotune.report.json_ import render_json
from autotune.report.markdown import code, escape, render_markdown
from autotune.space.knobs import Choice, Knob

from .caveat_examples import CAVEATS
from .examples import EXAMPLES, expected, expected_alone, race
from .search_examples import BASELINE, CREATED_AT, WINNER, WORKLOAD, claimed, interval, too_short

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/report.schema.json").read_text())
FILES = ("report.json", "report.md", "report.html")


def rendered(r: Recommendation, study: str = "gpt-small") -> dict[str, str]:
    view = build_view(r, study=study, created_at=CREATED_AT, version="1.2.3", space="cpu")
    return {
        "report.json": render_json(r, view),
        "report.md": render_markdown(view),
        "report.html": render_html(view),
    }


def visible(html: str) -> str:
    """The text of a page as a reader meets it, typesetting undone."""
    parser = HTMLParser()
    texts: list[str] = []
    parser.handle_data = texts.append  # type: ignore[method-assign]
    parser.feed(html)
    text = "".join(texts)
    for fancy, plain in (("\u2060\u2013\u2060", "-"), ("\u00d7", "x"), ("\u2212", "-"), ("\u00a0", " ")):
        text = text.replace(fancy, plain)
    return text


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_json_obeys_its_published_schema(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    Draft202012Validator(SCHEMA).validate(strict(rendered(EXAMPLES[name]())["report.json"]))


def knob_schema(knob: Knob) -> dict[str, object]:
    """One knob's value as the published schema has it."""
    kinds = {int: "integer", float: "number", bool: "boolean", str: "string"}
    schema: dict[str, object] = {"description": f"{knob.help[0].upper()}{knob.help[1:]}.", "type": kinds[knob.kind]}
    is_choice = isinstance(knob.domain, Choice) and knob.kind is str
    return schema | ({"enum": list(knob.domain.values)} if is_choice else {})


def test_the_schema_of_a_configuration_is_the_table_of_knobs() -> None:
    published = SCHEMA["$defs"]["configuration"]
    assert published["required"] == list(BASELINE)
    assert published["properties"] == {name: knob_schema(WORKLOAD.knobs[name]) for name in BASELINE}


def test_the_schema_knows_every_caveat_and_its_fields_are_published() -> None:
    r = dataclasses.replace(claimed(), caveats=tuple(CAVEATS.values()))
    report = strict(rendered(r)["report.json"])
    Draft202012Validator(SCHEMA).validate(report)
    kinds = SCHEMA["properties"]["caveats"]["items"]["properties"]["kind"]["enum"]
    assert sorted(c["kind"] for c in report["caveats"]) == sorted(kinds)
    details = {c["kind"]: c["details"] for c in report["caveats"]}
    assert details["numerics_undecided"] == {"knobs": "dtype", "lost": 0.031, "margin": 0.02}
    assert details["unpriced"] == {}


def test_the_schema_is_closed_and_describes_every_property() -> None:
    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            if "properties" in node:
                assert node["additionalProperties"] is False, path
                assert node["required"] == list(node["properties"]), path
                for name, value in node["properties"].items():
                    assert value.get("description"), f"{path}.{name}"
            for name, value in node.items():
                walk(value, f"{path}.{name}")
        elif isinstance(node, list):
            for item in node:
                walk(item, path)

    walk(SCHEMA, "schema")


def test_a_field_that_is_not_published_is_refused() -> None:
    report = strict(rendered(claimed())["report.json"])
    assert not Draft202012Validator(SCHEMA).is_valid({**report, "extra": 1})


def test_the_json_carries_the_figures_unrounded() -> None:
    report = strict(rendered(claimed())["report.json"])
    assert report["speedup"]["over_baseline"] == {"estimate": 1.4213, "low": 1.3479, "high": 1.4892, "level": 0.9}
    assert report["roi"]["probability_positive"] == 0.9971
    assert report["net_saving"]["currency"] == "USD"
    assert report["trials_by_outcome"]["completed"]["trials"] == [0, 4, 9, 23]
    assert report["recommended"]["dtype"] == "bf16_autocast"
    assert report["decision"] == {"kind": "claimed", "configuration": dict(WINNER)}


def test_the_json_keeps_what_is_expected_apart() -> None:
    r = expected()
    report, without = (
        strict(rendered(each)["report.json"])
        for each in (r, dataclasses.replace(r, expectation=Unknown(reason="nothing is expected")))
    )
    assert report["verdict"] == report["decision"]["kind"] == "expected"
    assert report["decision"]["guard"] == {"kind": "look", "needs_run": False}
    assert report["decision"]["expected_cost"] < report["decision"]["expected_cost_unguarded"] < 1.0
    assert report["claimed"] == dict(WINNER)
    assert report["recommended"] == report["decision"]["configuration"] == report["expectation"]["configuration"]
    assert report["expectation"]["knobs"] == {"learning_rate": "0.003", "schedule": "wsd"}
    assert report["expectation"]["over_claimed"]["level"] == 0.9
    assert without["expectation"] == {"unknown": "nothing is expected"}
    different = {name for name, value in report.items() if value != without[name]}
    assert different == {"expectation", "headline"}, "no other figure holds any of it"


def test_the_json_of_every_guard_and_of_what_would_inform() -> None:
    assert strict(rendered(expected_alone())["report.json"])["decision"]["guard"] == {"kind": "trunks", "share": 0.01}
    raced = strict(rendered(race())["report.json"])
    assert raced["decision"]["guard"] == {"kind": "look", "needs_run": True}
    assert raced["recommended"] == raced["claimed"] == raced["baseline"]
    decision = strict(rendered(too_short())["report.json"])["decision"]
    assert (decision["kind"], decision["tokens"], decision["cost_seconds"]) == ("not_informative", 2.4e6, 22_800.0)


def test_the_json_never_holds_nan_or_infinity() -> None:
    r = claimed()
    endless = Interval(estimate=8e8, low=5e8, high=float("inf"), level=0.9)
    nothing = dataclasses.replace(r.roi, probability_positive=float("nan"))
    text = rendered(dataclasses.replace(r, break_even_tokens=endless, roi=nothing))["report.json"]
    report = strict(text)
    assert "no finite interval" in report["break_even_tokens"]["unknown"]
    assert report["roi"]["probability_positive"] is None
    Draft202012Validator(SCHEMA).validate(report)


@pytest.mark.parametrize("name", EXAMPLES)
def test_html_and_markdown_say_the_same_words(name: str) -> None:
    r = EXAMPLES[name]()
    view = build_view(r, study="s", created_at=CREATED_AT)
    markdown, page = render_markdown(view), visible(render_html(view))
    spaced = " ".join(page.split())
    parts = (*view.parts, *view.unused)
    texts = [text for part in parts for text in (*part.text, part.guard)]
    for sentence in (*view.why, *texts, *(c.text for c in view.caveats), *(text for _, text in view.reading)):
        assert escape(sentence) in markdown
        assert sentence in spaced
    for turn in (turn for part in parts for turn in part.turns):
        assert f"{code(turn.old)} -> {code(turn.new)}" in markdown
        assert f"{turn.knob} {turn.old} \u2192 {turn.new}" in spaced
    figures = (*(f for part in parts for f in part.figures), *(f for group in view.groups for f in group.figures))
    for f in (*view.carried, *figures):
        assert escape(f.shown.text) in markdown
        for half in (f.shown.value, f.shown.interval, f.shown.reason):
            assert half in page
    for t in view.techniques:
        for shown in (t.speed, t.quality, t.saving, t.roi, t.break_even):
            assert shown.value in markdown
            assert shown.value in page
            assert shown.reason in markdown
            assert shown.reason in page
        assert escape(t.reason) in markdown
        assert t.reason in page
    for line in view.toml.splitlines():
        assert line in markdown
        assert line in page


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_is_self_contained_and_well_formed(name: str) -> None:
    html = rendered(EXAMPLES[name]())["report.html"]
    assert not re.search(r"https?://|url\(|@import|<script|\bsrc=", html)
    void = {"meta", "link", "br"}
    stack: list[str] = []

    class Nesting(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in void:
                stack.append(tag)

        def handle_startendtag(self, tag: str, attrs: object) -> None: ...

        def handle_endtag(self, tag: str) -> None:
            assert stack.pop() == tag

    Nesting().feed(html)
    assert stack == []
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'aria-labelledby="([^"]+)"', html)) <= set(ids)
    assert html.count("<h1>") == 1
    for svg in re.findall(r"<svg class=\"figure\"[^>]*>", html):
        assert 'role="img"' in svg
        assert re.search(r'aria-label="[^"]+', svg)


def test_the_page_serves_dark_mode_phones_and_print() -> None:
    html = rendered(claimed())["report.html"]
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert 'name="viewport"' in html


EVIL = "<script>alert(1)</script> | `x` *b* [l](javascript:x)"


def evil() -> Recommendation:
    r = expected()
    assert isinstance(r.decision, Expected)
    assert isinstance(r.expectation, Expectation)
    hoped = r.recommended.with_values({"learning_rate": EVIL})
    return dataclasses.replace(
        r,
        recommended=hoped,
        decision=dataclasses.replace(r.decision, config=hoped),
        expectation=dataclasses.replace(r.expectation, config=hoped, knobs={"learning_rate": EVIL}),
        trials=(dataclasses.replace(r.trials[4], reason=EVIL, label=EVIL),),
        techniques=(dataclasses.replace(r.techniques[0], title=EVIL, reason=EVIL, value=EVIL),),
        runners_up=(dataclasses.replace(r.runners_up[0], label=EVIL),),
        corpus=dataclasses.replace(
            r.corpus, cache_damage=EVIL, left_out=(dataclasses.replace(r.corpus.left_out[0], examples=(EVIL,)),)
        ),
        environment={EVIL: EVIL},
        search_cost=dataclasses.replace(r.search_cost, seconds_by_activity={EVIL: 1.0}),
    )


def test_text_of_users_and_workers_is_escaped_in_html() -> None:
    html = rendered(evil(), study=EVIL)["report.html"]
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)") >= 9


def test_text_of_users_and_workers_is_escaped_in_markdown() -> None:
    markdown = rendered(evil(), study=EVIL)["report.md"]
    prose = re.sub(r"^```toml$.*?^```$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    outside_code = re.sub(r"(`+).*?\1", "", prose.replace("\\`", ""))
    assert not re.search(r"(?<!\\)<script", outside_code)
    assert not re.search(r"(?<!\\)\[l", outside_code)
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("| Trial")}
    rows = [line for line in markdown.splitlines() if line.startswith("| 11 ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == widths


def test_markdown_leaves_plain_words_alone() -> None:
    assert escape("bf16_autocast, 1.42x (1.35-1.49)") == "bf16_autocast, 1.42x (1.35-1.49)"
    assert escape("a|b *c* _d_ <e>") == r"a\|b \*c\* \_d\_ \<e>"
    assert code("a`b|c") == "``a`b\\|c``"


def test_markdown_tables_line_up() -> None:
    block: list[str] = []
    for line in [*rendered(claimed())["report.md"].splitlines(), ""]:
        if line.startswith("|"):
            block.append(line)
        else:
            assert len({len(row) for row in block}) <= 1
            block = []


def test_type_is_set_without_changing_numbers_or_names() -> None:
    assert typeset("1.42x (1.35-1.49)") == "1.42\u00d7 (1.35\u2060\u2013\u20601.49)"
    assert typeset("-3.2 to 4.1") == "\u22123.2 to 4.1"
    assert typeset("max-autotune-no-cudagraphs, fp32x") == "max-autotune-no-cudagraphs, fp32x"


def report_of(recommendation: Recommendation, study: str = "s") -> Mapping[str, str]:
    """A report as the driver makes it."""
    return render_report(recommendation, build_view(recommendation, study=study, created_at=CREATED_AT))


def test_a_report_has_three_files() -> None:
    files = report_of(claimed())
    assert sorted(files) == sorted(FILES)
    assert json.loads(files["report.json"])["study"] == "s"


def test_a_cost_that_is_not_a_number_is_an_error_and_not_a_report() -> None:
    r = claimed()
    broken = dataclasses.replace(r, search_cost=dataclasses.replace(r.search_cost, money=float("nan")))
    with pytest.raises(ValueError, match="NaN"):
        report_of(broken)


def test_ratios_that_a_logarithmic_axis_cannot_show_are_left_to_the_text() -> None:
    r = claimed()
    odd = dataclasses.replace(r.over_baseline, speedup=interval(0.4, -0.1, 0.9))
    expert = dataclasses.replace(r.over_expert, speedup=interval(0.4, 0.0, 0.9))
    page = visible(rendered(dataclasses.replace(r, over_baseline=odd, over_expert=expert))["report.html"])
    assert "0.400x" in page
