"""Reads the operator's prices, by which attempts are charged and budgets are kept."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.usage import Prices


class PriceSettings(BaseSettings):
    """Read from `NEUROWEAVER_PRICE_*`. All services of a deployment have the same."""

    model_config = SettingsConfigDict(env_prefix="NEUROWEAVER_PRICE_", extra="ignore", frozen=True)

    core_hour: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Price of a processor core for an hour; null: it costs nothing.",
    )
    device_hour: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Price of a GPU for an hour; null: it costs nothing."
    )
    kwh: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Price of a kilowatt-hour, charged where energy is measured; null: it costs nothing.",
    )
    currency: str = Field(
        default="EUR", pattern="^[A-Z]{3}$", description="The currency of all prices and budgets (ISO 4217)."
    )

    @property
    def prices(self) -> Prices | None:
        """The prices; None if none is set."""
        if self.core_hour is None and self.device_hour is None and self.kwh is None:
            return None
        return Prices(currency=self.currency, core_hour=self.core_hour, device_hour=self.device_hour, kwh=self.kwh)
