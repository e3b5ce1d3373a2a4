"""Reading, checking and drawing images; the only place that reads them."""
