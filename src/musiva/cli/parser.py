"""Every command and flag. The flags are frozen by a test: new ones need a reason."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from musiva import __version__
from musiva.cli.common_flags import (
    STORE_MIB,
    Commands,
    add_cache,
    add_key,
    add_machine,
    add_store,
)
from musiva.cli.load_flags import (
    add_cluster,
    add_demo,
    add_profile,
    add_replay,
    add_simulate,
    add_trace,
)
from musiva.cli.values import number, size, whole

__all__ = ["FLAGS", "build_parser"]

MAX_SEED = 2**63 - 1
# What has another name here than in the engine, the client, the server and the reader of pictures.
FLAGS = {
    "base_url": "server",
    "cors_origin": "cors-origin",
    "max_quality": "max-quality",
    "min_quality": "min-quality",
    "negative_prompt": "negative",
    "num_images": "n",
    "picture": "like",
}


class Parser(argparse.ArgumentParser):
    """Errors in the form that all commands use."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"musiva: error: {message}", file=sys.stderr)
        sys.exit(2)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="musiva",
        description="Text to pictures, in packs. Serves, generates, trains, measures.",
    )
    parser.add_argument("--version", action="version", version=f"musiva {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for add in (
        *(_generate, _inspect, _serve, _train, _calibrate),
        *(add_profile, add_trace, add_simulate, add_replay, add_cluster, add_demo),
        *(_bench, _models, _capture, _doctor),
    ):
        add(commands)
    return parser


def _generate(commands: Commands) -> None:
    p = commands.add_parser(
        "generate", help="make pictures from prompts", description="Make pictures from prompts."
    )
    p.add_argument(
        "prompt", nargs="*", metavar="PROMPT", help="what to draw; several are computed together"
    )
    p.add_argument(
        "--like",
        type=Path,
        metavar="FILE",
        help="a picture that Musiva made: draw it again, but for what is said here",
    )
    p.add_argument(
        "-n",
        type=whole("n", 1, 10_000),
        default=1,
        metavar="N",
        help="pictures of each prompt; seeds count up",
    )
    p.add_argument("--size", type=size, metavar="WxH", help="in pixels (default: the model's)")
    p.add_argument(
        "--frames",
        type=whole("frames", 1, 100_000),
        metavar="N",
        help="of a clip, with a model of clips; 1 is a picture (default: the model's)",
    )
    p.add_argument(
        "--fps",
        type=number("fps", 1, 60),
        metavar="X",
        help="frames a second at which the file shows a clip (default: the model's)",
    )
    p.add_argument(
        "--steps", type=whole("steps", 1, 1000), metavar="N", help="steps (default: the model's)"
    )
    p.add_argument(
        "--seed",
        type=whole("seed", 0, MAX_SEED),
        metavar="N",
        help="of the first picture (default: random)",
    )
    p.add_argument(
        "--guidance",
        type=number("guidance", 0, 100),
        metavar="X",
        help="how closely to follow the prompt; 1 turns it off",
    )
    p.add_argument("--negative", metavar="TEXT", help="what to keep away from")
    p.add_argument(
        "--sampler",
        metavar="NAME",
        help="euler, heun, dpm++2m, unipc, ddim (default: the model's)",
    )
    p.add_argument(
        "--spacing",
        metavar="NAME",
        help="of the noise levels, such as karras (default: the model's)",
    )
    p.add_argument(
        "--shift", type=number("shift", 0.01, 100), metavar="X", help="of a flow model's times"
    )
    p.add_argument(
        "--quality",
        type=whole("quality", 1, 100),
        metavar="N",
        help="how near to the dense run, which is 100: 80 keeps 32 dB, 60 28 dB, and is several "
        "times cheaper (default: 100)",
    )
    for name, what in (
        ("min-quality", "its floor, which is promised; alone it is --quality"),
        ("max-quality", "its ceiling: pictures are as exact as there is time for"),
    ):
        p.add_argument(f"--{name}", type=whole(name, 1, 100), metavar="N", help=what)
    p.add_argument(
        "--deadline",
        type=number("deadline", 1e-3, 86_400),
        metavar="SECONDS",
        help="from now, by which all pictures of a prompt should be there",
    )
    p.add_argument(
        "--policy",
        metavar="NAME[:FIELD=VALUE,...]",
        help="what is computed, forecast and held: never, the dense run (the default), interval, "
        "adaptive, adaptive_tiles, first_block, tea_cache, ras, refine or marked, such as "
        "interval:interval=3, or a class of your own, FILE.py:CLASS[:FIELD=VALUE,...]",
    )
    p.add_argument(
        "--out",
        type=Path,
        default=Path("."),
        metavar="PATH",
        help="a .png or .webp for one picture or clip, else a directory (default: here)",
    )
    p.add_argument(
        "--grid", action="store_true", help="also write all pictures side by side as one"
    )
    p.add_argument("--force", action="store_true", help="let --out replace a file that exists")
    p.add_argument(
        "--server",
        metavar="URL",
        help="let this Musiva server draw, such as http://127.0.0.1:8400, instead of this machine",
    )
    add_key(p, "holds the key that --server asks for (default: MUSIVA_API_KEY, or no key)")
    add_store(p)
    add_machine(p)
    # None tells what was not said: a picture of --like or a server may know better.
    p.set_defaults(model=None, dtype=None, device=None, compile=None)


