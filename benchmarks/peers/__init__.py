"""Parts of benchmarks/peers.py: what it runs, how it is measured and scored, and what is printed."""
