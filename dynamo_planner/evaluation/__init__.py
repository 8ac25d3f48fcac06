"""How good decisions are: backtests, scores, lower bounds, and an environment to train policies in."""

from dynamo_planner.evaluation.backtest import backtest
from dynamo_planner.evaluation.deferrable import DeferrableRun, deferrable_backtest
from dynamo_planner.evaluation.gym_env import ArrayScalingEnv, ScalingEnv
from dynamo_planner.evaluation.oracle import Oracle, oracle
from dynamo_planner.evaluation.report import Report
from dynamo_planner.evaluation.run import Run
from dynamo_planner.evaluation.score import Score, score
from dynamo_planner.evaluation.tune import tune
from dynamo_planner.evaluation.tuned import Tuned

__all__ = [
    "ArrayScalingEnv",
    "DeferrableRun",
    "Oracle",
    "Report",
    "Run",
    "ScalingEnv",
    "Score",
    "Tuned",
    "backtest",
    "deferrable_backtest",
    "oracle",
    "score",
    "tune",
]
