"""Settings of a federation: what contradicts itself is refused by name."""

import pytest

from gxdistill.errors import UserError
from gxdistill.tasks.federation import settings


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"mean": "median", "protect": ("site",)}, "of noise, a robust mean keeps the most"),
        ({"mean": "trimmed", "secure": True}, "which a masked sum hides"),
        ({"protect": ("patients",)}, r"federation\.protect is \('patients',\)"),
        ({"rounds": 0}, "federation.rounds is 0; it must be a whole number from 1"),
        ({"server": "adagrad"}, "federation.server is 'adagrad'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, fault):
    config = settings.default_config()
    settings.check(config)
    config.federation.update(changes)
    with pytest.raises(UserError, match=fault):
        settings.check(config)


def test_bits_that_cost_too_much_are_refused():
    config = settings.default_config()
    config.federation.site.update(adaptive=True, noise=4.0, bit_noise=2.0)
    with pytest.raises(UserError, match=r"bit_noise is 2\.0.*Raise it above 2\.0"):
        settings.check(config)
