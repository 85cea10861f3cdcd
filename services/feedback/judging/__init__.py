"""Lets other services ask the judges over HTTP: each judge works in a process of its own, which stays ready for a while."""
