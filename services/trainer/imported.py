"""Imports what the steps of the trainer need, for a process whose forks do them."""

import os

import numpy as np

import services.trainer.steps.compress
import services.trainer.steps.evaluate
import services.trainer.steps.prepare
import services.trainer.steps.sample
import services.trainer.steps.train  # noqa: F401

os.register_at_fork(after_in_child=np.random.seed)
