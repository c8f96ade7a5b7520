"""Who owns a tensor that ps3c._core borrows through DLPack, and tensors that are malformed.

A producer in C lends each tensor argument of the vision, pre-training and text runs, by each route of dlpack.c, and
counts. What must hold: the deleter runs once for each tensor that was taken over, with the GIL, and not before the run
has ended; a capsule is renamed when it is taken over, and only then; of a newer major version only the deleter is used;
no reference to the tensor stays. Inputs are in pages that cannot be written, and every tensor ends at a page that
cannot be read. An output that is read-only or a copy is refused. A malformed tensor is refused by the argument's name,
or the result is right. Nothing crashes, also when the interpreter ends during a run.
"""

import subprocess
import sysconfig

import apart
import pytest
from core_support import HAS_EXCHANGE

ROUTES = [
    pytest.param(route, marks=[] if HAS_EXCHANGE or route == "capsule" else pytest.mark.skip("no C exchange API"))
    for route in ("exchange", "managed", "capsule")
]


@pytest.fixture(scope="module")
def producer(tmp_path_factory):
    file = tmp_path_factory.mktemp("producer") / "producer.so"
    include = sysconfig.get_path("include")
    command = ["gcc", "-std=gnu11", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{include}"]
    subprocess.run([*command, apart.HERE / "dlpack_producer.c", "-o", file], check=True)
    return str(file)


@pytest.mark.parametrize("route", ROUTES)
def test_dlpack(figures, producer, route):
    apart.tried(figures, "dlpack_points.py", route, producer)
    figures.finish()
