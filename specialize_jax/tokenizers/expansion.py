"""What a teacher's recorded candidates say about the next *student* token (mode `marginal`).

A student token seldom is one teacher token. At the place where it starts, every candidate of the
teacher begins a string; the student tokenizer says which token that string leads to, and the
candidate's probability is a vote for it. Where the string is too short to tell, the sampled
candidate is followed to the next teacher token, whose candidates are recorded too.

Exact but for the errors that design notes call E1 to E7; those that can be seen are counted:
`Votes.tail`, `Votes.dropped` and `Votes.open_mass`. Pure Python in float64; the arrays part is
`alignment.transfer`.

Letters: `S` student tokens of an example, `M` most distinct student tokens voted for at a position.
"""

import bisect
import enum
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from specialize_jax.schemas import Reason
from specialize_jax.tokenizers.sentencepiece_model import SentencePieceTokenizer

DEPTH = 4
# Strings with which a teacher says that its text is over.
END_TOKENS = frozenset({b"<|endoftext|>", b"</s>", b"<eos>", b"<|im_end|>", b"<|eot_id|>"})

_MARKER = "\u2581"
SMALLEST_SCALE = 1e-6
# Printed probabilities are rounded, and a sampled token may stand beside the most probable ones.
MOST_MASS = 1.01
# Strings and answers kept before the cache starts anew, some hundred megabytes.
_MOST_KEPT = 1 << 20


class Recorded(NamedTuple):
    """What a teacher wrote and recorded, in bytes.

    Attributes:
      tokens: sampled tokens, those of the target first, then what ended the text, as newlines.
      candidates: string -> probability for every token; the sampled one stands among them where
        its probability is known. Empty: not recorded.
      terminal: candidates after the last token, where the text ended but the token that ended it
        is not among `tokens`; of these, white space ends the text. None: not recorded.
      stop: a string that ends the text wherever it is written (two newlines); None: none known.
      ended: whether the text ends after the last token; False where it was cut by length.
    """

    tokens: Sequence[bytes]
    candidates: Sequence[Mapping[bytes, float]]
    terminal: Mapping[bytes, float] | None = None
    stop: bytes | None = None
    ended: bool = True


class Votes(NamedTuple):
    """The teacher's mass per student token, for every position of one example.

    `mass.sum(-1) + tail + dropped == 1` but where there is a reason; nothing is divided yet.

    Attributes:
      ids: [S, M] int32; student ids, most mass first, each once. 0 in unused slots.
      mass: [S, M] float64 in [0, 1]; 0 in unused slots.
      tail: [S] float64; mass of which it is unknown which student token it leads to.
      dropped: [S] float64; mass of strings that contradict the student's tokens so far.
      open_mass: [S] float64; part of `mass` and `dropped` whose string might have grown (E1).
      reason: [S] int32; a `Reason`; other than NONE the position gets a one-hot and has no votes.
    """

    ids: np.ndarray
    mass: np.ndarray
    tail: np.ndarray
    dropped: np.ndarray
    open_mass: np.ndarray
    reason: np.ndarray


class Fate(enum.Enum):
    """What is known of a string that follows given student tokens."""

    CLOSED = enum.auto()
    """However it goes on, the next student token is the one found."""
    OPEN = enum.auto()
    """If it ends here, the next student token is the one found; more text may change that."""
    CONTRADICTS = enum.auto()
    """However it goes on, the student would have cut what stands before it differently."""
    OPEN_CONTRADICTS = enum.auto()
    """If it ends here the student would have cut what stands before it differently."""


