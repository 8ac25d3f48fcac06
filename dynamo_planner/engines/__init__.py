"""Engine knobs as data: what there is to turn, how far, what it trades, and how it is applied."""

from dynamo_planner.engines.catalogue import ENGINES, catalogue
from dynamo_planner.engines.knob import Catalogue, Knob, KnobError, check_knobs

__all__ = ["ENGINES", "Catalogue", "Knob", "KnobError", "catalogue", "check_knobs"]
