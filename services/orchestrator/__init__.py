"""The orchestrator: accepts or rejects jobs, plans their steps as a graph, and requests, retries, times out and ends
them."""
