"""Serves the index and a page to browse and try the routes; both work without internet access."""

from collections.abc import Sequence
from importlib.metadata import version

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from pydantic import BaseModel, Field
from starlette.staticfiles import StaticFiles

_ASSETS = "/docs/assets"
_PACKAGE = ("fastapi_swagger", "resources")
"""Swagger UI (Apache-2.0), as bundled in the package fastapi-swagger (MIT)."""


class Index(BaseModel):
    """The release, the services of this process and the paths of its pages."""

    name: str
    version: str = Field(description="The release of NeuroWeaver.")
    services: list[str] = Field(description="The services of this process.")
    links: dict[str, str] = Field(description="Paths by the name of the page.")


def add_pages(app: FastAPI, api: str, services: Sequence[str]) -> None:
    """Add `/` and `/docs`. They are not part of the API, so its document does not contain them."""
    index = Index(
        name=app.title,
        version=version("neuroweaver"),
        services=list(services),
        links={
            "docs": "/docs",
            "openapi": str(app.openapi_url),
            "health": f"{api}/health",
            "ready": f"{api}/health/ready",
            "detailed": f"{api}/health/detailed",
            "metrics": f"{api}/metrics",
        },
    )
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def root() -> Index:
        return index

    @router.get("/docs")
    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url=str(app.openapi_url),
            title=app.title,
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon-32x32.png",
            swagger_ui_parameters={"validatorUrl": None},  # the default calls a service on the internet
        )

    app.include_router(router)
    app.mount(_ASSETS, StaticFiles(packages=[_PACKAGE]))
