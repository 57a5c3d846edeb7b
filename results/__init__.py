"""Tables and comparisons of sweeps. Needs neither torch nor ray."""
