"""The knobs of Dynamo's disaggregated router, which it watches in etcd (extra ``etcd``)."""

from dynamo_planner.executors.etcd.client import Etcd, EtcdError
from dynamo_planner.executors.etcd.router import RouterKnobs, WithRouter

__all__ = ["Etcd", "EtcdError", "RouterKnobs", "WithRouter"]
