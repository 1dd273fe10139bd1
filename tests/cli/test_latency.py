from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import equipoise as eq
import equipoise.advice
from equipoise import LatencyModel

HEADER = "gpu,phase,active_experts,tokens_per_active_expert,microseconds\n"


MODEL = LatencyModel(20, 10, 5, 0.05)


def rows(model: LatencyModel, name: str = "x,generation") -> str:
    return "".join(
        f"{name},{active},{tokens},{float(model.rank_time([tokens] * active)):.9g}\n"
        for active in (1, 2, 4, 8)
        for tokens in (1, 8, 64, 200, 400, 800)
    )


def test_the_presets_are_listed_and_one_is_drawn(run) -> None:
    result = run("latency")
    assert result.exit_code == 0
    for gpu in ("h100", "h200", "b200", "gb200"):
        assert gpu in result.stdout
    assert "aiconfigurator" in result.stdout
    assert result.stdout.count("█") > 20


def test_another_shape_is_called_an_estimate(run) -> None:
    result = run("latency", "--hidden", 4096, "--intermediate", 1536, "--curve", "h200")
    assert result.stdout.count("estimate") >= 4
    assert "h200: expected" in result.stdout


def test_a_table_is_fitted_by_gpu_and_phase(run, tmp_path: Path) -> None:
    one, two = LatencyModel(20, 10, 5, 0.05), LatencyModel(10, 5, 1, 0.02)
    path = tmp_path / "times.csv"
    path.write_text(HEADER + rows(one) + rows(two, "y,generation"))
    models = json.loads(run("latency", path, "--json").stdout)["models"]
    assert models["x generation"]["floor"] == pytest.approx(10, rel=0.05)
    assert models["y generation"]["fixed"] == pytest.approx(10, rel=0.05)
    assert models["x generation"]["error"] < 0.02


