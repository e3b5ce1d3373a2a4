"""Attacks on what a package tells of its patients, as pure functions of arrays and scores."""
