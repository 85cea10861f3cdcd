"""What an operator does to a running service: dead letters are retried or discarded, records stepped over."""
