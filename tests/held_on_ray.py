"""A training on a Ray cluster that waits at its checkpoints: `python -m tests.held_on_ray`."""

from services.trainer.on_ray import run_on_ray

if __name__ == "__main__":
    run_on_ray("tests.held_training")
