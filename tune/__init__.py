"""Sweeps on Ray Tune: the spec and its trials, the trainable, plan, run and resume."""
