"""Cohorts that were checked once and written as a set that is quickly read."""
