"""A base model or a data set that wants code to be run, or files of others to be read, is refused and tells nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.reasons import Reason
from schemas.recipes.dataset import DatasetSettings
from schemas.steps import PrepareSettings
from services.chassis.executor.child import UserFault
from services.trainer.data.sources import read
from services.trainer.steps.prepare import prepare
from tests.allowed import IN_TESTS
from tests.trainer import context_of

SECRET = "the content of somebody else's file"
ROW = {"prompt": "What?", "completion": "That."}


def refused(home: Path, base: Path) -> Reason:
    settings = PrepareSettings(base_model=str(base), dataset=DatasetSettings(reference=str(home)), max_length=64)
    with pytest.raises(UserFault) as raised:
        prepare(context_of(home, settings))
    (reason,) = raised.value.reasons
    return reason


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Path:
    """A copy of the base model, to be meddled with."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_a_base_model_brings_is_never_run(model: Path, tmp_path: Path, file: str) -> None:
    mark = tmp_path / "ran"
    (model / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: ...\n")
    names = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    config = json.loads((model / file).read_text())
    changes = {"model_type": "evil"} if file == "config.json" else {"tokenizer_class": "Evil"}
    (model / file).write_text(json.dumps(config | changes | {"auto_map": names}))
    reason = refused(tmp_path, model)
    assert reason.field == "base_model"
    assert not mark.exists()
    if file == "config.json":
        assert "it needs its own code, which is never run" in reason.message


def test_weights_in_pickles_alone_are_refused(model: Path, tmp_path: Path) -> None:
    for weights in model.glob("*.safetensors*"):
        weights.unlink()
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    assert "no weights in safetensors" in refused(tmp_path, model).message


def test_what_a_configuration_holds_is_not_repeated(model: Path, tmp_path: Path) -> None:
    for content in (
        SECRET,
        json.dumps({"model_type": SECRET}),
        json.dumps([SECRET]),
        json.dumps({"model_type": "vit", "x": SECRET}),
    ):
        (model / "config.json").write_text(content)
        assert SECRET not in str(refused(tmp_path, model))


def hub(folder: Path, **settings: Any) -> list[object]:
    """The rows of the train split, read as the hub lays data sets out."""
    given = {"reference": str(folder), "format": "hub", "split": {"test": None}, **settings}
    found = read(DatasetSettings.model_validate(given), folder.parent / "cache", IN_TESTS)
    assert isinstance(found, dict)
    return [dict(row.values) for row in found["train"]]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "secret.jsonl").write_text(json.dumps({**ROW, "completion": SECRET}) + "\n")
    return folder


def card(folder: Path, files: str, name: str = "README.md") -> None:
    text = f"configs:\n- config_name: default\n  data_files: {files}\n"
    (folder / name).write_text(f"---\n{text}---\n" if name == "README.md" else text)


def test_a_data_set_of_plain_files_is_read(dataset: Path) -> None:
    assert hub(dataset) == [ROW]
    card(dataset, "[{split: train, path: 'tr*.jsonl'}]")
    assert hub(dataset) == [ROW]


@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize(
    "files",
    ["'{secret}'", "'../secret.jsonl'", "[{{split: train, path: '{secret}'}}]", "[{{split: train, path: ['x', '**/../../secret.jsonl']}}]",
     "'http://127.0.0.1:9/x.jsonl'", "'zip://x::/etc/x.zip'", "{{train: '{secret}'}}", "{{split: '{secret}'}}"],
)  # fmt: skip
def test_a_card_that_names_files_elsewhere_is_refused(dataset: Path, tmp_path: Path, files: str, name: str) -> None:
    card(dataset, files.format(secret=tmp_path / "secret.jsonl"), name)
    with pytest.raises(UserFault, match="its card names files outside the data set") as raised:
        hub(dataset)
    assert SECRET not in str(raised.value)


def test_a_picture_in_a_table_is_not_opened_where_it_lies(dataset: Path, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (dataset / "train.jsonl").unlink()
    features = {"info": {"features": {"prompt": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"}}}}
    place = {"bytes": None, "path": str(tmp_path / "secret.jsonl")}
    table = pyarrow.table(
        {"prompt": ["x"], "image": [place]},
        schema=pyarrow.schema(
            [
                ("prompt", pyarrow.string()),
                ("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
            ]
        ),
    ).replace_schema_metadata({"huggingface": json.dumps(features)})
    parquet.write_table(table, dataset / "train.parquet")
    assert hub(dataset) == [{"prompt": "x", "image": {"path": place["path"]}}]


def test_a_link_or_a_pipe_among_the_files_is_refused(dataset: Path) -> None:
    (dataset / "test.jsonl").symlink_to("/etc/hostname")
    with pytest.raises(UserFault, match="1 of its files are links that lead out"):
        hub(dataset)


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "parquet"])
def test_a_file_of_another_kind_is_not_repeated(tmp_path: Path, form: str) -> None:
    file = tmp_path / "file"
    for content in (
        SECRET,
        f'["{SECRET}"]',
        f'"{SECRET}"',
        f'{{"{SECRET}": 1}}\n',
        f"{SECRET},x\n1,2,3\n",
        f'{SECRET}"\x00\xff',
    ):
        file.write_bytes(content.encode("latin-1"))
        settings = DatasetSettings.model_validate({"reference": str(file), "format": form})
        said = told(settings, tmp_path / "cache")
        assert SECRET not in said
        assert "xff" not in said


def told(settings: DatasetSettings, cache: Path) -> str:
    """The fault of a data set, if any."""
    try:
        found = read(settings, cache, IN_TESTS)
        assert not isinstance(found, dict)
        return " ".join(str(raw.fault) for raw in found)
    except UserFault as fault:
        return str(fault)
