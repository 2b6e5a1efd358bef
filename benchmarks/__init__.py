"""How fast this project's Mixer and training loop are, beside other people's: ``python benchmarks/bench.py``."""
