import pytest
import torch
from codesieve.train.device import choose_dtype, has_native_bfloat16, reproducible

CPU = torch.device("cpu")


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16"])
@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="this torch cannot list the CPU's capabilities")
def test_auto_is_bfloat16_only_where_the_cpu_multiplies_it(monkeypatch, flag):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert choose_dtype("auto", CPU) == torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, flag: True})
    assert choose_dtype("auto", CPU) == torch.bfloat16


def test_a_named_dtype_is_taken_whatever_the_hardware():
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16
    assert choose_dtype("float32", CPU) == torch.float32
    assert has_native_bfloat16(CPU) in {True, False}


def test_settings_are_put_back_after_an_error():
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="inside"), reproducible(CPU, 1):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        raise RuntimeError("inside")
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
