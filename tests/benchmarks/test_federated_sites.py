"""The memory of a round beside that of all updates, which nobody may hold together."""

import pytest

from benchmarks import federated_sites


@pytest.mark.slow
def test_sixty_four_sites_take_no_more_than_four():
    sizes = {"patients": 192, "width": 32, "depth": 3, "crop": 32}
    few, many = (federated_sites.measure(sites, **sizes) for sites in (4, 64))
    assert many["updates_mb"] == pytest.approx(16 * few["updates_mb"], rel=0.01)
    # Sixty more updates would take 15 times those of four sites.
    assert many["growth_mb"] - few["growth_mb"] < few["updates_mb"]