class Segmenter:
    """Says which student token a string leads to, by the student's own tokenizer.

    A place in a normalised text is a sure cut if no piece of the vocabulary, at any offset, can
    reach across it, whatever follows the text. Pieces before a sure cut do not depend on what comes
    after it (for unigram and BPE alike), so a piece that ends at or before one is final. White
    space makes a sure cut wherever no piece holds an inner U+2581.

    Args:
      tokenizer: the student's.

    Attributes:
      spaces_cut: whether every space is a sure cut, on both of its sides: what stands before it
        and what follows are segmented each by itself.
    """

    def __init__(self, tokenizer: SentencePieceTokenizer):
        self.tokenizer = tokenizer
        self._whole = frozenset(tokenizer.ordinary_pieces())
        self._begun = frozenset(piece[:n] for piece in self._whole for n in range(1, len(piece)))
        self._longest = max(map(len, self._whole), default=1)
        self.spaces_cut = _MARKER in self._whole and not any(
            _MARKER in piece[1:] for piece in self._whole
        )
        # Models that keep white space put a marker before a text that begins with one, too.
        self._puts_second_marker = "".join(tokenizer.encode_surfaces(" a")) == 2 * _MARKER + "a"
        self._surfaces: dict[str, list[str]] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes, bool], tuple[Fate, int | None]] = {}

    def next_token(
        self, context: str, context_ids: tuple[int, ...], following: bytes, *, ended: bool = False
    ) -> tuple[Fate, int | None]:
        """Returns the student token that starts where `following` starts.

        Args:
          context: source text from the start of a word up to `following`; it may be empty at the
            start of the text only.
          context_ids: the student's tokens of it.
          following: what comes next; the last character may be incomplete.
          ended: whether the text ends after it.

        Returns:
          What is known, and the student's id: end-of-sequence where the text ends with `context`,
          None where the string does not reach a token of its own (white space, half a character).
        """
        key = context, context_ids, following, ended
        if key not in self._known:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
                self._surfaces.clear()
            self._known[key] = self._next_token(*key)
        return self._known[key]

    def _next_token(
        self, context: str, context_ids: tuple[int, ...], following: bytes, ended: bool
    ) -> tuple[Fate, int | None]:
        try:
            text, is_whole = following.decode(), True
        except UnicodeDecodeError as error:
            # Only an incomplete last character is a string that may still become text.
            if error.reason != "unexpected end of data":
                return Fate.OPEN, None
            text, is_whole = following[: error.start].decode(), False
        context = self._by_itself(context)
        surfaces = self._encode(context + text)
        ids = tuple(self.tokenizer.surfaces_to_ids(surfaces))
        before = len(context_ids)
        fits = ids[:before] == context_ids and self._run_ends(context, context_ids, surfaces)
        if ended and is_whole:
            if not fits:
                return Fate.CONTRADICTS, None
            return Fate.CLOSED, ids[before] if len(ids) > before else self.tokenizer.eos_id
        sure = self._last_sure_cut(context + text, surfaces)
        if fits and len(ids) > before:
            end = sum(map(len, surfaces[: before + 1]))
            if sure >= end:
                return Fate.CLOSED, ids[before]
            return Fate.OPEN, ids[before] if is_whole else None
        if fits:
            return Fate.OPEN, None
        unknown = self.tokenizer.unk_id
        pieces = self.tokenizer.pieces(context_ids)
        length = sum(
            1 if token == unknown else len(piece)
            for token, piece in zip(context_ids, pieces, strict=True)
        )
        return (Fate.CONTRADICTS if sure >= length else Fate.OPEN_CONTRADICTS), None

    def is_own(self, context: str, context_ids: tuple[int, ...]) -> bool:
        """Returns whether a context, by itself, has these tokens."""
        alone = self._encode(self._by_itself(context))
        return tuple(self.tokenizer.surfaces_to_ids(alone)) == context_ids

    def _by_itself(self, context: str) -> str:
        """Returns a context that, put at the start of a text, has the tokens it has inside one."""
        return context[1:] if self._puts_second_marker and context.startswith(" ") else context

    def _encode(self, text: str) -> list[str]:
        if text not in self._surfaces:
            self._surfaces[text] = self.tokenizer.encode_surfaces(text)
        return self._surfaces[text]

    def _run_ends(
        self, context: str, context_ids: tuple[int, ...], surfaces: Sequence[str]
    ) -> bool:
        """Whether an unknown run at the end of the context does not go on in what follows."""
        if not context_ids or context_ids[-1] != self.tokenizer.unk_id:
            return True
        alone = self._encode(context)
        return bool(alone) and surfaces[len(context_ids) - 1] == alone[-1]

    def _last_sure_cut(self, text: str, surfaces: Sequence[str]) -> int:
        """Returns the last sure cut of the normalised text, counted in its characters."""
        normal = "".join(surfaces)
        # The normaliser strips white space from the end; a letter after it brings it back.
        last = text[-1:]
        if last and not ("!" <= last <= "~"):
            grown = "".join(self._encode(text + "a"))
            if grown == normal + _MARKER + "a":
                normal += _MARKER
        length = len(normal)
        reach, sure = 0, 0
        for start in range(length):
            if reach <= start:
                sure = start
            if length - start < self._longest and normal[start:] in self._begun:
                return sure
            for end in range(min(length, start + self._longest), max(start, reach), -1):
                if normal[start:end] in self._whole:
                    reach = end
                    break
        return length