def _inspect(commands: Commands) -> None:
    p = commands.add_parser(
        "inspect",
        help="where the compute of a picture went",
        description="Make a picture again beside its dense run, and write what was computed where, "
        "what it cost and how far it strayed, as a chart and as JSON.",
    )
    p.add_argument(
        "picture", type=Path, metavar="PICTURE", help="a PNG, JPEG or WebP that Musiva made"
    )
    p.add_argument(
        "--out",
        type=Path,
        default=Path("."),
        metavar="DIR",
        help="write NAME.inspect.png and NAME.inspect.json there (default: here)",
    )
    p.add_argument(
        "--policy",
        metavar="FILE.py:CLASS",
        help="the class of your own that the picture was made with",
    )
    add_store(p)
    add_machine(p)
    p.set_defaults(model=None, store_mib=STORE_MIB)


def _serve(commands: Commands) -> None:
    p = commands.add_parser(
        "serve",
        help="serve pictures over HTTP",
        description="Serve pictures over HTTP: the OpenAI images API and a page.",
    )
    p.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    p.add_argument(
        "--port",
        type=whole("port", 0, 65535),
        default=8400,
        metavar="N",
        help="default 8400; 0 takes a free one",
    )
    p.add_argument(
        "--workers",
        type=whole("workers", 1, 1024),
        metavar="N",
        help="processes that make the pictures, with --threads each; one that ends is replaced, "
        "and what it had goes on (default: none, the server makes them itself)",
    )
    p.add_argument(
        "--degree",
        type=whole("degree", 1, 64),
        default=1,
        metavar="N",
        help="processes of each worker, which share the work on every picture (default: 1)",
    )
    p.add_argument(
        "--form",
        default="ulysses",
        metavar="NAME",
        help="how they share it: ulysses, branches (of guidance), branches+ulysses (both, for 4, "
        "6, 8, ... processes), patch (parts that see what the others were an evaluation before, "
        "up to quality 60), or dynamic, for models that attend in frames and in columns (default: "
        "ulysses)",
    )
    p.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="have the workers on the machines of a cluster of Ray: ray, or ray://HOST:PORT "
        "(default: on this machine)",
    )
    add_cache(p)
    p.add_argument(
        "--max-rows",
        type=whole("max-rows", 16, 1 << 20),
        default=4096,
        metavar="N",
        help="most rows of a pack (default: 4096)",
    )
    p.add_argument(
        "--max-waiting",
        type=whole("max-waiting", 1, 1_000_000),
        default=512,
        metavar="N",
        help="most requests at a time; more get 429 (default: 512)",
    )
    p.add_argument(
        "--scheduler",
        default="goodput",
        metavar="NAME",
        help="who goes first, and how exactly: goodput, fifo, shortest, edf, edf_admission or "
        "static (default: goodput)",
    )
    p.add_argument(
        "--patience",
        type=number("patience", 0.1, 86_400),
        default=60.0,
        metavar="SECONDS",
        help="after which a request without a deadline is due (default: 60)",
    )
    p.add_argument(
        "--tenants",
        type=Path,
        metavar="FILE",
        help="a JSON file of those that share the server, with their shares and keys",
    )
    p.add_argument(
        "--job-seconds",
        type=number("job-seconds", 1, 31_536_000),
        default=3600.0,
        metavar="SECONDS",
        help="for which a job is kept that has ended (default: 3600)",
    )
    p.add_argument(
        "--job-mib",
        type=whole("job-mib", 1, 1 << 24),
        default=64,
        metavar="N",
        help="results of jobs that are kept, in MiB; the oldest go first (default: 64)",
    )
    add_key(p, "holds the key that clients must send (default: MUSIVA_API_KEY, or no key)")
    p.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages from there use the API, such as https://example.org; may be repeated",
    )
    p.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="FILE.py:CLASS",
        help="a policy of your own that requests may name; may be repeated",
    )
    add_store(p)
    add_machine(p)
    p.set_defaults(store_mib=STORE_MIB)


