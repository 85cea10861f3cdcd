"""The smallest service on the chassis: it counts what is asked about its jobs, and refuses each of them once."""
