"""What is sent and received, for the description of the API; its examples are what the tests send."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


class Error(BaseModel):
    """What went wrong."""

    code: str = Field(description="a word for programs")
    message: str = Field(description="one sentence for people")


class FailureBody(BaseModel):
    """The body of every response that is not a success."""

    model_config = _example(error={"code": "no_class", "message": "there is no class 'heron'"})
    error: Error


class Ranked(BaseModel):
    """A class and its probability."""

    label: str
    probability: float


class NeighbourBody(BaseModel):
    """An example near an image."""

    id: str
    name: str
    label: str
    similarity: float


class AnswerBody(BaseModel):
    """The answer to an image."""

    name: str
    label: str | None = Field(description="null if the image is of no known class, or cannot be read")
    unknown: bool
    probability: float
    top: list[Ranked]
    set: list[str] | None = Field(description="classes that hold the right one as often as the coverage; null if not")
    neighbours: list[NeighbourBody]
    error: Error | None
    embedding: list[float] | None = Field(None, description="if asked for; null for an image that cannot be read")


class AnswersBody(BaseModel):
    """Answers in the order of the images."""

    version: str
    answers: list[AnswerBody]
    notes: list[str] = Field(description="what could not be told, such as sets from too few examples")
    fingerprint: str | None = Field(None, description="of the embedder, if embeddings were asked for")


class LearnedBody(BaseModel):
    """What was learned."""

    model_config = ConfigDict(populate_by_name=True)
    class_: str = Field(alias="class")
    new: bool
    learned: int
    copies: int = Field(description="images that the class holds already, which are not learned again")
    unreadable: list[dict[str, Any]]
    examples: list[str]
    milliseconds: float
    version: str


class Class(BaseModel):
    """A class."""

    name: str
    examples: int
    thumbnails: list[str] = Field(description="ids of its latest examples")


class Classes(BaseModel):
    """A part of the classes."""

    model_config = _example(
        version="5f0c",
        total=2000,
        classes=[{"name": "heron", "examples": 3, "thumbnails": ["0f3c2a9d5e7b1c4a60"]}],
        next="3 heron",
    )
    version: str
    total: int = Field(description="classes that were asked for")
    classes: list[Class]
    next: str | None = Field(description="what to send as after for the next part; null after the last one")


class Example(BaseModel):
    """An example that was learned."""

    model_config = ConfigDict(populate_by_name=True)
    id: str
    class_: str = Field(alias="class")
    name: str


class Examples(BaseModel):
    """A part of the examples."""

    version: str
    total: int
    examples: list[Example]


class Changed(BaseModel):
    """The version after a change."""

    version: str
    can_undo: bool
    can_redo: bool


class Renamed(BaseModel):
    """A new name of a class."""

    model_config = _example(name="grey heron")
    name: str


class Moved(BaseModel):
    """The class that an example belongs to."""

    model_config = ConfigDict(populate_by_name=True, json_schema_extra={"examples": [{"class": "heron"}]})
    class_: str = Field(alias="class")


class Together(BaseModel):
    """Examples that are changed at once, as one version."""

    model_config = _example(examples=["0f3c2a9d5e7b1c4a60"])
    examples: list[str] = Field(min_length=1, max_length=10_000, description="ids")


class MovedTogether(Together):
    """Examples of one class, and the class that they belong to."""

    model_config = ConfigDict(
        populate_by_name=True,
        json_schema_extra={"examples": [{"examples": ["0f3c2a9d5e7b1c4a60"], "class": "heron"}]},
    )
    class_: str = Field(alias="class")


class Reject(BaseModel):
    """What is answered as unknown."""

    model_config = _example(reject="auto")
    reject: str | float = Field(
        description='"off", "auto", "balanced", or the share of unknown images to accept, 0 to 0.999'
    )


#: How images are sent: as files of a form, or as JSON.
IMAGES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string", "format": "binary"},
    "description": "files of images, several allowed",
}
DATA: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {"type": "string", "contentEncoding": "base64", "description": "a file of an image in base64"},
            "name": {"type": "string", "description": "name of the file"},
        },
    },
}
EMBEDDINGS: dict[str, Any] = {
    "type": "array",
    "items": {"type": "array", "items": {"type": "number"}},
    "description": "instead of images, for a classifier with an embedder of its own, or from /v1/embed",
}
#: One white pixel.
_PIXEL = "R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="


def body(**fields: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a body that holds images and text fields, for ``openapi_extra``."""
    required = [name for name, field in fields.items() if field.pop("required", True)]
    example = {name: field["example"] for name, field in fields.items() if "example" in field}
    form = {"type": "object", "required": [*required, "images"], "properties": {**fields, "images": IMAGES}}
    plain = {"type": "object", "properties": {**fields, "images": DATA, "embeddings": EMBEDDINGS}, "required": required}
    plain["example"] = {**example, "images": [{"data": _PIXEL, "name": "pixel.gif"}]}
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": plain}}
    return {"requestBody": {"required": True, "content": content}}


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of the failures of a route: those of all, and these."""
    return {status: {"model": FailureBody} for status in sorted({400, 401, 403, 413, 422, 503, 507, *statuses})}
