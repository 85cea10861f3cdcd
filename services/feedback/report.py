"""Reports the quality of one step's feedback: counts, agreement, bias; in full as a file, in summary as an event."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean, pstdev

from pydantic import Field

from schemas.base import Frozen
from schemas.reasons import Reason
from schemas.recipes.feedback import FeedbackSettings
from services.feedback import agreement
from services.feedback.agreement import Kappa, Ratings
from services.feedback.comparisons import Verdict, sign
from services.feedback.judges.rules import kept_share
from services.feedback.labelling import Labelled


class Ties(Frozen):
    """The reasons of ties."""

    below_margin: int = Field(description="Both texts had nearly or exactly the same judgement.")
    inconsistent: int = Field(description="The verdict changed with the order in which the texts were shown.")


class RulesAgreement(Frozen):
    """Agreement of the judge with the rubric's rules, which prefer the text that keeps more of them."""

    agree: int = Field(description="Pairs whose chosen text the rules prefer.")
    disagree: int = Field(description="Pairs whose rejected text the rules prefer.")
    undecided: int = Field(description="Pairs whose texts keep equally many rules.")
    share: float | None = Field(description="agree / pairs; null without pairs.")
    kappa: float | None = Field(
        description="Cohen's kappa over all usable comparisons with the verdicts first, second, tie; null if undefined."
    )
    kappa_low: float | None = Field(description="Lower end of its 95 % interval (jackknife over prompts).")
    kappa_high: float | None = Field(description="Upper end of its 95 % interval.")
    comparisons: int = Field(description="Comparisons that kappa counts.")


class PositionBias(Frozen):
    """Position bias of a judge that was asked in both orders."""

    consistency: float | None = Field(description="Share of comparisons with the same verdict in both orders.")
    shown_first_preferred: float | None = Field(
        description="Share of answers that prefer the text shown first; 0.5 without bias."
    )
    transitivity: float | None = Field(description="Share of decided triples of candidates that are transitive.")


class LengthBias(Frozen):
    """Length bias: how often the judge prefers the longer text, compared with how often the rules do."""

    longer_preferred: float | None = Field(description="Share of pairs whose chosen text is the longer one.")
    longer_preferred_by_rules: float | None = Field(
        description="The same share for the pairs that the rules decide, by the rules' verdict; null without rules."
    )
    chosen_characters: float | None = Field(description="Mean length of chosen texts.")
    rejected_characters: float | None = Field(description="Mean length of rejected texts.")


class LabelReport(Frozen):
    """`report.json` of a label step."""

    judge: str
    settings: FeedbackSettings
    prompts: int
    prompts_with_pair: int
    candidates: int
    cut: int = Field(default=0, description="Candidates that reached max_new_tokens; they are left out.")
    unread: int = Field(description="Candidates without a readable text, or without a field that pairs keep equal.")
    duplicates: int = Field(description="Candidates whose judged text equals another one's of the same prompt.")
    unjudged: int = Field(description="Readable, different candidates that the judge gave no score.")
    comparisons: int = Field(description="Pairs of different readable candidates of one prompt.")
    comparisons_unjudged: int = Field(description="Comparisons without a usable judgement.")
    ties: Ties
    pairs: int
    score_mean: float | None
    score_deviation: float | None
    rules: RulesAgreement | None = Field(description="Null without rules, or if the rules are the judge.")
    position: PositionBias | None = Field(description="Null if texts were scored singly.")
    length: LengthBias


def label_report(judge: str, settings: FeedbackSettings, labelled: Sequence[Labelled]) -> LabelReport:
    """Compute the report, deterministically."""
    margin = settings.margin
    groups = [one.group for one in labelled]
    comparisons = [comparison for one in labelled for comparison in one.comparisons]
    scores = [score for one in labelled for score in one.scores]
    known = [score for score in scores if score is not None]
    tied = [comparison for comparison in comparisons if comparison.verdict(margin) is Verdict.TIE]
    inconsistent = sum(comparison.consistent is False for comparison in tied)
    measured = bool(settings.rubric.rules) and settings.judge.kind != "rules"
    return LabelReport(
        judge=judge,
        settings=settings,
        prompts=len(groups),
        prompts_with_pair=sum(bool(one.choices) for one in labelled),
        candidates=sum(len(group.row.candidates) for group in groups),
        cut=sum(group.cut for group in groups),
        unread=sum(group.unread for group in groups),
        duplicates=sum(len(group.equal_to) for group in groups),
        unjudged=len(scores) - len(known),
        comparisons=len(comparisons),
        comparisons_unjudged=sum(comparison.difference is None for comparison in comparisons),
        ties=Ties(below_margin=len(tied) - inconsistent, inconsistent=inconsistent),
        pairs=sum(len(one.choices) for one in labelled),
        score_mean=fmean(known) if known else None,
        score_deviation=pstdev(known) if known else None,
        rules=_rules_agreement(labelled, settings) if measured else None,
        position=_position(labelled, margin),
        length=_length(labelled, settings),
    )


def _kept(one: Labelled, settings: FeedbackSettings) -> list[float]:
    return [kept_share(settings.rubric.rules, text.text, text.columns) for text in one.group.judged()]


