"""The project's own deciders and `evolve` under random schedules and faults, on a clock and a log in memory: one seed, one run."""
