"""What a run tells Prometheus: counts by model version, disease and stage, never a path or an identifier."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import get_args

from prometheus_client import Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from crosseai.client.display import Show
from crosseai.client.run import Progress
from crosseai.contract import InputError, Stage

METRICS_HOST = "127.0.0.1"


@contextmanager
def metrics(port: int | None, host: str = METRICS_HOST) -> Iterator[Show]:
    """Serve progress to Prometheus at ``http://HOST:PORT/metrics``; nothing without a port.

    Raises
    ------
    InputError
        If the address cannot be listened on.
    """
    if port is None:
        yield lambda _: None
        return
    latest, registry = _Latest(), CollectorRegistry()
    registry.register(latest)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise InputError(f"metrics at {host}:{port}: cannot be listened on: {error.strerror}") from error
    try:
        yield latest.show
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Latest(Collector):
    """What was shown last, as metrics; none before the first."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def show(self, progress: Progress) -> None:
        self._progress = progress

    def collect(self) -> Iterable[Metric]:
        return [] if self._progress is None else _families(self._progress)


def _families(progress: Progress) -> Iterator[Metric]:
    """Every label is there from the start, with 0: Prometheus sees no rise before a series' first value."""
    yield GaugeMetricFamily("crosseai_files", "Files found.", progress.total)
    yield GaugeMetricFamily(
        "crosseai_files_done", "Files with an outcome, those of earlier runs included.", progress.done
    )
    yield GaugeMetricFamily("crosseai_servers", "Servers.", progress.servers)
    yield GaugeMetricFamily("crosseai_servers_up", "Servers that answered last time.", progress.servers_up)
    seconds = CounterMetricFamily(
        "crosseai_stage_seconds", "Time spent in a stage, summed over what runs side by side.", labels=["stage"]
    )
    for stage, spent in progress.stage_seconds.items():
        seconds.add_metric([stage], spent)
    failures = CounterMetricFamily(
        "crosseai_failures", "Files that failed in this run, by the stage that they failed in.", labels=["stage"]
    )
    for stage in get_args(Stage):
        failures.add_metric([stage], progress.failures.get(stage, 0))
    yield from (seconds, failures, *_calls(progress))


def _calls(progress: Progress) -> Iterator[Metric]:
    """What the model said, and what share of positive calls is expected of it."""
    spec, version = progress.model.spec, progress.model.version
    scored = CounterMetricFamily("crosseai_images_scored", "Images scored in this run.", labels=["model_version"])
    scored.add_metric([version], progress.scored)
    positive = CounterMetricFamily(
        "crosseai_positive_calls",
        "Images of this run whose probability reaches the disease's operating point.",
        labels=["model_version", "disease"],
    )
    for disease in spec.classes:
        positive.add_metric([version, disease], progress.positive.get(disease, 0))
    expected = GaugeMetricFamily(
        "crosseai_expected_positive_rate",
        "Share of positive calls among the model's validation images.",
        labels=["model_version", "disease"],
    )
    for disease, rate in zip(spec.classes, spec.positive_rates, strict=False):  # no rates: not known
        expected.add_metric([version, disease], rate)
    yield from (scored, positive, expected)
