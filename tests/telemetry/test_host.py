"""Disks of this machine; GPUs by a library in place of the driver's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.core.system import devices
from pipeline.telemetry import host, metrics

DRIVER = r"""
#include <string.h>
typedef struct { unsigned int gpu, memory; } utilization;
static long handles[3] = {10, 11, 12};
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **h) { if (i > 2) return 2; *h = &handles[i]; return 0; }
int nvmlDeviceGetHandleByUUID(const char *u, void **h) {
    if (strcmp(u, "GPU-abc")) return 2;
    *h = &handles[2];
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *h, utilization *u) {
    long handle = *(long *)h;
    if (handle == 11) return 3;  /* not supported, as with MIG */
    u->gpu = handle == 10 ? 37 : 100;
    u->memory = 1;
    return 0;
}
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library with the functions of NVIDIA's driver, compiled from C."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    (tmp_path / "nvml.c").write_text(DRIVER)
    library = tmp_path / "nvml.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "nvml.c")], check=True)
    monkeypatch.setattr(host, "_LIBRARY", str(library))
    host._nvml.cache_clear()


def test_busy_shares_of_visible_gpus(driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["0", "1", "GPU-abc", "9"])
    found = {labels[0]: (metric, value) for metric, labels, value in host.device_gauges()}
    assert found == {"0": (metrics.DEVICE_BUSY, 0.37), "GPU-abc": (metrics.DEVICE_BUSY, 1.0)}
    host._nvml.cache_clear()


@pytest.mark.parametrize("gpus", [[], ["0"]])
def test_a_machine_without_a_driver_has_no_gauge(monkeypatch: pytest.MonkeyPatch, gpus: list[str]) -> None:
    monkeypatch.setattr(devices, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(host, "_LIBRARY", "no-such-library.so")
    host._nvml.cache_clear()
    assert list(host.device_gauges()) == []
    host._nvml.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not devices.visible_gpus(), reason="no CUDA device")
def test_a_real_gpu_has_a_busy_share() -> None:
    host._nvml.cache_clear()
    found = list(host.device_gauges())
    assert len(found) == len(devices.visible_gpus()) > 0
    assert all(0 <= value <= 1 for *_, value in found)


def test_disks(tmp_path: Path) -> None:
    found = {(metric.name, labels): value for metric, labels, value in host.disk_gauges(str(tmp_path / "not" / "yet"))}
    disk = shutil.disk_usage(tmp_path)
    assert found["tessera_disk_size_bytes", ("output",)] == disk.total
    assert found["tessera_disk_free_bytes", ("output",)] == pytest.approx(disk.free, rel=0.05)
    assert {labels for _, labels in found} == {("output",), ("temporary",)}


def test_an_object_store_has_no_disk() -> None:
    assert {labels for _, labels, _ in host.disk_gauges("memory://bucket/x")} == {("temporary",)}
