"""Verification of a tokens artifact: see `verify_tokens`."""

from stages.tokens.verify.artifact import bytes_to_read, verify_tokens
from stages.tokens.verify.finding import Finding

__all__ = ["Finding", "bytes_to_read", "verify_tokens"]
