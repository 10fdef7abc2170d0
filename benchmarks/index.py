"""What does an archive of ten million radiographs cost before the first of them is scored? Writes ``index.md``.

    python -m benchmarks.index     about five minutes, 3 GB of disk in build/benchmarks

Manifests of made-up rows are planned, in a process of its own each: rows are read, those that are finished are left
out, and the rest is written as shards. Files are indexed, against ``sha256sum`` on the same files.
"""

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import click
import pyarrow as pa
import pyarrow.parquet as pq

from crosseai.client.cluster.plan import shard_rows, write_plan
from crosseai.client.records.journal import Entry, Journal, from_line
from crosseai.client.sources.index import write_index
from crosseai.client.sources.names import NameSet
from crosseai.client.sources.source import Manifest
from crosseai.client.sources.worklist import Worklist
from crosseai.contract import ImageResult, ModelSpec

CACHE = Path(__file__).resolve().parents[1] / "build" / "benchmarks"
TABLE = Path(__file__).with_suffix(".md")
GROUP = 64
ROW_GROUP = 32_768
FILES, FILE_BYTES = 20_000, 64 * 2**10
RECORDED = 300_000


class Cost(NamedTuple):
    """What a piece of work took in a process of its own."""

    seconds: float
    peak_mib: float
    shards: int = 0


@click.command()
@click.option("--rows", default=10_000_000, show_default=True, help="Rows of the largest manifest.")
def main(rows: int) -> None:
    """Measure, and write the table."""
    CACHE.mkdir(parents=True, exist_ok=True)
    parts = (_heading(), planning(rows), resuming(rows), indexing())
    click.echo("\n\n".join(parts))
    TABLE.write_text("\n\n".join(parts) + "\n")


def _heading() -> str:
    return (
        f"# Archives: manifests, plans, resuming\n\n{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[0]:.1f} at the start, pyarrow {pa.__version__}, Python {platform.python_version()}. Made by "
        "`benchmarks/index.py`."
    )


