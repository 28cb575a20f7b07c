"""What is read of a request, and how an answer is written: without a model, without a network."""

import json
import pathlib

import pytest

from specialize_jax import tokenizers
from specialize_jax.apps import completions

TOKENIZER = tokenizers.load(
    pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "student_tokenizer.model"
)
LIMITS = {"max_tokens": 32, "max_logprobs": 5, "max_n": 4}


def parse(is_chat=False, **body):
    asked = {"messages": [{"role": "user", "content": "?"}]} if is_chat else {"prompt": "?"}
    return completions.parse({**asked, **body}, is_chat=is_chat, **LIMITS)


def test_what_is_left_out_is_as_openai_has_it():
    request = parse()
    assert request.prompts == ("?",) and (request.n, request.max_tokens) == (1, 32)
    assert (request.temperature, request.top_p, request.top_k, request.seed) == (
        1.0,
        1.0,
        None,
        None,
    )
    assert request.stop == () and request.logprobs is None


def test_every_field_is_read():
    request = parse(
        prompt=["a", "b"],
        n=2,
        max_tokens=3,
        temperature=0,
        top_p=0.5,
        top_k=7,
        seed=9,
        stop="\n",
        logprobs=5,
        return_tokens_as_token_ids=True,
        stream=False,
    )
    assert request == completions.Request(("a", "b"), False, 2, 3, 0.0, 0.5, 7, 9, ("\n",), 5, True)
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    chat = parse(True, messages=messages, logprobs=True, top_logprobs=2, max_completion_tokens=4)
    assert (chat.prompts, chat.logprobs, chat.max_tokens) == (("a\n\nb",), 2, 4)
    assert parse(True, logprobs=True).logprobs == 0


@pytest.mark.parametrize(
    ("is_chat", "body", "message"),
    [
        (False, {"prompt": None}, "'prompt', a text or a list of texts, got None"),
        (False, {"prompt": [1, 2]}, "'prompt'"),
        (True, {"messages": []}, "'messages'"),
        (True, {"messages": [{"content": [{"type": "image"}]}]}, "a text as 'content'"),
        (False, {"n": 5}, "'n': expected 1 to 4, got 5"),
        (False, {"n": True}, "'n': expected a number, got True"),
        (False, {"n": 1.5}, "'n': expected a number"),
        (False, {"max_tokens": 33}, "'max_tokens': expected 1 to 32"),
        (False, {"temperature": -1}, "'temperature'"),
        (False, {"temperature": float("nan")}, "'temperature'"),
        (False, {"top_p": 0}, "'top_p'"),
        (False, {"stop": [""]}, "'stop'"),
        (False, {"logprobs": 6}, "'logprobs': expected 0 to 5, got 6"),
        (False, {"stream": True}, "'stream' is not offered"),
        (False, {"echo": True}, "'echo' is not offered"),
        (False, {"frequency_penalty": 0.5}, "'frequency_penalty' is not offered"),
        (False, {"min_p": 0.5}, "'min_p' is not offered"),
        (False, {"repetition_penalty": 1.2}, "'repetition_penalty' is not offered"),
        (False, {"prompt_logprobs": 0}, "'prompt_logprobs' is not offered"),
        (True, {"tools": [{}]}, "'tools' is not offered"),
        (True, {"response_format": {"type": "json_object"}}, "'response_format' is not offered"),
        (False, {"prompt": "\ud800"}, "a prompt that is Unicode"),
        (True, {"messages": [{"content": "\udc00"}]}, "a prompt that is Unicode"),
    ],
)
def test_what_cannot_be_served_is_refused(is_chat, body, message):
    with pytest.raises(completions.BadRequest, match="^.*" + message):
        parse(is_chat, **body)


def test_what_is_no_object_is_refused():
    with pytest.raises(completions.BadRequest, match="JSON object, got list"):
        completions.parse([], is_chat=False, **LIMITS)


def choice(text, end=True, **body):
    request = parse(body.pop("is_chat", False), **body)
    ids = [*TOKENIZER.encode(text), *[TOKENIZER.eos_id] * end]
    best = [[token, 5] for token in ids]
    steps = [-0.5] * len(ids), best, [[-0.5, -1.5]] * len(ids)
    return completions.choice(request, completions.Completion(ids, *steps), TOKENIZER, 0)


def test_tokens_write_the_text_and_name_what_ended_it():
    answer, count = choice("Tom has 3.", logprobs=1)
    tokens = answer["logprobs"]["tokens"]
    assert "".join(tokens[:-1]).strip() == answer["text"] == "Tom has 3."
    assert tokens[-1] == "</s>" and count == len(tokens)
    assert answer["finish_reason"] == "stop"
    assert [list(top) for top in answer["logprobs"]["top_logprobs"]] == [[t] for t in tokens]


def test_in_chat_tokens_have_bytes():
    answer, _ = choice("Tom has 3.", is_chat=True, logprobs=True, top_logprobs=2)
    assert answer["message"] == {"role": "assistant", "content": "Tom has 3."}
    content = answer["logprobs"]["content"]
    assert b"".join(bytes(step["bytes"]) for step in content[:-1]).strip() == b"Tom has 3."
    assert [len(step["top_logprobs"]) for step in content] == [2] * len(content)
    json.dumps(answer)


def test_tokens_can_be_named_by_their_ids():
    answer, _ = choice("Tom", return_tokens_as_token_ids=True, logprobs=1)
    ids = [*TOKENIZER.encode("Tom"), TOKENIZER.eos_id]
    assert answer["logprobs"]["tokens"] == [f"token_id:{i}" for i in ids]


def test_an_answer_ends_where_a_stop_stands_or_where_it_is_cut():
    answer, count = choice("Tom has 3. Ada has 5.", stop=["Ada", "5"], logprobs=1)
    assert (answer["text"], answer["finish_reason"]) == ("Tom has 3. ", "stop")
    # Listed up to the token that completes the stop, and no further.
    assert "".join(answer["logprobs"]["tokens"]).strip().startswith("Tom has 3. A")
    assert "5" not in "".join(answer["logprobs"]["tokens"])
    assert count == len(answer["logprobs"]["tokens"])
    cut, count = choice("Tom has 3. Ada has 5.", max_tokens=2)
    assert (cut["finish_reason"], count) == ("length", 2)
