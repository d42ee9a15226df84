"""The API in OpenAPI: what FastAPI says of the routes, what the guard and all responses add, and examples."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from fewshot.serve.examples import OF_ANSWERS, OF_BODIES

_TOKEN = {"type": "http", "scheme": "bearer", "description": "what the file of --token holds"}
_TEXT = {"schema": {"type": "string"}}
_VERSION = {"ETag": {**_TEXT, "description": "the version of the classifier, for If-Match"}}
#: Headers of refusals.
_OF_REFUSALS = {
    "401": {"WWW-Authenticate": _TEXT},
    "503": {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds, if trying again may help"}},
}


def complete_description(app: FastAPI, has_token: bool) -> None:
    """Let an application describe its token, and the headers and examples of its responses.

    Parameters
    ----------
    app : FastAPI
        The application, with its routes.
    has_token : bool
        Whether clients must send the token; else they may.
    """
    plain = app.openapi

    def described() -> dict[str, Any]:
        return app.openapi_schema or _completed(plain(), has_token)

    app.openapi = described  # type: ignore[method-assign]


def _completed(found: dict[str, Any], has_token: bool) -> dict[str, Any]:
    schemas = found["components"]["schemas"]
    found["components"]["securitySchemes"] = {"token": _TOKEN}
    found["security"] = [{"token": []}] if has_token else [{}, {"token": []}]
    for name, examples in OF_BODIES.items():
        schemas[name]["examples"] = examples
    for path, operations in found["paths"].items():
        for operation in operations.values():
            if path.startswith("/health/"):
                operation["security"] = []
            for status, response in operation["responses"].items():
                body = response.get("content", {}).get("application/json", {}).get("schema", {})
                told = schemas.get(body.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
                headers = _VERSION if "version" in told else _OF_REFUSALS.get(status, {})
                if headers:
                    response["headers"] = headers
                if (example := OF_ANSWERS.get((operation["operationId"], status))) is not None:
                    response["content"]["application/json"]["example"] = example
    return found