def planning(most: int) -> str:
    """Seconds and memory from a manifest to shards, by the number of rows."""
    counts = [most // 100, most // 10, most]
    costs = [alone(plan, manifest(count)) for count in counts]
    table = [
        f"| {count:,} | {cost.shards:,} | {cost.seconds:.1f} | {count / cost.seconds / 1000:,.0f} "
        f"| {cost.peak_mib:.0f} | {cost.peak_mib / costs[0].peak_mib:.2f} |"
        for count, cost in zip(counts, costs, strict=True)
    ]
    return (
        "## A manifest is planned: read, and written as shards\n\n"
        "| rows | shards | s | thousand rows/s | greatest resident set, MiB | ratio |\n|---|---|---|---|---|---|\n"
        + "\n".join(table)
    )


def resuming(rows: int) -> str:
    """What the names of finished files cost, as sets of Python and as ours; reading them from the journal."""
    base, ours, python = (alone(hold, kind, rows) for kind in ("nothing", "digests", "strings"))
    a_row = [(cost.peak_mib - base.peak_mib) * 2**20 / rows for cost in (ours, python)]
    folder = recorded()
    whole, opened = alone(read_outcomes, folder), alone(open_journal, folder)
    return (
        f"## A run is continued: the names of {rows:,} finished files\n\n"
        "| | greatest resident set, MiB | bytes a name | ratio | s |\n|---|---|---|---|---|\n"
        f"| `set[str]` | {python.peak_mib:.0f} | {a_row[1]:.0f} | 1.00 | {python.seconds:.1f} |\n"
        f"| `NameSet` | {ours.peak_mib:.0f} | {a_row[0]:.0f} | {a_row[0] / a_row[1]:.2f} | {ours.seconds:.1f} |\n\n"
        "The greatest resident set is that of the building; what stays is 16 bytes a name.\n\n"
        f"Before that, the names are read from the journal, once. Of {RECORDED:,} outcomes:\n\n"
        "| | thousand outcomes/s | ratio | greatest resident set, MiB |\n|---|---|---|---|\n"
        f"| every outcome whole, as tables need it | {RECORDED / whole.seconds / 1000:,.0f} | 1.00 "
        f"| {whole.peak_mib:.0f} |\n"
        f"| `Journal` opened: names alone, as sets | {RECORDED / opened.seconds / 1000:,.0f} "
        f"| {whole.seconds / opened.seconds:.1f} | {opened.peak_mib:.0f} |"
    )


def indexing() -> str:
    """Files a second, against sha256sum on all cores."""
    folder = many_files()
    rates: dict[str, list[float]] = {"sha256sum": [], "index": [], "again": []}
    for _ in range(2):  # they take turns
        rates["sha256sum"].append(FILES / sha256sum(folder))
        output = CACHE / "index.parquet"
        output.unlink(missing_ok=True)
        for name in ("index", "again"):
            began = time.monotonic()
            write_index(folder, output)
            rates[name].append(FILES / (time.monotonic() - began))
    yardstick, first, again = (max(rates[name]) for name in ("sha256sum", "index", "again"))
    return (
        f"## An archive is indexed: {FILES:,} files of {FILE_BYTES // 1024} KiB, in the page cache\n\n"
        "| | files/s | ratio |\n|---|---|---|\n"
        f"| `find`, and `sha256sum` on all cores | {yardstick:,.0f} | 1.00 |\n"
        f"| `crosseai-client index` | {first:,.0f} | {first / yardstick:.2f} |\n"
        f"| again, nothing changed | {again:,.0f} | {again / yardstick:.2f} |"
    )


def plan(path: Path) -> int:
    """Plan a fresh run over a manifest."""
    work = Worklist(Manifest(path), Journal(CACHE / "empty-journal"), retry_failed=False)
    return write_plan(work.files(), CACHE / "plan.parquet", shard_rows(work.total - work.done, GROUP))


def hold(kind: str, rows: int) -> int:
    """Hold so many names in memory."""
    if kind == "nothing":
        return 0
    return len(NameSet(names(rows)) if kind == "digests" else set(names(rows)))


def open_journal(folder: Path) -> int:
    """The names in a journal, as a run that continues needs them."""
    return len(Journal(folder).finished)


def read_outcomes(folder: Path) -> int:
    """Every outcome of a journal; no name is asked for."""
    lines = (line for shard in sorted(folder.glob("*.jsonl")) for line in shard.read_bytes().splitlines())
    return sum(1 for _ in map(from_line, lines))


def alone(work: Callable[..., int], *arguments: object) -> Cost:
    """Do a piece of work in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(_measured, work, arguments).result()


def _measured(work: Callable[..., int], arguments: tuple[object, ...]) -> Cost:
    began = time.monotonic()
    shards = work(*arguments)
    seconds = time.monotonic() - began
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return Cost(seconds, int(peak) / 1024, shards)


def names(rows: int) -> Iterator[str]:
    """Names as an archive has them."""
    return (f"{n % 997:03d}/1.2.826.0.1.3680043.8.498.{n:012d}/{n:08d}.dcm" for n in range(rows))


def manifest(rows: int) -> Path:
    """A manifest of made-up rows."""
    path = CACHE / f"manifest-{rows}.parquet"
    if not path.is_file():
        schema = pa.schema([("path", pa.string()), ("image_id", pa.string())], metadata={"root": "/archive"})
        unfinished, listed = path.with_suffix(".unfinished"), names(rows)
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            while paths := list(islice(listed, ROW_GROUP)):
                ids = [sha256(name.encode()).hexdigest()[:32] for name in paths]
                writer.write_table(pa.table([paths, ids], schema=schema))
        unfinished.rename(path)
    return path


def recorded() -> Path:
    """A journal of made-up results."""
    folder = CACHE / "recorded-journal"
    shutil.rmtree(folder, ignore_errors=True)
    journal, classes = Journal(folder), ModelSpec().classes
    probabilities, positive = dict.fromkeys(classes, 0.123456789), dict.fromkeys(classes, False)
    listed = names(RECORDED)
    while group := list(islice(listed, GROUP)):
        journal.append([Entry(ImageResult("0" * 32, name, 1, 1, "1", probabilities, positive)) for name in group])
    return folder


def many_files() -> Path:
    """A folder of files of noise."""
    folder = CACHE / "index-files"
    if not folder.is_dir():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for number in range(FILES):
            path = unfinished / f"{number % 100:02d}" / f"{number:05d}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(FILE_BYTES))
        unfinished.rename(folder)
    return folder


def sha256sum(folder: Path) -> float:
    """Seconds of the tool over all files, on all cores."""
    command = f"find . -type f -print0 | xargs -0 -n 200 -P {os.cpu_count()} sha256sum > /dev/null"
    began = time.monotonic()
    subprocess.run(command, shell=True, check=True, cwd=folder)  # noqa: S602 - a constant
    return time.monotonic() - began


if __name__ == "__main__":
    main()
