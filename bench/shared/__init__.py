"""What the benches share: the machine they tell of, and meters of processes."""
