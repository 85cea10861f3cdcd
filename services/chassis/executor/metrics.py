"""Metrics of the workers that do the attempts at steps, and of the room on the disk that they need."""

from prometheus_client import Counter, Gauge

from services.chassis.process.metrics import REGISTRY

# Work

RUNNING = Gauge("neuroweaver_steps_running", "Attempts being worked on.", ["service"], registry=REGISTRY)
"""As many as fit the slots of the machine (`NEUROWEAVER_SLOT_CORES`, `NEUROWEAVER_SLOT_MEMORY_MB`), at most `NEUROWEAVER_WORKERS`."""

OUTCOMES = Counter("neuroweaver_step_outcomes", "Attempts concluded.", ["service", "kind", "outcome"], registry=REGISTRY)
"""`kind`: the kinds of steps that the service runs; `outcome`: `completed`, `failed`, `cancelled`. Each attempt counts once, after its
outcome is stored; one that is cancelled before a worker begins it does not count. The share of `failed` shows a release or a data set
that does not work."""

LEASES_LOST = Counter(
    "neuroweaver_leases_lost", "Runs abandoned because their lease was lost.", ["service"], registry=REGISTRY
)
"""Another worker does the attempt. A rise means that the database was unreachable, or the machine stalled, for longer than
`NEUROWEAVER_LEASE_SECONDS`."""

ERRORS = Counter("neuroweaver_worker_errors", "Unexpected errors of workers.", ["service"], registry=REGISTRY)
"""Errors that are not transient, each logged with its traceback. Any is a fault of the program; alert on it."""

# Room on the disk

POSTPONED = Counter(
    "neuroweaver_steps_postponed", "Runs given back because nothing could be written.", ["service"], registry=REGISTRY
)
"""The attempt waits and no retry is spent on it."""

WAITING = Gauge("neuroweaver_steps_waiting_for_room", "Attempts that wait for room here.", ["service"], registry=REGISTRY)
"""Attempts that this process gave back and does not claim yet; another worker may do them. Above 0, the condition `room` says which
folder is short."""

FREE = Gauge(
    "neuroweaver_free_bytes", "Bytes that an executor may write to a folder.", ["service", "folder"], registry=REGISTRY
)
"""`folder`: the folders of `disk_space.folders_of`. Measured every few seconds; alert before it reaches `NEUROWEAVER_DISK_RESERVE_MB`, below
which no attempt is begun."""

# The machine

DEVICE_UTILISATION = Gauge(
    "neuroweaver_device_utilisation_ratio",
    "Share of time in which a device computes.",
    ["service", "device"],
    registry=REGISTRY,
)
"""`device`: `cpu` for the processors together, `gpu0` and so on for the GPUs, in the order of their PCI addresses. Every few seconds; a
device that does not tell has no value. Near 0 while steps run, a step waits for data or for a service."""

DEVICE_TEMPERATURE = Gauge(
    "neuroweaver_device_temperature_celsius", "Temperature of a device.", ["service", "device"], registry=REGISTRY
)
"""`device`: as for the utilisation, where a sensor tells it. A GPU that gets too hot computes more slowly."""

DEVICE_MEMORY_USED = Gauge(
    "neuroweaver_device_memory_used_bytes", "Memory of a device that is in use.", ["service", "device"], registry=REGISTRY
)
"""`device`: as for the utilisation. What everything on the machine uses, not only steps; for `cpu` main memory."""

DEVICE_MEMORY = Gauge("neuroweaver_device_memory_bytes", "Memory of a device.", ["service", "device"], registry=REGISTRY)
"""`device`: as for the utilisation. All of it."""
