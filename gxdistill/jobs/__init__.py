"""Composition: from a config to objects to the stages of a job, each with its files in `workdir`.

A stage is a pure function of the config, the data and the seed, apart from what it says; what it
leaves behind is read by the next one, so that stages may run on different days and machines.
"""
