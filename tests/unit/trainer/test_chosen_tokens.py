"""The log-probability of chosen tokens and its gradient are those that PyTorch computes, and need less memory."""

import torch

from services.trainer.engine.chosen_tokens import chosen_tokens


def drawn(rows: int, vocabulary: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return (3 * torch.randn(rows, vocabulary, dtype=dtype)).requires_grad_(), torch.randint(vocabulary, (rows,))


def test_the_gradient_is_that_of_the_function() -> None:
    logits, tokens = drawn(3, 7, torch.float64)
    assert torch.autograd.gradcheck(lambda given: chosen_tokens(given, tokens), (logits,))


def test_values_and_gradients_are_those_of_the_softmax_for_more_rows_than_are_computed_at_once() -> None:
    logits, tokens = drawn(150, 50, torch.float32)
    weights = torch.randn(150)
    found = chosen_tokens(logits, tokens)
    (gradient,) = torch.autograd.grad((found * weights).sum(), logits)
    expected = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, wanted)


def test_one_tensor_of_the_logits_size_is_kept_between_the_passes() -> None:
    logits, tokens = drawn(8, 500, torch.float32)
    kept: set[int] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() >= logits.numel():
            kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        chosen_tokens(logits * 1.0, tokens)
    assert len(kept) == 1
