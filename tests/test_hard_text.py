"""Every tokenizer against every other on text that breaks aligners.

No pair may raise; spans and ranges are monotone and gap-free; ids are those of `encode`. Real
tokenizers where the public data lies beside the checkout, small ones made here in any case.
"""

import itertools

import numpy as np
import pytest
import tokenizers as hugging_face
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from specialize_jax import alignment, tokenizers
from tests.real_data import data_dir

TEXTS = {
    # sixteen languages
    "english": "Natalia sold 48/2 = 24 clips in May, didn't she?",
    "german": "Straße, Äpfel und 3,5 Prozent: „Übermut“.",
    "french": "L’élève a reçu 12 œufs ; où est Noël ?",
    "spanish": "¿Cuántos niños hay? ¡Cien!",
    "polish": "Zażółć gęślą jaźń.",
    "russian": "Сколько всего яблок? Ответ: 7.",
    "greek": "Πόσα μήλα έχει η Ελένη;",
    "turkish": "İstanbul'da ılık bir gün, ĞÜŞİÖÇ.",
    "arabic": "كم عدد التفاح؟ الجواب ١٢ ﷺ لَا",
    "hebrew": "כמה תפוחים? שָׁלוֹם",
    "hindi": "क्षत्रिय के पास १२ सेब हैं।",
    "tamil": "எத்தனை பழங்கள்?",
    "thai": "มีแอปเปิ้ลกี่ลูกนะคะ",
    "chinese": "小明有12个苹果，共計多少？",
    "japanese": "ﾘﾝｺﾞはいくつ？　が＝か゛",
    "korean": "사과가 몇 개? \u1112\u1161\u11ab",
    "vietnamese": "Có bao nhiêu quả táo? \u1ea5 = a\u0302\u0301",
    # signs
    "emoji": "👩‍🚀 👨‍👩‍👧‍👦 🇩🇪 👍🏽 ❤️ 1️⃣",
    "combining": "Z͑ͫ̓a̴l̷g̵o e\u0301\u0323 \u0301alone",
    "latex": "\\frac{1}{2} \\leq x^{2}_{i} \\text{~and~} \\$5 `$\\alpha$` <b>",
    "code": "def f(x):\n\treturn {\n\t\t'a': x[0] ^ ~x,\n\t}\n\n\n    # done\r\n",
    "ligatures": "½ ﬁ № x² … ½½ﬁ ﬃ ㎏ Ⅻ ① Å",
    "ligatures in words": "aﬁb1½2 re\ufb01ne",
    "numbers": "$12.50, 1,000,000 - 3.14e-5 = 48/2<<48/2=24>>24 £5 €6 ¥7",
    "spaces": "a  b   c    d \t e \u00a0 f \u3000 g\u2003h",
    "lines": "\n\nIn May\n\n\nIn  June \n",
    "spaces around": "   a   ",
    "empty": "",
    "one space": " ",
    "only spaces": " \t\n\r \u00a0\u3000",
    "replacement": "\ufffd a\ufffd\ufffdb \ufffd",
    "bytes": "bytes: \\xc3\\xa9 <0x0A> \\n",
    "controls": "\x00 a\x01\x02b\x1b[0m\x7f \x85 \u0008",
    "one control": "\x01",
    "invisible": "a\u200bb\u200cc\u200dd\ufeff\u00ad\u2060e\u202ef",
    "special tokens": "</s> <unk> <pad> <extra_id_0> <|endoftext|> <s>",
    "markers": "\u2581a \u2581 \u2581\u2581b \u0120c",
    "long word": "Donaudampfschifffahrtsgesellschaft" * 4,
    "long number": "1234567890" * 12,
    "long repetition": "ha" * 60,
    "rare planes": "\U00020000\U0001d54f\U000e0041\U0010ffff\ue000",
}


def _small_sentencepiece(model_type, size):
    texts = ["In May she sold 12 clips.", "fix the café {x} = 2"] * 20
    return tokenizers.train(texts, size, model_type)


def _small_byte_level():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, "ĠI", "ĠIn", "ha", "12", "ðŁ"]
    merges = [("Ġ", "I"), ("ĠI", "n"), ("h", "a"), ("1", "2"), ("ð", "Ł")]
    model = models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges)
    tokenizer = hugging_face.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Tokenizers of all forms that can be made here."""
    folder = tmp_path_factory.mktemp("tokenizers")
    (folder / "unigram.model").write_bytes(_small_sentencepiece("unigram", 30))
    (folder / "bpe.model").write_bytes(_small_sentencepiece("bpe", 60))
    _small_byte_level().save(str(folder / "tokenizer.json"))
    names = ("unigram.model", "bpe.model", "tokenizer.json")
    return {name: tokenizers.load(folder / name) for name in names}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The public tokenizers that teachers and students of real runs have."""
    folder = data_dir()
    mistral = tmp_path_factory.mktemp("mistral") / "mistral.model"
    mistral.write_bytes((folder / "tokenizer_mistral" / "tokenizer.model.v1").read_bytes())
    paths = {
        "p50k": folder / "tokenizer_tiktoken" / "p50k_base.tiktoken",
        "cl100k": folder / "tokenizer_tiktoken" / "cl100k_base.tiktoken",
        "t5": folder / "tokenizer_t5" / "spiece.model",
        "t5.json": folder / "tokenizer_t5" / "tokenizer.json",
        "mistral": mistral,
    }
    return {name: tokenizers.load(path) for name, path in paths.items()}