def is_continuation(byte: bytes) -> bool:
    """Returns whether a byte of UTF-8, or none, goes on with a character that began before it."""
    return b"\x80" <= byte < b"\xc0"


class _Tally:
    """Sums of one position."""

    def __init__(self) -> None:
        self.votes: dict[int, float] = {}
        self.tail = self.dropped = self.open_mass = 0.0

    def add(self, fate: Fate, token: int | None, mass: float) -> None:
        """Counts a string that is followed no further."""
        if fate is Fate.CONTRADICTS:
            self.dropped += mass
        elif fate is Fate.OPEN_CONTRADICTS:
            self.dropped += mass
            self.open_mass += mass
        elif token is None:
            self.tail += mass
        else:
            self.votes[token] = self.votes.get(token, 0.0) + mass
            if fate is Fate.OPEN:
                self.open_mass += mass


class _Position(NamedTuple):
    """Where a student token starts: in the teacher's token `step`, `cut` bytes into it."""

    step: int
    cut: bytes
    context: str
    context_ids: tuple[int, ...]


def expand(
    recorded: Recorded,
    student_ids: Sequence[int],
    spans: np.ndarray,
    segmenter: Segmenter,
    *,
    depth: int = DEPTH,
    share: Callable[[bytes], float] | None = None,
    unlisted_votes: bool = True,
) -> Votes:
    """Returns the teacher's votes for every student token.

    Args:
      recorded: what the teacher wrote and recorded.
      student_ids: `S` tokens of the target, end-of-sequence last where it has one.
      spans: [S, 2] int32; the half-open range of target bytes that each token stands for, as
        `Tokenizer.encode_with_spans`; that of end-of-sequence, if given, is not read.
      segmenter: of the student's tokenizer; it caches, so keep one for a whole data set.
      depth: teacher tokens by which a sampled string is followed at most, >= 0.
      share: bytes -> share of the teacher's mass on tokens that start with them, which scales the
        unlisted mass where a student token starts inside a teacher token. None: 1.
      unlisted_votes: what becomes of the unlisted mass of a step that a sampled string is followed
        to. True: it votes as the string would if it ended there, as an unlisted token most often
        begins the next word; it counts as open mass. False: it joins the tail.

    Returns:
      The votes.

    Raises:
      ValueError: lengths that do not fit, spans outside the target, a negative depth, a probability
        outside [0, 1], a step whose mass exceeds 1 by more than rounding.
    """
    spans = np.asarray(spans)
    _check(recorded, student_ids, spans, depth)
    # After the last token come those at the end, if any.
    steps = [_merged(step) for step in (*recorded.candidates, recorded.terminal or {})]
    starts = [0, *itertools.accumulate(map(len, recorded.tokens))]
    text = b"".join(recorded.tokens)
    pieces = segmenter.tokenizer.pieces(student_ids)
    tallies: list[_Tally | Reason] = []
    word = 0
    for j, token in enumerate(student_ids):
        is_end = j == len(student_ids) - 1 and token == segmenter.tokenizer.eos_id
        if j and pieces[j - 1].startswith(_MARKER):
            word = j - 1
        if is_end:
            begin = int(spans[j - 1, 1]) if j else 0
        else:
            # White space that the normaliser strips from the start of the text leads here too.
            begin = int(spans[j, 0]) if j else 0
        is_inside = j and begin < int(spans[j - 1, 1])
        if is_inside or is_continuation(text[begin : begin + 1]):
            tallies.append(Reason.INSIDE_SEGMENT)
            continue
        step = bisect.bisect_right(starts, begin) - 1
        if step >= len(recorded.tokens) and recorded.terminal is None:
            tallies.append(Reason.END_OF_SEQUENCE if is_end else Reason.NO_LOGPROBS)
            continue
        first = int(spans[word, 0]) if word else 0
        position = _Position(
            step,
            text[starts[step] : begin],
            text[first:begin].decode(),
            tuple(map(int, student_ids[word:j])),
        )
        tallies.append(_expand(recorded, steps, position, segmenter, depth, share, unlisted_votes))
    return _to_arrays(tallies)


