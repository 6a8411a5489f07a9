"""Many recordings to one dataset: plan, parts, journal, assembly."""
