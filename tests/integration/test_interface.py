"""What a run and the doctor say, to people and to machines."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

from crosseai.client.cli import main
from tests.integration.test_nothing_lost import paths, write_images

COMMAND = (sys.executable, "-m", "crosseai.client.cli")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@contextmanager
def started(*arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A command beside the test, which does not outlive it."""
    command = [*map(str, (*COMMAND, *arguments))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_watching_a_drop_folder(tiny_server: str, tmp_path: Path, unused_port: int) -> None:
    """A file is scored once it is complete; SIGTERM ends the run in order, and the next run does not repeat it."""
    images, output = write_images(tmp_path / "images", 1), tmp_path / "out"
    complete = (write_images(tmp_path / "other", 1, first=1) / "0001.png").read_bytes()
    options = ("--watch", "--log-format", "json", "--metrics-port", unused_port, "--server", tiny_server)
    shards = output / ".journal"

    def metrics() -> set[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{unused_port}/metrics") as answer:
            return set(answer.read().decode().splitlines())

    with started("run", images, "--output", output, *options) as process:
        wait_for(lambda: len(list(shards.glob("*.jsonl"))) == 1, process)
        late = images / "late.png"
        late.write_bytes(complete[:500])
        for end in range(600, len(complete) + 100, 100):
            time.sleep(0.3)
            late.write_bytes(complete[:end])
        wait_for(lambda: "crosseai_files_done 2.0" in metrics(), process)
        assert {'crosseai_failures_total{stage="read"} 0.0', "crosseai_servers_up 1.0"} <= metrics()
        assert any(line.startswith('crosseai_stage_seconds_total{stage="decode"} 0.') for line in metrics())
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert "2 scored, 0 failed" in stdout
    assert paths(output) == ["0000.png", "late.png"]
    last = json.loads(stderr.splitlines()[-1])
    assert (last["event"], last["done"], last["total"], last["servers_up"]) == ("progress", 2, 2, 1)
    again = invoke("run", images, "--output", output, "--server", tiny_server)
    assert again.exit_code == 0
    assert "0 files in" in again.output


def test_lines_where_there_is_no_terminal(tiny_server: str, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 10)
    command = (*COMMAND, "run", images, "--output", tmp_path / "out", "--server", tiny_server)
    finished = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    assert finished.stderr.startswith("10 of 10 files, 0 failed, ")
    assert finished.stderr.endswith("server up\n")
    assert "seconds in each stage, side by side: decode 0." in finished.stdout


def test_a_taken_metrics_port_is_a_usage_error(tmp_path: Path, tiny_server: str) -> None:
    images, port = write_images(tmp_path / "images", 1), tiny_server.rpartition(":")[2]
    result = invoke("run", images, "--output", tmp_path / "out", "--server", tiny_server, "--metrics-port", port)
    assert result.exit_code == 2
    assert "Address already in use" in result.output


def test_the_doctor(tiny_server: str, tmp_path: Path, unused_port: int) -> None:
    well = invoke("doctor", "--server", tiny_server, "--output", tmp_path / "a/b")
    assert well.exit_code == 0, well.output
    assert "model 'crosseai' version 1" in well.output
    assert "GiB free" in well.output
    assert not (tmp_path / "a").exists(), "the doctor leaves nothing behind"
    silent = invoke("doctor", "--server", f"{tiny_server},127.0.0.1:{unused_port}", "--timeout", 2)
    assert silent.exit_code == 3
    assert f"FAIL server 127.0.0.1:{unused_port}" in silent.output
    assert "is the address right" in silent.output
    assert invoke("doctor", "--server", tiny_server, "--output", "/proc/out").exit_code == 1
    wrong = invoke("doctor", "--server", "nonsense", "--output", tmp_path)
    assert wrong.exit_code == 1
    assert "correct the address" in wrong.output
