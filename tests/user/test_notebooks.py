"""The notebooks in examples/ run on the tiny checkpoint, and are stored without outputs."""

import os
from pathlib import Path

import pytest
from conftest import photograph

nbformat = pytest.importorskip("nbformat", reason="nbformat and nbclient run the notebooks, and are not installed")
nbclient = pytest.importorskip("nbclient", reason="nbformat and nbclient run the notebooks, and are not installed")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# How many pictures each notebook shows; results show themselves too.
PICTURES = {"quick_start": 5, "where_it_looks": 4, "image_search": 2, "looks_one_by_one": 3}
NEEDS = {"image_search": ("matplotlib", "pyarrow")}


def read(name: str):
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def test_every_notebook_is_tested():
    assert sorted(PICTURES) == sorted(file.stem for file in EXAMPLES.glob("*.ipynb"))


@pytest.mark.parametrize("name", PICTURES)
def test_kept_without_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert [cell.execution_count for cell in cells] == [None] * len(cells)
    assert notebook.metadata.kernelspec.name == "python3"
    text = (EXAMPLES / f"{name}.ipynb").read_text()
    assert "PS3C_CHECKPOINT" in cells[0].source and "PS3C_IMAGE" in cells[0].source and "/work" not in text


@pytest.mark.parametrize("name", PICTURES)
def test_runs(name, tiny_checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("ipykernel", reason="ipykernel, which runs notebooks, is not installed")
    for module in NEEDS.get(name, ("matplotlib",)):
        pytest.importorskip(module, reason=f"the notebook needs {module}, which is not installed")
    photograph(320, 240).save(tmp_path / "photograph.png")
    monkeypatch.setenv("PS3C_CHECKPOINT", str(tiny_checkpoint))
    monkeypatch.setenv("PS3C_IMAGE", str(tmp_path / "photograph.png"))
    monkeypatch.delenv("PS3C_IMAGES", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read(name)
    resources = {"metadata": {"path": str(tmp_path)}}
    waits = {"timeout": 300, "startup_timeout": 300}
    nbclient.NotebookClient(notebook, kernel_name="python3", resources=resources, **waits).execute()

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == PICTURES[name]
    said = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    # tqdm, which transformers imports, warns of missing ipywidgets.
    assert not [text for text in said if "Warning" in text.replace("TqdmWarning", "") or "Error" in text], said


def test_search_finds_an_image_by_itself(tiny_checkpoint, tmp_path, encoder):
    """The best match of an image is the image itself, as the search notebook says."""
    files = []
    for seed in range(4):
        files.append(tmp_path / f"{seed}.png")
        photograph(100, 60, seed=seed).rotate(90 * seed, expand=True).save(files[-1])
    vectors = encoder.embed_images(files, progress=False).pooled
    assert (vectors @ vectors.T).argmax(dim=1).tolist() == [0, 1, 2, 3]
