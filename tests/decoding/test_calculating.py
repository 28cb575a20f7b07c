"""The calculator beside a model: what it answers, in whose tokens, and a model that needs it."""

import doctest
import json
import re
import time
from fractions import Fraction

import pytest

from specialize_jax import tokenizers
from specialize_jax.decoding import annotations, calculating
from tests import byte_level
from tests.fixtures import world
from tests.real_data import data_dir

EQUATIONS = [
    ("She sold 48/2 =", " 24"),
    ("She sold 48/2=", "24"),
    ("She sold 48/2 = ", "24"),
    ("12 + 5 =", " 17"),
    ("It costs 3 x $1,200 =", " $3,600"),
    ("$30 / $5 =", " 6"),
    ("$30 / 5 =", " $6"),
    ("3 - 5 =", " -2"),
    ("1 / 3 =", " 0.33"),
    ("48/2 = <<48/2=", "24"),
    ("(2 + 3) * 4 =", " 20"),
    ("2 + 3 = 5. 5 * 4 =", " 20"),
    # nothing is said
    ("", None),
    ("She sold 48/2", None),
    ("48/2 = 24", None),
    ("Let x =", None),
    ("24 =", None),
    ("3x - 5 =", None),
    ("5 / 0 =", None),
    ("1 / (2 - 2) =", None),
    ("9**9**9 =", None),
    ("9^9 =", None),
    ("20% + 30% =", None),
    ("\u0664\u0668 / 2 =", None),
    ("4\u00b2 + 1 =", None),
    ("(" * 50 + "1 + 1" + ")" * 50 + " =", None),
    ("1 + " * 100 + "1 =", None),
    ("999999999999999999 * 999999999999999999 =", None),
    ("25 / 1/3 =", None),
    ("__import__('os') + 1 =", None),
]
MARKED = [
    ("48/2 = {0}48/2=", "24{1}"),
    ("{0}48/2=24{1}24 and {0}24*3=", "72{1}"),
    ("$({0}1,200*3=", "3600{1}"),
    ("{0}5=", "5{1}"),
    ("{0}.5*12=", "6{1}"),
    ("48/2 =", None),
    ("{0}48/2=24{1}24 =", None),
    ("{0}48/2=24=", None),
    ("{0}5/0=", None),
    ("{0}9**9**9=", None),
    ("{0}x=", None),
    ("{0}=", None),
    ("{0}20%*5=", None),
]


@pytest.mark.parametrize(("text", "expected"), EQUATIONS)
def test_behind_an_equation(text, expected):
    assert calculating.result(text, "equations") == expected


@pytest.mark.parametrize("form", annotations.DELIMITERS)
@pytest.mark.parametrize(("text", "expected"), MARKED)
def test_inside_a_marked_calculation(form, text, expected):
    before, after = annotations.DELIMITERS[form]
    expected = expected and expected.format(before, after)
    assert calculating.result(text.format(before, after), form) == expected


STUDENTS = {
    "small": lambda path: tokenizers.load(world.TOKENIZER),
    "bytes": lambda path: tokenizers.load(byte_level.save(path, byte_level.byte_level())),
    "t5": lambda path: tokenizers.load(data_dir() / "tokenizer_t5" / "spiece.model"),
    "gpt2": lambda path: tokenizers.load(byte_level.save(path, byte_level.real_gpt2())),
}
WRITES = [
    ("small", "equations"),
    ("bytes", "equations"),
    ("bytes", "annotations"),
    ("bytes", "delimited"),
    ("t5", "equations"),
    ("t5", "delimited"),
    ("gpt2", "equations"),
    ("gpt2", "annotations"),
    ("gpt2", "delimited"),
]


def beside(tokenizer, kind):
    return calculating.calculator(
        kind,
        encode=tokenizer.encode,
        decode=tokenizer.decode,
        surfaces=tokenizer.pieces(range(tokenizer.vocab_size)),
    )


