"""Training on simulated devices."""

from tests import simulated_devices


def test_mesh_equals_one_device_and_a_checkpoint_moves_between_meshes():
    assert simulated_devices.run("tests.training.multi_device", "-W", "error") == ["equal"]
