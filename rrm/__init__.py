"""Recursive reasoning models: architectures, rollouts, perturbation, training. Knows nothing of Ray."""
