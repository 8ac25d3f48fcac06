"""HTTP workers without a GPU: a simulated engine, and llama.cpp with random weights."""
