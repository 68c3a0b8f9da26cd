"""The benches at tiny settings, without waiting for real figures."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image

from musiva.core.errors import InvalidInput
from musiva.core.types import Path as Steps
from musiva.core.types import Request
from musiva.engine import Pipeline, load_pipeline
from musiva.perf.benches import (
    captured_dense,
    captured_packed,
    dense,
    generate,
    packed,
    packed_alone,
    parity,
    parity_ours,
    parity_reference,
    pictures,
    server,
)
from musiva.perf.benches.base import Findings, run_bench
from musiva.perf.benches.http_client import Client
from musiva.perf.benches.tap import Visit, final_latents

SMALL = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 1,
    "cross_attention_dim": 16,
    "caption_channels": 8,
}
NUMPY = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.matrix)])
def test_dense_compares_only_what_agrees(dtype: str) -> None:
    question = {"tokens": 16, "dtype": dtype, "pairs": 2, "sizes": SMALL}
    found = dense.answer(question)
    assert found["gate"]["ok"] is True
    row = found["row"]
    assert row["ratio"] > 0
    assert (row["tokens"], row["dtype"], row["pairs"]) == (16, dtype, 2)


def test_dense_tells_no_ratio_when_outputs_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    rival = dense._rival
    monkeypatch.setattr(dense, "_rival", lambda *arguments: rival(*arguments) + 0.01)
    found = dense.answer({"tokens": 16, "dtype": "float32", "pairs": 2, "sizes": SMALL})
    assert found["gate"]["ok"] is False
    assert "row" not in found


@pytest.mark.matrix
def test_packed_over_own_alone() -> None:
    found = packed.answer({"pairs": 2, "sizes": SMALL})
    assert found["gate"]["ok"] is True
    assert found["row"]["ratio"] > 0


@pytest.mark.matrix
def test_pictures_of_a_model(tiny_model: Path) -> None:
    found = pictures.answer({"model": str(tiny_model), "prompts": 2, "repeats": 1})
    assert found["gate"] == {"ok": True, "same_seed_same_bytes": True}
    assert found["steps"] == 4
    assert 5 < found["convergence_db"] <= 100
    assert [row.get("size") for row in found["rows"]] == ["16x16", "32x32", "128x128", None]


def test_the_worst_case_is_the_figure() -> None:
    findings = Findings()
    for ratio in (0.5, 0.8, 0.6):
        generate._enter(findings, "key", {"gate": {"ok": True}, "row": {"ratio": ratio}})
    assert findings.figures["key"] == 0.8
    generate._enter(findings, "other", {"gate": {"ok": False, "error": 1.0}})
    assert "other" not in findings.figures
    assert not findings.gate.ok


def test_help_is_timed_and_has_no_torch() -> None:
    findings = Findings()
    generate._measure_help(findings, runs=1)
    assert findings.gate.checks == {"help_without_torch": True}
    assert 0 < (findings.figures["help_seconds"] or 0) < 30


@pytest.mark.matrix
@NUMPY
def test_parity_of_both_sides(tmp_path: Path) -> None:
    wrote = parity_reference.answer({"directory": str(tmp_path), "denoisers": 1, "pipelines": 1})
    assert wrote == {"denoisers": 1, "pipelines": 1}
    found = parity_ours.answer({"directory": str(tmp_path)})
    assert len(found["denoisers"]) == len(found["pipelines"]) == 1
    findings = Findings()
    parity._enter_errors(findings, found, 1)
    assert findings.gate.ok
    assert findings.figures["parity_max_abs_error"] <= 1e-4  # type: ignore[operator]
    assert findings.figures["pipeline_max_abs_error"] <= 1e-3  # type: ignore[operator]
    for broken in ({"packed": float("inf")}, {"captured": False}):
        denoisers = [{**found["denoisers"][0], **broken}]
        parity._enter_errors(fresh := Findings(), {**found, "denoisers": denoisers}, 2)
        assert not fresh.gate.ok


def test_parity_errors_notice_shapes_and_nan() -> None:
    zeros = torch.zeros(2, 2)
    assert parity_ours._relative_error(zeros, torch.zeros(2, 3)) == float("inf")
    assert parity_ours._relative_error(zeros * float("nan"), zeros) == float("inf")
    assert parity_ours._relative_error(zeros + 1, zeros - 3) == pytest.approx(4 / 3)


def test_packed_equals_alone(tiny_model: Path) -> None:
    found = packed_alone.answer({"model": str(tiny_model), "device": "cpu", "companies": 1})
    assert found["compared"] == 3
    assert found["differing"] == []
    assert found["finite"] is True


def test_companies_differ_and_some_strangers_leave(tiny_model: Path) -> None:
    pipeline = load_pipeline(tiny_model, device="cpu")
    targets = packed_alone._targets(pipeline)
    first, second = (packed_alone._visits(pipeline, targets, company) for company in (0, 1))
    assert first != second
    assert sum(visit.leaves is not None for visit in first) == 2
    assert all(visit.request.path.steps == 20 for visit in first if "target" in visit.request.id)


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


def test_final_latents_come_late_leave_early_and_start_anywhere(pipeline: Pipeline) -> None:
    request = Request(
        id="a", prompt="fox", size=(16, 16), path=Steps(steps=3), seed=1, guidance=1.0
    )
    start = torch.randn(pipeline.latent_shape((16, 16)))
    visits = [
        Visit(request, arrives=50),
        Visit(replace(request, id="gone", path=Steps(steps=30)), leaves=2),
        Visit(replace(request, id="put"), start=start),
    ]
    found = final_latents(pipeline, visits)
    assert set(found) == {"a", "put"}
    assert found["a"].shape == (4, 2, 2)
    assert not torch.equal(found["a"], found["put"])
    with pytest.raises(InvalidInput, match="sampler"):
        final_latents(pipeline, [Visit(replace(request, path=Steps(steps=3, sampler="magic")))])


def test_an_unknown_bench() -> None:
    with pytest.raises(
        InvalidInput,
        match="allowed: capture, captured-speed, chaos, cluster-cache, fidelity, generate, pack",
    ):
        run_bench("nothing", quick=True)


class Api(BaseHTTPRequestHandler):
    """Answers as `steps` of the request says: 1 well, 2 wrong size, 3 status 500, 4 no picture."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        width, height = map(int, body["size"].split("x"))
        size = (width + (body["steps"] == 2), height)
        buffer = io.BytesIO()
        Image.new("RGB", size, "red").save(buffer, "PNG")
        content = base64.b64encode(b"nothing" if body["steps"] == 4 else buffer.getvalue()).decode()
        answer = json.dumps({"data": [{"b64_json": content}] * body["n"]}).encode()
        self.send_response(500 if body["steps"] == 3 else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("steps", "fault"),
    [(1, None), (2, "pictures of"), (3, "status 500"), (4, "not decodable")],
)
def test_a_client_checks_every_answer(api: str, steps: int, fault: str | None) -> None:
    answer = Client(api, 0, ["8x6"], [steps], compared=0.0).ask()
    assert answer.body["size"] == "8x6"
    if fault is None:
        assert answer.fault is None
        assert len(answer.hashes) == answer.body["n"]
    else:
        assert answer.fault is not None
        assert answer.fault.startswith(fault)


