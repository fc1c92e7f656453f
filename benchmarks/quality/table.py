"""The tables of the study, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import summary
from .intervals import Difference
from .losses import BASES
from .matched import Curve
from .plan import ALONE, FULL, SPLITS, Arm, Size, chains
from .records import Row
from .summary import Compared, Figure, Matched

_HEAD = (
    "base loss",
    "λ, m+, m-",
    "Recall@1, points",
    "OPIS, FAR 1e-2..1e-1",
    "OPIS, FAR 1e-3..1e-2",
    "10 %-OPIS",
    "relative threshold spread",
    "threshold spread, undivided",
    "worst decile's FRR, points",
    "TAR at FAR 1e-3, points",
)
_RULE = (
    "On validation classes alone, by the same rule and with at most {trials} trials for every loss: first "
    "learning rate and weight decay of the base loss alone, by its Recall@1; then, with these kept, "
    "weight and margins of TCM, by the lowest OPIS among the trials whose Recall@1 is at most half a "
    "point under the base's. A trial is one run of full length, with a seed that no judged run has. No "
    "row of test classes has a part in any choice.\n"
)
_HISTORY = (
    "Twice the rule itself was changed while the study ran. At first the weight was climbed from 1; since "
    "the trials of ArcFace, beside which a middling weight is worse than a small one, it is first tried "
    "at 1, 10 and 100. And the lines of both margins were made longer after Triplet had chosen the last "
    "value of m+. Both changes follow from validation rows, but judged rows of the random split were there "
    "by then: five pairs each of Triplet, Normalized Softmax, Proxy-NCA and ArcFace, three of "
    "MultiSimilarity, one of SupCon. All chains were then searched by the new rule, which gave Proxy-NCA "
    "another setting; judged rows of the old one are in runs.csv and in no table.\n",
    "A setting is chosen by a single run of each trial. Where one stands on an edge beyond which trainings "
    "collapse, other seeds may fall over it, as they do with Smooth-AP on the random split; the arm with "
    "weight 1 and margins 0.9 and 0.5 is there to compare. The trials of Triplet on that split drew their "
    "triplets from a generator that nothing had seeded; all judged runs follow from their seeds.\n",
)
_POINTS = {
    "recall_at_1",
    "worst_decile_frr",
    "tar_at_1e-3",
    "tar_at_1e-2",
    "hard_positive_share",
    "hard_negative_share",
}


def main_table(rows: Iterable[Compared], arm: Arm = "tcm") -> str:
    """Base against an arm with TCM, a line a loss: the mean without TCM, the change and its interval."""
    measures = (
        "recall_at_1",
        "opis",
        "opis_strict",
        "epsilon_opis",
        "spread_relative",
        "spread",
        "worst_decile_frr",
        "tar_at_1e-3",
    )
    lines = [
        (
            row.title,
            settings_text(row) if arm == "tcm" else "1, 0.9, 0.5",
            *(_change(row, measure, arm) for measure in measures),
        )
        for row in rows
        if arm in row.arms
    ]
    return _markdown(_HEAD, lines)


def alone_table(rows: Iterable[Compared]) -> str:
    """Base, TCM alone and both together: what the two do that neither does by itself."""
    head = ("base loss", "", "Recall@1", "OPIS, FAR 1e-2..1e-1", "OPIS, FAR 1e-3..1e-2",
            "relative threshold spread", "TAR at FAR 1e-3", "gradient of TCM over the base's")  # fmt: skip
    lines = []
    for row in rows:
        arms = {"base": "base", "tcm_default": "+ TCM, λ = 1", "tcm": "+ TCM, tuned", "alone": "TCM alone"}
        for arm, title in arms.items():
            if arm not in row.arms:
                continue
            runs = row.arms[arm]
            ratio = "" if arm == "alone" else _ratio(runs.curves)
            lines.append(
                (
                    row.title if arm == "base" else "",
                    title,
                    f"{runs.mean('recall_at_1'):.3f}",
                    f"{runs.mean('opis'):.5f}",
                    f"{runs.mean('opis_strict'):.5f}",
                    f"{runs.mean('spread_relative'):.4f}",
                    f"{runs.mean('tar_at_1e-3'):.3f}",
                    ratio if arm != "base" else "",
                )
            )
    return _markdown(head, lines)


def matched_table(rows: Iterable[Compared], arm: Arm = "tcm") -> str:
    """The effect at equal accuracy, seed by seed on the runs' own curves."""
    head = (
        "base loss",
        *(
            f"{title} at equal {accuracy}"
            for accuracy in ("Recall@1", "TAR at FAR 1e-3")
            for title in ("OPIS, FAR 1e-2..1e-1,", "OPIS, FAR 1e-3..1e-2,", "relative spread")
        ),
    )
    lines = [
        (
            row.title,
            *(
                _matched(row.matched(measure, accuracy, arm))
                for accuracy in ("recall_at_1", "tar_at_1e-3")
                for measure in ("opis", "opis_strict", "spread_relative")
            ),
        )
        for row in rows
        if arm in row.arms
    ]
    return _markdown(head, lines)


