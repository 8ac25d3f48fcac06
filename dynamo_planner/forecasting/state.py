"""What a forecaster remembers of one series."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from dynamo_planner.core.values import Frozen
from dynamo_planner.forecasting.calibration import Calibration
from dynamo_planner.forecasting.experts.base import Memory


class ForecastState(Frozen):
    """What a :class:`~dynamo_planner.forecasting.Forecaster` remembers of one series: a small value that survives JSON.

    Args:
        at_s: time of the last sample, in Unix seconds.
        root: square root of its rate.
        zeros: samples of zero in a row.
        samples: samples since the first that was not zero.
        span_s: the usual seconds that a sample covers.
        every_s: the usual seconds between samples.
        noise: variance of the root of a count: 0.25 of a Poisson count.
        kinds: the kinds of the experts.
        memories: what each expert remembers.
        tracks: the calibration at each horizon.
    """

    at_s: float
    root: float = Field(ge=0)
    zeros: float = Field(ge=0)
    samples: float = Field(ge=0)
    span_s: float = Field(gt=0)
    every_s: float = Field(gt=0)
    noise: float = Field(ge=0)
    kinds: tuple[str, ...]
    memories: tuple[Memory, ...]
    tracks: tuple[Calibration, ...]

    @model_validator(mode="after")
    def _rows_match(self) -> Self:
        experts, levels = len(self.kinds), len(self.tracks[0].scores) if self.tracks else 0
        rows = [self.memories, *[rows for track in self.tracks for rows in (track.weights, track.spreads)]]
        pending = [forecast for track in self.tracks for forecast in track.pending]
        if (
            any(len(row) != experts for row in rows)
            or any(len(track.scores) != levels for track in self.tracks)
            or any(len(forecast) != 3 + experts for forecast in pending)
        ):
            raise ValueError("the rows of the state are not of one number of experts and levels")
        return self
