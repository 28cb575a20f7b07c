"""What servers send, in their three forms: ids before bytes before strings, nothing guessed."""

import math
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialize_jax import tokenizers
from specialize_jax.schemas import NO_LOGPROB
from specialize_jax.teacher import answer_tokens, first_look, names, sampling, wire
from specialize_jax.teacher.client import Refused
from specialize_jax.teacher.names import Name
from tests.real_data import data_dir

HALF = math.log(0.5)
VOCABULARY = {7: b"The", 8: b" \xc3", 9: b"\x97", 10: b"\n", 11: b" x"}


def decode(token_id):
    return VOCABULARY[token_id]


def completions(tokens, text=None, top=None, **more):
    """Returns the reply of an old completions API."""
    top = [{token: HALF} for token in tokens] if top is None else top
    logprobs = {"tokens": tokens, "token_logprobs": [HALF] * len(tokens), "top_logprobs": top}
    text = "".join(tokens) if text is None else text
    choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": logprobs, **more}
    return {"choices": [choice]}


def chat(entries, text, **more):
    """Returns the reply of a chat API; an entry is (token, bytes or None, candidates)."""
    content = [
        {
            "token": token,
            "bytes": None if raw is None else list(raw),
            "logprob": HALF,
            "top_logprobs": [
                {"token": name, "bytes": b and list(b), "logprob": p} for name, b, p in top
            ],
        }
        for token, raw, top in entries
    ]
    choice = {"message": {"content": text}, "finish_reason": "stop", "logprobs": {}, **more}
    choice["logprobs"]["content"] = content
    return {"choices": [choice]}


def read(body, decode=None, most=5):
    (choice,) = wire.choices(body, decode)
    return answer_tokens.tokens(choice, most=most, decode=decode)


def test_escaped_strings_of_the_old_api():
    found = read(completions(["The", "bytes: \\xc3", "bytes:\\x97", " 7"], text="The \u00d7 7"))
    assert found.values == [b"The", b" \xc3", b"\x97", b" 7"]
    assert [step[0][0] for step in found.topk] == found.values


def test_bytes_come_before_strings_and_ids_before_bytes():
    top = [("\ufffd", b" \xc3", HALF), (" x", None, -2.0)]
    body = chat([("The", b"The", []), ("\ufffd", b" \xc3", top), ("\ufffd", b"\x97", [])], "The ×")
    found = read(body)
    assert found.values == [b"The", b" \xc3", b"\x97"] and found.ids is None
    assert found.topk[1] == [(b" \xc3", HALF), (b" x", -2.0)]
    body["choices"][0]["token_ids"] = [7, 8, 9]
    assert read(body, decode).ids == [7, 8, 9]
    # vLLM writes the bytes of the id's spelling.
    entries = [(f"token_id:{i}", b"token_id:%d" % i, []) for i in (7, 8, 9)]
    found = read(chat(entries, "The ×"), decode)
    assert (found.values, found.ids) == ([b"The", b" \xc3", b"\x97"], [7, 8, 9])


def test_ids_without_a_tokenizer_are_refused():
    with pytest.raises(names.NeedsTokenizer, match=r"'token_id:7'.*--teacher_tokenizer"):
        wire.choices(completions(["token_id:7"], text="The"))


def test_candidates_named_by_ids():
    found = read(
        completions(["token_id:7"], "The", [{"token_id:7": HALF, "token_id:11": -2}]), decode
    )
    assert found.topk == [[(b"The", HALF), (b" x", -2.0)]]


@pytest.mark.parametrize("raw", [None, "\ufffd".encode()])
def test_lost_characters_are_ambiguous(raw):
    """Strings may collapse in a dictionary; some servers send the bytes of U+FFFD."""
    top = [("\ufffd", raw, HALF), ("ok", None, -3.0)]
    found = read(chat([("\ufffd", raw, top), ("\ufffd", raw, []), (" b", None, [])], "× b"))
    assert found.values == [b"\xc3", b"\x97", b" b"]  # two bytes and two tokens: the text tells
    assert found.topk[0] == [(b"ok", -3.0)] and found.counts["ambiguous"] == 1


def test_where_the_text_leaves_it_open_tokens_become_one():
    found = read(completions(["a", "\ufffd", "\ufffd", " b"], text="a€ b"))
    assert found.values == [b"a", "€".encode(), b" b"]
    assert found.logprobs == pytest.approx([HALF, 2 * HALF, HALF])
    assert found.topk[1] == [] and found.counts["merged"] == 2


