"""The port and the text file: real requests, real files, and what makes them impossible."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.core.errors import ConfigError
from pipeline.telemetry import prometheus, recording
from pipeline.telemetry.config import MetricsConfig
from pipeline.telemetry.prometheus import exporting
from tests.support import ROOT
from tests.support.exposition import Exposition, read
from tests.telemetry.test_table_counts import random_table


@pytest.fixture(autouse=True)
def _own_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_values", recording._Values())


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_the_port_answers_while_the_block_lasts(port: int) -> None:
    with exporting(MetricsConfig(port=port, name="mine"), "/nowhere"):
        before = Exposition(read(f"http://127.0.0.1:{port}/metrics"), "mine")
        recording.count_table(random_table(0))
        after = Exposition(read(f"http://127.0.0.1:{port}/metrics"), "mine")
    assert (before("tessera_blocks_total"), after("tessera_blocks_total")) == (0, 1)
    assert after("tessera_rows_total") == 59
    assert after("tessera_disk_free_bytes", place="output") > 0
    with pytest.raises(OSError, match="refused"):
        read(f"http://127.0.0.1:{port}/metrics")


def test_all_series_of_counters_begin_at_zero(port: int) -> None:
    """Prometheus sees no increase from a series that is not there."""
    with exporting(MetricsConfig(port=port), "/"):
        found = Exposition(read(f"http://127.0.0.1:{port}/metrics"))
    assert len([name for name, *_ in found.samples if name == "tessera_failures_total"]) == 16 * 6
    assert {value for name, _, value in found.samples if name.endswith("_total")} == {0}


def test_it_listens_on_loopback_only(port: int) -> None:
    own = next((one[4][0] for one in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)), "127.0.0.1")
    with exporting(MetricsConfig(port=port), "/"):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        if own != "127.0.0.1" and not own.startswith("127."):
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((own, port), timeout=5)


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(ConfigError) as raised, exporting(MetricsConfig(port=number), "/"):
            pass
    assert str(raised.value).startswith(f"metrics.port: cannot listen at 127.0.0.1:{number} (")
    assert "in use" in str(raised.value)
    assert "\n" not in str(raised.value)
    with exporting(MetricsConfig(port=number), "/"):  # nothing was left open
        pass


def test_an_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^metrics\.port: cannot listen at 198\.51\.100\.1:9464 \("):
        prometheus.PrometheusExporter(MetricsConfig(port=9464, host="198.51.100.1"), "/").__enter__()


def test_the_file_is_whole_at_any_time_and_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "_EVERY_S", 0.001)
    path, seen = tmp_path / "tessera.prom", []
    with exporting(MetricsConfig(textfile=str(path)), "/"):
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            recording.count_table(random_table(0))
            seen.append(Exposition(path.read_text()))  # raises if a line is cut
            assert path.read_bytes().endswith(b"\n")
        recording.record_night("complete", 0, 5.0)
    counts = [one("tessera_blocks_total") for one in seen]
    assert counts == sorted(counts)
    assert len(set(counts)) > 3
    last = Exposition(path.read_text())
    assert last("tessera_blocks_total") == len(seen)
    assert last("tessera_night_success_timestamp_seconds") == 5
    assert [one.name for one in tmp_path.iterdir()] == ["tessera.prom"]


def test_the_next_night_keeps_the_last_success(tmp_path: Path) -> None:
    path = tmp_path / "tessera.prom"
    with exporting(MetricsConfig(textfile=str(path)), "/"):
        recording.record_night("complete", 0, 5.0)
        recording.count_table(random_table(0))
    recording._values.gauges.clear()  # a new process
    with exporting(MetricsConfig(textfile=str(path)), "/"):
        begun = Exposition(path.read_text())
        recording.record_night("failed", 4, 6.0)
    ended = Exposition(path.read_text())
    assert begun("tessera_night_success_timestamp_seconds") == 5
    assert begun("tessera_blocks_total") == 0
    assert ended("tessera_night_success_timestamp_seconds") == 5
    assert ended("tessera_night_failure_timestamp_seconds") == 6
    assert ended("tessera_night_exit_code") == 4


@pytest.mark.parametrize("text", [b"\xff\xfe", b"tessera_night_exit_code{", b"x" * (3 << 20), b""])
def test_a_file_that_is_none_is_replaced(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "tessera.prom"
    path.write_bytes(text)
    with exporting(MetricsConfig(textfile=str(path)), "/"):
        pass
    assert Exposition(path.read_text())("tessera_blocks_total") == 0


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "no" / "tessera.prom"
    with (
        pytest.raises(ConfigError, match=r"^metrics\.textfile: .*its folder does not exist; "),
        exporting(MetricsConfig(textfile=str(path)), "/"),
    ):
        pass


def test_a_file_that_cannot_be_written_later_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "collected"
    folder.mkdir()
    monkeypatch.setattr(prometheus, "_EVERY_S", 0.01)
    with exporting(MetricsConfig(textfile=str(folder / "t.prom")), "/"):
        (folder / "t.prom").unlink()
        (folder / "t.prom").mkdir()  # no file can replace it
        (folder / "t.prom" / "x").touch()
        time.sleep(0.2)
    assert len(caplog.records) == 1
    assert "metrics.textfile: cannot write" in caplog.text


def test_the_end_takes_no_time(port: int, tmp_path: Path) -> None:
    """A short run would notice."""
    for _ in range(5):
        with exporting(MetricsConfig(port=port, textfile=str(tmp_path / "t.prom")), "/"):
            read(f"http://127.0.0.1:{port}/metrics")
            started = time.perf_counter()
        assert time.perf_counter() - started < 0.3
    assert not [one.name for one in threading.enumerate() if one.name.startswith("tessera-metrics")]


def test_clients_that_send_nothing_hold_nobody_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.telemetry import _metrics_server

    monkeypatch.setattr(_metrics_server._Handler, "timeout", 0.5)
    with exporting(MetricsConfig(port=port), "/"):
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        assert "tessera_rows_total" in read(f"http://127.0.0.1:{port}/metrics")
        for one in silent:
            one.settimeout(10)
            assert one.recv(1) == b"", "it is disconnected"
            one.close()
    assert not [one.name for one in threading.enumerate() if one.name.startswith("tessera-metrics")]


def test_ipv6(port: int) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with exporting(MetricsConfig(port=port, host="::1"), "/"):
        assert "tessera_rows_total" in read(f"http://[::1]:{port}/metrics")


def test_an_inner_block_does_nothing(port: int) -> None:
    config = MetricsConfig(port=port)
    with exporting(config, "/"):
        with exporting(config, "/"):
            recording.count_table(random_table(0))
        found = Exposition(read(f"http://127.0.0.1:{port}/metrics"))
    assert found("tessera_blocks_total") == 1


def test_nothing_is_imported_unless_configured() -> None:
    code = (
        "import sys; from pipeline.telemetry.prometheus import exporting;"
        "from pipeline.telemetry.config import MetricsConfig\n"
        "with exporting(MetricsConfig(), '/'): pass\n"
        "print('prometheus_client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_what_a_port_shows_has_no_path_and_no_id(port: int, tmp_path: Path) -> None:
    with exporting(MetricsConfig(port=port), str(tmp_path / "secret-project")):
        recording.count_table(random_table(0))
        text = read(f"http://127.0.0.1:{port}/metrics?name[]=x&x=../../etc/passwd")
        text += read(f"http://127.0.0.1:{port}/metrics")
    assert "tessera_rows_total" in text
    assert "secret-project" not in text
    assert os.sep + "etc" not in text
    assert '"s1"' not in text
