"""The machine: platform, devices and hosts, the console, and what was compiled before."""