@given(st.text("aé€ 😀", max_size=8), st.data())
def test_told_bytes_are_the_true_ones(text, data):
    """Any cut of any text: what `fill` tells of a token alone is what the token was."""
    raw = text.encode()
    cuts = data.draw(st.sets(st.integers(1, max(len(raw) - 1, 1)), max_size=8))
    at = sorted({0, len(raw), *(c for c in cuts if c < len(raw))})
    true = [raw[a:b] for a, b in zip(at, at[1:], strict=False)]
    strings = [token.decode(errors="replace") for token in true]
    found = names.fill([names.read(string, None, None, None) for string in strings], raw)
    assert found is not None
    assert b"".join(name.bytes for name, _ in found) == raw
    here = 0
    for name, count in found:
        assert name.bytes == b"".join(true[here : here + count])
        here += count
    assert here == len(true)


def test_tokens_that_are_not_the_text_are_no_use():
    """A server that decodes SentencePiece tokens one by one loses their spaces."""
    assert read(completions(["The", "answer"], text="The answer")) is None
    assert names.fill([Name(None, None, "\ufffd"), Name(b"b")], b"ab") is None


def test_a_stop_behind_the_text_is_cut_off_and_its_candidates_kept():
    tokens = ["is", " 8", ".\n\n", "Question"]
    found = read(completions(tokens, text="is 8."))
    assert found.values == [b"is", b" 8"]  # of ".\n\n" the text has only a part
    assert found.terminal == [(b".\n\n", HALF)]
    # A chat API cuts white space off.
    found = read(chat([("\n", None, []), ("8", None, []), ("\n", None, [])], "8"))
    assert found.values == [b"\n", b"8"]


def test_the_end_of_an_answer_is_not_lost_with_its_token():
    assert answer_tokens.boundary([b"is", b" 8\n"], 4) == 2
    assert answer_tokens.boundary([b"is", b" 8", b".\n"], 5) == 2
    assert answer_tokens.boundary([b"is", b" 8"], 4) == 2


def test_the_sampled_token_keeps_its_own_logprob_and_is_not_put_among_the_candidates():
    body = completions(["z"], top=[{"a": HALF, "b": -2.0}])
    body["choices"][0]["logprobs"]["token_logprobs"] = [-4.5]
    found = read(body)
    assert found.logprobs == [-4.5] and found.topk == [[(b"a", HALF), (b"b", -2.0)]]
    # vLLM lists it beside those that were asked for.
    body["choices"][0]["logprobs"]["top_logprobs"] = [{"z": -4.5, "a": HALF, "b": -2.0}]
    assert read(body, most=2).topk == [[(b"a", HALF), (b"b", -2.0)]]


def test_sentinels_fewer_entries_and_nulls():
    body = completions(["a", "b", "c"], top=[{"a": 1e-7, "x": -9999.0}, None, {"c": float("-inf")}])
    body["choices"][0]["logprobs"]["token_logprobs"] = [None, -9999.0, float("nan")]
    found = read(body)
    assert found.logprobs == [NO_LOGPROB] * 3
    assert found.topk == [[(b"a", 0.0)], [], []]
    assert found.counts["without_mass"] == 2


def test_a_step_of_too_much_mass_is_left_out():
    found = read(completions(["a", "b"], top=[{"a": -0.1, "x": -0.1}, {"b": HALF}]))
    assert found.topk == [[], [(b"b", HALF)]] and found.counts["bad_mass"] == 1


def test_no_logprobs_is_text_alone():
    (choice,) = wire.choices({"choices": [{"text": "hi", "logprobs": None}]})
    assert choice == wire.Choice("hi", "unknown", None)


def test_choices_by_index_and_of_two_the_first():
    listed = [{"index": 1, "text": "b"}, {"index": 0, "text": "a"}, {"index": 1, "text": "c"}]
    assert [choice.text for choice in wire.choices({"choices": listed})] == ["a", "b"]


