import pytest
import torch
from safetensors.torch import save_file

from fewshot import create_backbone
from fewshot.embedding.sources import OFFLINE, Source, offline_file


@pytest.fixture
def network():
    return create_backbone("conv4", img_size=32, seed=5)


def same(one, other):
    other = other.state_dict()
    return all(torch.equal(value, other[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize(
    "wrap", [dict, lambda s: {"state_dict": s}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
def test_weights_come_from_a_state_dict_in_any_of_its_wrappings(wrap, network, tmp_path):
    torch.save(wrap(network.state_dict()), tmp_path / "w.pth")
    assert same(Source("conv4", str(tmp_path / "w.pth"), img_size=32).load()[0], network)


def test_weights_come_from_safetensors_and_a_layer_more_is_left_there(network, tmp_path):
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file({**state, "head.weight": torch.zeros(3, 64)}, tmp_path / "w.safetensors")
    loaded, seen = Source("conv4", str(tmp_path / "w.safetensors"), img_size=32).load()
    assert same(loaded, network)
    assert (seen.height, seen.width) == (32, 32)


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    other = create_backbone("resnet12").state_dict()
    save_file({name: value.contiguous() for name, value in other.items()}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="weights of another network: blocks.0.conv.weight is missing"):
        Source("conv4", str(tmp_path / "w.safetensors")).load()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_damaged_file_is_one_sentence(name, tmp_path):
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=f"{name} is not a complete file of weights") as caught:
        Source("conv4", str(tmp_path / name)).load()
    assert "\n" not in str(caught.value)


def test_a_file_damaged_anywhere_is_one_sentence(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    for i in range(0, len(whole), 41):
        (tmp_path / "w.pth").write_bytes(whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :])
        with pytest.raises(ValueError, match=r"not a complete file of weights|another network|holds no state dict"):
            Source("conv4", str(tmp_path / "w.pth")).load()


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("yes",))

    torch.save({"weight": Evil()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="not a complete file of weights"):
        Source("conv4", str(tmp_path / "w.pth")).load()
    assert not (tmp_path / "ran").exists()


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        Source("conv4", str(tmp_path / "w.pth")).load()


@pytest.mark.parametrize("backbone", sorted(OFFLINE))
def test_each_package_of_the_extra_fits_its_network(backbone):
    network, seen = Source(backbone).load()
    assert offline_file(backbone).is_file()
    assert not network.training
    assert (seen.mean, seen.std) == ((0.5,) * 3, (0.5,) * 3)
    # Trained weights, not those of the seed.
    assert not same(network, create_backbone(backbone))
