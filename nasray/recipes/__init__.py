"""Recipes that come with nasray."""
