"""What the tests of the distributed loss run on real processes, by `torchrun` with Gloo.

Run as `torchrun --nproc-per-node 4 tests/support/on_ranks.py REPORT`. Each scenario below is run by the first
`world` of the processes, as a group of their own; the first process writes what all of them have found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from agreement import upstream_for
from cases import CASES, Case, Inputs
from live_bytes import LiveBytes
from torch import Tensor
from torchrun import of_all_ranks, write_and_leave

from tcm_kernels import dispatch
from tcm_kernels.distributed import distributed_tcm_loss, gather, ring
from tcm_kernels.distributed import loss as loss_module
from tcm_kernels.distributed.ranks import Ranks

PROCESSES = 4
WAYS = ("gather", "ring", "rows")
LAYOUTS = ("even", "uneven", "empty")
REDUCTIONS = ("mean", "sum")
ENDLESS = 120.0  # seconds that a group waits for a process


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A batch, how it is spread, and how its loss is taken."""

    case: Case
    world: int
    mode: str
    reduction: str
    layout: str
    fault: str = ""
    equal_batches: bool = False

    @property
    def id(self) -> str:
        words = [self.case.id, f"{self.world} ranks", self.mode, self.reduction, self.layout]
        return ", ".join([*words, *([self.fault] if self.fault else [])])

    @property
    def rows(self) -> list[int]:
        """Of each rank."""
        n, world = self.case.n, self.world
        if self.layout == "even":
            return [n // world] * world
        if self.layout == "empty":  # all but one in turn
            with_rows = [rank for rank in range(world) if rank != n % world]
            shares = torch.arange(n).tensor_split(len(with_rows))
            return [len(shares[with_rows.index(rank)]) if rank in with_rows else 0 for rank in range(world)]
        cuts = sorted(
            int(n * share) for share in torch.rand(world - 1, generator=torch.Generator().manual_seed(n))
        )
        return [end - begin for begin, end in itertools.pairwise([0, *cuts, n])]

    def build(self) -> Inputs:
        """The whole batch: all rows that the ranks have."""
        inputs = self.case.build()
        n = sum(self.rows)
        with torch.no_grad():
            emb = inputs.emb[:n].clone() if n < self.case.n else inputs.emb.detach()
        return dataclasses.replace(inputs, emb=emb.requires_grad_(), labels=inputs.labels[:n])


def is_spread(case: Case) -> bool:
    """Small, without reference set, and with rows for all."""
    return (
        case.relation == "self"
        and 8 <= case.n <= 600
        and case.label_dtype in (torch.int64, torch.uint64, torch.int8)
    )


SHARED = list(filter(is_spread, CASES))
PLAIN = Case(n=97, d=24, look="clustered", seed=4)


def scenarios() -> list[Scenario]:
    """All shared cases in every way; every way with every reduction, layout and number of ranks."""
    found = [
        Scenario(case, 2 + number % 3, way, REDUCTIONS[number % 2], LAYOUTS[(number + of_way) % 3])
        for number, case in enumerate(SHARED)
        for of_way, way in enumerate(WAYS)
    ]
    found += [
        Scenario(dataclasses.replace(PLAIN, look=look), *others)
        for look, others in zip(
            itertools.cycle(("clustered", "random", "everything_hard", "nothing_hard")),
            itertools.product((2, 3, 4), (*WAYS, "auto"), REDUCTIONS, LAYOUTS),
            strict=False,
        )
    ]
    found += [Scenario(dataclasses.replace(PLAIN, n=2), 4, way, "sum", "uneven") for way in WAYS]
    found += [Scenario(dataclasses.replace(PLAIN, n=0), 3, way, "sum", "uneven") for way in WAYS]
    return found + [Scenario(PLAIN, 4, way, "mean", "even", equal_batches=True) for way in WAYS]


# Each is planted around one function, and must be found by the comparison.
def _ordered_once(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: right(*args)._replace(ordered=1)


def _to_the_next_rank(right: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(guest: ring.Guest, found: Any, distance: int, ranks: Ranks) -> None:
        guest.rank = (guest.rank + 1) % ranks.size
        right(guest, found, distance - 1, ranks)

    return wrong


def _with_padding(right: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(shard: Tensor, rows: list[int], ranks: Ranks) -> Tensor:
        most = max(rows)
        padded = torch.cat((shard, shard.new_zeros((most - len(shard), *shard.shape[1:]))))
        return ranks.all_gather(padded).flatten(0, 1)

    return wrong


def _forgotten_at_home(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: None


def _both_take_all(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda own_rows, guest, ranks: (slice(None), slice(None))


def _unscaled(right: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(*args: Any) -> Any:
        *others, factor = args
        return right(*others, 1 if factor > 1 else PROCESSES)

    return wrong


FAULTS: dict[str, tuple[Any, str, Callable[..., Any], Scenario]] = {
    "a factor 2 is forgotten": (
        gather, "pair_sums", _ordered_once, Scenario(PLAIN, 4, "gather", "sum", "even"),
    ),
    "gradients are not multiplied with W": (
        loss_module._WholeBatch, "apply", _unscaled, Scenario(PLAIN, 4, "gather", "mean", "even"),
    ),
    "gradients are multiplied with W": (
        loss_module._WholeBatch, "apply", _unscaled, Scenario(PLAIN, 4, "ring", "sum", "even"),
    ),
    "P and Q go to the wrong rank": (
        ring, "_send_home", _to_the_next_rank, Scenario(PLAIN, 4, "ring", "sum", "even"),
    ),
    "P and Q do not go home": (
        ring, "_send_home", _forgotten_at_home, Scenario(PLAIN, 3, "ring", "sum", "even"),
    ),
    "padding is counted": (gather, "all_rows", _with_padding, Scenario(PLAIN, 3, "gather", "sum", "uneven")),
    "both ranks take all pairs of the last meeting": (
        ring, "_shares", _both_take_all, Scenario(PLAIN, 4, "ring", "sum", "uneven"),
    ),
}  # fmt: skip


@contextlib.contextmanager
def _planted(fault: str) -> Iterator[None]:
    if not fault:
        yield
        return
    place, name, plant, _ = FAULTS[fault]
    right = getattr(place, name)
    with mock.patch.object(place, name, plant(right)):
        yield


def with_faults() -> list[Scenario]:
    return [dataclasses.replace(scenario, fault=fault) for fault, (*_, scenario) in FAULTS.items()]


def _share(scenario: Scenario, inputs: Inputs, rank: int) -> tuple[Tensor, Tensor]:
    begin = sum(scenario.rows[:rank])
    rows = slice(begin, begin + scenario.rows[rank])
    return inputs.emb.detach()[rows], inputs.labels[rows]


def settings_of(inputs: Inputs) -> dict[str, Any]:
    return {name: value for name, value in inputs.settings.items() if name != "self_offset"}


def loss_of_scenario(scenario: Scenario, group: Any) -> dict[str, Any]:
    """This rank's loss, gradient and statistics, twice; and how many guests a ring has made room for."""
    inputs = scenario.build()
    rank = dist.get_rank(group)
    rooms = []

    class Counted(ring.Guest):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            rooms.append(self)

    results = []
    with mock.patch.object(ring, "Guest", Counted), _planted(scenario.fault):
        for _ in range(2):
            emb, labels = _share(scenario, inputs, rank)
            emb.requires_grad_()
            rooms.clear()
            loss, stats = distributed_tcm_loss(
                emb, labels, group=group, mode=scenario.mode, gradient_reduction=scenario.reduction,
                equal_batches=scenario.equal_batches, return_stats=True, **settings_of(inputs),
            )  # fmt: skip
            assert len(rooms) <= 2, "a ring has room for two guests"
            (grad,) = torch.autograd.grad(loss, emb, torch.full_like(loss, upstream_for(emb.dtype)))
            results.append((loss.detach(), grad, stats.detach()))
    loss, grad, stats = results[0]
    repeats = torch.equal(loss, results[1][0]) or bool(loss.isnan())
    repeats &= torch.equal(grad.nan_to_num(), results[1][1].nan_to_num())
    return {"loss": loss, "grad": grad, "stats": stats, "repeats": repeats}


def nan_on_one_rank(way: str, group: Any) -> dict[str, Any]:
    scenario = Scenario(PLAIN, 4, way, "mean", "uneven")
    inputs = scenario.build()
    emb, labels = _share(scenario, inputs, dist.get_rank(group))
    if dist.get_rank(group) == 2:
        emb = emb.clone()
        emb[-1, 0] = torch.inf
    emb = emb.clone().requires_grad_()
    loss = distributed_tcm_loss(emb, labels, mode=way, group=group)
    loss.backward()  # type: ignore[no-untyped-call]
    return {"loss": bool(loss.isnan()), "grad": bool(emb.grad is not None and emb.grad.isnan().all())}


@dataclasses.dataclass(frozen=True)
class WithReference:
    """A batch and a reference set, each spread over the ranks."""

    mode: str
    sharded: bool
    layout: str

    @property
    def id(self) -> str:
        return f"{self.mode}, {'sharded' if self.sharded else 'whole'}, {self.layout}"

    def parts(self) -> tuple[Scenario, Scenario]:
        """How the batch and how the reference set are spread."""
        return (
            Scenario(Case(n=90, d=24, look="random"), 3, self.mode, "mean", self.layout),
            Scenario(Case(n=131, d=24, look="random", seed=7), 3, self.mode, "mean", "uneven"),
        )

    def build(self) -> Inputs:
        of_batch, of_reference = (part.build() for part in self.parts())
        return dataclasses.replace(
            of_batch, ref_emb=of_reference.emb.detach().requires_grad_(), ref_labels=of_reference.labels
        )


WITH_REFERENCE = [
    WithReference(mode, sharded, layout)
    for (mode, sharded), layout in itertools.product(
        [("gather", True), ("ring", True), ("rows", True), ("auto", True), ("auto", False)], ("even", "empty")
    )
]


def loss_with_reference(what: WithReference, group: Any) -> dict[str, Any]:
    inputs = what.build()
    rank = dist.get_rank(group)
    of_batch, of_reference = what.parts()
    emb, labels = _share(of_batch, inputs, rank)
    assert inputs.ref_emb is not None
    ref, ref_labels = inputs.ref_emb.detach(), inputs.ref_labels
    if what.sharded:
        whole = dataclasses.replace(inputs, emb=inputs.ref_emb, labels=ref_labels)
        ref, ref_labels = _share(of_reference, whole, rank)
    emb.requires_grad_()
    loss, stats = distributed_tcm_loss(
        emb, labels, ref, ref_labels, ref_sharded=what.sharded, mode=what.mode, group=group,
        gradient_reduction="sum", return_stats=True, **settings_of(inputs),
    )  # fmt: skip
    (grad,) = torch.autograd.grad(loss, emb)
    return {"loss": loss.detach(), "grad": grad, "stats": stats.detach()}


# What one rank or some ranks do differently, or wrongly; and who they are.
OTHERWISE: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "a margin out of range": ({"margin_plus": 3.0}, (2,)),
    "a margin out of range on two ranks": ({"margin_minus": -7}, (1, 3)),
    "labels of floats": ({"labels": torch.ones(5)}, (0,)),
    "no tensor": ({"emb": [[1.0]]}, (3,)),
    "an unknown backend": ({"backend": "fpga"}, (1,)),
    "a backend that cannot run here": ({"backend": "cuda"}, (2,)),
    "an unknown mode": ({"mode": "star"}, (2,)),
    "an unknown reduction": ({"gradient_reduction": "max"}, (0,)),
    "a reference set with gradient": (
        {"ref_emb": torch.ones(5, 8, requires_grad=True), "ref_labels": torch.arange(5)}, (0, 1, 2, 3),
    ),
    "other columns": ({"emb": torch.ones(5, 9, requires_grad=True)}, (1,)),
    "another dtype": ({"emb": torch.ones(5, 8, dtype=torch.float64, requires_grad=True)}, (2, 3)),
    "unsigned labels": ({"labels": torch.arange(5).to(torch.uint64)}, (2,)),
    "another margin": ({"margin_minus": 0.25}, (3,)),
    "another margin in a tensor": ({"margin_plus": torch.tensor(0.75)}, (3,)),
    "another weight": ({"lambda_minus": 2.0}, (0,)),
    "another mode": ({"mode": "ring"}, (1, 2)),
    "another reduction": ({"gradient_reduction": "sum"}, (1,)),
    "no gradient": ({"emb": torch.ones(5, 8)}, (2,)),
    "a reference set on one rank": ({"ref_emb": torch.ones(4, 8), "ref_labels": torch.arange(4)}, (2,)),
}  # fmt: skip


def what_is_raised(name: str, group: Any) -> str:
    different, on = OTHERWISE[name]
    arguments: dict[str, Any] = {
        "emb": torch.ones(5, 8, requires_grad=True), "labels": torch.arange(5), "mode": "gather",
    }  # fmt: skip
    if dist.get_rank(group) in on:
        arguments |= different
    try:
        distributed_tcm_loss(**arguments, group=group)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def whole_sets_of_other_sizes(group: Any) -> str:
    emb = torch.ones(5, 8)
    ref = torch.ones(6 + dist.get_rank(group) % 2, 8)
    try:
        distributed_tcm_loss(
            emb, torch.arange(5), ref, torch.arange(len(ref)), ref_sharded=False, group=group
        )
    except ValueError as error:
        return str(error)
    return "nothing"


def statistics_on_one_rank(group: Any) -> int:
    """Only one rank asks for them; all have to send their labels."""
    inputs = Scenario(PLAIN, 4, "ring", "mean", "uneven")
    emb, labels = _share(inputs, inputs.build(), dist.get_rank(group))
    wants = dist.get_rank(group) == 1
    found = distributed_tcm_loss(emb, labels, group=group, return_stats=wants)
    return int(found[1].positive_pairs) if isinstance(found, tuple) else -1


def most_arrays(way: str, group: Any) -> float:
    """Arrays of n x D float32 that a step holds at once, beside its rows and the kernels' workspaces."""
    n, columns = 1024, 64
    generator = torch.Generator().manual_seed(dist.get_rank(group))
    emb = torch.randn(n, columns, generator=generator).requires_grad_()
    labels = torch.randint(200, (n,), generator=generator)
    with LiveBytes(emb, labels) as live:
        distributed_tcm_loss(emb, labels, mode=way, group=group).backward()  # type: ignore[no-untyped-call]
    return live.peak / (4 * n * columns)


def jobs() -> dict[str, tuple[int, Callable[[Any], Any]]]:
    """By name: the number of ranks, and what each of them runs."""
    found: dict[str, tuple[int, Callable[[Any], Any]]] = {}
    for scenario in [*scenarios(), *with_faults()]:
        found[scenario.id] = (scenario.world, lambda group, s=scenario: loss_of_scenario(s, group))
    for what in WITH_REFERENCE:
        found[what.id] = (3, lambda group, w=what: loss_with_reference(w, group))
    for way in WAYS:
        found[f"not finite, {way}"] = (4, lambda group, w=way: nan_on_one_rank(w, group))
        for world in (2, 4):
            found[f"arrays, {way}, {world} ranks"] = (world, lambda group, w=way: most_arrays(w, group))
    for name in OTHERWISE:
        found[name] = (4, lambda group, n=name: what_is_raised(n, group))
    found["whole sets of other sizes"] = (4, whole_sets_of_other_sizes)
    found["statistics on one rank"] = (4, statistics_on_one_rank)
    return found


def main(report: str) -> None:
    from datetime import timedelta  # noqa: PLC0415

    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=ENDLESS))
    rank = dist.get_rank()
    groups = {size: dist.new_group(range(size)) for size in (2, 3, PROCESSES)}
    assert dispatch.why_not_here("cpu") is None
    found: dict[str, Any] = {}
    for name, (world, job) in jobs().items():
        if rank >= world:
            continue
        try:
            mine = job(groups[world])
        except Exception:
            print(f"rank {rank}: {name}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            raise
        found[name] = of_all_ranks(mine, groups[world])
    write_and_leave(found, report)


if __name__ == "__main__":
    main(*sys.argv[1:])
