"""The token that ends a text, and others that write nothing: by their ids and without."""

import pytest
import tokenizers as hugging_face
from tokenizers import decoders, pre_tokenizers

from specialize_jax import tokenizers
from specialize_jax.teacher import filtering, names, wire
from tests.byte_level import byte_level, save
from tests.real_data import data_dir
from tests.teacher.test_wire import HALF, chat, completions, read

TEXT = "The answer is 8"


def sentencepiece(folder):
    path = folder / "spiece.model"
    path.write_bytes((data_dir() / "tokenizer_t5" / "spiece.model").read_bytes())
    return tokenizers.load(str(path))


def hugging_face_marked(folder):
    """As Llama 2's: pieces with markers, bytes for the rest, `</s>` among the special tokens."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["\u2581", "\u2581The", "\u2581answer", "\u2581is", "\u25818", "<pad>"]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    merged = hugging_face.Tokenizer(
        hugging_face.models.Unigram(
            [(piece, -1.0) for piece in vocabulary], unk_id=0, byte_fallback=True
        )
    )
    merged.pre_tokenizer = pre_tokenizers.Metaspace()
    merged.decoder = decoders.Metaspace()
    merged.add_special_tokens(["<unk>", "<s>", "</s>", "<pad>"])
    return tokenizers.load(save(folder, merged))


def hugging_face_bytes(folder):
    return tokenizers.load(save(folder, byte_level("\u0120is", "The", special=("</s>",))))


def tiktoken(folder):
    return tokenizers.load(str(data_dir() / "tokenizer_tiktoken" / "p50k_base.tiktoken"))


@pytest.fixture(params=[sentencepiece, hugging_face_marked, hugging_face_bytes, tiktoken])
def tokenizer(request, tmp_path):
    return request.param(tmp_path)


def by_ids(ids, tops, form=completions):
    strings = [f"token_id:{token}" for token in ids]
    if form is completions:
        return completions(strings, TEXT, [{f"token_id:{c}": p for c, p in t} for t in tops])
    entries = [
        (string, string.encode(), [(f"token_id:{c}", None, p) for c, p in top])
        for string, top in zip(strings, tops, strict=True)
    ]
    return chat(entries, TEXT)


@pytest.mark.parametrize("form", [completions, chat])
def test_the_end_by_its_id(tokenizer, form):
    """It is no token of the text, and what stood beside it are the candidates behind the text."""
    written, eos = tokenizer.encode(TEXT), tokenizer.eos_id
    tops = [[(token, HALF), (eos, -3.0)] for token in written]
    tops += [[(eos, HALF), (written[0], -2.0)]]
    found = read(by_ids([*written, eos], tops, form), names.decoder(tokenizer))
    assert b"".join(found.values).strip() == TEXT.encode()
    assert found.ids == written and found.counts["special"] == 0
    end = b"<|endoftext|>" if b"<|endoftext|>" in dict(found.terminal) else b"</s>"
    assert found.terminal == [(end, HALF), (found.values[0], -2.0)]
    assert all(
        top == [(v, HALF), (end, -3.0)] for v, top in zip(found.values, found.topk, strict=True)
    )
    # In a record: the whole text is learned, and the end with it.
    (choice,) = wire.choices(by_ids([*written, eos], tops), names.decoder(tokenizer))
    question = type("Q", (), {"id": "q", "question": "?", "answer": "8", "kind": "number"})
    (row,) = filtering.rows(
        question, "?", [(0, choice)], filtering.Rules(), top_logprobs=5,
        decode=names.decoder(tokenizer),
    )  # fmt: skip
    assert row["target_token_end"] == len(written) and row["is_correct"]
    assert row["terminal_bytes"] == [end, found.values[0]]
    assert b"" not in row["token_bytes"] and all(b"" not in step for step in row["topk_bytes"])


def test_the_end_stands_behind_the_text_though_it_was_not_likely(tmp_path):
    tokenizer = sentencepiece(tmp_path)
    written, eos = tokenizer.encode(TEXT), tokenizer.eos_id
    tops = [*([(token, HALF)] for token in written), [(written[0], -0.2), (written[1], -3.0)]]
    body = by_ids([*written, eos], tops)
    body["choices"][0]["logprobs"]["token_logprobs"][-1] = -4.0
    found = read(body, names.decoder(tokenizer))
    assert found.terminal == [(b" The", -0.2), (b" answer", -3.0), (b"</s>", -4.0)]


def test_special_candidates_that_write_nothing_are_left_out(tmp_path):
    """Padding, unknown and extra ids would all be one empty name."""
    tokenizer = sentencepiece(tmp_path)
    decode, extra = names.decoder(tokenizer), tokenizer.vocab_size - 1
    assert decode(tokenizer.pad_id) == decode(extra) == b"" and decode(tokenizer.eos_id) == b"</s>"
    written = tokenizer.encode(TEXT)
    tops = [[(token, HALF), (tokenizer.pad_id, -2.0), (extra, -3.0)] for token in written]
    found = read(by_ids(written, tops), decode)
    assert [len(top) for top in found.topk] == [1] * len(written)
    assert found.counts["ambiguous"] == 2 * len(written)
    # One that was written within a text is no token of it either.
    ids = [*written[:2], extra, *written[2:]]
    found = read(by_ids(ids, [[(token, HALF)] for token in ids]), decode)
    assert found.ids == written and found.counts["special"] == 1


def test_an_end_without_a_name(tmp_path):
    """llama.cpp writes "" for it, with no bytes; its ids tell, where there is a tokenizer."""
    tops = [("", b"", HALF), ("!", b"!", -1.5)]
    entries = [("The", b"The", [("The", b"The", HALF), ("", b"", -2.0)]), ("", b"", tops)]
    found = read(chat(entries, "The"))
    assert found.values == [b"The"] and found.topk == [[(b"The", HALF)]]
    assert found.terminal == [(b"</s>", HALF), (b"!", -1.5)]
    body = chat(entries, "The")
    body["choices"][0]["finish_reason"] = "length"  # whatever it is, it is no end
    assert read(body).terminal is None and read(body).counts["special"] == 1
    tokenizer = sentencepiece(tmp_path)
    (the,) = tokenizer.encode("The")
    body = chat(entries, "The")
    content = body["choices"][0]["logprobs"]["content"]
    for entry, token in zip(content, [the, tokenizer.eos_id], strict=True):
        for place, one in enumerate([entry, *entry["top_logprobs"]]):
            one["id"] = token if place < 2 else tokenizer.eos_id
    found = read(body, names.decoder(tokenizer))
    assert found.ids == [the] and found.topk == [[(b" The", HALF), (b"</s>", -2.0)]]


def test_an_end_that_alignment_does_not_know_is_spelled_as_one_that_it_does(tmp_path):
    merged = byte_level("The", special=("<|done|>",))
    tokenizer = tokenizers.load(save(tmp_path, merged, eos_token="<|done|>"))
    assert tokenizer.token_bytes([tokenizer.eos_id]) == [b"<|done|>"]
    assert names.decoder(tokenizer)(tokenizer.eos_id) == b"</s>"
    with pytest.raises(names.NeedsTokenizer, match="has no token 9999, which the server sends"):
        names.decoder(tokenizer)(9999)


def test_bytes_of_pieces_with_markers(tmp_path):
    tokenizer = hugging_face_marked(tmp_path)
    ids = tokenizer.encode("The \u00e9")
    assert tokenizer.token_bytes(ids)[0] == b" The" and b"\xc3" in tokenizer.token_bytes(ids)
    assert b"".join(tokenizer.token_bytes(ids)) == " The \u00e9".encode()
