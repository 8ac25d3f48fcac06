"""How good decisions are: backtests, scores, bounds and reports."""
