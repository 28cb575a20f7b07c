"""Teacher records as flat arrays: no Python object for a token or a candidate.

Letters: `R` records, `T` teacher tokens of all records, `C` candidates of all tokens, `M` distinct
byte strings.
"""

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specialize_jax import tokenizers
from specialize_jax.schemas import NO_LOGPROB, UNUSED_LOGPROB
from specialize_jax.schemas.aligned import TEXT_COLUMNS


class Lists:
    """A column of lists: the values of row `r` are those from `offsets[r]` to `offsets[r + 1]`.

    Attributes:
      values: the values of all lists.
      offsets: [rows + 1] int64.
    """

    def __init__(self, column: pa.ListArray) -> None:
        self.values = column.flatten()
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        self.offsets = offsets_of(lengths)

    @property
    def lengths(self) -> np.ndarray:
        """[rows] int64."""
        return np.diff(self.offsets)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Returns [N + 1] int64, where each of `N` lists behind one another starts, and the end."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns the numbers from `start` to `start + length` of every range, one behind the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _floats(values: pa.Array) -> np.ndarray:
    """Returns values as an array, NaN for null."""
    return values.to_numpy(zero_copy_only=False)


class Columns:
    """The records of one part.

    Args:
      table: of `schemas.records`.

    Attributes:
      table: the same, in one piece.
      completions: `R` texts.
      strings: `M` distinct byte strings of tokens and candidates.
      tokens: [T] int32; numbers of `strings`.
      token_sizes: [T] int64; bytes of each token.
      token_logprobs: [T] float32.
      token_offsets: [R + 1] int64.
      topk: [C] int32; numbers of `strings`.
      topk_logprobs: [C] float32.
      topk_offsets: [T + 1] int64.
      terminal: [candidates behind the last tokens] int32.
      terminal_logprobs: the same, float32.
      terminal_offsets: [R + 1] int64.
      target_start: [R] int64; the target's tokens are those from here, counted in the record,
      target_end: [R] int64; to here.
      ended: [R] bool; whether the teacher ended the text, and was not cut by length.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table.combine_chunks()
        tokens, topk = self.lists("token_bytes"), self.lists("topk_bytes")
        steps, terminal = Lists(topk.values), self.lists("terminal_bytes")
        parts = [tokens.values, steps.values, terminal.values]
        encoded = pa.concat_arrays(parts).dictionary_encode()
        self.strings: list[bytes] = encoded.dictionary.to_pylist()
        ids = encoded.indices.to_numpy()
        self.tokens, self.topk, self.terminal = np.split(ids, np.cumsum([*map(len, parts)])[:2])
        self.token_sizes = pc.binary_length(tokens.values).to_numpy().astype(np.int64)
        self.token_offsets, self.topk_offsets = tokens.offsets, steps.offsets
        self.token_logprobs = _floats(self.lists("token_logprobs").values)
        self.topk_logprobs = _floats(self.lists("topk_logprobs").values.flatten())
        self.terminal_offsets = terminal.offsets
        self.terminal_logprobs = _floats(self.lists("terminal_logprobs").values)
        self.target_start = self.column("target_token_start").to_numpy().astype(np.int64)
        self.target_end = self.column("target_token_end").to_numpy().astype(np.int64)
        self.ended = np.array(self.column("finish_reason").to_pylist()) != "length"
        self.completions: list[str] = self.column("completion").to_pylist()

    def __len__(self) -> int:
        return self.table.num_rows

    def column(self, name: str) -> pa.Array:
        """Returns a column as one array."""
        column = self.table[name]
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)

    def lists(self, name: str) -> Lists:
        """Returns a column of lists."""
        return Lists(self.column(name))

    @functools.cached_property
    def has_logprobs(self) -> np.ndarray:
        """[R] bool; see `schemas.records.has_logprobs`."""
        return (
            self.topk_offsets[self.token_offsets[1:]] > self.topk_offsets[self.token_offsets[:-1]]
        )

    @functools.cached_property
    def target_bytes(self) -> tuple[np.ndarray, np.ndarray]:
        """Two [R] int64: which bytes of a completion with tokens are the target."""
        before = offsets_of(self.token_sizes)
        begin = self.token_offsets[:-1]
        start, end = (before[begin + to] for to in (self.target_start, self.target_end))
        return start - before[begin], end - before[begin]

    @functools.cached_property
    def targets(self) -> list[str]:
        """`R` target texts; see `schemas.records.target_text`."""
        return [
            completion.encode()[start:end].decode() if count else completion
            for completion, start, end, count in zip(
                self.completions,
                *(bound.tolist() for bound in self.target_bytes),
                np.diff(self.token_offsets).tolist(),
                strict=True,
            )
        ]

    def texts(self) -> dict[str, pa.Array]:
        """Returns the columns of `schemas.aligned` that hold text and numbers of samples."""
        copied = {name: self.column(name) for name in TEXT_COLUMNS[:-1]}
        return {**copied, TEXT_COLUMNS[-1]: pa.array(self.targets, pa.string())}

    def target_tokens(self, r: int) -> list[bytes]:
        """Returns the teacher's tokens of one target."""
        begin = self.token_offsets[r]
        ids = self.tokens[begin + self.target_start[r] : begin + self.target_end[r]]
        return [self.strings[i] for i in ids.tolist()]

    @functools.cached_property
    def padded_topk(self) -> tuple[np.ndarray, np.ndarray]:
        """[T, K] strings, -1 in unused slots, and log-probabilities; `K` the most of the part."""
        counts = np.diff(self.topk_offsets)
        shape = (len(counts), int(counts.max(initial=0)))
        used = np.arange(shape[1])[None, :] < counts[:, None]
        topk, logprobs = np.full(shape, -1, np.int32), np.full(shape, UNUSED_LOGPROB, np.float32)
        topk[used], logprobs[used] = self.topk, self.topk_logprobs
        return topk, logprobs

    def steps(self, rows: np.ndarray) -> tokenizers.Steps:
        """Returns what `tokenizers.Expander` reads of some records [N].

        A text starts with its target; the tokens behind the target are what ended it. The sampled
        token joins the candidates of its step where its log-probability alone was recorded.
        """
        begin = self.token_offsets[rows] + self.target_start[rows]
        counts = self.token_offsets[rows + 1] - begin
        steps = places(begin, counts + 1)
        offsets = offsets_of(counts + 1)
        is_behind = np.zeros(len(steps), bool)
        is_behind[offsets[1:] - 1] = True
        # A place behind the last token is read as another token's; what it says is replaced.
        steps[is_behind] = 0
        first, sizes = self.topk_offsets[steps], np.diff(self.topk_offsets)[steps]
        first[is_behind] = len(self.topk) + self.terminal_offsets[rows]
        sizes[is_behind] = np.where(self._use_terminal, np.diff(self.terminal_offsets), 0)[rows]
        is_added = ~self._is_sampled_listed[steps] & (self.token_logprobs[steps] > NO_LOGPROB)
        is_added &= ~is_behind
        candidate_offsets = offsets_of(sizes + is_added)
        source, to = places(first, sizes), places(candidate_offsets[:-1], sizes)
        candidates = np.empty(candidate_offsets[-1], np.int32)
        logprobs = np.empty(candidate_offsets[-1])
        candidates[to] = np.concatenate([self.topk, self.terminal])[source]
        logprobs[to] = np.concatenate([self.topk_logprobs, self.terminal_logprobs])[source]
        at, added = candidate_offsets[1:][is_added] - 1, steps[is_added]
        candidates[at] = self.tokens[added]
        logprobs[at] = np.minimum(self.token_logprobs[added], 0.0)
        stops = [self._stop(r) for r in rows.tolist()]
        return tokenizers.Steps(
            self.strings,
            np.where(is_behind, -1, self.tokens[steps]),
            offsets,
            candidates,
            np.exp(logprobs),
            candidate_offsets,
            self._use_terminal[rows],
            self.ended[rows],
            stops,
        )

    @functools.cached_property
    def _is_sampled_listed(self) -> np.ndarray:
        """[T] bool; whether the sampled token is among the candidates."""
        counts = np.diff(self.topk_offsets)
        step = np.repeat(np.arange(len(counts)), counts)
        listed = self.topk == self.tokens[step]
        return np.bincount(step[listed], minlength=len(counts)) > 0

    @functools.cached_property
    def _use_terminal(self) -> np.ndarray:
        """[R] bool; whether candidates behind the last token say what follows the target."""
        before = offsets_of(self.token_sizes)
        begin = self.token_offsets[:-1]
        ends_there = before[begin + self.target_end] == before[self.token_offsets[1:]]
        return ends_there & (np.diff(self.terminal_offsets) > 0)

    def _stop(self, r: int) -> bytes | None:
        """Returns white space behind a target that the target itself never holds."""
        target, completion = self.targets[r].encode(), self.completions[r].encode()
        after = completion[int(self.target_bytes[1][r]) :]
        return after if after.isspace() and after not in target else None
