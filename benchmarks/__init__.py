"""Benchmarks: what the project promises about speed and size, measured on the machine at hand.

Each module measures one room and has `run(quick: bool) -> list[Row]`; `python -m benchmarks` runs them all
and prints one table with the machine's description.
"""
