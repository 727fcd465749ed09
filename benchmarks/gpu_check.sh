#!/usr/bin/env bash
# nasray on one real GPU, in ten minutes: steps ordered by value, each bounded in time, each one line of output.
#
#   with nasray's environment:   PYTHON=.venv/bin/python bash benchmarks/gpu_check.sh run
#   without network:             bash benchmarks/gpu_check.sh prepare WHEELS     here: itself and the wheels in that
#                                folder go to .gpu (ignored by git); carry it, then there: bash .gpu/gpu_check.sh run
#   in small, without a GPU:     CHECK_DEVICE=cpu CHECK_SMALL=1 bash benchmarks/gpu_check.sh run
#
# Run it from the repository's root. Logs and figures go to $OUT. The wheels, for the Python and PyTorch of that machine:
# pydantic, pydantic-core, annotated-types, typing-inspection, typing-extensions, pycocotools, hotcoco, attrs, jsonschema,
# jsonschema-specifications, referencing, rpds-py, tensorboardX, ray (pip download --no-deps --only-binary=:all:).
#
# Options by environment: BUDGET seconds in all (560), STEPS="equal train" only these, PYTHON the interpreter.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODE=${1:-run}
if [ "$MODE" = prepare ]; then
  mkdir -p .gpu/wheels
  cp "$HERE/gpu_check.sh" .gpu/ && cp "${2:?which folder of wheels?}"/*.whl .gpu/wheels/
  du -sm .gpu
  exit 0
fi
ROOT=$(cd "${2:-.}" && pwd)
OUT=${OUT:-$(mktemp -d /tmp/gpu-check-out-XXXX)}
PYTHON=${PYTHON:-python3}
export CHECK_DEVICE=${CHECK_DEVICE:-cuda} CHECK_SMALL=${CHECK_SMALL:-} CHECK_ROOT=$ROOT CHECK_OUT=$OUT
W=$(mktemp -d /tmp/gpu-check-XXXX)
export CHECK_WORK=$W
mkdir -p "$W/site" "$W/pkg/nasray"
tag=$($PYTHON -c 'import sys; print(f"cp{sys.version_info[0]}{sys.version_info[1]}")')
for wheel in "$HERE"/wheels/*.whl; do
  [ -e "$wheel" ] || continue
  case $(basename "$wheel") in *py3-none-any*|*"-$tag-"*|*abi3*) $PYTHON -m zipfile -e "$wheel" "$W/site" ;; esac
done
chmod -R a+rX "$W/site" 2>/dev/null
for binary in "$W"/site/ray/core/src/ray/*/*; do [ -f "$binary" ] && chmod +x "$binary"; done
ln -s "$ROOT"/nasray/* "$W/pkg/nasray/" && ln -s "$ROOT/cluster" "$ROOT/searchers" "$ROOT/spaces" "$W/pkg/nasray/"
for name in ray optuna; do # describe_versions() asks for their versions; they need not be there for all but the last steps
  $PYTHON -c "import sys; sys.path.insert(0, '$W/site'); from importlib.metadata import version; version('$name')" 2>/dev/null && continue
  mkdir -p "$W/site/$name-0.dist-info"
  printf 'Metadata-Version: 2.1\nName: %s\nVersion: 0\n' "$name" >"$W/site/$name-0.dist-info/METADATA"
done
# Ray's processes import much: without bytecode its start takes half a minute, and its agents come too late for it.
if [ -n "$CHECK_SMALL" ]; then export PYTHONDONTWRITEBYTECODE=1; else $PYTHON -m compileall -q -j 8 "$W/site" >/dev/null 2>&1 & fi
export PYTHONPATH=$W/pkg:$W/site${PYTHONPATH:+:$PYTHONPATH} RAY_USAGE_STATS_ENABLED=0
export NASRAY_CACHE=$W/cache NASRAY_RUNS=$W/runs TOKENIZERS_PARALLELISM=false
cat >"$W/check.py" <<'PY'
"""The steps; `check.py --step NAME` runs one in this process, without it all of them in processes of their own."""
import argparse, contextlib, dataclasses, io, json, math, os, statistics, subprocess, sys, time, traceback, warnings
from pathlib import Path

DEVICE, SMALL = os.environ["CHECK_DEVICE"], bool(os.environ["CHECK_SMALL"])
SCALE = float(os.environ.get("CHECK_SCALE", 1))  # of time limits, for a dry run on a busy machine
ROOT, OUT, WORK = (Path(os.environ[f"CHECK_{n}"]) for n in ("ROOT", "OUT", "WORK"))
CUDA = DEVICE == "cuda"
# name: (most seconds, least seconds that must be left to begin)
STEPS = {
    "versions": (40, 5), "equal": (90, 20), "train": (75, 20), "tests": (60, 15), "throughput": (110, 30),
    "supernet": (100, 30), "paths": (120, 40), "entropy": (50, 15), "ddp": (70, 20), "syncs": (40, 10),
    "export": (60, 20), "ray": (120, 50), "loader": (40, 15),
}  # fmt: skip


def result(**values):
    print("RESULT " + json.dumps(values), flush=True)


def small(value, other):
    return other if SMALL else value


def exact():
    import torch
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def sync():
    import torch
    if CUDA:
        torch.cuda.synchronize()


def device():
    return "cuda:0" if CUDA else "cpu"


def targets(num, hw, masks=False, seed=0, classes=80, boxes=7):
    import numpy as np, torch
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(num):
        center = rng.uniform(0.2, 0.8, (boxes, 2)) * hw[::-1]
        extent = rng.uniform(0.1, 0.35, (boxes, 2)) * hw[::-1] / 2
        box = torch.from_numpy(np.concatenate([center - extent, center + extent], 1)).float()
        one = {"boxes": box, "labels": torch.from_numpy(rng.integers(0, classes, boxes))}
        if masks:
            one["masks"] = torch.zeros(boxes, *hw, dtype=torch.uint8)
            for m, (x0, y0, x1, y1) in zip(one["masks"], box.int().tolist()):
                m[y0:y1, x0:x1] = 1
        out.append(one)
    return out


def moved(items, where):
    return [{k: v.to(where) for k, v in one.items()} for one in items]


def timed(step, warm, num):
    """Median seconds of a step, of its host part alone, and peak GiB."""
    import torch
    for _ in range(warm):
        step()
    sync()
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    whole, host = [], []
    for _ in range(num):
        begin = time.perf_counter(); step(); host.append(time.perf_counter() - begin); sync()
        whole.append(time.perf_counter() - begin)
    peak = torch.cuda.max_memory_allocated() / 2**30 if CUDA else 0.0
    return statistics.median(whole), statistics.median(host), peak


# ---- steps -------------------------------------------------------------------------------------------------------


def versions():
    import importlib, torch, torchvision
    for name in ("nasray", "nasray.training.setup", "nasray.evaluators.path", "nasray.scores.sampled", "nasray.detector_export",
                 "nasray.latency", "nasray.experiment", "nasray.cluster.training", "nasray.cli"):
        importlib.import_module(name)
    values = {"torch": torch.__version__, "torchvision": torchvision.__version__, "python": sys.version.split()[0],
              "cores": os.cpu_count()}
    if CUDA:
        x = torch.randn(8192, 8192, device=device(), dtype=torch.bfloat16)
        t, _, _ = timed(lambda: x @ x, 3, 8)
        values |= {"gpu": torch.cuda.get_device_name(), "bf16_tflops": round(2 * 8192**3 / t / 1e12)}
    with contextlib.suppress(ImportError):
        import ray
        values["ray"] = ray.__version__
    result(**values)


def equal():
    """Losses, gradients and detections of every detector on the GPU against the CPU; then bf16 and fp16 steps."""
    import torch
    from nasray.architectures import ARCHITECTURES
    from nasray.models import build
    from nasray.models.detectors import DETECTORS, build_detector
    exact()
    hw, rows, failed = small((256, 320), (96, 128)), {}, []
    for name in small(list(DETECTORS), ["fcos", "faster-rcnn"]):
        try:
            torch.manual_seed(0)
            nets = build_detector(name, build(ARCHITECTURES["resnet18"]), 80, score_threshold=0.0).train()
            images = torch.randint(0, 256, (2, 3, *hw), dtype=torch.uint8)
            truth = targets(2, hw, masks=nets.learns_masks)
            losses, grads, found = {}, {}, {}
            for where in ("cpu", device()):
                net = nets.to(where)
                for norm in net.modules():  # the same statistics on both: none of the first run's
                    if isinstance(norm, torch.nn.BatchNorm2d):
                        norm.reset_running_stats()
                net.train().zero_grad()
                value = net(images.to(where), moved(truth, where), generator=torch.Generator().manual_seed(1))
                total = torch.stack(list(value.values())).sum()
                total.backward()
                losses[where] = {k: float(v.detach()) for k, v in value.items()}
                grads[where] = float(torch.nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None]))
                with torch.no_grad():
                    found[where] = net.eval()(images.to(where)).scores.cpu()
            a, b = losses["cpu"], losses[device()]
            rows[name] = {"loss": max(abs(a[k] - b[k]) / max(abs(a[k]), 1e-3) for k in a),
                          "grad": abs(grads["cpu"] - grads[device()]) / grads["cpu"],
                          "scores": float((found["cpu"] - found[device()]).abs().max())}
            net.train()
            for dtype in (torch.bfloat16, torch.float16):
                net.zero_grad()
                with torch.autocast(DEVICE, dtype):
                    value = net(images.to(device()), moved(truth, device()), generator=torch.Generator().manual_seed(1))
                total = torch.stack([v.float() for v in value.values()]).sum()
                total.backward()
                assert total.isfinite(), (name, dtype, value)
                rows[name][str(dtype)[6:]] = max(abs(float(v.detach()) - a[k]) / max(abs(a[k]), 1e-3) for k, v in value.items())
        except Exception as error:
            traceback.print_exc()
            failed.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
    worst = {k: max(((r[k], n) for n, r in rows.items() if k in r), default=None) for k in ("loss", "grad", "scores", "bfloat16", "float16")}
    result(failed=failed, worst={k: v and [float(f"{v[0]:.2g}"), v[1]] for k, v in worst.items()}, rows=rows)


def shapes_recipe(name="shapes-detect", **changes):
    from nasray.recipe import load_recipe
    recipe = load_recipe(name)
    return dataclasses.replace(recipe, data="shapes", **changes)


def train():
    """The training loop on the GPU: three precisions, loader processes forked after CUDA began, stop and resume."""
    import torch
    from nasray.architectures import ARCHITECTURES
    from nasray.cluster.training import Worker
    from nasray.checkpoint import Checkpoint
    from nasray.training.jobs import train_here
    from nasray.training.folder import create_folder, read_summary
    from nasray.training.loop import StoppedError
    from nasray.training.setup import train as train_loop
    from nasray.training import try_out
    values, failed = {}, []
    base = shapes_recipe()
    for precision in small(("float32", "bfloat16", "float16"), ("float32",)):
        recipe = dataclasses.replace(
            base, precision=precision, ema=0.99, evaluate_every=2, log_every=10,
            loader=dataclasses.replace(base.loader, processes=2, cache=False),
            schedule=dataclasses.replace(base.schedule, epochs=small(2, 0.2)))
        folder = WORK / f"train-{precision}"
        try:
            create_folder(folder, try_out(recipe, ARCHITECTURES["resnet18"] if not SMALL else None))
            asked = []
            worker = Worker(device=device(), should_stop=lambda: asked.append(1) or len(asked) > small(15, 2))
            with contextlib.suppress(StoppedError):
                train_loop(recipe, folder, worker)
            at = Checkpoint.load(folder / "checkpoints" / "last.pt").iteration
            begin = time.perf_counter()
            train_loop(recipe, folder, Worker(device=device()))
            lines = [json.loads(x) for x in (folder / "log.jsonl").read_text().splitlines()]
            losses = [x["loss"] for x in lines if "loss" in x]
            values[precision] = {"resumed_at": at, "seconds": round(time.perf_counter() - begin, 1), "first": losses[:1], "last": losses[-1:]}
        except Exception as error:
            traceback.print_exc()
            failed.append(f"{precision}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
    result(failed=failed, **values)


def tests():
    runner = WORK / "run_pytest.py"
    runner.write_text("import sys, pytest\nsys.exit(pytest.main(sys.argv[1:]))\n")
    command = [sys.executable, str(runner), "-m", "gpu" if CUDA else "not slow and not gpu", "-q", "-x" if SMALL else "-q",
               "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    command += [str(ROOT / "tests/nasray/test_scores.py"), str(ROOT / "tests/nasray/test_latency.py")] if CUDA else [str(ROOT / "tests/spaces/test_budget.py")]
    if CUDA:  # all of them, wherever they are, but not the trees that need Ray
        command[-2:] = [str(ROOT / "tests/nasray")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout[-6000:], done.stderr[-2000:])
    result(rc=done.returncode, last=(done.stdout.strip().splitlines() or [""])[-1])


def throughput():
    """img/s and peak GiB of a training step beside torchvision's, 800x1344, resnet50, SGD, bf16."""
    import torch, torchvision
    from nasray.architectures import ARCHITECTURES
    from nasray.models import build
    from nasray.models.detectors import build_detector
    from nasray.recipe import OptimizerOptions
    from nasray.training.optimizers import make_optimizer
    hw, dtype = small((800, 1344), (128, 160)), torch.bfloat16
    rows = {}

    def ours(name, batch, layout):
        net = build_detector(name, build(ARCHITECTURES[small("resnet50", "resnet18")]), 80).train().to(device(), memory_format=layout)
        optimizer = make_optimizer(net, OptimizerOptions(learning_rate=1e-4))
        images = torch.randint(0, 256, (batch, 3, *hw), dtype=torch.uint8).to(device()).contiguous(memory_format=layout)
        truth, generator = moved(targets(batch, hw), device()), torch.Generator(device())

        def step():
            optimizer.zero_grad()
            with torch.autocast(DEVICE, dtype):
                losses = net(images, truth, generator=generator)
            torch.stack([v.float() for v in losses.values()]).sum().backward()
            optimizer.step()
        return step

    def theirs(name, batch, layout):
        make = {"fcos": torchvision.models.detection.fcos_resnet50_fpn, "faster-rcnn": torchvision.models.detection.fasterrcnn_resnet50_fpn}[name]
        shift = int(name == "faster-rcnn")
        net = make(weights=None, weights_backbone=None, num_classes=80 + shift, min_size=min(hw), max_size=max(hw)).train().to(device(), memory_format=layout)
        for p in net.parameters():
            p.requires_grad_(True)
        optimizer = torch.optim.SGD(net.parameters(), 1e-4, momentum=0.9, weight_decay=1e-4, fused=CUDA)
        images = list(torch.rand(batch, 3, *hw, device=device()))
        truth = [{**t, "labels": t["labels"] + shift} for t in moved(targets(batch, hw), device())]

        def step():
            optimizer.zero_grad()
            with torch.autocast(DEVICE, dtype):
                losses = net(images, truth)
            torch.stack([v.float() for v in losses.values()]).sum().backward()
            optimizer.step()
        return step

    last = torch.channels_last
    plan = [("fcos", 16, "ours", last), ("fcos", 16, "torchvision", last), ("fcos", 8, "ours", last), ("fcos", 8, "torchvision", last),
            ("fcos", 8, "ours-nchw", torch.contiguous_format), ("faster-rcnn", 8, "ours", last), ("faster-rcnn", 8, "torchvision", last),
            ("fcos", 2, "ours", last), ("faster-rcnn", 2, "ours", last), ("faster-rcnn", 2, "torchvision", last)]
    for name, batch, whose, layout in small(plan, plan[2:3]):
        key = f"{name} b{batch} {whose}"
        try:
            step = (theirs if whose == "torchvision" else ours)(name, small(batch, 2), layout)
            whole, host, peak = timed(step, small(3, 1), small(8, 1))
            rows[key] = {"img_s": round(small(batch, 2) / whole, 1), "host_share": round(host / whole, 2), "gib": round(peak, 1)}
        except Exception as error:
            rows[key] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        step = None
        if CUDA:
            torch.cuda.empty_cache()
        print(key, rows[key], flush=True)
    result(**rows)


def supernet():
    """Paths of DetNAS's supernet beside the same networks alone; then what its layout costs, as a classifier."""
    import torch
    from torch import nn
    from nasray.models.classifier import Classifier
    from nasray.models.supernets import UniformPaths, build_supernet
    from nasray.spaces import ShuffleNetSpace
    rows = {}
    bench = [sys.executable, str(ROOT / "benchmarks/supernet_training.py"), "--json", "--device", DEVICE]
    for batch, precision in small(((8, "bfloat16"), (2, "float32")), ((1, "float32"),)):
        options = ["--image-size", small("800x1344", "64x96"), "--batch-size", str(batch), "--precision", precision, "--rounds", small("4", "1"), "--steps", small("3", "1")]
        done = subprocess.run([*bench, *options], capture_output=True, text=True, cwd=WORK, timeout=45 * SCALE)
        print(done.stderr[-1500:])
        with contextlib.suppress(ValueError):
            found = json.loads(done.stdout)
            rows[f"detector b{batch} {precision}"] = {k: round(v, 1) for k, v in found["images_per_s"].items()} | {"ratio": round(found["ratio"], 2)}
    space = ShuffleNetSpace("small")
    net = Classifier(build_supernet(space), 1000).train().to(device())
    sampler, batch, edge = UniformPaths(space, seed=0), small(128, 2), small(224, 64)
    labels = torch.zeros(batch, dtype=torch.int64, device=device())

    for label, layout in (("nhwc", torch.channels_last), ("nchw", torch.contiguous_format)):
        net.to(memory_format=layout)
        x = torch.randint(0, 256, (batch, 3, edge, edge), dtype=torch.uint8).to(device()).contiguous(memory_format=layout)
        for dtype in small((torch.bfloat16, torch.float32), (torch.float32,)):
            optimizer = torch.optim.SGD(net.parameters(), 1e-3, fused=CUDA)
            count = iter(range(10**6))

            def step():
                net.backbone.set_path(sampler.draw(next(count)))
                optimizer.zero_grad()
                with torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
                    loss = net(x, labels)["loss_classes"]
                loss.backward()
                optimizer.step()
            whole, host, peak = timed(step, small(12, 1), small(16, 1))
            rows[f"224 b{batch} {label} {str(dtype)[6:]}"] = {"img_s": round(batch / whole), "host_share": round(host / whole, 2), "gib": round(peak, 1)}
    result(**rows)


def path_checkpoint():
    """A supernet in detnas-fpn-1x, trained for a step or two."""
    from nasray.models.supernets import supernet_architecture
    from nasray.recipe import WorkerOptions, load_recipe
    from nasray.spaces import ShuffleNetSpace
    from nasray.training.jobs import train_here
    folder, space = WORK / "paths", ShuffleNetSpace("small")
    recipe = load_recipe(small("detnas-fpn-1x", "cpu-detect-supernet"))
    augmentation = dataclasses.replace(recipe.augmentation, short_side=(96,), long_side=128) if SMALL else recipe.augmentation
    recipe = dataclasses.replace(
        recipe, data="shapes", holdout=small(96, 8), weights=None, batch_size=small(16, 4), resources=WorkerOptions(), augmentation=augmentation,
        loader=dataclasses.replace(recipe.loader, processes=2),
        schedule=dataclasses.replace(recipe.schedule, epochs=small(0.5, 0.02), milestones=(), warmup_iterations=0))
    train_here(recipe, folder, supernet_architecture(space))
    return folder / "checkpoints" / "last.pt"


def path_process(checkpoint, num, images, barrier, queue):
    import numpy as np, torch
    from nasray.evaluators import PathEvaluator
    from nasray.spaces import ShuffleNetSpace
    space = ShuffleNetSpace("small")
    torch.set_num_threads(2)
    evaluator = PathEvaluator(space, str(checkpoint), images=images, cache_gib=8.0)
    rows = space.sample(num + 2, np.random.default_rng(os.getpid()))
    evaluator(rows[:1])
    evaluator(rows[1:2])
    barrier.wait()
    begin = time.perf_counter()
    parts = []
    for row in rows[2:]:
        evaluator(row[None])
        parts.append(dict(evaluator.loaded.seconds))
    seconds = time.perf_counter() - begin
    queue.put({"seconds": seconds, **{k: statistics.mean(p[k] for p in parts) for k in parts[0]},
               "reserved_gib": torch.cuda.max_memory_reserved() / 2**30 if CUDA else 0})
    barrier.wait()


def paths():
    """Paths a second with 1, 2 and 4 processes on the GPU; and one path on CPU and GPU."""
    import multiprocessing, torch
    checkpoint = path_checkpoint()
    rows, context, images = {}, multiprocessing.get_context("spawn"), small(64, 8)
    for count in small((1, 2, 4), (1,)):
        num = small(4, 1)
        barrier, queue = context.Barrier(count), context.Queue()
        workers = [context.Process(target=path_process, args=(checkpoint, num, images, barrier, queue)) for _ in range(count)]
        for worker in workers:
            worker.start()
        try:
            found = [queue.get(timeout=60 * SCALE) for _ in workers]
            rows[f"{count} processes"] = {"paths_s": round(num * count / max(f["seconds"] for f in found), 3),
                                          **{k: round(statistics.mean(f[k] for f in found), 3) for k in ("recalibration", "inference", "metrics", "reserved_gib")}}
        except Exception as error:
            rows[f"{count} processes"] = f"{type(error).__name__} {error}"
        for worker in workers:
            worker.join(5)
            if worker.is_alive():
                worker.terminate()
        print(rows, flush=True)
    if CUDA:
        import numpy as np
        from nasray.evaluators import PathEvaluator
        from nasray.spaces import ShuffleNetSpace
        exact()
        space = ShuffleNetSpace("small")
        row = space.sample(1, np.random.default_rng(0))
        scores = {d: PathEvaluator(space, str(checkpoint), images=16, device=d)(row) for d in ("cuda",)}
        rows["score_cuda"] = {k: float(v[0]) for k, v in scores["cuda"].items()}
    result(**rows)


def entropy():
    """Sampled entropy: candidates a second, first and again (plans of new shapes), and agreement with the CPU."""
    import numpy as np, torch
    from nasray.evaluators import EVALUATORS, SampledEntropy
    from nasray.loading import load_plan
    from nasray.scores.sampled import sampled_level_entropies
    from nasray.searchers import RandomSearch
    from nasray.spaces import Budget
    space = load_plan(small("maedet-m", "maedet-tiny")).parts.space
    budget = Budget(upper={"gmacs": 91.0}, lower={"gmacs": 60.0}) if not SMALL else None
    genes = RandomSearch(space, budget=budget, seed=0).ask(small(12, 1)).genes
    hw = small((384, 384), (64, 64))
    rows = {}
    evaluate = SampledEntropy(space, image_hw=hw, device=DEVICE)
    for label in ("first", "again"):
        begin = time.perf_counter()
        evaluate(genes)
        rows[f"{label}_per_s"] = round(len(genes) / (time.perf_counter() - begin), 2)
    begin = time.perf_counter()
    SampledEntropy(space, image_hw=hw, device="cpu")(genes[: small(2, 1)])
    rows["cpu_per_s"] = round(small(2, 1) / (time.perf_counter() - begin), 2)
    for label in ("tf32", "exact") if CUDA else ("exact",):
        if label == "exact":
            exact()
        worst = 0.0
        for row in genes[: small(3, 1)]:
            architecture = space.to_architecture(row)
            a, b = (sampled_level_entropies(architecture, generator=torch.Generator().manual_seed(5), image_hw=hw, device=d) for d in ("cpu", device()))
            worst = max(worst, float(np.abs(a - b).max()))
        rows[f"worst_difference_{label}"] = float(f"{worst:.3g}")
    for proxy in small(("zen", "naswot", "synflow"), ("zen",)):
        begin = time.perf_counter()
        EVALUATORS[proxy](space, device=DEVICE, image_hw=small((224, 224), (64, 64)))(genes[: small(4, 1)])
        rows[f"{proxy}_per_s"] = round(small(4, 1) / (time.perf_counter() - begin), 2)
    result(**rows)


def ddp_process(rank, world, port, folder, recipe, queue):
    import torch
    from torch import distributed
    exact()
    torch.set_num_threads(2)
    if world > 1:
        distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    if CUDA:
        torch.cuda.set_device(0)
    from nasray.cluster.training import Worker
    from nasray.training.setup import train as train_loop
    try:
        train_loop(recipe, folder, Worker(rank, world, device()))
        queue.put(None)
    except BaseException as error:
        traceback.print_exc()
        queue.put(f"rank {rank} of {world}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")


def ddp():
    """Two processes on the one GPU (gloo): DDP, SyncBatchNorm and unused parameters against one with the whole batch."""
    import multiprocessing, socket, torch
    from nasray.checkpoint import Checkpoint
    from nasray.models.supernets import supernet_architecture
    from nasray.loading import load_plan
    from nasray.training import try_out
    from nasray.training.folder import create_folder
    from nasray.training.setup import fresh_network
    context, rows = multiprocessing.get_context("spawn"), {}
    base = shapes_recipe()
    space = load_plan("detnas-300m-tiny").parts.space
    for kind, architecture in (("network", None), ("supernet", supernet_architecture(space))):
        recipe = dataclasses.replace(
            base, optimizer=dataclasses.replace(base.optimizer, name="sgd", learning_rate=0.01, weight_decay=0.0),
            schedule=dataclasses.replace(base.schedule, epochs=0.05, warmup_iterations=0))  # one iteration: later ones differ by chaos
        states, seconds = {}, {}
        for world in (1, 2):
            folder = WORK / f"ddp-{kind}-{world}"
            create_folder(folder, try_out(recipe, architecture))
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
            queue = context.Queue()
            begin = time.perf_counter()
            workers = [context.Process(target=ddp_process, args=(r, world, port, folder, recipe, queue)) for r in range(world)]
            for w in workers:
                w.start()
            try:
                errors = [e for e in (queue.get(timeout=40 * SCALE) for _ in workers) if e]
            except Exception:
                errors = ["it hangs"]
            seconds[world] = round(time.perf_counter() - begin, 1)
            for w in workers:
                w.join(3)
                if w.is_alive():
                    w.terminate()
            if errors:
                rows[kind] = errors
                break
            states[world] = Checkpoint.load(folder / "checkpoints" / "last.pt").model
        if len(states) == 2:
            with torch.random.fork_rng(devices=[]):
                first = fresh_network(recipe, try_out(recipe, architecture)).state_dict()
            names = [n for n, v in first.items() if v.is_floating_point()]
            apart = sum(float((states[1][n].cpu().float() - states[2][n].cpu().float()).square().sum()) for n in names)
            moved_by = sum(float((states[1][n].cpu().float() - first[n].float()).square().sum()) for n in names)
            rows[kind] = {"difference_over_update": float(f"{math.sqrt(apart / moved_by):.2g}"), "seconds": seconds}  # 1e-4 on CPUs
    result(**rows)


def syncs():
    """How often a training step and a detection make the host wait, as PyTorch's own debug mode counts."""
    import torch
    from nasray.architectures import ARCHITECTURES
    from nasray.models import build
    from nasray.models.detectors import DETECTORS, build_detector
    rows = {}
    if not CUDA:
        return result(skipped="no GPU")
    for name in DETECTORS:
        net = build_detector(name, build(ARCHITECTURES["resnet18"]), 80).train().to(device())
        images = torch.randint(0, 256, (8, 3, 320, 416), dtype=torch.uint8).to(device())
        truth, generator = moved(targets(8, (320, 416), masks=net.learns_masks), device()), torch.Generator(device())
        sizes = torch.tensor([[320, 416]] * 8, device=device())

        def learn():
            torch.stack(list(net(images, truth, generator=generator).values())).sum().backward()

        def detect():
            with torch.inference_mode():
                net(images, image_hw=sizes)
        found = {}
        for label, run in (("step", learn), ("detect", detect)):
            net.train(label == "step")
            run()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                run()
                torch.cuda.set_sync_debug_mode("default")
            whole, host, _ = timed(run, 1, 5)
            found[label] = {"syncs": sum("synchroniz" in str(w.message) for w in caught), "ms": round(1e3 * whole, 1)}
        rows[name] = found
    result(**rows)


def export():
    """A detector of the GPU's training as ONNX and .pt2; the .pt2 on the GPU, as it is and moved by PyTorch's pass."""
    import torch
    from nasray.checkpoint import Checkpoint
    from nasray.detector_export import export_checkpoint
    folder = WORK / "train-float32"
    if not (folder / "checkpoints" / "last.pt").exists():
        return result(skipped="step train left no checkpoint")
    checkpoint = Checkpoint.load(folder / "checkpoints" / "last.pt")
    rows = {}
    for suffix in (".pt2", ".onnx"):
        try:
            begin = time.perf_counter()
            found = export_checkpoint(checkpoint, WORK / f"model{suffix}", image_hw=(128, 160))
            rows[suffix] = {"box": found["max_difference"], "score": found["max_score_difference"], "s": round(time.perf_counter() - begin, 1)}
        except Exception as error:
            traceback.print_exc()
            rows[suffix] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    exact()
    images = torch.rand(1, 3, 128, 160) * 255
    detector = checkpoint.detector()
    with torch.no_grad():
        on_cpu = detector(images)
        on_gpu = detector.to(device())(images.to(device()))
    rows["eager_cpu_gpu"] = {"scores": float((on_cpu.scores - on_gpu.scores.cpu()).abs().max())}
    for label in ("as it is", "moved"):
        try:
            program = torch.export.load(WORK / "model.pt2")
            if label == "moved":
                from torch.export.passes import move_to_device_pass
                program = move_to_device_pass(program, device())
            boxes, scores, labels = program.module().to(device())(images.to(device()))
            rows[f"pt2 on GPU {label}"] = {"scores": float((scores.cpu() - on_cpu.scores).abs().max())}
        except Exception as error:
            rows[f"pt2 on GPU {label}"] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    result(**rows)


def ray():
    """Through Ray: what a trial without GPUs sees, a training on Ray Train with one GPU, a search with a quarter each."""
    try:
        import ray
        ray.init
    except (ImportError, AttributeError):
        return result(skipped="no Ray was carried")
    runner, rows = WORK / "cli.py", {}
    runner.write_text("import sys\nfrom nasray.cli import main\nsys.exit(main())\n")
    probe = WORK / "probe.py"
    probe.write_text(
        "import os, ray\nfrom nasray.cluster.session import Resources, ray_session\n"
        "@ray.remote(num_cpus=1)\nclass Trial:\n    def see(self):\n        import torch\n"
        "        return os.environ.get('CUDA_VISIBLE_DEVICES'), torch.cuda.device_count(), torch.cuda.is_available()\n"
        "with ray_session(Resources()) as what:\n    print(what)\n    print('SEES', ray.get(Trial.remote().see.remote()))\n")
    gpus = "1" if CUDA else "0"
    commands = {
        "probe": [str(probe)],
        "train": [str(runner), "train", "shapes-detect", "--folder", str(WORK / "ray-train"), "--resources.gpus", gpus,
                  "--schedule.epochs", small("4", "0.3"), "--precision", "bfloat16", "--loader.processes", "2"],
        "search": [str(runner), "search", "detnas-300m-tiny", "--folder", str(WORK / "ray-search"), "--evaluations", small("12", "2"),
                   "--in-flight", "4", "--batch-size", "1", "--resources.gpus", "0.25" if CUDA else "0"],
    }
    for name, command in small(commands, {k: commands[k] for k in ("probe",)}).items():
        begin = time.perf_counter()
        try:
            done = subprocess.run([sys.executable, *command], cwd=WORK, capture_output=True, text=True, timeout=75 * SCALE)
            text = (done.stdout + done.stderr).strip().splitlines()
            print(f"== {name}", *text[-40:], sep="\n")
            rows[name] = {"rc": done.returncode, "s": round(time.perf_counter() - begin, 1), "last": (text or [""])[-1][-160:]}
        except subprocess.TimeoutExpired as error:
            rows[name] = "timeout"
            print(name, (error.stdout or b"")[-3000:], (error.stderr or b"")[-3000:])
    result(**rows)


def loader():
    """Images a second of the training loader on JPEGs of 480x640, to 800x1067, by loader processes."""
    import numpy as np
    from PIL import Image
    from nasray.data.dataset import DetectionSet
    from nasray.data.images import ImagesInMemory
    from nasray.data.loader import TrainLoader
    from nasray.recipe import AugmentationOptions, LoaderOptions
    rng, num = np.random.default_rng(0), small(192, 8)
    texts = []
    for _ in range(8):
        a = np.asarray(Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((640, 480), Image.BICUBIC)).astype(int)
        buffer = io.BytesIO()
        Image.fromarray((a + rng.integers(-12, 12, a.shape)).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        texts.append(buffer.getvalue())
    files = ImagesInMemory.of("drawn", [texts[i % 8] for i in range(num)])
    dataset = DetectionSet("train", ("a",), (1,), files, np.arange(num), np.array([[480, 640]] * num), np.arange(num + 1),
                           np.array([[10.0, 10, 200, 200]] * num), np.zeros(num, np.int64), np.full(num, 1e4), np.zeros(num, bool), np.arange(num))
    rows = {}
    for processes in small((2, 8, 15), (1,)):
        batches = TrainLoader(dataset, AugmentationOptions(), batch_size=small(8, 2), stride=32, seed=0, options=LoaderOptions(processes=processes))
        for _ in batches.epoch(0):
            pass
        begin = time.perf_counter()
        count = sum(len(b.images) for b in batches.epoch(1))
        rows[f"{processes} processes"] = round(count / (time.perf_counter() - begin), 1)
    result(img_s=rows)


# ---- running them ------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--step")
    step = parser.parse_args().step
    if step:
        globals()[step]()
        return
    begin, budget = time.monotonic(), SCALE * float(os.environ.get("BUDGET", 560))
    chosen = os.environ.get("STEPS", "").split() or list(STEPS)
    log = open(OUT / "log.txt", "w")
    for name in chosen:
        most, least = (SCALE * seconds for seconds in STEPS[name])
        left = budget - (time.monotonic() - begin)
        if left < least:
            print(f"{name:10} skipped: {left:.0f} s left", flush=True)
            continue
        began = time.monotonic()
        try:
            done = subprocess.run([sys.executable, __file__, "--step", name], cwd=WORK, text=True, timeout=min(most, left),
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
            text, rc = done.stdout, done.returncode
        except subprocess.TimeoutExpired as error:
            text = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
            rc = "timeout"
        log.write(f"\n===== {name} rc {rc}\n{text[-400_000:]}\n")
        log.flush()
        lines = [line[7:] for line in text.splitlines() if line.startswith("RESULT ")]
        summary = lines[-1] if lines else " | ".join(text.strip().splitlines()[-3:])[-600:]
        with open(OUT / "results.jsonl", "a") as file:
            file.write(json.dumps({"step": name, "rc": rc, "seconds": round(time.monotonic() - began, 1), "result": summary}) + "\n")
        shown = summary
        if lines and len(shown) > 1100:
            shown = json.dumps({k: v for k, v in json.loads(summary).items() if k != "rows"})[:1100]
        print(f"{name:10} rc {rc} {time.monotonic() - began:5.1f} s  {shown}", flush=True)
    print(f"all in {time.monotonic() - begin:.0f} s; logs in {OUT}", flush=True)


if __name__ == "__main__":
    main()
PY
cd "$W" && $PYTHON "$W/check.py"
rc=$?
rm -rf "$W"
exit $rc
