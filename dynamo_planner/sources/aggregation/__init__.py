"""From samples of single workers to the metrics of pools and of the service, scraped or from Prometheus.

In the order of the data:

- ``sample`` -- one page of one worker in an engine's vocabulary: what it reports, and why it does not report the rest.
- ``models`` -- the series of one model, where a page has several.
- ``selection`` -- which series of a page make a metric, and their sum, mean or product.
- ``process`` -- which process answered: the one of the sample before, one that began since, or another one.
- ``increase`` -- what happened between two samples of a worker: counters, histograms, the flow of requests.
- ``arrivals`` -- arrivals by conservation: what went out by every door and what is inside.
- ``window`` -- the last seconds of each worker, and rates and distributions over several of them.
- ``traffic`` -- a ``Traffic`` out of that: of a pool, of a frontend, of a service without a frontend.
- ``stages`` -- a ``StageTimes`` out of that: of a pool.
- ``pools`` -- the ``PoolMetrics`` of a pool: gauges, coverage, workers.

From two pages of a worker to the metrics of its pool:

>>> from dynamo_planner.engines.vllm import VLLM
>>> from dynamo_planner.sources.aggregation.pools import pool_metrics
>>> from dynamo_planner.sources.aggregation.sample import read_page
>>> from dynamo_planner.sources.aggregation.window import WorkerHistory
>>> worker = WorkerHistory("w0", window_s=30)
>>> for at_s, running, ended in ((0, 4, 100), (10, 6, 150)):
...     page = {"vllm:num_requests_running": {(): running}, "vllm:num_requests_waiting": {(): 0},
...             "vllm:request_success_total": {(("finished_reason", "stop"),): ended}}
...     worker.add(read_page(page, VLLM, at_s), previous_s=None)
...     worker.observed = True
>>> metrics, missing = pool_metrics([worker], at_s=10)
>>> metrics.running, metrics.traffic.requests_per_s  # 50 ended and 2 more are running, in 10 s
(6.0, 5.2)
>>> missing["traffic", "isl"]
'vllm:request_prompt_tokens is not on its page (w0)'
"""
