"""Why: what the command line needs to know besides what the services and the stack do."""

from pydantic import Field

from services.chassis.devstack.settings import DevStackSettings


class CliSettings(DevStackSettings):
    """Read from `NEUROWEAVER_*`."""

    http: str | None = Field(
        default=None, description="Base address of running services, such as http://127.0.0.1:8001; none is started then."
    )
    http_host: str = Field(default="127.0.0.1", description="Address that `up` and `serve` bind to.")
    http_port: int = Field(default=8001, ge=0, le=65535, description="Port of `up` and `serve`; 0 takes a free one.")
    log_level: str = Field(default="INFO", description="Least level that is logged.")
