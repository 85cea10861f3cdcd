"""One address for callers: requests in OpenAI's shape are led to the version that a deployment serves."""
