"""`specialize-jax align --mode marginal` beside the published mode, on the fixture's records."""

import json

import pytest

from tests.apps.line import FIXTURES, run
from tests.fixtures import world


@pytest.fixture(scope="module")
def infos(tmp_path_factory):
    found = {}
    for mode in ("one_to_one", "marginal"):
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
