import pytest

from gxdistill.privacy import features


@pytest.fixture(scope="module")
def few_of_the_prior():
    """Features of fewer images of the prior, for the time that they take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "_PRIOR", 100)
        yield
