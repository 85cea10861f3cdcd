"""Draws a curve of the demo's training."""

import math

from services.chassis.reports.chart import line_chart
from services.demo.findings import Curve


def loss_chart(curve: Curve) -> str:
    """Return an SVG element with the curve, which must have at least one point."""
    losses = [loss if math.isfinite(loss) else 0.0 for _, loss in curve.points]
    says = f"{curve.title}: the loss went from {losses[0]:.2f} to {losses[-1]:.2f} in {len(losses)} steps."
    return line_chart(curve.points, says, "optimiser step")
