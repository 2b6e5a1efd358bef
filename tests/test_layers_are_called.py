"""The model calls its layers and reads around none: what people hang on them, or make of the model, works.

Forward hooks, adapters (LoRA), quantisation, tracing, ONNX and torch.export.
"""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from mixer_utils import MlpMixer

# torch tells of the older ways that they are older; they are what many still use.
old = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:torch.ao", "ignore:.*deprecated")


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = MlpMixer(image_size=(8, 12), in_channels=3, patch_size=4, num_classes=5, num_blocks=2, hidden_dim=12,
                     tokens_mlp_dim=7, channels_mlp_dim=20)  # fmt: skip
    nn.init.normal_(model.head.weight)
    return model.eval()


def images(count):
    return torch.randn(count, 3, 8, 12, generator=torch.Generator().manual_seed(count))


def test_every_modules_forward_hook_fires_once(model):
    calls = dict.fromkeys((name for name, module in model.named_modules()), 0)
    del calls["blocks"]  # a list of modules, which nobody calls
    for name in calls:
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: calls.update({name: calls[name] + 1})
        )
    model(images(2))
    assert len(calls) == 1 + 2 + 2 * (1 + 2 + 2 * 4) + 2
    assert set(calls.values()) == {1}


class LoRA(nn.Module):
    """A layer that is not trained, and beside it a product of two thin matrices that is (Hu et al. 2021)."""

    def __init__(self, layer, rank=2):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


def test_an_adapter_on_every_linear_changes_the_answer_and_gets_gradients(model):
    before = model(images(2))
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert len(names) == 2 * 4 + 1
    for name in names:
        model.set_submodule(name, LoRA(model.get_submodule(name)))
    logits = model(images(2))
    assert (logits - before).abs().max() > 1e-3
    logits.square().sum().backward()
    for name in names:
        adapter = model.get_submodule(name)
        assert adapter.layer.weight.grad is None
        for matrix in (adapter.down.weight, adapter.up.weight):
            assert matrix.grad.abs().max() > 1e-6, name


@old
def test_quantize_dynamic_quantises_every_linear_and_answers_nearly_the_same(model):
    if not torch.backends.quantized.supported_engines[1:]:
        pytest.skip("this build of torch has no engine for quantised products")
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    assert not any(type(module) is nn.Linear for module in quantised.modules())
    torch.testing.assert_close(quantised(images(3)), model(images(3)), rtol=0.1, atol=0.1)


@old
def test_traced_with_one_image_it_answers_three(model):
    traced = torch.jit.trace(model, images(1))
    torch.testing.assert_close(traced(images(3)), model(images(3)), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")
@pytest.mark.parametrize("strict", [True, False])
def test_exported_with_any_number_of_images_it_answers_one_and_three(strict, model):
    exported = torch.export.export(
        model, (images(2),), dynamic_shapes={"images": {0: torch.export.Dim("B")}}, strict=strict
    )
    for count in (1, 3):
        torch.testing.assert_close(exported.module()(images(count)), model(images(count)), rtol=0, atol=1e-5)


@old
def test_exported_to_onnx_with_any_number_of_images_it_answers_three(model):
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnx onnxruntime")
    pytest.importorskip("onnx")
    file = io.BytesIO()
    torch.onnx.export(model, (images(1),), file, dynamo=False, input_names=["images"], output_names=["logits"],
                      dynamic_axes={"images": {0: "B"}, "logits": {0: "B"}})  # fmt: skip
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images(3).numpy()})
    np.testing.assert_allclose(logits, model(images(3)).detach().numpy(), rtol=0, atol=1e-4)
