"""How true a teacher's distribution is after its transfer to a student's tokens.

    python benchmarks/alignment_fidelity.py [--json FILE]

The teacher is that of the embedded world, whose every text can be listed with its probability. So
the truth is known: of all texts that begin with the student's tokens so far, the share that goes on
with each token. Each mode's targets are made from the same sampled solutions, with the teacher's K
best candidates recorded; its tail is spread over the ids that it does not list by the student's
unigram on training text, and every id gets 1e-8 more (a one-hot has a finite divergence then).
*All* positions count, those without a transfer (one-hots) too.

| name             | what it is                                                                  |
|------------------|-----------------------------------------------------------------------------|
| one_to_one       | the published rule                                                          |
| soft             | FuseLLM's rule                                                              |
| marginal         | ours                                                                        |
| marginal, tail   | the same, but unlisted mass of a followed step joins the tail               |
| marginal, rho    | the same as ours, told the teacher's unigram (counted on training text)     |

Three gaps say where the error of `marginal` comes from: from the truth to the truth given the
sampled teacher tokens (E2); from that to the votes of all candidates (E1, E5: strings too short to
tell); from those to the votes of the K = 5 best (E3).
"""

import argparse
import collections
import json
import math
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from specialize_jax import tokenizers
from specialize_jax.data.aligning import plain
from specialize_jax.schemas import UNUSED_LOGPROB, Reason
from specialize_jax.tasks import miniworld
from specialize_jax.teacher import collect, grammar

ERROR_RATE = 0.2
KS = (1, 5, 20, 0)  # 0: all
FLOOR = 1e-8
CLASSES = ("line start", "word start", "inside word", "number", "sign", "end", "all")

Distribution = Mapping[int, float]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=12, help="of each family")
    parser.add_argument("--families", default="stories,other_wording,boolean,reversal,counting")
    parser.add_argument("--vocab_size", type=int, default=160)
    parser.add_argument("--model_type", default="bpe", choices=tokenizers.MODEL_TYPES)
    parser.add_argument("--teacher_vocab_size", type=int, default=400)
    parser.add_argument("--json", help="also writes the numbers to this file")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        student, prior = _student(pathlib.Path(folder) / "student.model", args)
        teacher = miniworld.Teacher(ERROR_RATE, args.teacher_vocab_size)
        scores = _score(teacher, student, prior, args)
    table = {
        name: {key: np.mean(values, axis=0).tolist() for key, values in sorted(groups.items())}
        for name, groups in scores.items()
    }
    counts = {name: len(scores["truth to path"][name]) for name in CLASSES}
    _print(table, counts)
    if args.json:
        content = {"settings": vars(args), "positions": counts, "means": table}
        pathlib.Path(args.json).write_text(json.dumps(content, indent=1) + "\n")


def _student(
    path: pathlib.Path, args: argparse.Namespace
) -> tuple[tokenizers.SentencePieceTokenizer, np.ndarray]:
    """Learns the student's tokenizer on training text, and its unigram there."""
    texts = [
        text
        for family in args.families.split(",")
        for question in miniworld.questions(family, "train", 60)
        for text in (question.question, miniworld.solution(question))
    ]
    path.write_bytes(tokenizers.train(texts, args.vocab_size, args.model_type))
    student = tokenizers.load(path)
    assert isinstance(student, tokenizers.SentencePieceTokenizer)
    counts = np.zeros(student.vocab_size)
    for text in texts:
        np.add.at(counts, [*student.encode(text), student.eos_id], 1)
    return student, counts / counts.sum() + FLOOR


