"""How good decisions are: every policy here on many traces and troubles, beside the optimum."""
