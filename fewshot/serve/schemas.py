"""What is sent and received, for the description of the API; its examples are what the tests send.

Examples of answers are in `examples`, and `description` adds them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictStr

from fewshot.serve.examples import FILE, PIXEL
from fewshot.utils.labels import LONGEST


def _sent(**values: Any) -> ConfigDict:
    """Return what a body of a request is like: a field that is not known would be ignored, and mislead."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [values]})


#: What a name of a class must be, as JSON Schema; `require_text` refuses others with a sentence.
NAME: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": LONGEST, "pattern": r"\S"}
#: What may be asked for as unknown.
RULE = r"^(off|auto|balanced|0(\.[0-9]{1,3})?)$"


class Error(BaseModel):
    """What went wrong."""

    code: str = Field(description="a word for programs")
    message: str = Field(description="one sentence for people")


class FailureBody(BaseModel):
    """The body of every response that is not a success."""

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


class PrototypeBody(BaseModel):
    """A class and how similar its prototype is."""

    label: str
    similarity: float


class MatchedBody(BaseModel):
    """An example, and where an image matches it."""

    id: str
    name: str
    places: list[list[float]] = Field(description="rows of how much of each place was matched, from 0 to 1, the most")
    picture: str = Field(description="bright at these places: JPEG in base64")


class MatchBody(BaseModel):
    """Where an image matches examples of its likeliest class."""

    label: str
    places: list[list[float]] = Field(
        description="rows of how much each place of the image speaks for the class rather than for the next likeliest, "
        "from 0 to 1, the most"
    )
    picture: str | None = Field(
        description="what the network saw, bright at these places: JPEG in base64; null if an embedding was sent"
    )
    examples: list[MatchedBody] = Field(description="those that match best, the best first")


class AnswerBody(BaseModel):
    """The answer to an image."""

    name: str
    label: str | None = Field(description="null if the image is of no known class, or cannot be read")
    unknown: bool
    doubtful: bool = Field(
        description="whether a known class should be looked at: the second is half as likely or more, or the set does "
        "not hold one class"
    )
    likeliest: str | None = Field(description="the class that the probability is of, also of an unknown image")
    probability: float
    top: list[Ranked]
    set: list[str] | None = Field(description="classes that hold the right one as often as the coverage; null if not")
    neighbours: list[NeighbourBody]
    error: Error | None
    embedding: list[float] | None = Field(None, description="if asked for; null for an image that cannot be read")
    margin: float | None = Field(None, description="if to explain: how far the class is ahead of the next")
    prototypes: list[PrototypeBody] | None = Field(None, description="if to explain: the nearest ones")
    match: MatchBody | None = Field(None, description="if matches were asked for and can be told")


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
    elsewhere: list[dict[str, Any]] = Field(
        description="images, learned now, that another class holds too: their index, name and that class"
    )
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

    model_config = _sent(name="grey heron")
    name: str = Field(json_schema_extra=NAME)


class Moved(BaseModel):
    """The class that an example belongs to."""

    model_config = _sent(**{"class": "heron"})
    class_: str = Field(alias="class", json_schema_extra=NAME)


class Together(BaseModel):
    """Examples that are changed at once, as one version."""

    model_config = _sent(examples=["0f3c2a9d5e7b1c4a60"])
    examples: list[str] = Field(min_length=1, max_length=10_000, description="ids")


class MovedTogether(Together):
    """Examples of one class, and the class that they belong to."""

    model_config = _sent(**{"examples": ["0f3c2a9d5e7b1c4a60"], "class": "heron"})
    class_: str = Field(alias="class", json_schema_extra=NAME)


class Reject(BaseModel):
    """What is answered as unknown."""

    model_config = _sent(reject="auto")
    reject: StrictStr | StrictFloat = Field(
        description='"off", "auto", "balanced", or the share of unknown images to accept, 0 to 0.999',
        json_schema_extra={
            "anyOf": [{"type": "string", "pattern": RULE}, {"type": "number", "minimum": 0, "maximum": 0.999}]
        },
    )


class Limits(BaseModel):
    """Most of what a request may hold."""

    body_bytes: int
    archive_bytes: int
    pixels: int
    images: int


class ModelBody(BaseModel):
    """What the classifier is."""

    name: str
    fewshot: str = Field(description="version of the package")
    version: str
    classes: int
    examples: int
    keeps_examples: bool
    takes_images: bool = Field(description="whether it embeds images; else clients send embeddings")
    compares_places: bool = Field(description="whether it can tell where an image matches examples: `matches`")
    backbone: str
    d: int | None = Field(description="numbers of an embedding; null if nothing was learned")
    described: dict[str, Any]
    fingerprint: str | None = Field(None, description="of the embedder; missing if nothing was learned, as those below")
    metric: str | None = Field(None, description="of the similarities of its embeddings")
    label_type: str | None = Field(None, description="the type of its labels in Python, which are text here")
    unknown_label: str | int | None = Field(None, description="what Python and tables call what is no class")
    can_undo: bool
    can_redo: bool
    read_only: bool
    rejection: str | float | None = Field(description="what is answered as unknown; null for nothing")
    trouble: str | None = Field(description="why the folder cannot be read, if it cannot")
    limits: Limits


