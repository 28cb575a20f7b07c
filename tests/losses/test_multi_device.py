"""The chunked loss on simulated devices."""

from tests import simulated_devices


def test_mesh_equals_one_device_and_gathers_nothing():
    assert simulated_devices.run("tests.losses.multi_device") == ["equal"]
