"""The decoder of our own says what the library's says, only sooner; and an answer does not depend on its neighbours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.recipes.lora import LoraSettings
from services.language_models.generation import SamplingParams, generate, rng
from services.trainer.modelling.adapter import load_for_inference, new_adapter, write_adapter
from services.trainer.modelling.base import load_base

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14], [20], [30, 31, 32, 33], [40, 41]]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    """The tiny model with larger weights, so that its next token is far from evenly spread."""
    model = load_base(base, torch.float32, CPU).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0)
    return model


def decoding(stop: tuple[int, ...] = (), tokens: int = 12, **more: Any) -> SamplingParams:
    return SamplingParams(frozenset(stop), 0, tokens, **more)


def test_the_most_likely_answer_is_the_librarys(model: Any) -> None:
    ours = generate(model, PROMPTS, [[None]] * len(PROMPTS), decoding(), batch_size=2)
    for prompt, (answer,) in zip(PROMPTS, ours, strict=True):
        theirs = model.generate(
            input_ids=torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert answer == theirs[0, len(prompt) :].tolist()


def test_an_answer_ends_before_its_stop_token_and_rows_leave_the_batch_alone(model: Any) -> None:
    free = [answer for (answer,) in generate(model, PROMPTS, [[None]] * len(PROMPTS), decoding(tokens=20))]
    stop = free[0][5]
    stopped = [answer for (answer,) in generate(model, PROMPTS, [[None]] * len(PROMPTS), decoding((stop,), tokens=20))]
    for whole, cut in zip(free, stopped, strict=True):
        assert cut == (whole[: whole.index(stop)] if stop in whole else whole)
    kept = generate(model, PROMPTS, [[None]] * len(PROMPTS), decoding((stop,), tokens=20, keep_end=True))
    for whole, (ended,) in zip(free, kept, strict=True):
        assert ended == (whole[: whole.index(stop) + 1] if stop in whole else whole)


def test_an_answer_ends_where_its_tokens_say_so_and_its_neighbours_go_on(model: Any) -> None:
    free = [answer for (answer,) in generate(model, PROMPTS, [[None]] * len(PROMPTS), decoding(tokens=20))]
    pair = free[0][4:6]

    def ends(ids: Sequence[int]) -> bool:
        return list(ids[-2:]) == pair

    ended = [answer for (answer,) in generate(model, PROMPTS, [[None]] * len(PROMPTS), decoding(tokens=20, ends=ends))]
    for whole, cut in zip(free, ended, strict=True):
        assert cut == next((whole[:end] for end in range(2, 20) if ends(whole[:end])), whole)
    assert len(ended[0]) < len(free[0])


def test_a_draw_depends_on_its_seed_and_not_on_its_batch(model: Any) -> None:
    def sampled(batch_size: int, seed: int) -> list[list[list[int]]]:
        draws = [[rng(seed, place, number) for number in range(3)] for place in range(len(PROMPTS))]
        return generate(model, PROMPTS, draws, decoding(), batch_size=batch_size)

    assert sampled(1, seed=7) == sampled(5, seed=7)
    assert sampled(5, seed=7) != sampled(5, seed=8)
    assert len({tuple(answer) for answer in sampled(5, seed=7)[0]}) == 3


def test_tokens_are_drawn_as_often_as_their_probability_says(model: Any) -> None:
    with torch.inference_mode():
        expected = torch.softmax(model(torch.tensor([PROMPTS[0]])).logits[0, -1], dim=-1)
    first = generate(model, PROMPTS[:1], [[rng(number) for number in range(4000)]], decoding(tokens=1))[0]
    counts = torch.bincount(torch.tensor([answer[0] for answer in first]), minlength=len(expected)) / 4000
    assert expected.max() > 0.05
    assert (counts - expected).abs().max() < 0.025


def test_a_small_nucleus_leaves_only_the_most_likely_token(model: Any) -> None:
    greedy = generate(model, PROMPTS, [[None]] * len(PROMPTS), decoding())
    nucleus = generate(model, PROMPTS, [[rng(place)] for place in range(len(PROMPTS))], decoding(top_p=1e-6))
    assert nucleus == greedy


def test_what_is_raised_between_two_tokens_ends_the_generation(model: Any) -> None:
    class Enough(BaseException):
        pass

    def raises() -> None:
        raise Enough

    with pytest.raises(Enough):
        generate(model, PROMPTS, [[None]] * len(PROMPTS), decoding(), on_token=raises)
    assert generate(model, PROMPTS[:1], [[None]], decoding(tokens=1))[0][0]


def test_a_merged_adapter_reads_positions_as_its_base_model_does(base: Path, tmp_path: Path) -> None:
    """Casting the merged model as a whole would round the frequencies of its positions, too."""
    write_adapter(new_adapter(load_base(base, torch.float32, CPU), LoraSettings(rank=2), seed=0), tmp_path, "base")
    plain = load_for_inference(base, None, torch.bfloat16, CPU)
    merged = load_for_inference(base, tmp_path, torch.bfloat16, CPU)
    ids = torch.arange(3, 203)[None]
    with torch.inference_mode():
        assert torch.equal(merged(ids).logits, plain(ids).logits)