def settings_table(rows: Iterable[Compared]) -> str:
    """What the searches chose, from how many trials, and where a line ended."""
    head = ("base loss", "learning rate, weight decay", "trials", "λ, m+, m-", "trials", "line ended at")
    lines = []
    for row in rows:
        base, tcm = row.settings.base, row.settings.tcm
        lines.append(
            (
                row.title,
                f"{base.trial.learning_rate:g}, {base.trial.weight_decay:g}",
                str(len(base.tried)),
                settings_text(row),
                str(len(tcm.tried)),
                ", ".join((*base.open_ends, *tcm.open_ends)),
            )
        )
    return _markdown(head, lines)


def gains_table(rows: Iterable[Compared], runs: dict[str, list[Row]]) -> str:
    """Whether the base had stopped rising: its Recall@1 on validation classes, stop by stop."""
    head: tuple[str, ...] = ("base loss",)
    lines = []
    for row in rows:
        keys = [curve[0]["key"] for curve in row.arms["base"].curves]
        curves = [[r for r in runs[key] if r["classes"] == "validation"] for key in keys]
        head = ("base loss", *(f"{r['step']:,} steps" for r in curves[0]))
        means = [sum(r["recall_at_1"] for r in stop) / len(stop) for stop in zip(*curves, strict=True)]
        lines.append((row.title, *(f"{mean:.3f}" for mean in means)))
    return _markdown(head, lines)


def figures_table(rows: Sequence[Compared], others: Iterable[Figure]) -> str:
    """Hopes and what became of them, with both arms; `others` are those that have nothing to do with arms."""
    default = {figure.wanted: _found(figure) for figure in summary.figures_to_reach(rows, "tcm_default")}
    lines = [
        *((f.wanted, _found(f), default.get(f.wanted, "")) for f in summary.figures_to_reach(rows)),
        *((figure.wanted, _found(figure), "") for figure in others),
    ]
    return _markdown(("hoped for before the study", "tuned", "weight 1, margins 0.9 and 0.5"), lines)


def _unfinished(rows: Iterable[Compared], size: Size) -> list[str]:
    """Which of the plan's comparisons are not there yet."""
    there = {(row.split, row.base) for row in rows}
    missing: dict[str, list[str]] = {}
    for split, base in chains():
        if split in size.splits and base != ALONE and (split, base) not in there:
            missing.setdefault(split, []).append(BASES[base].title)
    told = "; ".join(f"{split}: {', '.join(titles)}" for split, titles in missing.items())
    return [f"**Not complete yet.** Still to come: {told}.\n"] if told else []


def _found(figure: Figure) -> str:
    return f"{figure.found}: {'reached' if figure.reached else '**missed**'}"


