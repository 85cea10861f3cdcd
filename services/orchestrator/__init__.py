"""Jobs: accepts or rejects them, plans them as a graph of steps, requests, retries, times out, cancels and ends them."""
