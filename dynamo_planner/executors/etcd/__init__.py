"""The knobs of Dynamo's disaggregated router, which it watches in etcd (extra ``etcd``).

Its configuration needs no extra; the rest does.
"""

from typing import TYPE_CHECKING

from dynamo_planner.core.lazy import lazy_exports

if TYPE_CHECKING:
    from dynamo_planner.executors.etcd.client import Etcd, EtcdError
    from dynamo_planner.executors.etcd.router import RouterKnobs, WithRouter

__all__ = ["Etcd", "EtcdError", "RouterKnobs", "WithRouter"]

__getattr__, __dir__ = lazy_exports(
    __name__, {"Etcd": "client", "EtcdError": "client", "RouterKnobs": "router", "WithRouter": "router"}
)