def _rules_agreement(labelled: Sequence[Labelled], settings: FeedbackSettings) -> RulesAgreement:
    preferred: Counter[int] = Counter()
    prompts: list[Ratings] = []
    for one in labelled:
        kept = _kept(one, settings)
        preferred.update(sign(kept[choice.chosen] - kept[choice.rejected]) for choice in one.choices)
        ratings: Ratings = Counter()
        for comparison in one.comparisons:
            verdict = comparison.verdict(settings.margin)
            if verdict is not Verdict.NONE:
                rules = {1: Verdict.FIRST, 0: Verdict.TIE, -1: Verdict.SECOND}
                ratings[verdict, rules[sign(kept[comparison.first] - kept[comparison.second])]] += 1
        prompts.append(ratings)
    kappa: Kappa | None = agreement.kappa(prompts)
    return RulesAgreement(
        agree=preferred[1],
        disagree=preferred[-1],
        undecided=preferred[0],
        share=preferred[1] / preferred.total() if preferred else None,
        kappa=kappa and kappa.value,
        kappa_low=kappa and kappa.low,
        kappa_high=kappa and kappa.high,
        comparisons=sum(ratings.total() for ratings in prompts),
    )


def _position(labelled: Sequence[Labelled], margin: float) -> PositionBias | None:
    asked = [comparison for one in labelled for comparison in one.comparisons if comparison.orders is not None]
    if not asked:
        return None
    orders = [comparison.orders for comparison in asked if comparison.orders is not None]
    shown_first = [value for order in orders if (value := order.forward)]
    shown_first += [-value for order in orders if (value := order.backward)]
    return PositionBias(
        consistency=agreement.share(found for comparison in asked if (found := comparison.consistent) is not None),
        shown_first_preferred=agreement.share(value > 0 for value in shown_first),
        transitivity=agreement.transitivity((one.comparisons, margin) for one in labelled),
    )


def _length(labelled: Sequence[Labelled], settings: FeedbackSettings) -> LengthBias:
    chosen: list[int] = []
    rejected: list[int] = []
    by_rules: list[bool] = []
    for one in labelled:
        texts = [candidate.text for candidate in one.group.candidates]
        kept = _kept(one, settings) if settings.rubric.rules else [0.0] * len(texts)
        for choice in one.choices:
            chosen.append(len(texts[choice.chosen]))
            rejected.append(len(texts[choice.rejected]))
            longer = sign(len(texts[choice.chosen]) - len(texts[choice.rejected]))
            if by := sign(kept[choice.chosen] - kept[choice.rejected]):
                by_rules.append(by == longer)
    return LengthBias(
        longer_preferred=agreement.share(one > other for one, other in zip(chosen, rejected, strict=True)),
        longer_preferred_by_rules=agreement.share(by_rules),
        chosen_characters=fmean(chosen) if chosen else None,
        rejected_characters=fmean(rejected) if rejected else None,
    )


def without_pairs(report: LabelReport, labelled: Sequence[Labelled]) -> Reason:
    """The reason why there is no pair at all, and the setting to change."""
    counts = f"{report.candidates} candidates of {report.prompts} prompts"
    if report.cut == report.candidates:
        return Reason(
            field="sampling.max_new_tokens",
            value=None,
            message=f"all {counts} reached max_new_tokens, so that none of them has an end",
            remedy="raise sampling.max_new_tokens, or train longer before sampling",
        )
    if report.unread + report.cut == report.candidates:
        field = report.settings.judged_field
        needed = ", ".join(filter(None, (field, *report.settings.equal_fields)))
        return Reason(
            field="feedback.judged_field",
            value=repr(field),
            message=f"none of the {counts} can be read"
            + (f" as a JSON object with {needed}" if needed else ": all are blank"),
            remedy="train longer before sampling, raise sampling.max_new_tokens so that a whole answer fits, or correct "
            "the field",
        )
    if not report.comparisons:
        return Reason(
            field="sampling.temperature",
            value=None,
            message=f"no prompt has two different readable candidates: of the {counts}, {report.unread} cannot be read, "
            f"{report.cut} were cut at max_new_tokens and {report.duplicates} repeat another one",
            remedy="raise sampling.temperature or sampling.n" + (", or sampling.max_new_tokens" if report.cut else ""),
        )
    if report.comparisons_unjudged == report.comparisons:
        return Reason(
            field="feedback.judge",
            value=repr(report.judge),
            message=f"the judge gave no usable judgement on any of {report.comparisons} comparisons",
            remedy="shorten the texts, or choose another judge",
        )
    differences = [
        abs(comparison.difference)
        for one in labelled
        for comparison in one.comparisons
        if comparison.difference is not None and comparison.consistent is not False
    ]
    widest = max(differences, default=0.0)
    ties = f"{report.ties.below_margin} below the margin and {report.ties.inconsistent} inconsistent under swapped order"
    return Reason(
        field="feedback.margin",
        value=repr(report.settings.margin),
        message=f"all {report.comparisons} comparisons are ties: {ties}; the widest consistent difference is {widest:.3g}",
        remedy="lower the margin below it"
        if widest
        else "change feedback.rubric or feedback.judge: the judge does not distinguish the texts",
    )