def _score(
    teacher: miniworld.Teacher,
    student: tokenizers.SentencePieceTokenizer,
    prior: np.ndarray,
    args: argparse.Namespace,
) -> dict[str, dict[str, list[Any]]]:
    """Returns name of a mode at a K, or of a gap -> token class -> numbers of each position."""
    scores: dict[str, dict[str, list[Any]]] = collections.defaultdict(
        lambda: collections.defaultdict(list)
    )
    segmenter = tokenizers.Segmenter(student)
    share = tokenizers.prefix_share(
        collections.Counter(
            token
            for family in args.families.split(",")
            for question in miniworld.questions(family, "train", 60)
            for part in grammar.pretokens(miniworld.solution(question))
            for token in teacher.tokenize(part)
        )
    )
    variants: dict[str, dict[str, Any]] = {
        "marginal": {},
        "marginal, tail": {"unlisted_votes": False},
        "marginal, rho": {"share": share},
    }
    for family in args.families.split(","):
        for question in miniworld.questions(family, "test", args.questions):
            texts = _texts(teacher, student, question)
            rows = {k: _row(teacher, question, k) for k in KS}
            example = plain.align_rows([rows[0]], student, mode="one_to_one", k_out=64)[0]
            ids, text = example.targets.tolist(), example.text["targets_pretokenized"]
            _, spans = student.encode_with_spans(text)
            found = {}
            for k, row in rows.items():
                recorded = plain.recorded(row)
                for mode in ("one_to_one", "soft"):
                    soft = plain.align_rows([row], student, mode=mode, k_out=64)[0].soft
                    found[mode, k] = [_of_soft(soft, j) for j in range(len(ids))]
                for name, options in variants.items():
                    votes = tokenizers.expand(recorded, ids, spans, segmenter, **options)
                    found[name, k] = [_of_votes(votes, j, token) for j, token in enumerate(ids)]
            tokens = tuple(plain.recorded(rows[0]).tokens)
            classes = _classes(student.pieces(ids), text, spans)
            for j, kind in enumerate(classes):
                begin = 0 if j == 0 else int(spans[j, 0] if j < len(spans) else spans[-1, 1])
                exact = _dense(_truth(texts, ids, j), 0.0, prior)
                path = _dense(_truth(texts, ids, j, tokens, begin), 0.0, prior)
                dense = {key: _dense(*values[j], prior) for key, values in found.items()}
                for group in (kind, "all"):
                    for (name, k), values in found.items():
                        there = dense[name, k]
                        numbers = _kl(exact, there), np.abs(exact - there).sum() / 2, values[j][1]
                        scores[f"{name} K={k or 'all'}"][group].append(numbers)
                    every, five = dense["marginal", 0], dense["marginal", 5]
                    scores["truth to path"][group].append(_gap(exact, path))
                    scores["path to K=all"][group].append(_gap(path, every))
                    scores["K=all to K=5"][group].append(_gap(every, five))
    return scores


def _row(teacher: miniworld.Teacher, question: Any, k: int) -> dict[str, Any]:
    """Returns the record of one solution, the same one whatever K is."""
    knobs = {"num_samples": 1, "top_logprobs": k or 10_000, "seed": 0}
    row = next(iter(collect.rows(teacher, [question], **knobs)))
    assert not isinstance(row, str), row
    return row


Text = tuple[list[int], tuple[bytes, ...], float]


def _texts(teacher: miniworld.Teacher, student: Any, question: Any) -> list[Text]:
    """Returns student ids, teacher tokens and probability of everything the teacher can write."""

    def enumerate_(state: Any) -> Iterator[tuple[str, float]]:
        if state is None:
            yield "", 1.0
            return
        for way in transitions(state):
            for text, probability in enumerate_(way.to):
                yield way.text + text, way.probability * probability

    transitions = miniworld.solutions(question.source, ERROR_RATE)
    return [
        (
            [*student.encode(text), student.eos_id],
            tuple(token for part in grammar.pretokens(text) for token in teacher.tokenize(part)),
            probability,
        )
        for text, probability in enumerate_(("start",))
    ]


