"""The bound over models: the best counts of each window, by hand."""

import numpy as np

from benchmarks.fleet_bound import most


def test_replicas_go_where_they_serve_the_most() -> None:
    """Of three replicas the first window is best served with two and one, the second with none and three; both
    together with two and one, 10 + 7."""
    first = np.array([[0.0, 5.0, 9.0, 10.0], [0.0, 1.0, 1.0, 1.0]])
    second = np.array([[0.0, 4.0, 5.0, 5.0], [0.0, 3.0, 6.0, 8.0]])
    assert most(np.array([first, second]), 3).tolist() == [13.0, 8.0]
    assert most(np.array([first, second]).sum(axis=1, keepdims=True), 3).tolist() == [17.0]
