"""The trainer: prepares data, trains adapters, samples candidates and evaluates models, each in a supervised child."""
