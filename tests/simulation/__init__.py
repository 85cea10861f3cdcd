"""The services' own code on a log, databases and a clock in memory, one seed one run (docs/reliability.md)."""
