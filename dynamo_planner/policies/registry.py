"""The kinds of policies that are shipped, and where each lives; imported when it is first needed."""

from dynamo_planner.core.policy import POLICIES

__all__ = ["POLICIES"]

POLICIES.ship(
    {
        "load": "dynamo_planner.policies.reactive:LoadPolicy",
        "sla": "dynamo_planner.policies.sla:SlaPolicy",
        "mix": "dynamo_planner.fleet.mix_policy:MixPolicy",
        "deferrable": "dynamo_planner.fleet.deferrable:DeferrablePolicy",
        "knobs": "dynamo_planner.policies.knobs:KnobPolicy",
        "schedule": "dynamo_planner.policies.schedule:Schedule",
        "static": "dynamo_planner.policies.schedule:StaticLaw",
        "hpa": "dynamo_planner.policies.laws.hpa:HpaLaw",
        "kpa": "dynamo_planner.policies.laws.kpa:KpaLaw",
        "keda_slo": "dynamo_planner.policies.laws.keda_slo:KedaSloLaw",
        "llmd_queue": "dynamo_planner.policies.laws.llmd_queue:LlmdQueueLaw",
        "llmd_tokens": "dynamo_planner.policies.laws.llmd_tokens:LlmdTokensLaw",
        "wva": "dynamo_planner.policies.laws.wva:WvaLaw",
        "ray_serve": "dynamo_planner.policies.laws.ray_serve:RayServeLaw",
        "guarded": "dynamo_planner.core.policy:Guarded",
        "highest": "dynamo_planner.core.combinators:Highest",
        "together": "dynamo_planner.core.combinators:Together",
    }
)
