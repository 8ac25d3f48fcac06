"""The one-machine demo: workers, simulated or llama.cpp, a replayed trace, and a planner that scales them."""
