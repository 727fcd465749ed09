"""Path filters: small predictors that rank the architectures of a space that cost about the same."""
