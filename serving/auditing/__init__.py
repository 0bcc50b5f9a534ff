"""The attacks and hardened marks of `serving.audit`, and its report."""