@pytest.mark.parametrize(
    "body",
    [
        *({}, [], None, {"choices": []}, {"choices": [3]}, {"choices": [{"text": None}]}),
        {"error": "later"},
        {"choices": [{"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [0, 0]}}]},
    ],
)
def test_what_is_no_completion(body):
    with pytest.raises(wire.BadReply, match="expected"):
        wire.choices(body)


def test_lone_surrogates_are_lost_characters():
    (choice,) = wire.choices(completions(["a\ud83d"]))
    assert choice.text == "a\ufffd" and choice.steps[0].name.bytes is None


def test_ids_of_a_real_tokenizer():
    """What a server's strings lose (half characters), its ids tell."""
    p50k = tokenizers.load(str(data_dir() / "tokenizer_tiktoken" / "p50k_base.tiktoken"))
    text = "Café × 😀 中文: $1,200\n"
    ids = p50k.encode(text)
    true = p50k.token_bytes(ids)
    assert any("\ufffd" in token.decode(errors="replace") for token in true)
    strings = [token.decode(errors="replace") for token in true]
    body = completions([f"token_id:{i}" for i in ids], text)
    assert read(body, lambda i: p50k.token_bytes([i])[0]).values == true
    told = read(completions(strings, text))  # strings alone: joint bytes where they must be
    assert b"".join(told.values) == text.encode() and len(told.values) <= len(true)


@pytest.mark.parametrize(
    "name", ["tokenizer_t5/spiece.model", "tokenizer_mistral/tokenizer.model.v1"]
)
def test_bytes_of_a_sentencepiece_model(name, tmp_path):
    path = tmp_path / "a.model"
    path.write_bytes((data_dir() / name).read_bytes())
    model = tokenizers.load(str(path))
    text = "Three 3 apples" if "t5" in name else "Three 😀\n3 apples"
    ids = model.encode(text)
    assert b"".join(model.token_bytes(ids)) == b" " + text.encode()
    assert model.token_bytes([model.eos_id]) == [b""]
    with pytest.raises(ValueError, match="ids must be in"):
        model.token_bytes([model.vocab_size])


def test_prompt_logprobs():
    """vLLM: none for the first token; the token that stands there is the first entry."""
    listed = [
        None,
        {"11": {"logprob": -3.0, "rank": 9, "decoded_token": " x"}, "7": {"logprob": -0.1}},
        {"10": {"logprob": -0.2, "decoded_token": "\n"}},
    ]
    steps = wire.prompt_steps({"choices": [{"prompt_logprobs": listed}]}, decode)
    assert [(step.name.bytes, step.name.id, step.logprob) for step in steps] == [
        (b" x", 11, -3.0),
        (b"\n", 10, -0.2),
    ]
    assert names.candidates(steps[0].candidates, decode) == ([(b" x", -3.0), (b"The", -0.1)], 0)
    with pytest.raises(wire.NoScores, match="no 'prompt_logprobs'"):
        wire.prompt_steps({"choices": [{"text": ""}]})
    for odd in ([], {"choices": [{"prompt_logprobs": [None, {"x": {"logprob": -1.0}}]}]}):
        with pytest.raises(wire.BadReply, match="as vLLM sends them"):
            wire.prompt_steps(odd)


def bytes_of(*strings):
    """As vLLM's chat form has it: the bytes of the strings that it sends."""
    return [(string, string.encode(), []) for string in strings]


@pytest.mark.parametrize(
    ("strings", "text", "values", "merged"),
    [
        # vLLM 0.32, a random GPT-2: a token that ends within a character has no name, and the one
        # that completes it the whole character's.
        ([" caf", "", "\u00e9", "12"], " caf\u00e912", [b" caf", b"\xc3\xa9", b"12"], 2),
        (["n", "", "", "\u65e5", " the"], "n\u65e5 the", [b"n", "\u65e5".encode(), b" the"], 3),
        (["", "\ufffd "], "\u00e9 ", ["\u00e9 ".encode()], 2),
        # What never became one is a U+FFFD of the text; several may share it.
        (["er", "", "ing"], "er\ufffding", [b"er", b"\xef\xbf\xbd", b"ing"], 0),
        (["", "", "\u00e9"], "\ufffd\u00e9", [b"\xef\xbf\xbd", b"\xc3\xa9"], 2),
        (["a", "", "", "b"], "a\ufffdb", [b"a", b"\xef\xbf\xbd", b"b"], 2),
        # At the end it is not in the text at all.
        ([" the answe", "", "<|endoftext|>"], " the answe", [b" the answe"], 0),
        (["3", ""], "3", [b"3"], 0),
        ([""], "", [], 0),
    ],
)
@pytest.mark.parametrize("form", ["completions", "chat"])
def test_tokens_without_a_name(form, strings, text, values, merged):
    body = completions(strings, text) if form == "completions" else chat(bytes_of(*strings), text)
    found = read(body)
    assert (found.values, found.counts["merged"]) == (values, merged)
    assert sum(found.logprobs) == pytest.approx(HALF * (len(values) - bool(merged) + merged))
    if form == "completions" and merged:
        assert [] in found.topk


def test_candidates_without_a_name_are_ambiguous():
    step = {"": -3.1, "r": -2.2, "Q": -2.3}
    assert names.candidates(step, None) == ([(b"r", -2.2), (b"Q", -2.3)], 1)
    step = [
        {"token": "", "bytes": [], "logprob": -3.1},
        {"token": "r", "bytes": [114], "logprob": -2},
    ]
    assert names.candidates(step, None) == ([(b"r", -2)], 1)


@pytest.mark.parametrize(
    ("sampled", "listed", "kept"),
    [
        # vLLM 0.32 in chat form lists the sampled token first and cuts the list behind K.
        (("S", -3.33), [("S", -3.33), ("ing", -2.26), (" the", -2.84)], ["ing", " the"]),
        (("S", -2.5), [("S", -2.5), ("ing", -2.26), (" the", -2.84)], ["ing", "S", " the"]),
        # A server that lists by probability has the most probable ones.
        (("S", -3.33), [("ing", -2.26), (" the", -2.84), ("S", -3.33)], ["ing", " the", "S"]),
        (("S", -3.33), [("S", -3.33)], ["S"]),
        (("S", -3.33), [("S", -3.33), ("ing", -2.26), (" the", -9999.0)], ["ing", "S"]),
    ],
)
def test_a_sampled_token_in_a_likelier_ones_place(sampled, listed, kept):
    entry = {"token": sampled[0], "logprob": sampled[1], "bytes": None}
    entry["top_logprobs"] = [{"token": name, "logprob": p} for name, p in listed]
    choice = {"message": {"content": sampled[0]}, "logprobs": {"content": [entry]}}
    found = read({"choices": [choice]})
    assert found.logprobs == [sampled[1]]
    assert [name.decode() for name, _ in found.topk[0]] == kept


def scored(strings, answer):
    """Returns what is read of an answer behind a prompt of the strings' first."""
    body = {"choices": [{"prompt_logprobs": [None]}]}
    for number, string in enumerate(strings[1:]):
        body["choices"][0]["prompt_logprobs"].append(
            {str(number): {"logprob": HALF, "decoded_token": string}}
        )
    asked = sampling.Scoring("m", {"q": [answer]})
    question = types.SimpleNamespace(id="q")
    (choice,) = asked.read(body, question, (0,), None)
    return answer_tokens.tokens(choice, most=5)


@pytest.mark.parametrize(
    ("strings", "answer", "values", "logprob"),
    [
        (["Q", ":", "\n", "", "\u00e9", "12"], "\u00e912", [b"\xc3\xa9", b"12"], 3 * HALF),
        (["Q", "", "\u00e9", "1", "2", "", "\u00e9"], "2\u00e9", [b"2", b"\xc3\xa9"], 3 * HALF),
        (["Q", "", "\u00e9", "1"], "1", [b"1"], HALF),
    ],
)
def test_scored_answers_with_tokens_without_a_name(strings, answer, values, logprob):
    found = scored(strings, answer)
    assert found.values == values and sum(found.logprobs) == pytest.approx(logprob)


def test_a_scored_answer_begins_where_a_token_begins():
    assert scored(["Q", ":12", "3"], "23") is None
    assert scored(["Q", "", "\u00e9"], "\u00e9\u00e9") is None


def test_candidates_are_counted_before_those_without_a_name_are_left_out():
    """By ids vLLM lists K tokens and the sampled one, which is none of them."""
    step = {"5": -9.0, "1": -1.0, "2": -2.0, "3": -3.0}
    names_of = {"5": "w", "1": "P", "2": "", "3": "\u00b1"}
    entries = {i: {"logprob": p, "decoded_token": names_of[i]} for i, p in step.items()}
    assert names.candidates(entries, None, 3) == ([(b"P", -1.0), ("\u00b1".encode(), -3.0)], 1)


@pytest.mark.parametrize(
    ("top", "kept"),
    [
        # Two tokens without a name have one key, so that the sampled one is not the fourth.
        ({"S": -4.0, "": -1.5, "i": -1.0}, ["i"]),
        ({"S": -1.2, "": -1.5, "i": -1.0}, ["i", "S"]),
        ({"S": -4.0, "a": -1.5, "i": -1.0}, ["i", "a", "S"]),
        ({"i": -1.0, "": -1.5, "S": -4.0}, ["i", "S"]),
    ],
)
def test_a_sampled_token_beside_candidates_without_a_name(top, kept):
    found = read(completions(["S"], top=[top]), most=3)
    assert [name.decode() for name, _ in found.topk[0]] == kept


@pytest.mark.parametrize(
    ("replies", "message"),
    [
        # Names that lost their spaces: an answer of one word does not hide it.
        ([(["12"], "12"), (["a", "caf"], "a caf")], r"tokens are not its text: \[b'a', b'caf'\]"),
        ([(["a", "", "b"], "a caf")], "tokens are not its text"),
        # What the text lost is no fault of names.
        ([(["12"], "12"), (["token_id:8", "token_id:11"], " \ufffd x")], None),
        ([(["12"], "12"), (["a", "", "b"], "a caf")], None),
        # An empty answer tells what stands behind it.
        ([(["<|endoftext|>"], "")], None),
    ],
)
def test_the_first_look_at_tokens(replies, message):
    found = []
    for tokens, text in replies:
        known = None if "token_id" not in tokens[0] else decode
        found += wire.choices(completions(tokens, text), known)
    if message is None:
        assert first_look.check(found, top_logprobs=1, decode=decode) is None
    else:
        with pytest.raises(Refused, match=message):
            first_look.check(found, top_logprobs=1, decode=decode)


def test_names_of_a_step_that_its_id_belies():
    """Strings of vLLM beside `token_ids`: the end of a character is called by all of it."""
    top = [[(" x", b" x", HALF)], [("\u00d6", "\u00d6".encode(), HALF)], [("\n", b"\n", HALF)]]
    names_sent = [("The", b"The"), ("", b""), ("\u00d7", "\u00d7".encode())]
    entries = [(*name, listed) for name, listed in zip(names_sent, top, strict=True)]
    found = read(chat(entries, "The \u00d7", token_ids=[7, 8, 9]), decode)
    assert (found.values, found.ids) == ([b"The", b" \xc3", b"\x97"], [7, 8, 9])
    assert found.topk == [[(b" x", HALF)], [], []]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4.0}, (3, 4)),
        ({"prompt_tokens": "3", "completion_tokens": None}, (None, None)),
        ({"prompt_tokens": -3, "completion_tokens": math.nan}, (None, None)),
        ([1], (None, None)),
        (None, (None, None)),
    ],
)
def test_what_a_reply_says_that_it_took(value, expected):
    assert wire.usage(value) == expected