def test_a_client_tells_of_a_server_that_is_gone() -> None:
    answer = Client("http://127.0.0.1:9", 1, ["8x8"], [1], compared=1.0).ask()
    assert answer.fault is not None
    assert "Error" in answer.fault


@pytest.mark.matrix
def test_a_real_server_under_a_few_clients(tiny_model: Path) -> None:
    load = server.Load(clients=3, seconds=1.0, steps=(1, 2), model=str(tiny_model))
    findings = server.measure(quick=False, load=load)
    assert findings.gate.ok, findings.gate.checks
    assert findings.figures["server_requests_ok"] == 1.0
    assert findings.figures["server_memory_growth"] is not None
    what = {str(row["what"]): row for row in findings.rows}
    assert what["throughput"]["pictures_per_second"] > 0  # type: ignore[operator]
    assert what["faults"]["count"] == 0


@pytest.mark.parametrize("rival", ["diffusers", "handwritten"])
def test_a_captured_model_is_timed_only_where_it_agrees(rival: str) -> None:
    name = "pixart" if rival == "handwritten" else "sd3"
    layers = {"num_layers": 1}
    question = {"model": name, "rival": rival, "tokens": 64, "pairs": 2, "options": layers}
    found = captured_dense.answer(question)
    assert found["gate"]["ok"] is True
    assert found["row"]["ratio"] > 0
    assert (found["row"]["tokens"], found["row"]["pairs"]) == (64, 2)


def test_a_pack_of_some_tiles_is_timed_only_where_it_agrees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    question = {"model": "flux", "tokens": 64, "pairs": 2}
    question["options"] = {"num_layers": 1, "num_single_layers": 1}
    found = captured_packed.answer(question)
    assert found["gate"]["ok"] is True
    assert found["row"]["ratio"] > 0
    monkeypatch.setattr(captured_packed, "relative_error", lambda *_: 1.0)
    found = captured_packed.answer(question)
    assert found["gate"]["ok"] is False
    assert "row" not in found
