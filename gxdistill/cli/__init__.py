"""The command line, one file a task: the only place that knows flags."""
