"""Hosts: a policy behind HTTP, as KEDA's external scaler, and as Ray Serve's autoscaling policy."""
