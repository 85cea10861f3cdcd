"""Says what a driver has to serve for a wish."""

from schemas.deployments import DeploymentRequested
from services.registry.deploying.driver import Target
from services.registry.domain.deployments.state import slot_of


def target_of(wish: DeploymentRequested) -> Target:
    """Return the target of a wish."""
    return Target(
        deployment=wish.deployment, slot=slot_of(wish), model=wish.model, version=wish.version, artifact=wish.artifact,
        kind=wish.kind, base_model=wish.base_model, base_model_sha256=wish.base_model_sha256, driver=wish.driver, predictions=wish.predictions,
    )  # fmt: skip