class Muddler:
    """A model that knows what to compute and always gets it wrong, token by token."""

    def __init__(self, tokenizer, kind):
        self._tokenizer, self._queue = tokenizer, []
        before, after = annotations.DELIMITERS.get(kind, ("", ""))
        space = "" if before else " "
        self._steps = [
            f"Ann has {before}12{space}+{space}5{space}=",
            f" pens. Ben has {before}17{space}+{space}21{space}=",
            " pens.",
        ]
        self._guesses = [f"{space}99{after}", f"{space}41{after}"]
        self.wrong = (
            self._steps[0] + self._guesses[0] + self._steps[1] + self._guesses[1] + " pens."
        )
        self.right = self.wrong.replace("99", "17").replace("41", "38")

    def next_token(self, tokens):
        """The next token; None at the end."""
        text = self._tokenizer.decode(tokens)
        if not self._queue:
            step = text.count("=")
            if text.endswith("pens.") and step == 2:
                return None
            says = self._guesses[step - 1] if text.endswith("=") else self._steps[step]
            begun = len(self._tokenizer.encode(text))
            self._queue = self._tokenizer.encode(text + says)[begun:]
        return self._queue.pop(0)


def decode(model, halting, respond, limit=200):
    """The loop of an engine in plain Python; also how often the host was asked."""
    tokens, asked = [], 0
    while (token := model.next_token(tokens)) is not None:
        assert len(tokens) < limit
        tokens.append(token)
        if halting is not None and halting[token]:
            asked += 1
            tokens += respond(tokens)
    return tokens, asked


@pytest.mark.parametrize(("student", "kind"), WRITES)
def test_a_model_that_cannot_compute_writes_right_results(student, kind, tmp_path):
    tokenizer = STUDENTS[student](tmp_path)
    model = Muddler(tokenizer, kind)
    tokens, asked = decode(model, *beside(tokenizer, kind))
    assert tokenizer.decode(tokens) == model.right
    assert tokens == tokenizer.encode(model.right)  # cut as a student saw it in training
    assert asked == 2


@pytest.mark.parametrize("kind", ["none", "after"])
def test_other_kinds_do_nothing_while_decoding(kind, tmp_path):
    tokenizer = STUDENTS["bytes"](tmp_path)
    assert beside(tokenizer, kind) == (None, None)
    model = Muddler(tokenizer, kind)
    tokens, _ = decode(model, None, None)
    assert tokenizer.decode(tokens) == model.wrong
    expected = model.right if kind == "after" else model.wrong
    assert calculating.revised(model.wrong, kind) == expected


def test_t5_calls_it_with_two_tokens():
    tokenizer = STUDENTS["t5"](None)
    halting, _ = beside(tokenizer, "delimited")
    assert halting.shape == (32_100,)
    assert sorted(tokenizer.pieces(halting.nonzero()[0].tolist())) == ["=", "\u2581="]


@pytest.mark.parametrize(
    ("student", "kind"), [("t5", "annotations"), ("small", "annotations"), ("small", "delimited")]
)
def test_signs_that_a_vocabulary_lacks(student, kind, tmp_path):
    tokenizer = STUDENTS[student](tmp_path)
    with pytest.raises(ValueError, match=f"calculator '{kind}' needs .* choices: none, equations"):
        beside(tokenizer, kind)


def test_unknown_kinds_list_the_choices():
    message = "unknown calculator 'abacus'; choices: none, equations, annotations, delimited, after"
    with pytest.raises(ValueError, match=message):
        calculating.revised("5", "abacus")
    with pytest.raises(ValueError, match=message):
        calculating.calculator("abacus", encode=list, decode=str, surfaces=[])


def test_tokens_that_would_be_cut_anew_are_refused():
    """A vocabulary that joins the sign and a result: `=2` is a token, `=1` is none."""
    surfaces = ["=", "=2", *"0123456789+ "]

    def encode(text):
        return [surfaces.index(s) for s in re.findall("=2|.", text)]

    def written(ids):
        return "".join(surfaces[i] for i in ids)

    halting, respond = calculating.calculator(
        "equations", encode=encode, decode=written, surfaces=surfaces
    )
    assert halting.nonzero()[0].tolist() == [0]
    assert written(respond(encode("8+9="))) == "17"
    assert respond(encode("12+12=")) == []
    assert written(respond(encode("12+12 ="))) == " 24"