def _truth(
    texts: Sequence[Text],
    ids: Sequence[int],
    j: int,
    tokens: tuple[bytes, ...] | None = None,
    begin: int = 0,
) -> Distribution:
    """Returns the next student token's distribution, by definition.

    With `tokens` only texts count whose teacher tokens are the sampled ones before byte `begin`,
    and whose next one agrees with the bytes between.
    """
    votes: dict[int, float] = collections.defaultdict(float)
    step, rest = 0, begin
    while tokens is not None and rest >= len(tokens[step]):
        rest -= len(tokens[step])
        step += 1
    for student, teacher, probability in texts:
        if len(student) <= j or student[:j] != ids[:j]:
            continue
        if tokens is None or (
            teacher[:step] == tokens[:step] and teacher[step].startswith(tokens[step][:rest])
        ):
            votes[student[j]] += probability
    total = math.fsum(votes.values())
    return {token: mass / total for token, mass in votes.items()}


def _of_soft(soft: Any, j: int) -> tuple[Distribution, float]:
    used = soft.logprobs[j] > UNUSED_LOGPROB
    listed = zip(soft.ids[j][used].tolist(), np.exp(soft.logprobs[j][used]).tolist(), strict=True)
    return dict(listed), float(np.exp(soft.tail_logprob[j]))


def _of_votes(votes: tokenizers.Votes, j: int, token: int) -> tuple[Distribution, float]:
    if votes.reason[j] != Reason.NONE:
        return {token: 1.0}, 0.0
    kept, used = 1 - votes.dropped[j], votes.mass[j] > 0
    mass = votes.mass[j][used] / kept
    return dict(zip(votes.ids[j][used].tolist(), mass.tolist(), strict=True)), votes.tail[j] / kept


def _dense(listed: Distribution, tail: float, prior: np.ndarray) -> np.ndarray:
    """Returns [V]: the tail spread over unlisted ids by the prior, and a floor below every id."""
    found = np.zeros_like(prior)
    found[list(listed)] = list(listed.values())
    others = prior.copy()
    others[list(listed)] = 0
    if others.sum() > 0:
        found += tail * others / others.sum()
    found += FLOOR
    return found / found.sum()


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    return max(0.0, float((p * np.log(p / q)).sum()))


def _gap(p: np.ndarray, q: np.ndarray) -> tuple[float, float]:
    return _kl(p, q), float(np.abs(p - q).sum() / 2)


def _classes(pieces: Sequence[str], text: str, spans: np.ndarray) -> list[str]:
    found = []
    for j, piece in enumerate(pieces):
        if j >= len(spans):
            found.append("end")
        elif j == 0 or text.encode()[spans[j, 0] :][:1] == b"\n":
            found.append("line start")
        elif any(character.isdigit() for character in piece):
            found.append("number")
        elif not any(character.isalpha() for character in piece):
            found.append("sign")
        else:
            found.append("word start" if piece.startswith("\u2581") else "inside word")
    return found


def _print(table: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    titles = ("KL, nats", "total variation", "tail")
    names = [name for name in table if " to " not in name]
    order = [f"K={k or 'all'}" for k in KS]
    names.sort(key=lambda name: (order.index(name.split()[-1]), name))
    for number, title in enumerate(titles):
        print(f"\n| {title} | " + " | ".join(f"{c} ({counts[c]})" for c in CLASSES) + " |")
        print("|---" * (len(CLASSES) + 1) + "|")
        for name in names:
            values = [f"{table[name][c][number]:.4f}" if counts[c] else "" for c in CLASSES]
            print(f"| {name} | " + " | ".join(values) + " |")
    print("\n| gap: KL, nats (total variation) | " + " | ".join(CLASSES) + " |")
    print("|---" * (len(CLASSES) + 1) + "|")
    for name in ("truth to path", "path to K=all", "K=all to K=5"):
        values = [f"{table[name][c][0]:.4f} ({table[name][c][1]:.4f})" for c in CLASSES]
        print(f"| {name} | " + " | ".join(values) + " |")


if __name__ == "__main__":
    main()
