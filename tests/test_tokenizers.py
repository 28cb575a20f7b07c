"""Tokenizers from the real files."""

import hashlib
import pickle

import numpy as np
import pytest

from specialize_jax import tokenizers
from tests.real_data import data_dir


@pytest.fixture(scope="module")
def t5():
    return tokenizers.load(data_dir() / "tokenizer_t5" / "spiece.model")


@pytest.fixture(scope="module")
def p50k():
    return tokenizers.load(data_dir() / "tokenizer_tiktoken" / "p50k_base.tiktoken")


@pytest.fixture(scope="module")
def small():
    return tokenizers.load(data_dir() / "tokenizer_spm_small" / "sentencepiece.model")


def test_t5(t5):
    assert t5.encode("Hello world") == [8774, 296]
    assert t5.pieces([8774, 296, 2]) == ["▁Hello", "▁world", "<unk>"]
    assert t5.decode([8774, 296]) == "Hello world"
    assert (t5.pad_id, t5.eos_id, t5.unk_id, t5.vocab_size) == (0, 1, 2, 32_100)
    assert t5.encode("a\nb") == t5.encode("a b")
    assert t5.name == "spiece"


def test_extra_ids_count_down_from_the_end(t5):
    assert t5.pieces([32_099, 32_000]) == ["<extra_id_0>", "<extra_id_99>"]
    assert t5.piece_to_id("<extra_id_0>") == 32_099
    with pytest.raises(ValueError, match=r"ids must be in \[0, 32100\), got 32100"):
        t5.pieces([32_100])


def test_extra_ids_are_a_choice(small):
    folder = data_dir() / "tokenizer_t5"
    assert small.vocab_size == 26
    assert tokenizers.load(small.path, extra_ids=4).vocab_size == 30
    assert tokenizers.load(folder / "spiece.model", extra_ids=0).vocab_size == 32_000


def test_decode_leaves_out_what_is_no_text(t5):
    assert t5.decode([8774, 296, 1, 0, 0, 32_050, 32_127]) == "Hello world"


def test_tiktoken(p50k):
    assert p50k.encode("Hello world") == [15496, 995]
    assert p50k.pieces([15496, 995]) == ["Hello", " world"]
    assert p50k.decode([15496, 995, p50k.eos_id]) == "Hello world"
    assert (p50k.eos_id, p50k.pad_id, p50k.unk_id, p50k.vocab_size) == (50_256, None, None, 50_281)
    assert p50k.piece_to_id("<|endoftext|>") == 50_256
    assert p50k.eos_id not in p50k.encode("<|endoftext|>")
    text = "café \U0001f600\n\n  x"
    ids = p50k.encode(text)
    assert b"".join(p50k.token_bytes(ids)) == text.encode()
    assert any("\ufffd" in piece for piece in p50k.pieces(ids))  # half a character
    cl100k = tokenizers.load(data_dir() / "tokenizer_tiktoken" / "cl100k_base.tiktoken")
    assert cl100k.encode("Hello world") == [9906, 1917]


def test_vocabulary_map_is_exact(t5, p50k):
    strings = [b" Hello", b"ing", b" the", b"\n", b"\xc3", b"</s>", b"<unk>", b"<extra_id_0>", b" "]
    found = tokenizers.vocabulary_map(strings, t5)
    assert found.dtype == np.int32
    assert t5.pieces(found[[0, 1, 2, 8]]) == ["▁Hello", "ing", "▁the", "▁"]
    assert found[3:8].tolist() == [-1] * 5
    assert tokenizers.vocabulary_map([b" world", b"\xff\xff\xff"], p50k).tolist() == [995, -1]
    assert tokenizers.vocabulary_map([], t5).shape == (0,)


def test_byte_pieces_stand_for_no_string(tmp_path):
    mistral = _mistral(tmp_path)
    assert mistral.piece_to_id("<0x0A>") is not None
    assert mistral.bytes_to_id(b"<0x0A>") is None
    assert mistral.vocab_size == 32_000  # laid out otherwise than T5, so without extra ids


def _mistral(folder):
    path = folder / "mistral.model"
    path.write_bytes((data_dir() / "tokenizer_mistral" / "tokenizer.model.v1").read_bytes())
    return tokenizers.load(path)


@pytest.mark.parametrize("name", ["t5", "p50k", "small"])
def test_hash_and_pickle(name, request):
    tokenizer = request.getfixturevalue(name)
    with open(tokenizer.path, "rb") as file:
        assert tokenizer.sha256 == hashlib.sha256(file.read()).hexdigest()
    pickled = pickle.dumps(tokenizer)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert (again.encode("ab 12"), again.sha256) == (tokenizer.encode("ab 12"), tokenizer.sha256)
    assert again.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize("name", ["vocab.json", "gpt9.tiktoken", "no_suffix"])
def test_unknown_form(name):
    with pytest.raises(ValueError, match=r"unknown .*\*\.model .*p50k_base\.tiktoken, cl100k_base"):
        tokenizers.load(name)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer file at .*nothing.model"):
        tokenizers.load(tmp_path / "nothing.model")


def test_extra_ids_are_not_for_tiktoken(p50k):
    with pytest.raises(ValueError, match="extra_ids are for SentencePiece"):
        tokenizers.load(p50k.path, extra_ids=3)


