"""Named mutants: faults that were once in a policy, or are easy to make."""

SLA = "dynamo_planner/policies/sla"
LAWS = "dynamo_planner/policies"

NAMED: dict[str, tuple[str, str, str]] = {
    "a lost replica is requested four times over": (
        f"{SLA}/plan.py",
        "lost = min(stuck + replicas.failed, most)",
        "lost = 4 * (stuck + replicas.failed)",
    ),
    "twenty times what is expected may be planned for": (
        f"{SLA}/demand.py",
        "limit = MAX_PLANNED_RATIO * expected",
        "limit = 20.0 * expected",
    ),
    "thirty requests more than expected may be planned for": (
        f"{SLA}/demand.py",
        "MIN_HEADROOM_REQUESTS = 3.0",
        "MIN_HEADROOM_REQUESTS = 30.0",
    ),
    "the deviation of start-up times is dropped": (f"{SLA}/startup.py", "mean_s + seen.deviation_s", "mean_s"),
    "lengths are forgotten in seconds": (
        f"{SLA}/lengths.py",
        "LENGTHS_HALF_LIFE_S = 150.0\nLENGTHS_HALF_LIFE_REQUESTS = 500.0",
        "LENGTHS_HALF_LIFE_S = 6.0\nLENGTHS_HALF_LIFE_REQUESTS = 5.0",
    ),
    "five requests outweigh the profile": (f"{SLA}/correction.py", "PRIOR_REQUESTS = 50.0", "PRIOR_REQUESTS = 5.0"),
    "the coverage of a queue is ignored": (f"{SLA}/tick.py", "queued /= max(pool.reporting, MIN_COVERAGE)", "pass"),
    "attainment is not halved between two roles": (
        f"{SLA}/attainment.py",
        "of_two = (1 + promised) / 2",
        "of_two = promised",
    ),
    "nothing of a backlog may wait": (f"{SLA}/plan.py", "waits_s = WAIT_SHARES[tick.pool.spec.role]", "waits_s = 0.0"),
    "what arrives meanwhile is left out of a backlog": (
        f"{SLA}/demand.py",
        "comes = (queued + demand.expected * demand.lead_s) * work_s",
        "comes = queued * work_s",
    ),
    "a stale queue is taken as fresh": (
        f"{SLA}/tick.py",
        "queued = pool.queued if snapshot.age_s(pool.observed_at_s) <= max_age_s else None",
        "queued = pool.queued",
    ),
    "stuck starts count as coming": (f"{SLA}/startup.py", "age_s <= STUCK_AFTER_STARTUPS * startup_s", "age_s >= 0"),
    "an unknown queue lowers a pool": (
        f"{SLA}/plan.py",
        "if want.replicas < tick.replicas.target and unknown is not None:",
        "if False and unknown is not None:",
    ),
    "measured saturation is not heard": (
        f"{SLA}/plan.py",
        "wanted = max(sized.replicas, inputs.at_least, 1)",
        "wanted = max(sized.replicas, 1)",
    ),
    "a count that did not do is refused for ever": (
        f"{LAWS}/reactive_memory.py",
        "            and at_s < shortfall.until_s\n",
        "",
    ),
    "rises in a row all count as shortfalls": (
        f"{LAWS}/reactive_verdict.py",
        "if not rising or own.rising:",
        "if not rising:",
    ),
    "a spare is added to itself": (
        "dynamo_planner/guards/spare.py",
        "if want.load is None and want.replicas == replicas.target == granted.get(name):",
        "if False:",
    ),
    "a night belongs to the day on which it ends": (
        "dynamo_planner/guards/calendars.py",
        "for day in (today - 1, today)",
        "for day in (today,)",
    ),
}
"""By name: the file, a text that stands in it once, and what a fault makes of it."""
