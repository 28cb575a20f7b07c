"""`specialize-jax align` in its three modes, on the fixture's records."""

import json

import pytest

from tests.apps.line import FIXTURES, run
from tests.fixtures import world


@pytest.fixture(scope="module")
def infos(tmp_path_factory):
    found = {}
    for mode in ("one_to_one", "soft", "marginal"):
        out = tmp_path_factory.mktemp(mode)
        arguments = [f"--records={FIXTURES / 'teacher_records'}", f"--mode={mode}", "--k_out=4"]
        assert (
            run("align", *arguments, f"--student_tokenizer={world.TOKENIZER}", f"--out={out}") == 0
        )
        found[mode] = json.loads((out / "alignment_info.json").read_text())
        assert run("verify", str(out)) == 0
    return found


def test_marginal_reaches_every_token_of_a_record_with_logprobs(infos):
    ours, published = infos["marginal"], infos["one_to_one"]
    assert ours["mode"] == "marginal"
    for key in ("rows", "rows_with_logprobs", "cot_tokens"):
        assert ours[key] == published[key]
    assert ours["coverage"] > published["coverage"]
    without = published["reasons"]["no_logprobs"]
    assert set(ours["reasons"]) <= {"no_logprobs", "end_of_sequence"}
    assert ours["reasons"]["no_logprobs"] == without


def test_soft_transfers_what_one_to_one_transfers_and_more(infos):
    soft, published = infos["soft"], infos["one_to_one"]
    assert soft["mode"] == "soft"
    for key in ("rows", "rows_with_logprobs", "cot_tokens"):
        assert soft[key] == published[key]
    assert soft["coverage"] > published["coverage"]
    assert soft["reasons"]["no_logprobs"] == published["reasons"]["no_logprobs"]
