"""Layers of one shape share machine code."""

from __future__ import annotations

from cases import program, tensor
from networks import compiled, perceptron_step

from chainrule.compiler.ir.graph import apply
from chainrule.compiler.loops.sharing import kernel_signature, share_kernels


def distinct_kernels(depth: int) -> tuple[int, int]:
    loops = compiled(perceptron_step((32,) * depth)).loops
    shared = share_kernels(loops)
    return len({kernel.name for kernel in shared.values()}), len(loops.kernels)


def test_deeper_networks_of_equal_layers_need_no_more_machine_code():
    few, _ = distinct_kernels(5)
    as_few, many = distinct_kernels(12)
    assert as_few == few < many


def test_the_module_defines_each_distinct_kernel_once():
    artifact = compiled(perceptron_step((32,) * 8))
    text = artifact.modules[0].emit()
    distinct = {kernel.name for kernel in share_kernels(artifact.loops).values()}
    defined = {k.name for k in artifact.loops.kernels if f'void @"{k.name}"(' in text}
    assert defined == distinct


def test_a_kernel_of_another_function_or_size_is_its_own():
    x, y, z = (tensor(name, (size,)) for name, size in (("x", 8), ("y", 8), ("z", 9)))
    values = apply("exp", x), apply("exp", y), apply("exp", z), apply("tanh", y)
    loops = compiled(program(*values), fuse=False).loops
    signatures = [kernel_signature(kernel, loops.symbols) for kernel in loops.kernels]
    assert len(signatures) == 4
    assert len(set(signatures)) == 3