def _train(commands: Commands) -> None:
    p = commands.add_parser(
        "train",
        help="run a recipe; a rerun resumes",
        description="Run the stages of a recipe. Run again, it continues where it was.",
    )
    p.add_argument("recipe", metavar="RECIPE", help="a .py file, or the name of one in recipes/")
    p.add_argument(
        "stage", nargs="?", metavar="STAGE", help="one stage of it (default: all, in order)"
    )
    p.add_argument("argument", nargs="*", metavar="ARGUMENT", help="what the stage takes")


def _calibrate(commands: Commands) -> None:
    p = commands.add_parser(
        "calibrate",
        help="measure a model once, so that it can skip evaluations",
        description="Measure how a model's predictions go together along the path, and what PSNR "
        "and cost tolerances give. Written to calibration/ in the model's directory; --quality "
        "below 100 and the policy adaptive need it.",
    )
    p.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="a text file, a prompt a line, of the kind that users ask for; at least 8, better 48 "
        "(default: those of the last calibration)",
    )
    p.add_argument("--size", type=size, metavar="WxH", help="in pixels (default: the model's)")
    p.add_argument(
        "--guidance",
        type=number("guidance", 0, 100),
        metavar="X",
        help="to measure at (default: the model's)",
    )
    p.add_argument(
        "--steps",
        type=whole("steps", 2, 1000),
        action="append",
        metavar="N",
        help="steps to measure qualities at; may be repeated (default: the model's, and 50)",
    )
    p.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write calibration/ into this directory instead",
    )
    add_machine(p)


def _bench(commands: Commands) -> None:
    p = commands.add_parser(
        "bench",
        help="measure",
        description="Measure; correctness is checked first, and without it no speed is told.",
    )
    p.add_argument(
        "name",
        metavar="NAME",
        help="capture, captured-speed, chaos, cluster-cache, fidelity, generate, pack, parallel, "
        "parity, region, reuse, scale, scheduler, serve, server, store, studio or suite",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    p.add_argument(
        "--quick", action="store_true", help="under 3 minutes on 2 cores, with small samples"
    )


def _models(commands: Commands) -> None:
    p = commands.add_parser(
        "models",
        help="list shipped models, or look into a directory",
        description="List the shipped models, or look into a model directory.",
    )
    p.add_argument("directory", nargs="?", metavar="DIR", help="a diffusers directory")
    p.add_argument("--json", action="store_true", help="as JSON")


def _capture(commands: Commands) -> None:
    p = commands.add_parser(
        "capture",
        help="what of a model runs in packs and tiles",
        description="Make a program on packs of a transformer of diffusers, from its config alone, "
        "and tell what of it runs in packs and in tiles, and what does not, and why.",
    )
    p.add_argument("model", metavar="MODEL", help="a diffusers directory, or a transformer of one")
    p.add_argument(
        "--explain", action="store_true", help="with every site that mixes tokens, and reasons"
    )
    p.add_argument("--text", action="store_true", help="print the program itself, as Python")
    p.add_argument(
        "--fresh", action="store_true", help="capture it anew, whatever is kept of an earlier time"
    )
    p.add_argument("--json", action="store_true", help="as JSON")


def _doctor(commands: Commands) -> None:
    p = commands.add_parser(
        "doctor",
        help="what this machine offers",
        description="Tell what this machine offers, with a short probe of its kernels.",
    )
    p.add_argument("--json", action="store_true", help="as JSON")
