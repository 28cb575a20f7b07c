"""Run by `test_band.py` in its own process, with 8 simulated devices."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from specialize_jax import alignment

B, T, S, K, STRINGS = 32, 20, 17, 3, 9
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute")


def main() -> None:
    """Asserts that a sharded batch gives one device's result, and where nothing moves between."""
    rng = np.random.default_rng(0)
    costs = rng.integers(0, 3, (B, T, S)).astype(np.int32)
    costs[::2, np.arange(S), np.arange(S)] = 0
    lengths = rng.integers(0, T + 1, B), rng.integers(0, S + 1, B)
    path = _same(functools.partial(alignment.dtw, band=3), costs, *lengths)
    assert 0 < path.certified.mean() < 1
    # At full width the moves are gathered for the walk back, which a look-up makes fast.
    path = _same(alignment.dtw, costs, *lengths, forbidden=())

    ends = [np.cumsum(rng.integers(0, 4, (B, size)), axis=1) for size in (T, S)]
    spans = [np.stack([np.pad(e[:, :-1], ((0, 0), (1, 0))), e], axis=-1) for e in ends]
    _same(alignment.offsets, *spans, *lengths)

    mass = rng.dirichlet(np.ones(K + 1), (B, T))[..., :K]
    strings = np.argsort(rng.random((B, T, STRINGS)), axis=-1)[..., :K]
    logs = np.log(mass).astype(np.float32)
    candidates = alignment.Candidates(strings[..., 0], logs[..., 0], strings, logs)
    ids = rng.integers(0, STRINGS, (B, S))

    def one_to_one(path: Any, candidates: Any, ids: Any, lengths: Any) -> Any:
        table = alignment.VocabularyMap(np.arange(STRINGS))
        return alignment.transfer(path, candidates, table, ids, student_lengths=lengths)

    targets = _same(one_to_one, path, candidates, ids, lengths[1])
    assert set(np.unique(targets.kind)) == {0, 1, 2}

    tail = 1 - mass[:, :S].sum(-1)
    nothing = np.zeros((B, S))
    votes = alignment.Votes(strings[:, :S], mass[:, :S], tail, nothing, nothing.astype(np.int32))

    def marginal(votes: Any, ids: Any, lengths: Any) -> Any:
        return alignment.transfer(None, votes, None, ids, mode="marginal", student_lengths=lengths)

    _same(marginal, votes, ids, lengths[1])
    print("equal")


def _same(function: Any, *arguments: Any, forbidden: Any = COLLECTIVES) -> Any:
    """Runs a function on one device and on eight, compares, and returns the result."""
    run = jax.jit(function)
    expected = run(*arguments)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    assert mesh.size == 8
    rows = NamedSharding(mesh, PartitionSpec("data"))
    sharded = jax.device_put(arguments, rows)
    found = run(*sharded)
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # Sums of a share of the rows may round differently.
        np.testing.assert_allclose(leaf, other, rtol=1e-5 * np.issubdtype(leaf.dtype, np.floating))
        is_sharded = leaf.sharding.is_equivalent_to(rows, leaf.ndim)
        assert is_sharded or np.all(leaf), function  # all certified: a constant
    compiled = run.lower(*sharded).compile().as_text()
    assert not [name for name in forbidden if name in compiled], function
    return found


if __name__ == "__main__":
    main()
