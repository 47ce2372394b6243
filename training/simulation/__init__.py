"""Simulated collisions: Pythia events through a fast detector response into ADC2021 files.

    processes   what can be simulated
    generator   Pythia down to stable particles
    overlay     soft events laid over a hard one
    detector    efficiencies, resolutions, isolation, jets, missing momentum, trigger
    plan        a run cut into chunks with seeds of their own
    jobs, store chunks in worker processes; finished ones are kept
    output      the event file

Everything but the package pythia8mc's and fastjet's work is NumPy over all events of a block.
"""
