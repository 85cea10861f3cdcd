"""`neuroweaver models` as a process against a registry that runs: what it prints, what it brings and how it ends."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.artifacts import ArtifactRef
from schemas.recipes.lora import LoraSettings
from services.chassis.storage.references import folder_digest
from tests.allowed import TEMPORARY
from tests.command import Ended, run
from tests.registry import Registry

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to" / "promote-with-gates.md"


@pytest.fixture(scope="module")
async def running(kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    async with Registry(kafka, database_url, tmp_path_factory.mktemp("models")).running() as registry:
        yield registry


@pytest.fixture
def registry(running: Registry) -> Registry:
    running.begin()
    return running


async def models(registry: Registry, *arguments: str) -> Ended:
    address = str(registry.http.base_url).removesuffix("/api/v1/")
    return await run(
        address, "models", *arguments, NEUROWEAVER_HOME=str(registry.home), NEUROWEAVER_SOURCES_FOLDERS=str(TEMPORARY)
    )


async def registered(registry: Registry, job: str = "job", content: str = "weights") -> ArtifactRef:
    adapter = registry.adapter(content)
    step = registry.step(job, "router", adapter)
    await registry.ask(step)
    await registry.outcome(step)
    return adapter


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_versions_are_listed_for_people_and_for_programs(registry: Registry) -> None:
    await registered(registry, "job-1", "first")
    await registered(registry, "job-2", "second")
    name = registry.name("router")
    for_people = await models(registry, "list", "--name", name)
    assert for_people.code == 0, for_people.err
    newest, oldest = (line for line in for_people.out.splitlines() if name in line)
    assert f"{name}@1.0.1" in newest
    assert "candidate" in newest
    assert "exact_match 0.9" in newest
    assert f"{name}@1.0.0" in oldest
    for_programs = await models(registry, "list", "--name", name, "--json", "--limit", "1")
    assert [item["version"] for item in for_programs.json] == ["1.0.1"]
    assert for_programs.json == (await registry.http.get(f"/models?name={name}&limit=1")).json()["items"]
    better = f"name = '{name}' AND metrics.exact_match >= 0.9 AND alias IS NULL"
    assert [item["version"] for item in (await models(registry, "list", "--filter", better, "--json")).json] == ["1.0.0"]
    assert (await models(registry, "list", "--started-from", f"{name}@1.0.0", "--json")).json == []
    refused = await models(registry, "list", "--started-from", f"{name}@candidate")
    assert refused.code == 1
    assert "started_from" in refused.err


async def test_a_version_is_described_by_command(registry: Registry) -> None:
    await registered(registry)
    name = registry.name("router")
    told = await models(
        registry, "describe", f"{name}@1.0.0", "--text", "The first.", "--tag", "team=support", "--tag", "old=yes"
    )
    assert told.code == 0, told.err
    assert "old=yes, team=support" in told.out
    assert (await models(registry, "describe", name, "--untag", "old", "--json")).json["tags"] == {"team": "support"}
    shown = await models(registry, "show", name)
    assert "The first." in shown.out
    assert "team=support" in (await models(registry, "list", "--filter", f"name = '{name}' AND tags.team LIKE 'supp%'")).out
    assert (await models(registry, "describe", name, "--tag", "team")).code == 2


async def test_a_version_is_shown_with_how_it_came_about(registry: Registry) -> None:
    adapter = await registered(registry)
    name = registry.name("router")
    shown = await models(registry, "show", f"{name}@candidate")
    assert shown.code == 0, shown.err
    for text in (f"{name}@1.0.0", adapter.sha256, registry.job("job"), "d" * 64, "b" * 64, "exact_match", "evaluate-base"):
        assert text in shown.out
    assert (await models(registry, "show", name, "--json")).json["artifact"] == adapter.model_dump()


@pytest.mark.parametrize("command", ["show", "download"])
async def test_a_version_that_does_not_exist_is_said_with_exit_code_4(
    registry: Registry, tmp_path: Path, command: str
) -> None:
    more = [str(tmp_path / "there")] if command == "download" else []
    ended = await models(registry, command, registry.name("nobody"), *more)
    assert ended.code == 4
    assert registry.name("nobody") in ended.err
    assert ended.out == ""
    assert not (tmp_path / "there").exists()


async def test_a_download_is_the_files_of_the_version_and_nothing_half(registry: Registry, tmp_path: Path) -> None:
    adapter = await registered(registry)
    folder = tmp_path / "here"
    ended = await models(registry, "download", registry.name("router"), str(folder), "--json")
    assert ended.code == 0, ended.err
    assert ended.json == {"id": f"{registry.name('router')}@1.0.0", "folder": str(folder), "sha256": adapter.sha256}
    assert contents(folder) == contents(Path(adapter.uri))
    again = await models(registry, "download", registry.name("router"), str(folder))
    assert again.code == 2
    assert "exists already" in again.err
    assert names(tmp_path) == ["here"]


async def test_a_version_whose_files_were_changed_is_not_brought(registry: Registry, tmp_path: Path) -> None:
    adapter = await registered(registry)
    weights = Path(adapter.uri) / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_text("other weights")
    ended = await models(registry, "download", registry.name("router"), str(tmp_path / "here"))
    assert ended.code == 1
    assert "adapter_model.safetensors" in ended.err
    assert "Traceback" not in ended.err
    assert names(tmp_path) == []


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_model import build

    return build(tmp_path_factory.mktemp("base"))


async def trained(registry: Registry, base: Path, digest: str, reference: str = "") -> ArtifactRef:
    """Register an adapter of `base`, which is recorded as `reference`, that changes what it says."""
    import torch

    from services.language_models.chat_format.chat import Chat
    from services.trainer.modelling.adapter import new_adapter, write_adapter
    from services.trainer.modelling.base import load_base

    adapted = new_adapter(load_base(base, torch.float32, torch.device("cpu")), LoraSettings(rank=2), seed=0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    folder = registry.home / f"trained-{registry.mark}"
    folder.mkdir()
    write_adapter(adapted, folder, str(base))
    Chat(base).save(folder)
    adapter = registry.store.put(folder)
    step = registry.step("job", "router", adapter, base=(reference or str(base), digest))
    await registry.ask(step)
    assert (await registry.outcome(step)).type == "StepCompleted"
    return adapter


def said(base: Path | None, files: ArtifactRef) -> str:
    """Return what a version answers to a question, in at most eight tokens."""
    from schemas.lines import Message
    from services.trainer.answer import answer

    return answer(base, Path(files.uri), [Message(role="user", content="Where is my parcel?")], 8)


async def tried(registry: Registry, version: str) -> Ended:
    return await models(registry, "try", version, "Where is my parcel?", "--tokens", "8", "--json")


async def test_a_registered_version_answers_as_its_adapter_has_learnt(registry: Registry, base: Path) -> None:
    from schemas.lines import Message
    from services.trainer.answer import answer

    adapter = await trained(registry, base, folder_digest(base))
    asked = ("Where is my parcel?", "--system", "Be kind.", "--tokens", "12", "--json")
    ended = await models(registry, "try", f"{registry.name('router')}@candidate", *asked)
    assert ended.code == 0, ended.err
    messages = [Message(role="system", content="Be kind."), Message(role="user", content="Where is my parcel?")]
    expected = answer(base, Path(adapter.uri), messages, 12)
    assert ended.json == {"id": f"{registry.name('router')}@1.0.0", "text": "Where is my parcel?", "answer": expected}


async def test_a_whole_model_answers_alone_and_as_the_base_model_of_another_version(registry: Registry, base: Path) -> None:
    whole = registry.store.put(base)
    step = registry.step("whole", "whole", whole, whole=whole)
    await registry.ask(step)
    await registry.outcome(step)
    version = f"{registry.name('whole')}@1.0.0"
    alone = await tried(registry, version)
    assert alone.code == 0, alone.err
    assert alone.json["answer"] == said(None, whole)
    adapter = await trained(registry, base, whole.sha256, version)
    adapted = await tried(registry, registry.name("router"))
    assert adapted.code == 0, adapted.err
    assert adapted.json["answer"] == said(base, adapter)
    shown = await models(registry, "show", registry.name("router"))
    assert version in shown.out


async def test_a_version_is_not_tried_on_another_model_than_the_registered_one_that_it_was_trained_on(
    registry: Registry, base: Path
) -> None:
    whole = registry.store.put(base)
    step = registry.step("whole", "whole", whole, whole=whole)
    await registry.ask(step)
    await registry.outcome(step)
    await trained(registry, base, "c" * 64, f"{registry.name('whole')}@1.0.0")
    ended = await tried(registry, registry.name("router"))
    assert ended.code == 1
    assert f"base model {registry.name('whole')}@1.0.0 has changed" in ended.json["detail"]


async def test_a_version_whose_files_cannot_be_loaded_is_refused_in_words(registry: Registry) -> None:
    whole = registry.model()
    step = registry.step("whole", "whole", whole, whole=whole)
    await registry.ask(step)
    await registry.outcome(step)
    ended = await tried(registry, registry.name("whole"))
    assert ended.code == 1
    assert registry.name("whole") in ended.json["detail"]
    assert "Traceback" not in ended.err


async def test_a_version_is_not_tried_on_a_base_model_that_has_changed(registry: Registry, base: Path) -> None:
    await trained(registry, base, "c" * 64)
    ended = await models(registry, "try", registry.name("router"), "Where is my parcel?")
    assert ended.code == 1
    assert f"base model {base} has changed" in ended.err


async def test_an_empty_question_is_wrong_usage(registry: Registry) -> None:
    ended = await models(registry, "try", registry.name("router"), "  ")
    assert ended.code == 2
    assert "TEXT" in ended.err


async def test_an_alias_is_moved_goes_back_and_is_removed_and_each_move_says_who_and_why(registry: Registry) -> None:
    await registered(registry, "job-1", "first")
    await registered(registry, "job-2", "second")
    name = registry.name("router")
    shown = await models(registry, "aliases", name)
    assert shown.out.splitlines()[-1].split() == ["candidate", "1.0.1", "1.0.0"]
    promoted = await models(registry, "promote", f"{name}@1.0.0", "production", "--by", "ana", "--json")
    assert promoted.json["aliases"] == {"candidate": "1.0.1", "production": "1.0.0"}
    back = await models(registry, "rollback", name, "candidate", "--reason", "Answers are empty.", "--by", "ana")
    assert back.code == 0, back.err
    again = await models(registry, "rollback", name, "candidate", "--reason", "More.")
    assert again.code == 1
    assert "has not named another version before" in again.err
    assert (await models(registry, "rollback", name, "candidate")).code == 2, "it needs a reason"
    gone = await models(registry, "unalias", name, "production")
    assert "production" not in gone.out
    listed = await models(registry, "moves", name, "--alias", "candidate")
    newest = next(line for line in listed.out.splitlines() if "rolled back" in line)
    assert all(word in newest for word in ("candidate", "1.0.1", "1.0.0", "ana", "Answers are empty."))
    odd = await models(registry, "promote", f"{name}@1.0.0", "v1")
    assert odd.code == 1
    assert "candidate or production" in odd.err
    assert (await models(registry, "promote", name, "production")).code == 2
    assert (await models(registry, "aliases", "nobody")).code == 4


async def test_versions_are_shown_beside_each_other_and_one_is_recommended(registry: Registry) -> None:
    await registered(registry, "job-1", "first")
    await registered(registry, "job-2", "other content")
    name = registry.name("router")
    compared = await models(registry, "compare", f"{name}@1.0.0", name, "--all", "--answers", "1")
    assert compared.code == 0, compared.err
    header, metric = (line for line in compared.out.splitlines() if line.startswith("metric") or "exact_match" in line)
    assert header.split("\t") == ["metric", f"{name}@1.0.0", f"{name}@1.0.1"]
    assert metric.split("\t") == ["exact_match", "0.9", "0.9 unclear"]
    assert "cannot be read" in compared.err
    assert (await models(registry, "compare", name, name, "--json")).json["costs"] == [None, None]
    recommended = await models(registry, "recommend", name, "--goal", "quality=1,size=1")
    assert recommended.out.splitlines()[0] == f"{name}@1.0.0"
    assert "confidence: unclear" in recommended.out
    assert (await models(registry, "compare", name)).code == 1
    assert (await models(registry, "compare", name, "nobody@1.0.0")).code == 4


async def test_a_version_is_deprecated_and_archived_by_command(registry: Registry) -> None:
    await registered(registry, "job-1", "first")
    name = registry.name("router")
    state = ("state", f"{name}@1.0.0")
    deprecated = await models(registry, *state, "deprecated", "--reason", "Another is better.")
    assert (deprecated.code, "deprecated: Another is better." in deprecated.out) == (0, True), deprecated.err
    assert "deprecated: Another is better." in (await models(registry, "show", f"{name}@1.0.0")).out
    asked = ("promote", f"{name}@1.0.0", "production", "--reason", "It is the only one.")
    refused = await models(registry, *asked)
    assert (refused.code, "accept_deprecated" in refused.err) == (1, True)
    assert (await models(registry, *asked, "--accept-deprecated")).code == 0
    used = await models(registry, *state, "archived", "--reason", "r")
    assert (used.code, "aliases.candidate" in used.err, "aliases.production" in used.err) == (1, True, True)
    (listed,) = (await models(registry, "list", "--name", name, "--state", "deprecated", "--json")).json
    assert listed["state"] == "deprecated"
    assert (await models(registry, "state", name, "archived", "--reason", "r")).code == 2


async def test_a_version_is_deleted_and_restored_by_command(registry: Registry) -> None:
    await registered(registry, "job-1", "first")
    await registered(registry, "job-2", "second")
    name = registry.name("router")
    used = await models(registry, "delete", f"{name}@1.0.1", "--reason", "r")
    assert (used.code, "aliases.candidate" in used.err) == (1, True)
    deleted = await models(registry, "delete", f"{name}@1.0.0", "--reason", "Wrong data.")
    assert (deleted.code, "deleted: Wrong data." in deleted.out) == (1, False), deleted.out
    assert (await models(registry, "unalias", name, "candidate")).code == 0
    deleted = await models(registry, "delete", f"{name}@1.0.0", "--reason", "Wrong data.")
    assert (deleted.code, "deleted: Wrong data." in deleted.out) == (0, True), deleted.err
    assert [one["version"] for one in (await models(registry, "list", "--name", name, "--json")).json] == ["1.0.1"]
    (listed,) = (await models(registry, "list", "--name", name, "--state", "deleted", "--json")).json
    assert listed["version"] == "1.0.0"
    restored = await models(registry, "restore", f"{name}@1.0.0", "--reason", "It is needed.")
    assert (restored.code, "live: It is needed." in restored.out) == (0, True), restored.err
    assert (await models(registry, "delete", name, "--reason", "r")).code == 2


async def test_the_gates_of_the_how_to_wait_for_a_person_and_what_they_said_is_a_table(
    registry: Registry, tmp_path: Path
) -> None:
    await registered(registry, "job-1", "first")
    name, file = registry.name("router"), tmp_path / "policy.yaml"
    file.write_text(HOW_TO.read_text().partition("```yaml file=policy.yaml\n")[2].partition("```")[0])
    rule = ("policy", name, "production")
    ruled = await models(registry, *rule, str(file), "--reason", "Customers see it.", "--by", "ana", "--json")
    assert ruled.code == 0, ruled.err
    seen = ("--sequence", str(ruled.json["sequence"]))
    assert "exact_match at least 0.8" in (await models(registry, *rule)).out
    asked = ("promote", f"{name}@1.0.0", "production", "--reason", "The first version.")
    unseen = await models(registry, *asked)
    assert (unseen.code, "--sequence" in unseen.err) == (1, True), "it is protected"
    waits = await models(registry, *asked, *seen)
    assert (waits.code, "gates.exact_match" in waits.err, "inconclusive" in waits.err) == (1, True, True)
    assert (await models(registry, *asked, *seen, "--accept-inconclusive")).code == 0
    other = ("policy", name, "candidate", "--reason", "Two people look.")
    assert "by a second person" in (await models(registry, *other, "--approval")).out
    await registered(registry, "job-2", "second")
    waits = await models(registry, "aliases", name)
    assert f"candidate waits to be 1.0.1, as {registry.mark} asks" in waits.err
    own = await models(registry, "promote", f"{name}@1.0.1", "candidate", "--by", "ana")
    assert (own.code, "as ana asks" in own.err) == (0, True)
    assert (await models(registry, "approve", f"{name}@1.0.1", "candidate", "--by", "ana")).code == 1
    assert "1.0.1 does, as ana asks" in (await models(registry, "approve", f"{name}@1.0.0", "candidate", "--by", "bo")).err
    assert (await models(registry, "approve", f"{name}@1.0.1", "candidate", "--by", "bo")).code == 0
    assert "ana, approved by bo" in (await models(registry, "moves", name)).out
    assert (await models(registry, "promote", f"{name}@1.0.0", "candidate", "--by", "ana")).code == 0
    gone = await models(registry, "decline", f"{name}@1.0.0", "candidate", "--reason", "No.", "--by", "ana", "--json")
    assert gone.json["waiting"] == {}
    requests = (await models(registry, "requests", name)).out
    assert all(word in requests for word in ("approved", "declined", "superseded", "No."))
    listed = await models(registry, "checks", name)
    assert all(word in listed.out for word in ("production", "1.0.0", "passed", "inconclusive", "worse by 0.02 at most"))
    assert (await models(registry, *rule, str(file), "--clear")).code == 2
    file.write_text("- no object")
    assert (await models(registry, *rule, str(file), "--reason", "r")).code == 2
