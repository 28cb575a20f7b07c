"""Training on simulated devices."""

import jax
import numpy as np

from specialize_jax.training import checkpoints
from tests import simulated_devices
from tests.training import toy

_MODULE = "tests.training.multi_device"


def test_mesh_equals_one_device_and_a_checkpoint_moves_between_meshes():
    assert simulated_devices.run(_MODULE, "-W", "error") == ["equal"]


def test_a_run_goes_on_with_another_number_of_devices(tmp_path):
    for count, steps in [(8, 2), (2, 4), (8, 6)]:
        arguments = (tmp_path / "moved", steps)
        shown = simulated_devices.run(_MODULE, "-W", "error", arguments=arguments, count=count)
        assert shown == ["on", str(count)]
    state = toy.run(tmp_path / "one", 6, log_period=1)
    ours, expected = toy.lines(tmp_path / "moved"), toy.lines(tmp_path / "one")
    assert [line["step"] for line in ours] == [1, 2, 3, 4, 5, 6]
    # Every batch has its own number of tokens: the same data came, in the same order.
    tokens = [line["tokens"] for line in expected]
    assert [line["tokens"] for line in ours] == tokens and len(set(tokens)) > 3
    for name in ("loss", "grad_norm"):
        values = [[line[name] for line in lines] for lines in (ours, expected)]
        np.testing.assert_allclose(*values, rtol=1e-4)
    params = checkpoints.restore_params(tmp_path / "moved" / "checkpoints", 6, state.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), params, state.params
    )
