import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def processor():
    """Numbers are compared bit by bit, with generators of the processor: no accelerator, where there is one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield
