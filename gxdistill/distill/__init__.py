"""The method: it receives functions and knows neither networks nor images."""
