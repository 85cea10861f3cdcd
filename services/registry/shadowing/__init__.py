"""Shadow traffic: requests that the version before answers go to a canary, too, and a judge compares the answers."""