def check_spans(tokenizer, text):
    """Checks what holds of the spans of every tokenizer; returns them."""
    ids, spans = tokenizer.encode_with_spans(text)
    source = text.encode()
    assert ids == tokenizer.encode(text)
    assert (spans.shape, spans.dtype) == ((len(ids), 2), np.int32)
    for before, (start, end) in itertools.pairwise([(0, 0), *spans.tolist()]):
        assert before[0] <= start <= before[1] <= end, (before, (start, end))
    last = spans[-1, 1] if ids else 0
    # Only white space, and what the normaliser drops, belongs to no token.
    rest = source[last:].decode()
    assert not tokenizer.encode(rest), rest
    if hasattr(tokenizer, "token_bytes") and tokenizer.unk_id is None:
        assert [source[start:end] for start, end in spans] == tokenizer.token_bytes(ids)
    return spans


def check_ranges(starts, ends, length, whole):
    """Checks that ranges of teacher tokens are monotone, gap-free and not empty."""
    starts, ends = np.asarray(starts), np.asarray(ends)
    if not len(starts) or not length:
        assert not starts.any() and not ends.any()
        return
    assert starts[0] == 0 and ends.max() <= length
    assert np.all(starts < ends)
    assert np.all(np.diff(starts) >= 0) and np.all(np.diff(ends) >= 0)
    assert np.all(starts[1:] <= ends[:-1])
    assert not whole or ends[-1] == length


def check_pairs(known):
    """Aligns every text under every ordered pair of tokenizers, by bytes and by surfaces."""
    spans = {(n, x): check_spans(t, text) for n, t in known.items() for x, text in TEXTS.items()}
    pieces = {
        (n, x): t.pieces(t.encode(text)) for n, t in known.items() for x, text in TEXTS.items()
    }
    cases = list(itertools.product(known, known, TEXTS))
    teacher, student = [(t, x) for t, _, x in cases], [(s, x) for _, s, x in cases]
    paths = [
        alignment.offsets([spans[key] for key in teacher], [spans[key] for key in student]),
        alignment.align_batch([pieces[key] for key in teacher], [pieces[key] for key in student]),
    ]
    for b, case in enumerate(cases):
        t, s = len(spans[teacher[b]]), len(spans[student[b]])
        for path, whole in zip(paths, (False, True), strict=True):
            check_ranges(path.teacher_start[b, :s], path.teacher_end[b, :s], t, whole)
        if case[0] == case[1]:
            assert paths[0].teacher_start[b, :s].tolist() == list(range(s)), case
            assert paths[0].total_cost[b] == 0, case


def test_small_tokenizers(small):
    check_pairs(small)


def test_real_tokenizers(real):
    check_pairs(real)


def test_only_the_end_is_lost_between_p50k_and_t5(real):
    sides = [[real[n].encode_with_spans(x)[1] for x in TEXTS.values()] for n in ("p50k", "t5")]
    path = alignment.offsets(*sides)
    for b, (teacher, student) in enumerate(zip(*sides, strict=True)):
        if len(student):
            assert path.total_cost[b] == teacher[-1, 1] - student[-1, 1]
            # The teacher's tokens up to the student's last byte all have a partner.
            linked = path.teacher_end[b, len(student) - 1]
            assert linked == np.sum(teacher[:, 0] < student[-1, 1])


def test_the_first_word_of_a_line_has_its_newline(real):
    text = "It is $12/2.\nIn May"
    (said, teacher), (ids, student) = (real[n].encode_with_spans(text) for n in ("p50k", "t5"))
    path = alignment.offsets([teacher], [student])
    said = real["p50k"].pieces(said)
    ranges = zip(path.teacher_start[0], path.teacher_end[0], strict=True)
    linked = ["".join(said[start:end]) for start, end in ranges]
    assert list(zip(real["t5"].pieces(ids), linked, strict=True)) == [
        ("▁It", "It"),
        ("▁is", " is"),
        ("▁$12", " $12"),
        ("/2", "/2"),
        (".", "."),
        ("▁In", "\nIn"),
        ("▁May", " May"),
    ]


# Letters of every kind that a normaliser treats in its own way.
HARD = "aé½ﬁ№ \n\t\u3000{\u0301\u0327\u200d\u00ad\x01\ufffd\u25811$👩🇩日ﷺ\u1112\u1161\u11abｶﾞ"


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from(HARD), max_size=24))
def test_any_mixture_under_small_tokenizers(small, text):
    for tokenizer in small.values():
        check_spans(tokenizer, text)


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from(HARD), max_size=24) | st.text(max_size=24))
def test_any_mixture_under_real_tokenizers(real, text):
    for name in ("p50k", "cl100k", "t5", "mistral"):
        check_spans(real[name], text)