@pytest.mark.parametrize("indices", [("0", 1), ("1", "0")])
def test_an_index_may_be_a_string(indices):
    body = {"choices": [{"index": i, "text": str(i), "finish_reason": {}} for i in indices]}
    assert [choice.text for choice in wire.choices(body)] == ["0", "1"]
    assert [choice.finish_reason for choice in wire.choices(body)] == ["unknown"] * 2


def test_candidates_that_are_none_are_left_out():
    """Replies are kept before candidates are read: what is odd in them must not end a run."""
    entries = [
        {"token": "a", "logprob": -1.0, "bytes": [97]},
        {"token": "b", "logprob": None},
        {"token": "c"},
        {"token": "d", "bytes": "d", "logprob": -1.0},
        {"logprob": -1.0},
        7,
    ]
    assert names.candidates(entries, None) == (
        [(b"a", -1.0), (b"b", -math.inf), (b"c", -math.inf)],
        2,
    )
    assert names.candidates({"a": "x", "b": -2.0}, None)[0] == [(b"a", -math.inf), (b"b", -2.0)]
    assert names.candidates("none", None) == ([], 0)


@pytest.mark.parametrize(
    "odd", ["none", [7], [{"token": "The"}], [{"token": "The", "logprob": None}] * 2, {"The": "x"}]
)
def test_odd_candidates_are_no_reason_to_ask_again(odd):
    body = chat([("The", b"The", [])], "The")
    body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = odd
    assert read(body).topk == [[]]
    assert read(completions(["The"], top=[odd])).topk == [[]]
