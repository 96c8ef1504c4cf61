"""The finance sample: a company's own filings, releases, wires and calls beside public pages and answers."""

from stages.sample.finance.documents import DENIED, LICENSES, OWN, PUBLIC
from stages.sample.finance.generate import generate

__all__ = ["DENIED", "LICENSES", "OWN", "PUBLIC", "generate"]
