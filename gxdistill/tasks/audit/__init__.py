"""The audit: what attacks make of a package, on shadow cohorts of the hospital's own patients."""
