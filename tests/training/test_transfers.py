"""Nothing moves between host and devices unasked, and the state is never there twice."""

import jax
import numpy as np
import pytest

from tests import simulated_devices
from tests.training import guarded, toy


def test_one_device_moves_nothing_unasked_and_fetches_once_a_line(tmp_path):
    assert guarded.run_toy(tmp_path) == guarded.EXPECTED


def test_what_moves_unasked_is_seen(tmp_path):
    def back_to_the_host(state, batch):
        return toy.train_step()(state, jax.tree.map(np.asarray, batch))

    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device"):
        guarded.run_toy(tmp_path, train_step=back_to_the_host)


def test_a_mesh_moves_nothing_unasked():
    """The real students' steps: `tests/apps/mesh_step.py`."""
    assert simulated_devices.run("tests.training.guarded", "-W", "error") == ["equal"]


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_the_state_is_donated(optimizer):
    mesh, _, start, step = toy.on_mesh(1, 1, optimizer)
    state, batch = start(), toy.batch_at(0)
    # But for Adafactor's placeholders, of one number each, which the compiler makes anew.
    large = [leaf for leaf in jax.tree.leaves(state) if leaf.size > 1]
    compiled = step.lower(state, batch).compile()
    assert compiled.memory_analysis().alias_size_in_bytes >= sum(leaf.nbytes for leaf in large)
    after, _ = step(state, batch)
    assert all(leaf.is_deleted() for leaf in large)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))
