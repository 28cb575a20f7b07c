"""The programs of a run on simulated devices."""

from tests import simulated_devices


def test_students_train_on_every_mesh_as_on_one_device():
    assert simulated_devices.run("tests.apps.mesh_step", "-W", "error") == ["equal"]
