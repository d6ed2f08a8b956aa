"""Answers of the API as its documentation shows them; a test compares them with what is sent."""

from pydantic import BaseModel, Field


class Size(BaseModel):
    """Pixels of the photo, the right way up."""

    width: int
    height: int


class ProtocolAnswer(BaseModel):
    """How the photo was segmented."""

    name: str
    hash: str
    background_threshold: float | None


class BackgroundAnswer(BaseModel):
    """How the pixels that no class gets were found."""

    rule: str
    threshold: float
    reason: str


class NegativeAnswer(BaseModel):
    """A name whose pixels are background."""

    name: str
    pixels: int


class ClassAnswer(BaseModel):
    """One class of the list, or the background that a threshold adds in front of them."""

    name: str
    index: int = Field(description="Its value in the label map.")
    color: str = Field(description="In the overlay and in the palette of the label map.", examples=["#800000"])
    area_share: float = Field(description="Share of the photo's pixels, 0 to 1.")
    score: float = Field(description="Best score that any pixel gives the class, 0 to 1.")
    present: bool = Field(description="Whether any pixel has the class.")
    presence_score: float | None = Field(description="Presence score, 0 to 1; null for the background.")
    absent: bool = Field(description="Whether the class was found absent from the photo, and so got no pixel.")


class SegmentAnswer(BaseModel):
    """A segmented photo."""

    photo: str | None = Field(description="File name, as the request gave it.")
    size: Size
    protocol: ProtocolAnswer
    background: BackgroundAnswer | None = Field(description="Null where every pixel has a class.")
    calibrated_on: str | None = Field(description="Data that the model's thresholds were chosen on.")
    negatives: list[NegativeAnswer]
    classes: list[ClassAnswer]
    label_map_png: str = Field(description="Label map as a palette PNG, in base64.")


class ErrorAnswer(BaseModel):
    """Why a request was not answered."""

    error: str = Field(description="What is wrong, and what to do about it.")


class HealthAnswer(BaseModel):
    """State of the server."""

    status: str = Field(description="`ready`, or `starting` while the model is loaded.")
    model: str
    restarts: int = Field(description="How often the model's process was started again.")
