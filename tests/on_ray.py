"""The test child on a Ray cluster: `python -m tests.on_ray`."""

from services.trainer.on_ray import run_on_ray

if __name__ == "__main__":
    run_on_ray("tests.child")
