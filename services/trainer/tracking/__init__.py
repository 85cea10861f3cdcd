"""Records the steps of the trainer as MLflow runs, in a process of its own, so that no tracking server delays a step."""
