"""Tokenizers of Hugging Face's form: real ones, and small ones made here."""

import json
import pickle

import pytest
import tokenizers as hugging_face
from tokenizers import models, normalizers, pre_tokenizers

from specialize_jax import tokenizers
from tests.byte_level import byte_level, real_gpt2, save
from tests.real_data import data_dir

TEXTS = [
    "In café 12 coins.\n",
    "  \t½ ﬁ 日本語 \U0001f469\u200d\U0001f680",
    "",
    " ",
    "a\n\n b",
    "\x00\x7f\ufffd",
]


def words_of(folder):
    """A tokenizer of whole words: pieces are neither bytes nor marked text."""
    vocab = {"[UNK]": 0, "the": 1, "cat": 2, "</s>": 3}
    tokenizer = hugging_face.Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizers.load(save(folder, tokenizer))


def spanned(tokenizer, text):
    ids, spans = tokenizer.encode_with_spans(text)
    assert ids == tokenizer.encode(text)
    return [text.encode()[start:end] for start, end in spans]


def test_byte_level(tmp_path):
    loaded = tokenizers.load(save(tmp_path, byte_level("Ġcat", "the")))
    ids = loaded.encode("the cat\n")
    assert loaded.token_bytes(ids) == [b"the", b" cat", b"\n"]
    assert loaded.pieces(ids) == ["the", " cat", "\n"]
    assert loaded.decode([*ids, loaded.eos_id, 9999]) == "the cat\n"
    assert loaded.bytes_to_id(b" cat") == loaded.piece_to_id(" cat") == ids[1]
    assert loaded.bytes_to_id(b"no such") is None
    assert (loaded.eos_id, loaded.pad_id, loaded.unk_id) == (loaded.vocab_size - 1, None, None)
    assert loaded.piece_to_id("<|endoftext|>") == loaded.eos_id
    assert loaded.bytes_to_id(b"<|endoftext|>") is None
    again = pickle.loads(pickle.dumps(loaded))
    assert (again.sha256, again.encode("the")) == (loaded.sha256, ids[:1])


@pytest.mark.parametrize("text", TEXTS)
def test_spans_of_byte_level_are_its_bytes(tmp_path, text):
    loaded = tokenizers.load(save(tmp_path, byte_level("Ġcat")))
    assert spanned(loaded, text) == loaded.token_bytes(loaded.encode(text))


def test_the_spelling_of_a_special_token_is_text(tmp_path):
    loaded = tokenizers.load(save(tmp_path, byte_level("Ġcat")))
    assert loaded.eos_id not in loaded.encode("a <|endoftext|>")
    assert b"".join(spanned(loaded, "a <|endoftext|>")) == b"a <|endoftext|>"


def test_a_space_put_before_the_text_has_no_bytes(tmp_path):
    loaded = tokenizers.load(save(tmp_path, byte_level("Ġcat", prefix_space=True)))
    assert spanned(loaded, "cat cat") == [b"cat", b" cat"]
    assert spanned(loaded, "é") == [b"", b"\xc3", b"\xa9"]


def test_spans_of_byte_level_that_normalises(tmp_path):
    loaded = tokenizers.load(save(tmp_path, byte_level("Ġcat", normalizer=normalizers.NFC())))
    assert spanned(loaded, "é cat") == [b"\xc3", b"\xa9", b" cat"]
    # Composed, it has two bytes, none of them in the text: both tokens have the whole of it.
    composed = "e\u0301".encode()
    assert spanned(loaded, "e\u0301 cat e\u0301") == [composed] * 2 + [
        b" cat",
        b" ",
        *[composed] * 2,
    ]


def test_truncation_and_padding_of_the_file_are_not_for_us(tmp_path):
    tokenizer = byte_level("Ġcat")
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    loaded = tokenizers.load(save(tmp_path, tokenizer))
    assert len(loaded.encode("abcd")) == 4


def test_words_without_bytes(tmp_path):
    loaded = words_of(tmp_path)
    assert loaded.pieces(loaded.encode("The  dog, cat ")) == ["the", "[UNK]", "[UNK]", "cat"]
    assert spanned(loaded, "The  dog, cat ") == [b"The", b"  dog", b",", b" cat"]
    assert loaded.unk_id == 0
    assert loaded.piece_to_id("cat") == 2
    assert loaded.bytes_to_id(b"cat") is None  # " cat" is the same token
    with pytest.raises(ValueError, match="only tokens of a byte-level tokenizer have bytes"):
        loaded.token_bytes([1])
    with pytest.raises(ValueError, match=r"ids must be in \[0, 4\), got 4"):
        loaded.pieces([4])


@pytest.mark.parametrize("named", ["<|stop|>", {"content": "<|stop|>"}])
def test_the_config_beside_it_names_special_tokens(tmp_path, named):
    tokenizer = byte_level(special=["<|endoftext|>", "<|stop|>"])
    path = save(tmp_path, tokenizer, eos_token=named, pad_token="<|endoftext|>")
    loaded = tokenizers.load(path)
    assert (loaded.eos_id, loaded.pad_id) == (257, 256)


def test_no_end_of_sequence(tmp_path):
    path = save(tmp_path, byte_level(special=[]))
    with pytest.raises(ValueError, match=f"{path}'.*no end-of-sequence.*end_of_text"):
        tokenizers.load(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"garbage", b"\xff", b"[]"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}': expected a complete tokenizer.json, got"):
        tokenizers.load(path)


@pytest.fixture(scope="module")
def t5():
    folder = data_dir() / "tokenizer_t5"
    return [tokenizers.load(folder / name) for name in ("tokenizer.json", "spiece.model")]


def test_t5_in_both_forms(t5):
    ours, model = t5
    for role in ("eos_id", "pad_id", "unk_id", "vocab_size"):
        assert getattr(ours, role) == getattr(model, role)
    with open(data_dir() / "gsm8k" / "test.jsonl", encoding="utf-8") as file:
        texts = [json.loads(line)["answer"] for line in file][:100]
    for text in [*texts, "  x½ {^} \n", "ﬁx №", "Hi  there ", "", " \n", "\ufdfa x"]:
        (ids, spans), (expected_ids, expected) = (t.encode_with_spans(text) for t in t5)
        assert ids == expected_ids
        assert spans.tolist() == expected.tolist(), text
    for token in (b" the", b"ing", b"</s>", b"<extra_id_0>", b"<unk>", b"\xc3", b" "):
        assert ours.bytes_to_id(token) == model.bytes_to_id(token), token
    assert ours.pieces([8774, 296]) == model.pieces([8774, 296])
    assert ours.decode([8774, 296, 1, 0, 32_099]) == "Hello world"


def test_gpt2_is_p50k_without_runs_of_spaces(tmp_path):
    gpt2 = tokenizers.load(save(tmp_path, real_gpt2()))
    p50k = tokenizers.load(data_dir() / "tokenizer_tiktoken" / "p50k_base.tiktoken")
    assert gpt2.eos_id == p50k.eos_id == 50_256
    for text in ["Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 72", "é ½ ﬁ \U0001f600 日本"]:
        (ids, spans), (expected_ids, expected) = map(
            lambda t, text=text: t.encode_with_spans(text), (gpt2, p50k)
        )
        assert ids == expected_ids
        assert spans.tolist() == expected.tolist()
        assert gpt2.token_bytes(ids) == p50k.token_bytes(ids)
    assert all(gpt2.bytes_to_id(p50k.token_bytes([i])[0]) == i for i in range(0, 50_256, 97))
