"""The fact tables of the finance sample. Countries are real; companies, their towns and people are invented."""

from __future__ import annotations

from stages.sample.tables import FactTables

COMPANIES = FactTables("stages.sample.finance", ("companies",))
COUNTRIES = FactTables("stages.sample.finance", ("countries",))
TABLES = FactTables("stages.sample.finance", ("companies", "countries"))
