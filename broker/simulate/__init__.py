"""A synthetic, labelled sky: alerts in the surveys' own formats, for demos, tests and training examples."""

from broker.simulate.stream import (
    START_MJD,
    SimulatedAlert,
    simulate_lsst,
    simulate_ztf,
    write_folder,
)

__all__ = ["START_MJD", "SimulatedAlert", "simulate_lsst", "simulate_ztf", "write_folder"]
