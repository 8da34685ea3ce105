"""What a data folder remembers of its servers."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from broker.embedded.ports import LOOPBACK, accepts, free_port, is_free
from broker.embedded.record import Ports, Process, Record, read_record, usable_ports, write_record
from broker.errors import EmbeddedServerError


def test_a_record_comes_back_as_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    record = Record(Ports(16001, 16002, 16003), "some-id", True, Process(12, 3.5), None)
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert [file.name for file in tmp_path.iterdir()] == ["services.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ports": {"kafka": 1}}', '{"ports": 3}'])
def test_a_damaged_record_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "services.json").write_text(text)
    with pytest.raises(EmbeddedServerError, match=r"services\.json cannot be read.*delete it"):
        read_record(tmp_path)


def test_a_process_is_known_by_number_and_start_time() -> None:
    this = Process.of(os.getpid())
    assert this.runs("no such text in the command line")
    assert not Process(this.pid, this.start_time - 60).runs("no such text in the command line")


def test_a_corrected_clock_does_not_hide_a_process() -> None:
    with subprocess.Popen(["sleep", "61.25"]) as sleeper:
        try:
            while not psutil.Process(sleeper.pid).cmdline():
                pass  # still between being made and being given its arguments
            assert Process(sleeper.pid, Process.of(sleeper.pid).start_time - 3600).runs("61.25")
        finally:
            sleeper.kill()


def test_an_ended_process_does_not_run_even_before_it_is_reaped() -> None:
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as sleeper:
        process = Process.of(sleeper.pid)
        sleeper.kill()
        assert sleeper.stdout is not None
        sleeper.stdout.read()  # end of file: it has ended, and nobody has waited for it
        while process.runs(""):
            pass
        assert sleeper.returncode is None


def test_free_ports_are_free_and_below_those_of_outgoing_connections() -> None:
    port = free_port()
    assert 16_000 <= port < 30_000
    assert is_free(port)
    assert not accepts(port)
    with socket.create_server((LOOPBACK, port)):
        assert not is_free(port)
        assert accepts(port)


def test_ports_are_kept_unless_another_program_has_taken_them() -> None:
    ports = Ports.new()
    assert usable_ports(ports, kafka=True, valkey=True) == ports
    with socket.create_server((LOOPBACK, ports.valkey)):
        assert usable_ports(ports, kafka=True, valkey=False) == ports
        changed = usable_ports(ports, kafka=True, valkey=True)
    assert (changed.kafka, changed.controller) == (ports.kafka, ports.controller)
    assert changed.valkey != ports.valkey
