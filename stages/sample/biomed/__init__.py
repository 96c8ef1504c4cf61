"""The biomedical sample: monographs, question pages, case notes and forum posts about drugs, diseases and organisms."""

from stages.sample.biomed.documents import DENIED, LICENSES
from stages.sample.biomed.generate import generate

__all__ = ["DENIED", "LICENSES", "generate"]
