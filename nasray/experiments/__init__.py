"""The experiments that come with nasray, as YAML files."""
