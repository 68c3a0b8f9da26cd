"""The commands that foretell load, make it, and look at who bears it: profile, trace, simulate,
replay, cluster, demo.
"""

from __future__ import annotations

from pathlib import Path

from musiva.cli.common_flags import Commands, add_key, add_machine
from musiva.cli.values import number, size, whole

__all__ = ["add_cluster", "add_demo", "add_profile", "add_replay", "add_simulate", "add_trace"]


def add_profile(commands: Commands) -> None:
    p = commands.add_parser(
        "profile",
        help="measure what steps take on this machine",
        description="Fit what steps of a model take to what they do, on this machine, and tell how "
        "well that holds. Servers on it find it; `musiva simulate` takes it elsewhere.",
    )
    p.add_argument(
        "--seconds",
        type=number("seconds", 1, 3600),
        default=40.0,
        metavar="X",
        help="to measure for (default: 40)",
    )
    p.add_argument("--out", type=Path, metavar="FILE", help="write the profile there instead")
    p.add_argument("--json", action="store_true", help="print it as JSON")
    add_machine(p)


def add_trace(commands: Commands) -> None:
    p = commands.add_parser(
        "trace",
        help="make a file of requests with times",
        description="Make a trace: requests with their times, one line of JSON each. The same "
        "arguments give the same trace.",
    )
    p.add_argument("shape", metavar="SHAPE", help="poisson, bursty or diurnal")
    p.add_argument("--out", type=Path, required=True, metavar="FILE", help="write it there")
    p.add_argument(
        "--rate",
        type=number("rate", 1e-6, 1e6),
        default=1.0,
        metavar="X",
        help="requests a second in the mean (default: 1)",
    )
    p.add_argument(
        "--count",
        type=whole("count", 1, 10_000_000),
        default=300,
        metavar="N",
        help="requests (default: 300)",
    )
    p.add_argument(
        "--seed", type=whole("seed", 0, 1 << 31), default=0, metavar="N", help="default 0"
    )
    p.add_argument(
        "--prompts", type=Path, metavar="FILE", help="a prompt a line (default: 64 of ours)"
    )
    p.add_argument(
        "--size", type=size, action="append", metavar="WxH", help="may be repeated; each as often"
    )
    p.add_argument(
        "--steps", type=whole("steps", 1, 1000), metavar="N", help="steps (default: the model's)"
    )
    p.add_argument(
        "--deadline",
        type=number("deadline", 1e-3, 86_400),
        metavar="SECONDS",
        help="after each request's arrival (default: none)",
    )
    for name in ("min-quality", "max-quality"):
        p.add_argument(f"--{name}", type=whole(name, 1, 100), metavar="N", help="of each request")
    p.add_argument(
        "--tenant", action="append", metavar="NAME", help="may be repeated; each as often"
    )


