"""The receiving side: networks and decisions from a package, without anything of the sender."""
