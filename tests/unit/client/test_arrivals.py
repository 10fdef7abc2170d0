import asyncio
import threading
from pathlib import Path

import pytest

from crosseai.client.meter import Meter
from crosseai.client.sources import arrivals as module
from crosseai.client.sources.arrivals import arrivals


def test_each_complete_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that is done, empty, hidden or growing; until it is stopped."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(module, "STOP_EVERY_S", 0.01)
    for name, content in (("a.png", b"a"), ("done.png", b"d"), ("empty.png", b""), (".hidden.png", b"h")):
        (tmp_path / name).write_bytes(content)
    stop, meter, found = threading.Event(), Meter(), []

    async def grow() -> None:
        for size in range(1, 20):
            (tmp_path / "growing.png").write_bytes(b"g" * size)
            await asyncio.sleep(0.03)
            assert "growing.png" not in found

    async def collect() -> None:
        async for file in arrivals(tmp_path, tmp_path / "out", {"done.png"}, stop, meter):
            found.append(file.name)
            if file.name == "growing.png":
                stop.set()

    async def run() -> None:
        await asyncio.wait_for(asyncio.gather(collect(), grow()), 30)

    asyncio.run(run())
    assert found == ["a.png", "growing.png"]
    assert meter.total == 2
