"""Prepared datasets written in the formats of other projects."""
