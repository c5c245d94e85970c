"""The append-only store of studies, packs, records and outcomes: the only source of truth."""
