"""The page that is written: its numbers, its safety, and that it stands alone."""

import html.parser
import json
import re
import struct
import sys

import pytest

from specialize_jax import report
from tests.report import fixtures

_REFERENCES = ("href", "xlink:href", "for", "aria-describedby", "aria-labelledby")


class _Page(html.parser.HTMLParser):
    """Collects tags, ids, references to ids, files named, and the text outside of code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.files: set[str] = set()
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = tag
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in _REFERENCES:
                if value.startswith("#") or name not in ("href", "xlink:href"):
                    self.references.add(value.removeprefix("#"))
                else:
                    self.files.add(value)
            elif name == "src":
                self.files.add(value)
            self.references |= set(re.findall(r"url\(#([^)]+)\)", value or ""))

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data

    def handle_endtag(self, tag):
        self._inside = ""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    stages = fixtures.write_run(root)
    report.write(list(stages.values()), root / "out")
    return root / "out"


@pytest.fixture(scope="module")
def page(written):
    return _Page((written / "index.html").read_text())


def test_the_numbers_are_on_the_page(page):
    words = " ".join(page.text.split())
    for shown in (
        "code-davinci-002",
        "t5_1_1_small",
        "80.0%",  # coverage
        "97.6%",  # retained mass
        "12,345",  # dropped for a wrong answer
        "80,802",  # examples of a format
        "95.3%",  # encoder fill
        "22.0%",  # GSM8K at the last step: 0.1 + 600 / 5000
        "19.8% – 24.3%",  # its Wilson interval at n = 1,319
        "20.0%",  # and under fu2023
        "32.0%",  # mean of 0.27, 0.32 and 0.37
        f"{fixtures.metrics()[-1]['kl_loss']:.4f}",
        "log-probability -0.2000",
        "<0.001",  # the candidate with p = 0.0001
    ):
        assert shown in words, shown


def test_text_of_others_is_never_markup(page, written):
    source = (written / "index.html").read_text()
    assert fixtures.HOSTILE not in source
    assert page.tags.count("script") == 1 and "b" in page.tags
    assert fixtures.HOSTILE in page.text  # in the sample's output
    assert fixtures.HOSTILE.replace(" ", "·") in page.text  # as a token


def test_every_reference_has_its_id_and_ids_are_unique(page):
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)
    assert {"loss", "alignment-1", "tip-1-1", "sample-set"} <= page.references | set(page.ids)


def test_the_script_finds_its_elements(page, written):
    source = (written / "index.html").read_text()
    wanted = re.findall(r'getElementById\("([^"]+)"\)', source)
    assert wanted and set(wanted) <= set(page.ids)


def test_the_page_needs_no_network_and_its_files_are_there(page, written):
    names = {name for name in page.files if name != "data:,"}
    assert names and all(re.fullmatch(r"[a-z0-9-]+\.png", name) for name in names)
    for name in names:
        content = (written / name).read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">I", content[16:20])[0] > 500
    assert page.tags.count("svg") == len(names) == 9
    assert "@import" not in (written / "index.html").read_text()


def test_charts_take_the_theme(written):
    source = (written / "index.html").read_text()
    assert "prefers-color-scheme: dark" in source
    charts = "".join(re.findall(r"<svg.*?</svg>", source, re.DOTALL))
    assert "var(--transferred)" in charts and "#0072b2" not in charts


def test_json_holds_what_the_page_shows(written):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    found = json.loads((written / "report.json").read_text(), parse_constant=refuse)
    accuracies = [row["accuracy"] for row in found["accuracy"] if row["data_set"] == "gsm8k"]
    corrected = [0.1 + step / 5000 for step in fixtures.STEPS]
    assert accuracies == pytest.approx([*corrected, *(share - 0.02 for share in corrected)])
    assert {chart["file"] for chart in found["charts"]} == {p.name for p in written.glob("*.png")}
    assert len(found["training"][0]["splits"]["validation"]) == len(fixtures.STEPS)
    assert "Held-out accuracy while training" in {chart["title"] for chart in found["charts"]}


def test_the_same_files_give_the_same_page(tmp_path, written):
    report.write([written.parent / n for n in ("records", "aligned", "packed", "model")], tmp_path)
    for path in written.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_absent_parts_are_said_to_be_absent(tmp_path):
    fixtures.write_json(tmp_path / "in" / "teacher_info.json", {"version": 1})
    report.write([tmp_path / "in"], tmp_path / "out")
    page = _Page((tmp_path / "out" / "index.html").read_text())
    words = " ".join(page.text.split())
    for name in ("metrics.jsonl", "alignment_info.json", "results_*.json", "samples_*.jsonl"):
        assert name in words
    assert words.count("not recorded") >= 8  # one for every tile
    assert "svg" not in page.tags
    assert page.references <= set(page.ids)


def test_empty_and_odd_parts_do_not_stop_the_page(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    info = {"version": 2, "coverage": "high", "examples": 3, "by_source": {"x": 1}}
    fixtures.write_json(tmp_path / "alignment_info.json", info)
    fixtures.write_json(tmp_path / "packed_info.json", {"version": 1, "splits": {"train": {}}})
    (tmp_path / "samples_t.jsonl").write_text("{}\n")
    built = report.write([tmp_path], tmp_path / "out")
    assert "version 2" in built["notes"][0]
    words = (tmp_path / "out" / "index.html").read_text()
    assert "Coverage and one-hot reasons are not recorded" in words
    assert "The output is not recorded" in words


def test_names_may_hold_anything(tmp_path):
    names = ["<b>$x$</b>", "a & b", "t--t", "ü_1"]
    results = {name: {"acc,corrected": 0.5, "acc,fu2023": 0.25} for name in names}
    for step in ("1", "2"):
        path = tmp_path / "<i>run" / "eval" / step / "results_1.json"
        fixtures.write_json(path, {"results": results})
    report.write([tmp_path / "<i>run"], tmp_path / "out")
    page = _Page((tmp_path / "out" / "index.html").read_text())
    assert "i" not in page.tags and "b" not in page.tags
    for name in names:
        assert page.text.count(name) >= 2  # the tables of the last and of the earlier step
        assert page.text.count(name.replace("_", " ")) >= 2  # tile, chart


def test_a_single_evaluation_is_drawn_without_steps(tmp_path):
    fixtures.write_evaluation(tmp_path / "in", 200)
    built = report.write([tmp_path / "in"], tmp_path / "out")
    assert [row["step"] for row in built["distribution"]] == [None, None]
    (chart,) = built["charts"]
    assert "gsm8k 14.0%" in chart["shows"]


@pytest.mark.parametrize("library, module", [("matplotlib", "plots"), ("jinja2", "page")])
def test_a_missing_library_names_the_extra(monkeypatch, tmp_path, library, module):
    fixtures.write_json(tmp_path / "teacher_info.json", fixtures.teacher_info())
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"specialize_jax.report.{module}", raising=False)
    monkeypatch.delattr(report, module, raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"{library}.*specialize_jax\[report\]"):
        report.write([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_how_often_a_teacher_was_right(tmp_path):
    found = {"first_sample_accuracy": 0.625, "majority_accuracy": 0.875, "pass_at_k": {"1": 0.5}}
    info = fixtures.teacher_info() | {"summary": found}
    fixtures.write_json(tmp_path / "in" / "teacher_info.json", info)
    report.write([tmp_path / "in"], tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "right answers: first sample 62.5% · majority 87.5% · pass@1 50.0%" in page
