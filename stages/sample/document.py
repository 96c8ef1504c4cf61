"""A document of a sample, before it is written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class Document:
    """One record to be written. ``number`` and ``retrieved_at`` are set when the source's records have their final
    order."""

    source: str
    text: str
    title: str
    group: str
    number: int = -1
    retrieved_at: str = ""

    @property
    def id(self) -> str:
        """The record's id."""
        return f"{self.source}-{self.number:06d}"

    def record(self, license: str) -> dict[str, str]:
        """The JSON object for the source's file."""
        return {
            "id": self.id,
            "text": self.text,
            "url": f"synthetic://{self.source}/{self.number}",
            "title": self.title,
            "license": license,
            "group": self.group,
            "retrieved_at": self.retrieved_at,
        }
