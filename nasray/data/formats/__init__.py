"""Formats of annotated data sets: what each says, as a `DetectionSet`."""