def test_words_cut_in_a_rows_own_way_do_not_matter():
    tokenizer = tokenizers.load(world.TOKENIZER)
    _, respond = beside(tokenizer, "equations")
    odd = [tokenizer.piece_to_id(piece) for piece in ("\u2581", "a", "n", "d")]
    tokens = [*odd, *tokenizer.encode("12 + 5 =")]
    assert tokens != tokenizer.encode(tokenizer.decode(tokens))
    assert tokenizer.decode([*tokens, *respond(tokens)]) == "and 12 + 5 = 17"


def test_what_the_vocabulary_lacks_earlier_in_a_row_does_not_matter():
    tokenizer = tokenizers.load(world.TOKENIZER)
    _, respond = beside(tokenizer, "equations")
    tokens = tokenizer.encode("[A] 12 + 5 =")
    assert tokenizer.unk_id in tokens
    assert tokenizer.decode([*tokens, *respond(tokens)]).endswith(" 12 + 5 = 17")


def test_gsm8k_is_computed_as_it_is_annotated():
    """At every annotation of the test set the calculator writes what stands there, or rounds it."""
    lines = (data_dir() / "gsm8k" / "test.jsonl").read_text().splitlines()
    apart = []
    for solution in (json.loads(line)["answer"] for line in lines):
        for found in re.finditer(r"<<[^<>]*?=", solution):
            answer = calculating.result(solution[: found.end()], "annotations")
            assert answer, found[0]
            there = solution[found.end() :].partition(">>")[0].replace(",", "")
            apart.append(abs(Fraction(answer.removesuffix(">>")) - Fraction(there)))
    assert len(apart) == 4282
    assert sum(a > 0 for a in apart) < 0.02 * len(apart)
    assert max(apart) < Fraction(1, 20)


def test_forms_of_gsm8k_are_told_apart_and_turned_back():
    lines = (data_dir() / "gsm8k" / "train.jsonl").read_text().splitlines()
    solutions = [json.loads(line)["answer"] for line in lines]
    turned = [annotations.rewrite(solution, "delimited") for solution in solutions]
    assert not any("<<" in text or ">>" in text for text in turned)
    back = [annotations.rewrite(t, "annotations", source="delimited") for t in turned]
    assert back == solutions
    bare = [annotations.rewrite(solution, None) for solution in solutions]
    assert bare == [re.sub("<<.*?>>", "", solution) for solution in solutions]


@pytest.mark.parametrize(
    ("text", "form", "source", "expected"),
    [
        ("<<48/2=24>>24", "delimited", "annotations", "[48/2=24]24"),
        ("[48/2=24]24", None, "delimited", "24"),
        ("[48/2=24]24", "delimited", "annotations", "[48/2=24]24"),
        ("see [1], [x = 5] and [a]", None, "delimited", "see [1], [x = 5] and [a]"),
        ("<<<<5=5>>", None, "annotations", "<<"),
        ("<<5=5", None, "annotations", "<<5=5"),
        ("<<5\n=5>>", None, "annotations", "<<5\n=5>>"),
    ],
)
def test_rewriting(text, form, source, expected):
    assert annotations.rewrite(text, form, source=source) == expected


def test_unknown_forms_list_the_choices():
    with pytest.raises(ValueError, match="unknown form .* 'xml'; choices: annotations, delimited"):
        annotations.rewrite("5", "xml")


HOSTILE = ["<<" * 50_000, "<<1" * 30_000, "<<" + "1" * 100_000, "[1=" * 30_000, "1=" * 9_999]


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_take_bounded_time(hostile):
    started = time.monotonic()
    for kind in ("equations", *annotations.DELIMITERS):
        calculating.result(hostile, kind)
        calculating.result(hostile + "=", kind)
    for form in annotations.DELIMITERS:
        annotations.rewrite(hostile, None, source=form)
    calculating.revised(hostile, "after")
    # Linear: well below a second; a quadratic step over 1e5 characters takes minutes.
    assert time.monotonic() - started < 5


def test_docstring_examples():
    assert doctest.testmod(calculating).failed == doctest.testmod(annotations).failed == 0