@pytest.mark.parametrize("harm", ["empty", "cut", "garbage"])
def test_a_damaged_sentencepiece_model_is_named(tmp_path, small, harm):
    with open(small.path, "rb") as file:
        content = file.read()
    path = tmp_path / "s.model"
    path.write_bytes({"empty": b"", "cut": content[:-3], "garbage": b"garbage"}[harm])
    with pytest.raises(ValueError, match=f"{path}': expected a complete SentencePiece model"):
        tokenizers.load(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "expected 50280 ranks of p50k_base, got 0"),
        (lambda content: b"garbage", "line 1: expected 'base64.*got b'garbage'"),
        (lambda content: b"IQ== x", "line 1: expected 'base64"),
        (lambda content: b"I 0", "line 1: expected 'base64"),
        (lambda content: content[: content.index(b" 99\n") + 1], "line 100: expected 'base64"),
        (lambda content: content[: content.index(b" 99\n") + 4], "ranks of p50k_base, got 100"),
        (lambda content: content.rstrip()[:-1], "ranks of p50k_base, got 50279"),
    ],
)
def test_damaged_tiktoken_ranks_are_named(tmp_path, p50k, damage, message):
    with open(p50k.path, "rb") as file:
        content = file.read()
    path = tmp_path / "p50k_base.tiktoken"
    path.write_bytes(damage(content))
    with pytest.raises(ValueError, match=f"{path}'.*{message}"):
        tokenizers.load(path)


WORDS = ["Ann has 12 coins.\nThe answer is 12", "Ben has 7 pens.\nThe answer is 7"] * 20


@pytest.mark.parametrize(("model_type", "size"), [("unigram", 26), ("bpe", 60)])
def test_a_learned_tokenizer_is_laid_out_as_t5s_and_loses_nothing(tmp_path, model_type, size):
    path = tmp_path / "student.model"
    path.write_bytes(tokenizers.train(WORDS, size, model_type))
    assert path.read_bytes() == tokenizers.train(iter(WORDS), size, model_type)
    learned = tokenizers.load(path)
    assert (learned.pad_id, learned.eos_id, learned.unk_id) == (0, 1, 2)
    assert learned.vocab_size == size
    ids = learned.encode(WORDS[0])
    assert learned.unk_id not in ids
    assert learned.decode(ids) == WORDS[0].replace("\n", " ")


def test_bpe_takes_up_frequent_words_whole(tmp_path):
    path = tmp_path / "student.model"
    path.write_bytes(tokenizers.train(WORDS, 60, "bpe"))
    learned = tokenizers.load(path)
    assert "\u2581answer" in learned.pieces(learned.encode(WORDS[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((WORDS, 5000), "cannot learn 5000 pieces: Vocabulary size too high"),
        ((WORDS, 40, "wordpiece"), "choices: unigram, bpe"),
    ],
)
def test_what_cannot_be_learned_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tokenizers.train(*arguments)


def _parts(tokenizer, text):
    """Returns each piece with the part of the text it spans."""
    ids, spans = tokenizer.encode_with_spans(text)
    assert ids == tokenizer.encode(text)
    assert (spans.dtype, spans.shape) == (np.int32, (len(ids), 2))
    source = text.encode()
    return [
        (p, source[a:b].decode()) for p, (a, b) in zip(tokenizer.pieces(ids), spans, strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi  there\nIn", [("▁Hi", "Hi"), ("▁there", "  there"), ("▁In", "\nIn")]),
        ("x é", [("▁", ""), ("x", "x"), ("▁", " "), ("é", "é")]),
        (" \t the \n", [("▁the", " \t the")]),
        ("a {^} b", [("▁", ""), ("a", "a"), ("▁", " "), ("<unk>", "{^}"), ("▁", " "), ("b", "b")]),
        ("x½", [("▁", ""), ("x", "x"), ("1", "½"), ("<unk>", "½"), ("2", "½")]),
        ("ﬁx №", [("▁fix", "ﬁx"), ("▁No", " №")]),
        ("e\u0301", [("▁", ""), ("é", "e\u0301")]),
        ("\u0001the \u0001\u0001cat", [("▁the", "\u0001the"), ("▁cat", " \u0001\u0001cat")]),
        ("", []),
        (" \n\t", []),
    ],
)
def test_spans_of_t5_go_through_its_normaliser(t5, text, expected):
    assert _parts(t5, text) == expected


def test_pieces_that_share_a_segment_overlap(t5):
    spans = t5.encode_with_spans("x½y")[1]
    assert spans.tolist() == [[0, 0], [0, 1], [1, 3], [1, 3], [1, 3], [3, 4]]


def test_spans_where_the_normaliser_changes_nothing(tmp_path):
    mistral = _mistral(tmp_path)
    assert _parts(mistral, "  Hi\n") == [("▁▁", " "), ("▁Hi", " Hi"), ("<0x0A>", "\n")]
    ids, spans = mistral.encode_with_spans("é \ufdfa")
    assert mistral.pieces(ids)[-3:] == ["<0xEF>", "<0xB7>", "<0xBA>"]
    assert spans[-3:].tolist() == [[3, 4], [4, 5], [5, 6]]


def test_spans_of_tiktoken_are_its_bytes(p50k):
    text = "café \U0001f600\n\n  x <|endoftext|>"
    ids, spans = p50k.encode_with_spans(text)
    assert ids == p50k.encode(text)
    assert [text.encode()[a:b] for a, b in spans] == p50k.token_bytes(ids)
    assert p50k.encode_with_spans("")[1].shape == (0, 2)


@pytest.mark.parametrize("name", ["t5", "p50k"])
def test_a_lone_surrogate_has_no_bytes(name, request):
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        request.getfixturevalue(name).encode_with_spans("a\ud800")