def add_simulate(commands: Commands) -> None:
    p = commands.add_parser(
        "simulate",
        help="what a machine would make of a trace",
        description="Run a trace in simulated time: the scheduler and the policies are real, the "
        "seconds are those of a profile. No picture is made.",
    )
    p.add_argument("trace", type=Path, metavar="TRACE", help="a file, as `musiva trace` makes them")
    p.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help="of another machine, by `musiva profile --out` (default: this machine's)",
    )
    p.add_argument(
        "--scheduler",
        action="append",
        metavar="NAME",
        help="goodput (the default), fifo, shortest, edf, edf_admission or static; may be repeated",
    )
    p.add_argument(
        "--workers",
        type=whole("workers", 1, 4096),
        action="append",
        metavar="N",
        help="so many beside each other, each as fast as the profile; may be repeated (default: "
        "one engine)",
    )
    p.add_argument(
        "--cores",
        type=whole("cores", 1, 4096),
        metavar="N",
        help="that these workers share, one each (default: one for each worker)",
    )
    p.add_argument(
        "--speed",
        type=number("speed", 1e-6, 1e6),
        action="append",
        metavar="X",
        help="requests come so many times as fast; may be repeated (default: 1)",
    )
    p.add_argument(
        "--deadlines",
        type=number("deadlines", 1e-6, 1e6),
        action="append",
        metavar="X",
        help="deadlines are so many times as long; may be repeated (default: 1)",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write all rows there too")
    p.add_argument("--chart", type=Path, metavar="FILE", help="draw goodput curves there, as SVG")
    add_machine(p)


def add_cluster(commands: Commands) -> None:
    p = commands.add_parser(
        "cluster",
        help="the workers of a server",
        description="Look at the workers of a server, and take one of them away: status tells how "
        "they stand, top goes on telling, drain lets what a worker has go on elsewhere and starts "
        "a new one in its place.",
    )
    p.add_argument("what", choices=("status", "top", "drain"), metavar="WHAT", help="see above")
    p.add_argument(
        "worker",
        nargs="?",
        type=whole("worker", 0, 1_000_000),
        metavar="WORKER",
        help="the number of the one to drain",
    )
    p.add_argument(
        "--server",
        default="http://127.0.0.1:8400",
        metavar="URL",
        help="of Musiva (default: http://127.0.0.1:8400)",
    )
    p.add_argument(
        "--every",
        type=number("every", 0.1, 3600),
        default=1.0,
        metavar="SECONDS",
        help="of top (default: 1)",
    )
    p.add_argument("--json", action="store_true", help="as JSON")
    add_key(p, "holds the key that the server asks for (default: MUSIVA_API_KEY, or no key)")


def add_demo(commands: Commands) -> None:
    p = commands.add_parser(
        "demo",
        help="something to look at",
        description="Make one picture by one worker and by several, and show how: patches, whose "
        "tiles are computed by different workers, and as often as they need it, as an animation "
        "and a table.",
    )
    p.add_argument("what", choices=("patches",), metavar="WHAT", help="patches")
    p.add_argument(
        "prompt", nargs="?", default="a red fox", metavar="PROMPT", help="of the picture"
    )
    p.add_argument(
        "--out",
        type=Path,
        default=Path("patches.webp"),
        metavar="FILE",
        help="the animation, as .webp, .png or .gif (default: patches.webp)",
    )
    p.add_argument(
        "--workers",
        type=whole("workers", 2, 64),
        default=4,
        metavar="N",
        help="that share the picture, of --threads each, or one (default: 4)",
    )
    p.add_argument("--size", type=size, metavar="WxH", help="in pixels (default: the model's)")
    p.add_argument(
        "--steps", type=whole("steps", 6, 1000), default=28, metavar="N", help="default 28"
    )
    p.add_argument(
        "--seed", type=whole("seed", 0, 1 << 31), default=0, metavar="N", help="default 0"
    )
    p.add_argument(
        "--quality",
        type=whole("quality", 1, 60),
        default=60,
        metavar="N",
        help="that tiles are computed for (default: 60)",
    )
    p.add_argument("--json", action="store_true", help="the table as JSON")
    add_machine(p)


def add_replay(commands: Commands) -> None:
    p = commands.add_parser(
        "replay",
        help="send a trace to a server",
        description="Send the requests of a trace to a server at their times, and tell how many "
        "pictures were on time.",
    )
    p.add_argument("trace", type=Path, metavar="TRACE", help="a file, as `musiva trace` makes them")
    p.add_argument(
        "--server",
        default="http://127.0.0.1:8400",
        metavar="URL",
        help="of Musiva (default: http://127.0.0.1:8400)",
    )
    p.add_argument(
        "--speed",
        type=number("speed", 1e-6, 1e6),
        default=1.0,
        metavar="X",
        help="requests come so many times as fast (default: 1)",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write what became of each there")
    add_key(p, "holds the key that the server asks for (default: MUSIVA_API_KEY, or no key)")
