"""Defines a good reply twice, independently: as checkable rules for the evaluation, and as principles for the judge.

The rules measure the evaluation's share of good replies. The judge never sees them: it scores by likelihood under PRINCIPLE
minus likelihood under OPPOSITE, and knows neither item nor rule.
"""

from schemas.rules import Rule

RULES = (
    Rule(
        name="kind",
        kind="contains_any",
        values=("sorry", "thank you", "thanks", "happy to help", "apologise", "apologies", "glad", "understand"),
    ),
    Rule(name="names the item", kind="contains_field", column="item"),
    Rule(
        name="promises nothing absolute",
        kind="contains_none",
        values=(
            "promise", "guarantee", "guaranteed", "100%", "instantly", "forever", "never", "always", "ever", "free",
            "perfect", "no matter what", "within the hour", "in ten minutes", "in one minute", "in seconds", "everything",
        ),
    ),
    Rule(
        name="is definite",
        kind="contains_none",
        values=(
            "someone", "somebody", "something", "some day", "some point", "somehow", "somewhere", "sometimes", "maybe",
            "might", "perhaps", "possibly", "probably", "eventually", "it depends", "one way or another",
        ),
    ),
    Rule(name="has 8 words or more", kind="min_words", words=8),
    Rule(name="has 40 words or fewer", kind="max_words", words=40),
)  # fmt: skip

PRINCIPLE = "Reply kindly. Thank the customer or say sorry, name the product, and say what you will do next."
OPPOSITE = "Reply rudely, vaguely, or with wild promises and guarantees."
