"""Types of the fields of the store's records, for pydantic: what `stages.store.names` checks, and digests."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from stages.store.names import MAX_COMPONENT_BYTES, check_file_path, check_folder, check_printable

Printable = Annotated[str, AfterValidator(check_printable)]
FilePath = Annotated[str, AfterValidator(check_file_path)]
FolderName = Annotated[str, AfterValidator(check_folder)]
Kind = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=MAX_COMPONENT_BYTES)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,64}$")]
"""32 hex digits as `fingerprint` computes them, which `verify` does anew; here only that it is plain."""
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]


def describe(error: Exception) -> str:
    """One line about why a record is not valid: pydantic's errors take several, and repeat the record."""
    if not isinstance(error, ValidationError):
        return str(error)
    places = [(".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")) for item in error.errors()]
    return "; ".join(f"{place[:100]}: {message}" if place else message for place, message in places[:3])
