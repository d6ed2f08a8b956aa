"""A plan for people: tables, and what they mean in plain words."""

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mixreorg.train.planning.plan import MEASURED_FACTOR, Plan, Span

_GIB = 2**30


def print_plan(plan: Plan, console: Console) -> None:
    """Print all of a plan."""
    machine, config = plan.machine, plan.config
    console.print(
        f"[bold]{escape(config.recipe)}[/bold]: {config.steps:,} steps of {config.batch_size:,} pairs, "
        f"{config.precision}, on {machine.devices} x {machine.title}: {plan.share:,} pairs each",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_parts(plan))
    console.print(_memory(plan))
    for line in in_words(plan):
        console.print(f"- {line}", highlight=False, markup=False, soft_wrap=True)


def in_words(plan: Plan) -> Iterator[str]:
    """What the figures mean, one statement each."""
    yield _fit(plan)
    yield from _reading(plan)
    yield _time(plan)
    yield from plan.data.notes
    yield _uncertainty(plan)


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def size(count: float) -> str:
    """Bytes in the decimal unit that disks and networks are sold by."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _parts(plan: Plan) -> Table:
    table = Table(title="Model and operations per pair, forward pass", title_justify="left")
    for name in ("part", "M parameters", "GFLOP", "share"):
        table.add_column(name, justify="left" if name == "part" else "right")
    forward, parameters = plan.flops.forward, plan.parameters.by_part
    for part in {**forward, **parameters}:
        flops = forward.get(part, 0.0)
        count = f"{parameters[part] / 1e6:.2f}" if part in parameters else ""
        table.add_row(part, count, f"{flops / 1e9:.3g}", f"{flops / plan.flops.forward_total:.0%}")
    table.add_section()
    table.add_row("forward", f"{plan.parameters.total / 1e6:.2f}", f"{plan.flops.forward_total / 1e9:.3g}", "100%")
    table.add_row("forward and backward", "", f"{plan.flops.model_train / 1e9:.3g}", "")
    if plan.flops.recomputed:
        table.add_row("computed a second time", "", f"{plan.flops.recomputed / 1e9:.3g}", "")
    return table


def _memory(plan: Plan) -> Table:
    memory = plan.memory
    room = "" if plan.machine.memory is None else f" of {plan.machine.memory / _GIB:.1f}"
    table = Table(title=f"Memory per device: {memory.total / _GIB:.1f}{room} GiB as configured", title_justify="left")
    table.add_column("what")
    for name in ("GiB", "with activation checkpointing"):
        table.add_column(name, justify="right")
    for name, value in (
        ("weights, gradients, AdamW moments at the peak", memory.weights + memory.gradients + memory.moments),
        ("images", memory.images),
        ("activations", memory.activations),
        ("temporaries, allocator, libraries", memory.workspace + memory.runtime),
    ):
        table.add_row(name, f"{value / _GIB:.2f}", "")
    table.add_section()
    for row in plan.rows:
        name = f"all {row.at_once:,} pairs at once" if row.at_once == plan.share else f"engine.chunk={row.at_once}"
        table.add_row(name, f"{row.plain / _GIB:.1f}", f"{row.checkpointed / _GIB:.1f}")
    return table


def _fit(plan: Plan) -> str:
    machine, memory = plan.machine, plan.memory
    if machine.memory is None:
        return f"needs {memory.total / _GIB:.1f} GiB per device; this system does not tell how much there is"
    room = f"{machine.memory / _GIB:.1f} GiB"
    plain, checkpointed = plan.largest
    most = (
        f"without a gradient cache at most {plain:,} pairs per device fit, "
        f"{checkpointed:,} with activation checkpointing"
    )
    if plan.fits:
        return f"fits: {memory.total / _GIB:.1f} of {room} per device; {most}"
    if plan.choice is None:
        return (
            f"does not fit: {memory.total / _GIB:.1f} GiB of {room}, and nothing that the engine can do makes it; "
            "take more or larger devices, or a smaller batch_size"
        )
    return (
        f"does not fit as configured ({memory.total / _GIB:.1f} GiB of {room}), but does with {plan.choice.settings}: "
        f"{plan.choice.memory / _GIB:.1f} GiB, the same losses, "
        f"{plan.choice.flops / plan.flops.model_train - 1:.0%} more operations; {most}"
    )


def _reading(plan: Plan) -> Iterator[str]:
    data, batch = plan.data, plan.config.batch_size
    rate = batch / plan.step.likely
    total = batch * plan.config.steps * data.bytes_per_pair
    epoch = f"{size(data.pairs * data.bytes_per_pair)} per epoch, " if data.pairs is not None else ""
    yield (
        f"reads {epoch}{size(total)} in all ({size(data.bytes_per_pair)} per pair): "
        f"{rate:,.0f} pairs/s, {size(rate * data.bytes_per_pair)}/s, "
        f"{rate / data.pictures_per_core:.1f} cores at {data.pictures_per_core:,.0f} pictures/s each"
    )
    workers, alone = plan.config.data.num_workers, plan.reading_per_step
    # On a CPU the time for reading is part of the step's whatever reads.
    if plan.machine.device_type != "cpu" and alone >= 0.999 * plan.step.likely:
        needed = -(-plan.share // max(int(data.pictures_per_core * plan.step.low), 1))
        yield (
            f"reading is the bottleneck: {max(workers, 1)} core(s) per device take {duration(alone)} for a step's "
            f"pictures; --set data.num_workers={needed} keeps up with the fastest estimate"
        )


def _time(plan: Plan) -> str:
    epochs = ""
    if plan.epochs is not None:
        epochs = f" for {plan.epochs:.3g} epochs of {plan.data.pairs:,} pairs"
        epochs += f" ({duration(plan.total.likely / plan.epochs)} each)"
    days = plan.machine.devices * plan.total.likely / 86400
    return (
        f"takes about {duration(plan.step.likely)} per step and {duration(plan.total.likely)} in all{epochs}, "
        f"{_bounds(plan.total)}; {days:,.3g} device-days; evaluation and checkpoints come on top"
    )


def _bounds(span: Span) -> str:
    return f"between {duration(span.low)} and {duration(span.high)}"


def _uncertainty(plan: Plan) -> str:
    if plan.mfu is None:
        return (
            f"time: from real steps on this machine, good to about {MEASURED_FACTOR - 1:.0%} while nothing else runs; "
            "several processes are assumed not to hinder each other"
        )
    peak = plan.machine.peak
    return (
        f"time: assumes {plan.mfu:.0%} of the peak of {peak.flops / 1e12:,.4g} TFLOP/s ({peak.source}) and no waiting "
        "between devices; calibrate on such a device with --kind this, or give the mfu of a log line as --mfu. "
        "Memory on a GPU: activations are counted, allocator and context (a tenth and 1.5 GB) are estimates"
    )
