"""From samples of single workers to the metrics of pools and of the service, scraped or from Prometheus.

In the order of the data:

- ``sample`` -- one page of one worker in an engine's vocabulary: what it reports, and why it does not report the rest.
- ``selection`` -- which series of a page make a metric, and their sum, mean or product.
- ``increase`` -- what happened between two samples of a worker: counter resets, restarts, histograms.
- ``window`` -- the last seconds of each worker, and rates and distributions over several of them.
- ``traffic`` -- a ``Traffic`` out of that: of a pool, of a frontend, of a service without a frontend.
- ``pools`` -- the ``PoolMetrics`` of a pool: gauges, coverage, workers.
"""
