"""From the files of a source to records and documents."""
