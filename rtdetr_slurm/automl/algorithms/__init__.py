"""How each algorithm decides; pure functions of the trials so far."""
