"""SlaPolicy scales a deployment of a real Ray Serve: ``python -m tests.long.ray_serve_scales``, about three minutes.

Ray is 490 MB and no dependency of the tests: install ``ray[serve]`` (2.55 or newer) beside this package. A plain
deployment stands in for an engine. It reports tokens as ``examples/03_ray_serve.py`` does, and each call stands for 20
requests. Exits with 1 unless replicas are added within a minute and a half.
"""

from __future__ import annotations

import asyncio
import sys
import time
from importlib import import_module
from typing import Any

from tests.support.examples import load

LOADED_S, REQUESTS, ISL, OSL = 90.0, 20, 3000, 250
POLICY = [{"kind": "sla", "ttft_ms": 500, "itl_ms": 25, "profile": "llama31-8b_h100_vllm_tp1"}]
AUTOSCALING = {
    "min_replicas": 1,
    "max_replicas": 4,
    "upscale_delay_s": 0,
    "downscale_delay_s": 0,
    "metrics_interval_s": 1,
    "look_back_period_s": 5,
    "policy": {
        "policy_function": "dynamo_planner.integrations.ray_serve:RayServePolicy",
        "policy_kwargs": {"policy": POLICY, "gpus": 1},
    },
}


def main() -> int:
    ray: Any = import_module("ray")
    serve: Any = import_module("ray.serve")
    example: Any = load("03_ray_serve.py")
    import_module("ray.cloudpickle").register_pickle_by_value(example)
    ray.init(num_cpus=6, include_dashboard=False)

    @serve.deployment(ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=1000, autoscaling_config=AUTOSCALING)
    class Llm(example.ReportsTokens):  # type: ignore[misc]
        async def __call__(self) -> str:
            for _ in range(REQUESTS):
                self.arrived(ISL)
            await asyncio.sleep(0.2)
            for _ in range(REQUESTS):
                self.ended(OSL)
            return "done"

    handle = serve.run(Llm.bind(), name="app", route_prefix=None)
    seen, began_s, elapsed_s = [1], time.monotonic(), 0.0
    while elapsed_s < LOADED_S:
        handle.remote().result()
        time.sleep(0.3)
        elapsed_s = time.monotonic() - began_s
        running = sum(serve.status().applications["app"].deployments["Llm"].replica_states.values())
        if running != seen[-1]:
            seen.append(running)
            print(f"{elapsed_s:.0f} s: {running} replicas", flush=True)
    serve.shutdown()
    ray.shutdown()
    return int(max(seen) == 1)


if __name__ == "__main__":
    sys.exit(main())