def prefix_share(counts: Mapping[bytes, float]) -> Callable[[bytes], float]:
    """Returns prefix -> share of a teacher's tokens that start with it, for `expand`.

    Args:
      counts: teacher token -> how often it was seen.

    Raises:
      ValueError: nothing was counted, or a count is negative.
    """
    names = sorted(counts)
    if not names or min(counts.values()) < 0 or not sum(counts.values()):
        raise ValueError(f"expected counts of tokens, none negative, got {dict(counts)!r:.80}")
    sums = [0.0, *itertools.accumulate(counts[name] for name in names)]

    @functools.cache
    def share(prefix: bytes) -> float:
        first = bisect.bisect_left(names, prefix)
        last = bisect.bisect_right(names, prefix, lo=first, key=lambda name: name[: len(prefix)])
        return (sums[last] - sums[first]) / sums[-1]

    return share


def _expand(
    recorded: Recorded,
    steps: Sequence[Mapping[bytes, float]],
    position: _Position,
    segmenter: Segmenter,
    depth: int,
    share: Callable[[bytes], float] | None,
    unlisted_votes: bool,
) -> _Tally | Reason:
    cut = position.cut
    listed = steps[position.step]
    if not listed:
        return Reason.NO_LOGPROBS
    kept: Mapping[bytes, float] = {c: p for c, p in listed.items() if c.startswith(cut)}
    rho = share(cut) if cut and share is not None else 1.0
    tail = rho * max(0.0, 1.0 - _total(listed.values()))
    scale = _total(kept.values()) + tail
    if scale < SMALLEST_SCALE:
        return Reason.NO_MASS
    tally = _Tally()
    tally.tail = tail / scale
    mass, written = 1.0 / scale, b""
    # Each round follows the sampled string by one teacher token.
    for step in range(position.step, position.step + depth + 1):
        sampled = recorded.tokens[step] if step < len(recorded.tokens) else None
        is_last = step == position.step + depth or not any(steps[step + 1 : step + 2])
        followed = None
        for candidate, probability in kept.items():
            if candidate == cut and cut:
                tally.tail += mass * probability  # what follows it is unknown
                continue
            string = written + candidate[len(cut) :]
            over = ending(
                candidate,
                string,
                stop=recorded.stop,
                is_behind=step == len(recorded.tokens),
                is_sampled_end=recorded.ended
                and recorded.terminal is None
                and step == len(recorded.tokens) - 1
                and candidate == recorded.tokens[step],
            )
            fate, token = segmenter.next_token(
                position.context,
                position.context_ids,
                string if over is None else over,
                ended=over is not None,
            )
            is_final = fate in (Fate.CLOSED, Fate.CONTRADICTS)
            if candidate != sampled or is_final:
                tally.add(fate, token, mass * probability)
            elif not is_last:
                followed = mass * probability, string, token
            elif fate is Fate.OPEN:
                tally.add(fate, token, mass * probability)
            else:
                # The sampled string cannot contradict in the end: how it goes on is unknown.
                tally.tail += mass * probability
        if followed is None:
            break
        mass, written, found = followed
        kept, cut = steps[step + 1], b""
        unlisted = mass * max(0.0, 1.0 - _total(kept.values()))
        tally.add(Fate.OPEN, found if unlisted_votes else None, unlisted)
    # All contradicts, or of no string is it known where it leads.
    if _total(tally.votes.values()) < SMALLEST_SCALE:
        return Reason.NO_MASS
    return tally