def test_a_column_for_each_slot_is_taken_too(run, tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    tokens = [(0, 5), (3, 9), (100, 0), (300, 600), (700, 20), (0, 900)]
    model = LatencyModel(20, 10, 5, 0.05)
    path.write_text("a,b,microseconds\n" + "".join(f"{a},{b},{float(model.rank_time([a, b]))}\n" for a, b in tokens))
    assert run("latency", path).exit_code == 0


TIMES = [(active, tokens) for active in (1, 2, 4) for tokens in (1, 64, 200, 800)]


@pytest.mark.parametrize(
    ("header", "unit", "more"),
    [
        ("active_experts,tokens_per_active_expert,latency_ms", 1e-3, ""),
        ("Active Experts;Tokens per active expert;time (us)", 1.0, ""),
        ("num_active\ttokens_per_expert\tseconds\tnote", 1e-6, "\tcold"),
        ("# measured\nactive_experts,tokens_per_active_expert,ns,ep_size", 1e3, ",32"),
    ],
)
def test_times_are_known_by_name_and_unit_whatever_stands_between(
    run, tmp_path: Path, header: str, unit: float, more: str
) -> None:
    sign = next(sign for sign in "\t;," if sign in header)
    lines = [(active, tokens, float(MODEL.rank_time([tokens] * active)) * unit) for active, tokens in TIMES]
    text = "".join(sign.join(f"{cell:.9f}" if sign != ";" else f"{cell:.9f}".replace(".", ",") for cell in line) + more
                   + "\n" for line in lines)  # fmt: skip
    path = tmp_path / "times.csv"
    path.write_text(f"{header}\n{text}")
    fitted = json.loads(run("latency", path, "--json").stdout)["models"]["fitted"]
    assert fitted["floor"] == pytest.approx(MODEL.floor, rel=0.02)
    assert fitted["fixed"] == pytest.approx(MODEL.fixed, rel=0.02)


def test_devices_and_kernels_are_fitted_apart_and_an_index_is_no_slot(run, tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    two = LatencyModel(10, 5, 1, 0.02)
    lines = "".join(
        f"{name},{a},{n},{float(model.rank_time([n] * a))}\n"
        for name, model in (("A", MODEL), ("B", two))
        for a, n in TIMES
    )
    path.write_text("Device,active_experts,tokens_per_active_expert,microseconds\n" + lines)
    models = json.loads(run("latency", path, "--json").stdout)["models"]
    assert models["A"]["floor"] == pytest.approx(10, rel=0.02)
    assert models["B"]["floor"] == pytest.approx(5, rel=0.02)
    rows_ = [[n if slot < a else 0 for slot in range(4)] for a, n in TIMES]
    path.write_text(
        ",slot_0,slot_1,slot_2,slot_3,microseconds\n"
        + "".join(f"{i},{','.join(map(str, row))},{float(MODEL.rank_time(row))}\n" for i, row in enumerate(rows_))
    )
    assert json.loads(run("latency", path, "--json").stdout)["models"]["fitted"]["fixed"] == pytest.approx(20, rel=0.02)


def test_what_a_table_cannot_tell_apart_is_said(run, tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    path.write_text(HEADER + "".join(f"x,y,1,{n},{float(MODEL.rank_time([n])) / 1000}\n" for n in (1, 64, 200, 800)))
    said = run("latency", path).stderr
    assert "do not tell what is fixed" in said
    assert "below 1 microseconds" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER, "no measurements"), ("slot_0,batch,microseconds\n1,2,3\n", "'batch' beside the slots, as 'slot_0'"),
        ("a,us,ms\n1,2,3\n", "several columns of times, 'us', 'ms'"), ("a,a,us\n1,2,3\n", "two columns called 'a'"),
        ("", "no column microseconds"), ("a,b\n1,2\n", "no column microseconds"),
        ("microseconds\n1\n", "no column of tokens"), (HEADER + "x,y,1,2,three\n", "'three'"),
        (HEADER + "x,y,1,2\n", "4 cells"), (HEADER + "x,y,1,2,3\n", "at least 4"), (HEADER + "x,y,1,2,nan\n", "'nan'"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_times_ends_with_a_sentence(run, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "times.csv"
    path.write_text(text)
    result = run("latency", path)
    assert result.exit_code == 2
    assert words in result.stderr


def test_measuring_without_a_device_says_what_is_missing(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("latency", "measure")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "torch" in result.stderr


def test_a_place_for_measurements_needs_measuring(run, tmp_path: Path) -> None:
    assert run("latency", "--out", tmp_path / "x.csv").exit_code == 2
    assert run("latency", "--curve", "a100").exit_code == 2


def test_a_model_says_top_k_and_the_shape_and_bytes_of_an_expert(run, tmp_path: Path) -> None:
    path = tmp_path / "load.npy"
    np.save(path, np.random.default_rng(0).pareto(1.5, (3, 128)))
    options = ("--ranks", 16, "--gpu", "h200", "--tokens-per-rank", "4", "--model", "llama-4-maverick")
    report = json.loads(run("slots", path, *options, "--json").stdout)
    assert report["latency"]["floor"] == pytest.approx(11.55 * 2 * 5120 * 8192 / (7168 * 2048), rel=1e-3)
    assert report["points"][1]["extra_bytes_per_rank"] == 3 * 3 * 5120 * 8192 * 2
    shown = run("slots", path, *options).stdout
    assert "top 1;" in shown
    assert "251.7 MB an expert, as llama-4-maverick's in bf16" in shown
    out = tmp_path / "plan.json"
    assert run("plan", path, *options, "--slots", 144, "--out", out).exit_code == 0
    assert json.loads(out.read_text())["time"]["routed_per_step"] == [4 * 16]
    again = json.loads(run("replan", path, "--current", out, *options, "--json").stdout)
    (took,) = json.loads(run("plan", path, *options, "--slots", 144, "--json").stdout)["time"]["mean_max_rank_time"]
    assert again["microseconds"][0] <= took * 1.001
    assert "says another" in run("slots", path, *options[:-2]).stdout


@pytest.mark.parametrize(
    ("fewest", "more", "even", "says"),
    [
        ([10, 20], [9, 19], 0.0, "save time at every size"),
        ([10, 20], [12, 21], None, "only cost time here"),
        ([10, 20], [9, 21], None, "cost time at the largest size here"),
        ([10, 20], [11, 19], 50.0, "cost time below about 50 tokens a rank, and save it above"),
        ([10, 20, 30], [9, 21, 29], 75.0, "cost time at some sizes below about 75 tokens a rank"),
    ],
)
def test_the_advice_says_where_redundancy_costs_and_where_it_saves(
    fewest: list[float], more: list[float], even: float | None, says: str
) -> None:
    sizes = (25.0, 75.0) if len(fewest) == 2 else (10.0, 50.0, 100.0)
    points = tuple(
        eq.advice.SlotTime(slots, slots - 8, np.array(fewest, float), np.array(times, float), None)
        for slots, times in ((8, fewest), (16, more))
    )
    times = eq.advice.SlotTimes(MODEL, sizes, points)
    assert times.break_even == even
    assert says in times.describe()


def test_what_saves_much_at_one_size_is_not_called_less_than_a_percent() -> None:
    active = (np.array([10.0, 10.0, 10.0, 10.0, 10.0]), np.array([10.0, 10.0, 10.0, 10.0, 9.6]))
    points = tuple(eq.advice.SlotTime(8 * i, 8 * i - 8, each, each, None) for i, each in enumerate(active, start=1))
    advice = eq.advice.SlotTimes(MODEL, (1.0, 2.0, 3.0, 4.0, 5.0), points).describe()
    assert "more save less than 1% on average, 4.0% at most, at these batch sizes" in advice
    alone = eq.advice.SlotTimes(MODEL, (1.0,), (eq.advice.SlotTime(8, 0, active[0][:1], active[0][:1], None),))
    assert "all active" not in alone.describe()


def test_slots_with_a_gpu_shows_microseconds_and_recommends(run, loads: Path) -> None:
    result = run("slots", loads, "--ranks", 8, "--gpu", "h200", "--top-k", 2, "--tokens-per-rank", "4,64,256")
    assert result.exit_code == 0, result.stderr
    assert "us a layer" in result.stdout
    assert "slots, " in result.stdout
    assert "redundant" in result.stdout
    assert result.stdout.count("█") > 3
    report = json.loads(
        run(
            "slots", loads, "--ranks", 8, "--gpu", "h200", "--tokens-per-rank", "4,256",
            "--bytes-per-expert", 1e6, "--json",
        ).stdout
    )  # fmt: skip
    assert [point["num_slots"] for point in report["points"]] == [16, 24, 32, 40]
    assert report["points"][1]["extra_bytes_per_rank"] == 3e6  # one slot more in three layers with tokens
    for fewer, more in zip(report["points"], report["points"][1:], strict=False):
        assert all(b <= a * 1.001 for a, b in zip(fewer["microseconds"], more["microseconds"], strict=True))


def test_commands_tell_the_same_microseconds_of_a_load_with_dense_layers(run, loads: Path) -> None:
    options = ("--ranks", 8, "--gpu", "h200", "--top-k", 2, "--tokens-per-rank", 64)
    (point,) = (
        each for each in json.loads(run("slots", loads, *options, "--json").stdout)["points"] if each["num_slots"] == 24
    )
    plan = json.loads(run("plan", loads, *options, "--slots", 24, "--json").stdout)
    compared = json.loads(run("compare", loads, *options, "--slots", 24, "--json").stdout)["contenders"]
    by_name = {each["name"]: each["microseconds"] for each in compared}
    assert plan["time"]["mean_max_rank_time"] == by_name["in time"] == point["microseconds"]
    assert by_name["joint-descent"] == pytest.approx(point["microseconds_all_active"])


@pytest.mark.parametrize(
    "wrong",
    [
        ("--gpu", "a100", "--tokens-per-rank", "4"), ("--gpu", "h200"), ("--tokens-per-rank", "4"), ("--top-k", 8),
        ("--gpu", "h200", "--tokens-per-rank", "x"), ("--gpu", "h200", "--tokens-per-rank", "0"),
        ("--gpu", "1,2,3", "--tokens-per-rank", "4"), ("--bytes-per-expert", 3),
    ],
)  # fmt: skip
def test_half_of_what_a_gpu_needs_is_refused(run, loads: Path, wrong: tuple[object, ...]) -> None:
    result = run("slots", loads, "--ranks", 8, *wrong)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1


def test_plan_with_a_gpu_plans_in_time(run, loads: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    result = run(
        "plan", loads, "--ranks", 4, "--slots", 24, "--gpu", "h200", "--tokens-per-rank", "4,256", "--out", out
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("us a layer at") == 2
    refused = run("export", out, "--engine", "sglang", "--out", tmp_path / "map.json")
    assert refused.exit_code == 2
    assert "dormant" in refused.stderr
    report = json.loads(
        run(
            "plan", loads, "--ranks", 4, "--slots", 24, "--gpu", "20,10,5,0.05", "--tokens-per-rank", 4, "--json"
        ).stdout
    )
    assert report["time"]["routed_per_step"] == [128.0]


def test_compare_shows_microseconds_beside_the_plan_in_time(run, loads: Path) -> None:
    result = run(
        "compare", loads, "--ranks", 4, "--slots", 24, "--gpu", "h200", "--tokens-per-rank", 4, "--backend", "numba"
    )
    assert result.exit_code == 0, result.stderr
    assert "in time" in result.stdout
    assert "us a" in result.stdout
