"""Recorded images through a served version, which must answer as PyTorch did when it was exported."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crosseai.client.promotion.registry import Fetched
from crosseai.client.promotion.servers import Server
from crosseai.client.servers.transport import ServedModel, TritonTransport
from crosseai.contract import ContractError, ModelSpec
from crosseai.contract.golden import Array, Golden

EXAMINED = ("logits", "explained", "heatmaps", "gradient_maps")
"""The outputs that scoring uses."""


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """How one served version answered.

    Parameters
    ----------
    errors
        By output: relative L2 distance from PyTorch, for ``explained`` the number of wrong classes, for
        ``gradient_maps`` the mean absolute difference in gray levels.
    latencies_s
        Round trip of each request of one image, in seconds.
    """

    errors: Mapping[str, float]
    latencies_s: npt.NDArray[np.float64]

    def as_record(self) -> dict[str, Any]:
        """For the audit."""
        return {"errors": dict(self.errors), "p95_ms": round(self.p95_ms, 3)}

    @property
    def p95_ms(self) -> float:
        """95th percentile of the round trips, in milliseconds."""
        return float(np.quantile(self.latencies_s, 0.95) * 1000)


def check_answers(server: Server, fetched: Fetched, *, factor: float, requests: int) -> CanaryReport:
    """Run the canary on a version, and compare what it answers with what was accepted at its registration.

    Parameters
    ----------
    server
        A server that has loaded it.
    fetched
        The version.
    factor
        How many times the accepted error the server may show.
    requests
        Requests of one image to time.

    Raises
    ------
    ContractError
        If nothing is recorded for the version, or an output is farther from the record than was accepted.
    ServerError
        If the server fails a request.
    """
    number, name, accepted = fetched.listed.version, fetched.spec.name, fetched.listed.parity
    if fetched.golden is None or not accepted:
        raise ContractError(f"version {number}: expected recorded images and outputs in the registry, found none")
    golden = askable(fetched.golden, fetched.spec)
    report = run_canary(server, server.served(name, number), golden, requests=requests)
    beyond = [
        f"{output}: expected <= {limit:g}, found {error:.2g}"
        for output, error in report.errors.items()
        if not error <= (limit := factor * accepted.get(output, {}).get("accepted", 0.0))
    ]
    if beyond:
        raise ContractError(f"version {number} does not answer as recorded: {'; '.join(beyond)}")
    return report


def askable(golden: Golden, spec: ModelSpec) -> Golden:
    """Leave out the columns with targets that are no class, as no client may ask for them.

    Raises
    ------
    ContractError
        If nothing is left.
    """
    columns = ((golden.targets >= -1) & (golden.targets < len(spec.classes))).all(axis=0)
    if not len(golden.images) or not columns.any():
        raise ContractError("recorded images: expected some with targets that are classes, found none")
    kept = {name: golden.outputs[name] if name == "logits" else golden.outputs[name][:, columns] for name in EXAMINED}
    return replace(golden, targets=np.ascontiguousarray(golden.targets[:, columns]), outputs=kept)


def run_canary(server: Server, served: ServedModel, golden: Golden, *, requests: int) -> CanaryReport:
    """Send recorded images to a version, all together for the answers, then one by one for the latency.

    Parameters
    ----------
    server
        The server.
    served
        The version.
    golden
        What to send, and what to expect; all targets are classes.
    requests
        Requests of one image to time.

    Raises
    ------
    ServerError
        If the server fails a request.
    ContractError
        If an output differs from the spec.
    """

    async def canary(transport: TritonTransport) -> CanaryReport:
        size = served.max_batch_size
        parts = [
            await transport.infer(served, golden.images[i : i + size], golden.targets[i : i + size], EXAMINED)
            for i in range(0, len(golden.images), size)
        ]
        errors = {n: _error(n, np.concatenate([part[n] for part in parts]), golden.outputs[n]) for n in EXAMINED}
        latencies = []
        for number in range(requests):
            row = slice(number % len(golden.images), number % len(golden.images) + 1)
            began = time.perf_counter()
            await transport.infer(served, golden.images[row], golden.targets[row, :1], EXAMINED)
            latencies.append(time.perf_counter() - began)
        return CanaryReport(errors, np.array(latencies))

    return server.ask(canary)


def _error(name: str, found: Array, expected: Array) -> float:
    if name == "explained":
        return float((found != expected).sum())
    difference = found.astype(np.float64) - expected
    if name == "gradient_maps":
        return float(np.abs(difference).mean())
    return float(np.linalg.norm(difference) / (np.linalg.norm(expected) or 1.0))
