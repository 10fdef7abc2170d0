"""When to ask a second server for the answer that a first one does not give.

Hedged requests (J. Dean, L. A. Barroso: The Tail at Scale, Communications of the ACM 56(2), 2013, section "Hedged
requests") are sent again when they have been under way for longer than the 95th percentile of their class, and the
first answer wins. Ours wait for three times that long, as a batch is dear; at most one request in twenty is sent
again, however many straggle; and the loser is not cancelled (see :mod:`crosseai.client.servers.transport`).
"""

from collections import defaultdict, deque
from collections.abc import Hashable

import numpy as np

QUANTILE, FACTOR = 0.95, 3.0
WINDOW, ENOUGH = 100, 20
"""Latest durations of a class that count, and how many of them are enough to judge by."""
BUDGET = 0.05
"""Share of requests that may be sent again."""


class Hedging:
    """How long to wait before a request is sent again, by what requests of its class took.

    Attributes
    ----------
    requests, hedges
        Requests begun, and those of them that were sent again.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.hedges = 0
        self._durations_s: defaultdict[Hashable, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))

    def begin(self, kind: Hashable) -> float | None:
        """Count a request; how long to wait for its answer, in seconds, or None for as long as it takes."""
        self.requests += 1
        known = self._durations_s[kind]
        return FACTOR * float(np.quantile(known, QUANTILE)) if len(known) >= ENOUGH else None

    def took(self, kind: Hashable, seconds: float) -> None:
        """Remember how long a server took for a request."""
        self._durations_s[kind].append(seconds)

    def spend(self) -> bool:
        """Whether one more request may be sent again; it is counted."""
        if self.hedges + 1 > BUDGET * self.requests:
            return False
        self.hedges += 1
        return True
