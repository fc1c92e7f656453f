"""Everything that one look at an embedding model tells, as numbers: for the terminal, JSON and the report."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .._version import __version__
from ..plain_json import plain
from .checks import TooFewPairsError
from .consistency import Consistency, epsilon_opis, opis
from .curves import ClassCurves
from .own_thresholds import Interval, ThresholdSpread, threshold_spread
from .rates import ErrorRates, error_rates
from .roc import EqualErrorRate, TarAtFar, equal_error_rate, roc_auc, tar_at_far
from .spread import SimilaritySpread, similarity_spread
from .targets import pairs_needed
from .thresholds import Over, ThresholdChoice, choose_threshold

WORST = 10
"""Classes that the text names."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A number as it is shown: its title, its value as text, and what it means in one sentence."""

    title: str
    value: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The numbers of one set of embeddings, or of queries against a gallery.

    Attributes:
        classes: how many classes (or groups) there are.
        grouped: whether they are groups that the user chose.
        positive_pairs: same-class pairs, ordered.
        negative_pairs: other-class pairs, ordered.
        opis: threshold inconsistency over all classes.
        epsilon_opis: the same between the best and the worst classes.
        epsilon: their share in percent.
        tar_at_far: true-accept rates at the false-accept rates asked for.
        equal_error_rate: where false accepts and false rejects are equally frequent.
        roc_auc: area under the ROC curve of all pairs.
        spread: of similarities across classes.
        threshold: the threshold to ship.
        threshold_far: the false-accept rate that it was chosen for.
        at_threshold: error rates of every class there.
        threshold_spread: how far the classes' own thresholds for that rate lie apart; None where fewer than
            two classes have one.
    """

    classes: int
    grouped: bool
    positive_pairs: int
    negative_pairs: int
    opis: Consistency
    epsilon_opis: Consistency
    epsilon: float
    tar_at_far: tuple[TarAtFar, ...]
    equal_error_rate: EqualErrorRate
    roc_auc: float
    spread: SimilaritySpread
    threshold: ThresholdChoice
    threshold_far: float
    at_threshold: ErrorRates
    threshold_spread: ThresholdSpread | None

    def lines(self) -> list[Line]:
        """The numbers, ready to be shown."""
        one, many = ("group", "groups") if self.grouped else ("class", "classes")
        at = self.at_threshold
        lines = [
            Line(
                "OPIS",
                _with_interval(self.opis.value, self.opis.interval),
                f"variance of utility across {many}; 0 is consistent",
            ),
            Line(
                f"{self.epsilon:g} %-OPIS",
                _with_interval(self.epsilon_opis.value, self.epsilon_opis.interval),
                f"squared gap in utility between the best and the worst {self.epsilon:g} % of {many}",
            ),
            Line(
                "EER", _rate(self.equal_error_rate.rate), "error rate where false accepts equal false rejects"
            ),
            Line(
                "ROC-AUC", f"{self.roc_auc:.4f}", "chance that a same-class pair is more similar than another"
            ),
            *_spread_of_thresholds(self.threshold_spread, self.threshold_far, many),
        ]
        for point in self.tar_at_far:
            meaning = f"same-class pairs accepted at threshold {point.threshold:.4g}"
            lines.append(Line(f"TAR at FAR {point.far:g}", _rate(point.tar), meaning))
        lines += [
            Line("Threshold", _threshold(self.threshold), self.threshold.criterion),
            Line("FAR there", _rate(at.pooled_false_accept), "other-class pairs accepted"),
            Line("FRR there", _rate(at.pooled_false_reject), "same-class pairs rejected"),
        ]
        for kind in ("accept", "reject"):
            gap, gini, ratio = (getattr(at, f"false_{kind}_{what}") for what in ("gap", "gini", "ratio"))
            title = "FAR" if kind == "accept" else "FRR"
            over = "the lowest is 0" if math.isinf(ratio) else f"highest over lowest {ratio:.3g}"
            meaning = f"highest {one} minus lowest; {over}, Gini coefficient {gini:.3f}"
            lines.append(Line(f"{title} gap", _rate(gap), meaning))
        for name in ("intra", "inter"):
            mean, deviation = (getattr(self.spread, f"{name}_{what}") for what in ("mean", "deviation"))
            lines.append(
                Line(
                    f"{'Same' if name == 'intra' else 'Other'}-class similarity",
                    f"{mean:.3f} ± {deviation:.3f}",
                    f"mean of a {one}, and its standard deviation across {many}",
                )
            )
        return lines

    def notes(self) -> list[str]:
        """What has to be known to read the numbers."""
        lo, hi = self.opis.range
        many = "groups" if self.grouped else "classes"
        notes = [
            f"OPIS looks at thresholds {lo:.4g} to {hi:.4g} and {self.opis.classes_used:,} of "
            f"{self.classes:,} {many}."
        ]
        if self.opis.classes_left_out:
            notes.append(f"{self.opis.classes_left_out:,} have no same-class or no other-class pair.")
        own = self.threshold_spread
        if own is not None and own.never_met:
            notes.append(f"{own.never_met:,} {many} have a FAR above {own.rate:g} at every threshold.")
        if own is not None and own.classes_short:
            notes.append(
                f"{own.classes_short:,} {many} have fewer than {pairs_needed(own.rate):,} distinct "
                f"other-class pairs: no FAR but 0 is as low as {own.rate:g}, and chance moves their own "
                "thresholds."
            )
        if not self.threshold.supported:
            notes.append(self.threshold.statement)
        return notes

    def worst(self, curves: ClassCurves, count: int = WORST) -> list[tuple[str, float, float]]:
        """The classes with the highest false-reject rates at the threshold: name, FAR, FRR."""
        at = self.at_threshold
        return [
            (str(curves.classes[i]), float(at.false_accept[i]), float(at.false_reject[i]))
            for i in at.worst(count)
        ]

    def text(self, curves: ClassCurves) -> str:
        """The table for a terminal."""
        lines = self.lines()
        title, value = (max(len(getattr(line, name)) for line in lines) for name in ("title", "value"))
        rows = [f"{line.title:<{title}}  {line.value:<{value}}  {line.meaning}" for line in lines]
        one = "Group" if self.grouped else "Class"
        worst = [(name, _rate(far), _rate(frr)) for name, far, frr in self.worst(curves)]
        names = max(len(one), *(len(_shortened(name)) for name, *_ in worst), 1)
        table = [f"{_shortened(name):<{names}}  {far:>9}  {frr:>9}" for name, far, frr in worst]
        head = f"{one:<{names}}  {'FAR':>9}  {'FRR':>9}"
        return "\n".join([*rows, "", *self.notes(), "", "Most rejected at the threshold", head, *table])

    def as_dict(self, curves: ClassCurves) -> dict[str, Any]:
        """Everything, ready for JSON: no NaN and no infinity, which JSON does not know."""
        content = {"tcm_kernels": __version__, **dataclasses.asdict(self)}
        content["at_threshold"]["classes"] = curves.classes
        for name in ("spread", "threshold_spread"):
            if content[name] is not None:
                content[name].pop("classes")
        content["notes"] = self.notes()
        return {name: plain(value) for name, value in content.items()}


def evaluate(
    curves: ClassCurves,
    *,
    far: tuple[float, float] = (1e-2, 1e-1),
    range: tuple[float, float] | None = None,
    epsilon: float = 10.0,
    k: float = 1.0,
    threshold_far: float | None = None,
    over: Over = "pooled",
    draws: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """All numbers of a report.

    Args:
        curves: counts of `class_curves`.
        far: the false-accept rates between which OPIS looks at thresholds; TAR is reported at both.
        range: thresholds (lo, hi) for OPIS instead.
        epsilon: percent of classes that ε-OPIS takes from either end.
        k: weight of sensitivity in the utility.
        threshold_far: the false-accept rate that the threshold to ship is chosen for; the lower one of `far`
            by default.
        over: "pooled", or "worst" for a threshold at which no class exceeds that rate.
        draws: of the bootstrap over classes.
        seed: of the bootstrap.

    Raises:
        ValueError: the data do not have what a number needs; the message says which and what to do.
    """
    target = min(far) if threshold_far is None else threshold_far
    choice = choose_threshold(curves, far=target, over=over, draws=draws, seed=seed)
    return Evaluation(
        classes=len(curves.classes),
        grouped=curves.grouped,
        positive_pairs=int(curves.pooled[0].sum()),
        negative_pairs=int(curves.pooled[1].sum()),
        opis=opis(curves, far=far, range=range, k=k, draws=draws, seed=seed),
        epsilon_opis=epsilon_opis(curves, epsilon, far=far, range=range, k=k, draws=draws, seed=seed),
        epsilon=epsilon,
        tar_at_far=tuple(tar_at_far(curves, rate) for rate in sorted({*far, target})),
        equal_error_rate=equal_error_rate(curves),
        roc_auc=roc_auc(curves),
        spread=similarity_spread(curves),
        threshold=choice,
        threshold_far=target,
        at_threshold=error_rates(curves, choice.threshold),
        threshold_spread=_threshold_spread(curves, target, draws, seed),
    )


def _threshold_spread(curves: ClassCurves, far: float, draws: int, seed: int) -> ThresholdSpread | None:
    """None where there is none: everything else can be said all the same."""
    try:
        return threshold_spread(curves, far=far, draws=draws, seed=seed)
    except TooFewPairsError:
        return None


def _spread_of_thresholds(found: ThresholdSpread | None, far: float, many: str) -> list[Line]:
    title = "Threshold spread"
    if found is None:
        return [Line(title, "none", f"fewer than two {many} have a threshold of their own at FAR {far:g}")]
    at, apart = f"own thresholds at FAR {far:g}", "same-class minus other-class similarity"
    relative, decades = f"how far {many}' {at} lie apart, over {apart}", "none meets that FAR over all pairs"
    if math.isnan(found.relative):
        relative = "same-class pairs are no more similar than other-class pairs"
    if not math.isnan(found.threshold):
        decades = f"standard deviation across {many} of log10 FAR at the one threshold {found.threshold:.4g}"
    return [
        Line(title, _with_interval(found.relative, found.relative_interval), relative),
        Line(
            "Own thresholds",
            f"{found.mean:.3f} ± {_with_interval(found.deviation, found.deviation_interval)}",
            f"mean of {many}' {at}, and their standard deviation",
        ),
        Line("FAR spread in decades", _with_interval(found.decades, found.decades_interval), decades),
    ]


def _rate(value: float) -> str:
    """A rate in percent, to three digits, so that small ones do not become 0."""
    return "none" if math.isnan(value) else f"{100 * value:.3g} %"


def _with_interval(value: float, interval: Interval) -> str:
    text = "none" if math.isnan(value) else f"{value:.3g}"
    return text if interval is None else f"{text} ({interval[0]:.3g} to {interval[1]:.3g})"


def _threshold(choice: ThresholdChoice) -> str:
    text = f"{choice.threshold:.4g}"
    return (
        text if choice.interval is None else f"{text} ({choice.interval[0]:.4g} to {choice.interval[1]:.4g})"
    )


def _shortened(name: str, most: int = 40) -> str:
    """A class name on one line of a terminal, without control characters."""
    printable = "".join(c if c.isprintable() else "?" for c in name)
    return printable if len(printable) <= most else printable[: most - 1] + "…"