class VersionBody(BaseModel):
    """A version that the folder keeps."""

    number: int
    at: str | None = Field(description="when it was saved, in ISO 8601")
    note: str
    n_classes: int
    n_support: int
    is_current: bool


class HistoryBody(BaseModel):
    """The versions that the folder keeps, oldest first."""

    version: str
    versions: list[VersionBody]


class Unread(Error):
    """Why an image cannot be read."""

    index: int


class EmbeddedBody(BaseModel):
    """Embeddings in the order of the images; null for one that cannot be read."""

    fingerprint: str = Field(description="of the embedder: embeddings of others cannot be compared")
    embeddings: list[list[float] | None]
    errors: list[Unread]


class Suggestion(BaseModel):
    """An image to label next."""

    index: int = Field(description="its place in what was sent")
    name: str
    label: str | None = Field(description="what it is taken for; null if unknown, or nothing was learned")
    likeliest: str | None = Field(description="the class that the probability is of, also of an unknown image")
    probability: float | None
    score: float
    reason: str


class SuggestedBody(BaseModel):
    """The images to label next, the best first."""

    version: str
    order: list[Suggestion]


class Confusion(BaseModel):
    """How many images of two classes are taken for the other, and how many of these are of the first."""

    model_config = ConfigDict(populate_by_name=True)
    class_: str = Field(alias="class")
    other: str
    images: int
    of: int
    as_other: int


class ClassCheck(BaseModel):
    """How good a class is, and what twice as many images would gain."""

    model_config = ConfigDict(populate_by_name=True)
    class_: str = Field(alias="class")
    images: int
    accuracy: float | None
    with_twice: float | None
    gain: float | None


class Mistake(BaseModel):
    """An example that would be answered wrongly if it had not been learned."""

    model_config = ConfigDict(populate_by_name=True)
    example: str
    class_: str = Field(alias="class")
    answer: str
    probability: float
    neighbours: list[str]


class CheckBody(BaseModel):
    """How good the classifier will be on new images."""

    version: str
    text: str
    accuracy: float
    balanced_accuracy: float | None = Field(description="if all classes come equally often; null if about the same")
    interval: list[float]
    images: int
    alone: list[str] = Field(description="classes of one image, which cannot be checked")
    refused: float | None
    confused: list[Confusion]
    classes: list[ClassCheck]
    mistakes: list[Mistake]
    duplicates: list[list[str]]


class Suspect(BaseModel):
    """An example that may do harm."""

    model_config = ConfigDict(populate_by_name=True)
    id: str
    name: str
    class_: str = Field(alias="class")
    reason: str
    taken_for: str | None
    neighbour: str | None
    neighbour_class: str | None = Field(description="the class of the neighbour, which a copy may have in common")
    false_alarm: float | None


class SuspectsBody(BaseModel):
    """The examples that may do harm, the most suspect first."""

    version: str
    suspects: list[Suspect]


class Costs(BaseModel):
    """What answering some images as unknown costs."""

    text: str
    threshold: float
    unknown_accepted: float
    unknown_accepted_interval: list[float]
    known_refused: float | None
    known_refused_interval: list[float | None]
    unknown_label: str


class RejectionBody(BaseModel):
    """What is answered as unknown, and what a rule would cost."""

    version: str
    rejection: str | float | None
    costs: Costs | None


class HealthBody(BaseModel):
    """How the service is."""

    status: str


#: How images are sent: as files of a form, or as JSON.
IMAGES: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "string", "format": "binary"},
    "description": "files of images, several allowed",
}
DATA: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["data"],
        "properties": {
            "data": {
                "type": "string",
                "minLength": 1,
                "contentEncoding": "base64",
                "description": "a file of an image in base64",
            },
            "name": {"type": "string", "description": "name of the file"},
        },
    },
}
EMBEDDINGS: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "array", "minItems": 1, "items": {"type": "number"}},
    "description": "instead of images, for a classifier with an embedder of its own, or from /v1/embed",
}


def body(**fields: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a body that holds images and text fields, for ``openapi_extra``."""
    required = [name for name, field in fields.items() if field.pop("required", True)]
    example = {name: field["example"] for name, field in fields.items() if "example" in field}
    closed = {"type": "object", "additionalProperties": False}
    form: dict[str, Any] = {**closed, "required": [*required, "images"], "properties": {**fields, "images": IMAGES}}
    plain: dict[str, Any] = {**closed, "properties": {**fields, "images": DATA, "embeddings": EMBEDDINGS}}
    plain["oneOf"] = [{"required": [*required, one]} for one in ("images", "embeddings")]
    form["example"] = {**example, "images": [FILE]}
    plain["example"] = {**example, "images": [{"data": PIXEL, "name": "pixel.gif"}]}
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": plain}}
    return {"requestBody": {"required": True, "content": content}}


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of the failures of a route: those of all, and these."""
    return refusals(*sorted({400, 401, 403, 413, 422, 503, 507, *statuses}))


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of failures of these statuses."""
    return {status: {"model": FailureBody} for status in statuses}
