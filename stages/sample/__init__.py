"""Seeded generators of synthetic documents with known defects, one package for each domain.

A domain turns facts into documents of several sources, question sets in other words, and a truth file that says which
defect was planted in which document; so filters and deduplication are measured against what is known. The modules of
this package are those that several domains use; `stage` runs the domain that a recipe names. Needs the standard
library only.
"""
