"""A Ray Serve deployment that SlaPolicy scales: it reports what Serve does not know.

The policy is ``dynamo_planner.integrations.ray_serve:RayServePolicy``, whose docstring has the Serve configuration.
Serve counts requests and knows no tokens, so each replica counts its own, and reports them to the policy. Run an
application with ``serve run``: ``@serve.deployment(autoscaling_config=...) class Llm(ReportsTokens): ...``.
"""

import time
from collections import deque

WINDOW_S = 30.0


class ReportsTokens:
    """Counts a replica's requests: call ``arrived`` with the tokens of a prompt, ``ended`` with those of an answer."""

    def __init__(self, clock=time.monotonic):
        self._clock, self._began_s = clock, clock()
        self._prompts, self._answers = deque(), deque()

    def arrived(self, prompt_tokens):
        self._prompts.append((self._clock(), prompt_tokens))

    def ended(self, output_tokens):
        self._answers.append((self._clock(), output_tokens))

    def record_autoscaling_stats(self):
        """Called by Serve: arrivals per second over the last half minute, and mean tokens."""
        now_s = self._clock()
        for events in (self._prompts, self._answers):
            while events and events[0][0] < now_s - WINDOW_S:
                events.popleft()
        window_s = max(min(WINDOW_S, now_s - self._began_s), 1.0)
        stats = {"requests_per_s": len(self._prompts) / window_s}
        for name, events in (("isl", self._prompts), ("osl", self._answers)):
            if events:
                stats[name] = sum(tokens for _, tokens in events) / len(events)
        return stats