def ending(
    candidate: bytes, string: bytes, *, stop: bytes | None, is_behind: bool, is_sampled_end: bool
) -> bytes | None:
    """Returns what a string holds before the end of the text; None if the text does not end.

    Args:
      candidate: the last teacher token of the string.
      string: what was written since the student token started.
      stop: see `Recorded`.
      is_behind: whether the candidate stands behind the last token.
      is_sampled_end: whether it is the last token, and the text ends with it.
    """
    if candidate in END_TOKENS:
        return string[: len(string) - len(candidate)]
    if stop is not None and (at := string.find(stop)) >= 0:
        return string[:at]
    if is_sampled_end or (is_behind and candidate.isspace()):
        return string
    return None


def _total(values: Iterable[float]) -> float:
    """Adds one after the other, as arrays are; `sum` makes up for rounding since Python 3.12."""
    total = 0.0
    for value in values:
        total += value
    return total


def _merged(candidates: Mapping[bytes, float]) -> Mapping[bytes, float]:
    """Returns candidates whose mass is at most 1: rounding may have lifted it."""
    total = _total(candidates.values())
    return {c: p / total for c, p in candidates.items()} if total > 1.0 else candidates


def _check(recorded: Recorded, student_ids: Sequence[int], spans: np.ndarray, depth: int) -> None:
    if depth < 0:
        raise ValueError(f"depth must be at least 0, got {depth}")
    if len(recorded.candidates) != len(recorded.tokens):
        raise ValueError(
            f"expected candidates for each of {len(recorded.tokens)} tokens, got "
            f"{len(recorded.candidates)}"
        )
    if len(spans) not in (len(student_ids), len(student_ids) - 1) or np.shape(spans)[1:] != (2,):
        raise ValueError(
            f"expected spans [{len(student_ids)}, 2] (or one fewer, without end-of-sequence), got "
            f"{np.shape(spans)}"
        )
    size = sum(map(len, recorded.tokens))
    if len(spans) and not 0 <= int(np.min(spans)) <= int(np.max(spans)) <= size:
        raise ValueError(
            f"expected spans in [0, {size}], the bytes of the tokens, got "
            f"[{int(np.min(spans))}, {int(np.max(spans))}]"
        )
    for step, candidates in enumerate([*recorded.candidates, recorded.terminal or {}]):
        for name, p in candidates.items():
            if not 0.0 <= p <= 1.0 + 1e-6:
                raise ValueError(
                    f"step {step}: expected probabilities in [0, 1], got {p} for {name!r}"
                )
        if (total := sum(candidates.values())) > MOST_MASS:
            raise ValueError(f"step {step}: expected candidates of mass 1 at most, got {total:.4f}")


def _to_arrays(tallies: Sequence[_Tally | Reason]) -> Votes:
    size = len(tallies)
    width = max((len(t.votes) for t in tallies if isinstance(t, _Tally)), default=0)
    votes = Votes(
        ids=np.zeros((size, max(width, 1)), np.int32),
        mass=np.zeros((size, max(width, 1))),
        tail=np.zeros(size),
        dropped=np.zeros(size),
        open_mass=np.zeros(size),
        reason=np.full(size, Reason.NONE, np.int32),
    )
    for j, tally in enumerate(tallies):
        if isinstance(tally, Reason):
            votes.reason[j] = tally
            continue
        best = sorted(tally.votes.items(), key=lambda item: (-item[1], item[0]))
        for slot, (token, mass) in enumerate(best):
            votes.ids[j, slot], votes.mass[j, slot] = token, mass
        votes.tail[j], votes.dropped[j] = tally.tail, tally.dropped
        votes.open_mass[j] = tally.open_mass
    return votes
