"""Small networks of timm judged by the oracles of the sweep, and a network that lies found out by them."""

import pytest
import timm

from tests.pipelines.vision import timm_sweep

SMALL = ("test_byobnet", "test_efficientnet", "test_nfnet", "test_resnet", "test_vit", "test_vit2", "test_mambaout")


@pytest.mark.long
@pytest.mark.parametrize("name", SMALL)
def test_small_networks_of_timm_are_recorded_and_right(name: str) -> None:
    verdict = timm_sweep.judged(name)
    assert verdict.wrong == {} and verdict.outcome == "right", verdict
    assert len(verdict.right) >= 3


def test_the_oracles_of_the_sweep_notice_a_value_that_differs() -> None:
    plain = timm_sweep.stirred(timm.create_model("test_resnet").eval().requires_grad_(False))
    model = timm_sweep.wrapped("test_resnet", plain, (3, 64, 64))
    layers = timm_sweep.measured(model, ["layer1.0"], timm_sweep.Verdict("test_resnet", "resnet"))
    other = timm.create_model("test_resnet").eval()
    other.load_state_dict(plain.state_dict())
    timm_sweep.assert_values_hold(other, model, layers)
    other.requires_grad_(False).get_parameter("layer1.0.conv1.weight").mul_(1.1)
    with pytest.raises(AssertionError, match=r"layer1\.0: values differ"):
        timm_sweep.assert_values_hold(other, model, layers)
