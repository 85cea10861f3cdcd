"""One seed, one run; a broken promise is told with its seed, how to run it again, and the last of what happened."""

from tests.simulation.variants import SOUND_VARIANT, Variant
from tests.simulation.world import Summary, World


class Unsound(AssertionError):
    """A promise does not hold."""


def run(seed: int, variant: Variant = SOUND_VARIANT, *, controls: bool = False) -> Summary:
    """Run the simulation with `seed`. `controls`: jobs are also retried, paused, resumed and reprioritised. Raises Unsound."""
    with variant.in_force() as rules:
        world = World(seed, rules, controls=controls)
        try:
            return world.run()
        except Exception as error:
            again = f"python -m tests.simulation.soak --seed {seed}"
            history = "\n".join(world.history)
            raise Unsound(f"seed {seed}: {type(error).__name__}: {error}\nrun it again: {again}\n{history}") from error
