"""`neuroweaver evidence` without a stack: what it prints for a reader on a narrow terminal, and how it ends."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from services.audit.bundle.dsse import public_pem
from services.cli.exits import Exit
from tests.bundle import SIGNER, bundle_in
from tests.command import Ended, ended


def evidence(*arguments: object, **environment: str) -> Ended:
    """Run the command with settings that no service could start with."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NEUROWEAVER_")}
    return ended(
        ["evidence", *map(str, arguments)], {**plain, "COLUMNS": "60", "NEUROWEAVER_HTTP_PORT": "none", **environment}
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evidence")
    (folder / "key.pub").write_bytes(public_pem(SIGNER.public_key()))
    bundle_in(folder)
    return folder


def test_a_bundle_is_verified_with_no_settings(made: Path) -> None:
    done = evidence("verify", made / "bundle", "--key", made / "key.pub")
    assert done.code == Exit.OK, done.err
    assert "signature\tholds\tof the key you gave" in done.out
    assert done.out.splitlines()[-1].endswith("is the evidence of router@1.0.0, signed with the key that you gave.")


def test_without_a_key_it_says_that_nothing_proves_who_signed(made: Path) -> None:
    done = evidence("verify", made / "bundle")
    assert (done.code, "Who signed it is NOT proved" in done.out) == (Exit.OK, True)
    assert "signature\topen\tof the bundle's own key, which is not trusted" in done.out


def test_a_forged_bundle_ends_with_1_and_names_what_differs(made: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(made / "bundle", tmp_path / "bundle")
    (bundle / "artifact" / "adapter_config.json").write_text('{"peft_type": "LoRA"}')
    done = evidence("verify", bundle, "--json")
    assert done.code == Exit.FAILED
    (difference,) = done.json["differences"]
    assert difference["file"] == "artifact/adapter_config.json"
    assert "NOT verified: 1 difference" in evidence("verify", bundle).out


def test_a_key_is_made_for_its_owner_only_and_never_over_another(tmp_path: Path) -> None:
    assert evidence("keygen", tmp_path / "key").code == Exit.OK
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    before = (tmp_path / "key").read_bytes()
    assert evidence("keygen", tmp_path / "key").code == Exit.USAGE
    assert (tmp_path / "key").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["verify", "absent"], Exit.NOT_FOUND, "absent cannot be read"),
        (["verify", "."], Exit.NOT_FOUND, "has no statement.dsse.json"),
        (["verify", ".", "--key", "absent.pub"], Exit.USAGE, "absent.pub: the key cannot be read"),
        (["verfy", "."], Exit.USAGE, "No such command 'verfy'"),
        (["router@1.0.0", "--out", "x"], Exit.USAGE, "no key signs the bundle"),
        (["router@1.0.0", "--key", "absent.pem"], Exit.USAGE, "neuroweaver evidence keygen FILE"),
        (["write", "router"], Exit.USAGE, "'router' names no version"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_with_a_remedy(arguments: list[str], code: Exit, said: str) -> None:
    done = evidence(*arguments, NEUROWEAVER_HTTP_PORT="0")
    assert (done.code, said in done.err) == (code, True), done.err
    assert "Traceback" not in done.err