def document(
    rows: list[Compared], figures: list[Figure], runs: dict[str, list[Row]], size: Size, processors: list[str]
) -> str:
    """All tables, as study.md."""
    parts = [
        "# What TCM adds to a base loss\n",
        f"Glyphs of classes never seen in training; {size.steps:,} steps; {len(size.seeds)} paired seeds: "
        "same initial weights, same batches. Intervals of 95 %: t over the seeds or bootstrap over the test "
        f"classes, whichever is wider. Run on: {', '.join(processors)}. Made by "
        "`python -m benchmarks.quality` from `runs.csv` and `draws.csv`; do not edit.\n",
        *_unfinished(rows, size),
        "## Hoped for, and found\n",
        figures_table(rows, figures),
        "## How settings were chosen\n",
        _RULE.format(trials=size.trials),
        *(_HISTORY if size == FULL else ()),
    ]
    for split, title in SPLITS.items():
        of_split = [row for row in rows if row.split == split]
        if not of_split:
            continue
        parts += [
            f"## {split}: {title}\n",
            "Mean without TCM, then the change with TCM, tuned, and its interval; **bold** where the "
            "interval is clear of 0. Changes of OPIS and spread in percent of the mean without TCM.\n",
            main_table(of_split),
            "### With weight 1 and margins 0.9 and 0.5, chosen by nobody\n",
            main_table(of_split, "tcm_default"),
            "### Beside TCM alone\n",
            "TCM alone is the contrastive loss on cosine similarity. A base + TCM that is not better than it "
            "owes its gain to TCM, not to the two together.\n",
            alone_table(of_split),
            "### At equal accuracy\n",
            "On the runs' own curves. Intervals are over the seeds alone, so they say nothing of other "
            "classes; where not all curves overlap it is said how many do.\n",
            "With chosen weight and margins:\n",
            matched_table(of_split),
            "With weight 1 and margins 0.9 and 0.5:\n",
            matched_table(of_split, "tcm_default"),
            "### Settings, chosen on validation classes\n",
            settings_table(of_split),
            "### Recall@1 of the base alone on validation classes\n",
            gains_table(of_split, runs),
        ]
    return "\n".join(parts)


def _change(row: Compared, measure: str, arm: Arm) -> str:
    before = value_text(row.arms["base"].mean(measure), measure)
    return f"{before} {_bold(change_text(row, measure, arm), row.change(measure, arm))}"


def value_text(value: float, measure: str) -> str:
    """A value as tables and documents show it: shares in percent."""
    return f"{100 * value:.1f}" if measure in _POINTS else f"{value:.3g}"


def change_text(row: Compared, measure: str, arm: Arm = "tcm") -> str:
    """The change and its interval, in points or in percent of the mean without TCM."""
    change = row.change(measure, arm)
    scale = 100.0 if measure in _POINTS else 100 / row.arms["base"].mean(measure)
    digits, unit = (1, "") if measure in _POINTS else (0, " %")
    mean, low, high = (
        f"{scale * value:+.{digits}f}{unit}" for value in (change.mean, change.low, change.high)
    )
    return f"{mean} ({low} to {high})"


def settings_text(row: Compared) -> str:
    """Weight and margins that were chosen."""
    trial = row.settings.tcm.trial
    return f"{trial.weight:g}, {trial.margin_plus:g}, {trial.margin_minus:g}"


def matched_text(matched: Matched) -> str:
    """The change at equal accuracy and its interval, in percent."""
    if matched.change is None or matched.relative is None:
        return "no overlap"
    text = f"{100 * matched.relative:+.0f} %"
    if matched.pairs > 1:
        low, high = (100 * end / matched.before for end in (matched.change.low, matched.change.high))
        text += f" ({low:+.0f} % to {high:+.0f} %)"
    return text if matched.pairs == matched.of else f"{text}, {matched.pairs} of {matched.of} pairs"


def _matched(matched: Matched) -> str:
    text = matched_text(matched)
    return text if matched.change is None else _bold(text, matched.change)


def _bold(text: str, change: Difference) -> str:
    return f"**{text}**" if change.sign else text


def _ratio(curves: tuple[Curve, ...]) -> str:
    ratios = [curve[-1]["gradient_ratio"] for curve in curves]
    known = [ratio for ratio in ratios if ratio is not None]
    return f"{sum(known) / len(known):.2g}" if known else ""


def _markdown(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    rows = [head, tuple("---" for _ in head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
