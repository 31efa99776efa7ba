"""Systems trained on the frozen phantoms, alike: python -m benchmarks.accuracy.run ROOT --budget cpu.

nnU-Net, MONAI's DynUNet and presets of this project get the same cases, split and number of optimisation steps
(`--equal steps`), and then the same wall time, that of nnU-Net (`--equal time`, by the paces of the first or of
`--trial`). Each trains and predicts in processes of its own, one after the other, and leaves
ROOT/runs/BUDGET/EQUAL/SYSTEM/record.json with steps, seconds, memory and versions, and predictions of the validation
and test images. The same command continues whatever was stopped. `benchmarks.accuracy.score` makes the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from algorithm.errors import InputError
from algorithm.files import replacing
from benchmarks.accuracy.dynunet import DynUNet
from benchmarks.accuracy.frozen import SMOKE_CASES, FrozenSet, Places, Subset, make, refuse_leaks
from benchmarks.accuracy.nnunet_system import NNUNet
from benchmarks.accuracy.ours import Preset
from benchmarks.accuracy.task import Budget, System, Task, digest_of, name_of, threads
from benchmarks.accuracy.variants import VARIANTS
from benchmarks.evaluation import held
from benchmarks.machine import describe_machine, versions
from trainer.presets import preset_names

PEERS: dict[str, System] = {
    "nnunet": NNUNet(),
    "nnunet-resenc": NNUNet("nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans"),
    "monai": DynUNet(),
}
TUNED_SYSTEMS = ("best-tuned", "best-misses-first")
DEFAULT_SYSTEMS = ("nnunet", "monai", "paper", "paper-topk", "best", "best-large-batch", *TUNED_SYSTEMS)
SMOKE_SYSTEMS = ("nnunet", "nnunet-resenc", "monai", "paper", "best", "best-tuned")
MEMORY_SECONDS = 2.0  # between looks at what a process holds: each takes its pages' lock for a moment
KEEP_SECONDS = 60.0  # between looks at which a phase's time so far is kept, for whoever continues it
ABLATION = "ablation"  # the budget of variants of one preset, for which no test case is looked at
REFERENCE = "nnunet"  # whose wall time the others get in the second column
# Presets that predict with the mirrored patches that they were trained with, as nnU-Net does.
MIRRORED = ("best", "best-cpu", "best-gpu")
OURS = {
    "best-large-batch": Preset("best", mirror=None, changes={"batch_size": 8, "learning_rate": 0.012}),
    # As peers compute on a CPU.
    "best-float32": Preset("best", mirror=None, changes={"precision": "float32"}),
    # Tuned and predicted without mirrors.
    "best-tuned": Preset("best", bundles_of=("best",), tuned=True),
    "best-misses-first": Preset("best", bundles_of=("best",), tuned=True, most_false_positives=0.5),
}
PACKAGES = ("numpy", "torch", "monai", "nnunetv2", "dynamic_network_architectures", "batchgeneratorsv2")
RECORD, LOG, PREDICTIONS = "record.json", "log.txt", "predictions"
Equal = Literal["steps", "time"]
Phase = Literal["train", "validation", "test"]
PHASES: tuple[Phase, ...] = get_args(Phase)


def keep(path: Path, told: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(told, indent=1) + "\n")


@dataclass(frozen=True)
class Run:
    """One system in one column of the table.

    Attributes:
        root: of the frozen set and of all runs.
        budget: what all systems have alike.
        equal: what they have as much of.
        system: a peer, a shipped preset or a .toml file.
        device: "cpu" or "cuda".
        trial: so many steps in place of the budget's, to measure speed; such a run is not scored.

    """

    root: Path
    budget: str
    equal: Equal
    system: str
    device: str
    trial: int | None = None

    @property
    def folder(self) -> Path:
        column = self.equal if self.trial is None else f"trial-{self.trial}"
        return self.root / "runs" / self.budget / column / name_of(self.system)

    def record(self) -> dict[str, Any]:
        file = self.folder / RECORD
        found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        return found

    def note(self, **what: Any) -> None:
        """Add to the record."""
        self.folder.mkdir(parents=True, exist_ok=True)
        keep(self.folder / RECORD, {**self.record(), **what})

    def members(self) -> list[Run]:
        """Return the runs whose weights this one uses in place of its own."""
        system = system_of(self.system)
        return [
            replace(self, system=one) for one in (system.bundles_of if isinstance(system, Preset) else ())
        ]

    def task(self) -> Task:
        places, budget = Places(self.root), Budget.read(self.budget)
        return Task(
            data=places.data,
            split=places.split,
            work=self.folder / "work",
            budget=budget,
            steps=self.steps(budget),
            device=self.device,
        )

    def steps(self, budget: Budget) -> int:
        """Return how many steps the system takes."""
        if self.trial is not None:
            return self.trial
        if self.equal == "steps":
            return budget.steps
        if members := self.members():
            return members[0].steps(budget)
        kept = self.record().get("steps_for_time")
        return int(kept) if kept else self._steps_for_time()

    def _steps_for_time(self) -> int:
        """Return the steps that take as long as the reference's of the budget, by the pace of either."""
        reference, own = (
            Run(self.root, self.budget, "steps", system, self.device).pace()
            for system in (REFERENCE, self.system)
        )
        return max(1, round(Budget.read(self.budget).steps * reference / own))

    def pace(self) -> float:
        """Return the seconds of a step: the least of this run and of trials, since other work only ever adds some.

        Runs of another machine or of other settings say nothing of it.

        Raises:
            InputError: neither the run nor a trial is trained here.

        """
        budget, machine = Budget.read(self.budget), describe_machine(torch.device(self.device), ())
        trials = self.folder.parent.parent.glob(f"trial-*/{name_of(self.system)}")
        asked = [int(folder.parent.name.removeprefix("trial-")) for folder in trials]
        runs = [self, *(replace(self, trial=steps) for steps in asked)]
        paces = [
            record["train"]["seconds"] / record["train"]["steps"]
            for run in runs
            if "train" in (record := run.record())
            and record.get("machine") == machine
            and record.get("settings") == settings_of(self.system, budget, run.steps(budget))
        ]
        if not paces:
            raise InputError(
                f"{self.folder / RECORD} must say how long {self.system} trains on this machine: run it with --equal "
                "steps or --trial first"
            )
        return min(paces)


def system_of(name: str) -> System:
    """Return a peer, a system of ours, a variant of the ablation, or a preset.

    Raises:
        InputError: there is nothing of that name.

    """
    known: dict[str, System] = {**PEERS, **OURS}
    if name in VARIANTS:
        return VARIANTS[name].system()
    if name in known:
        return known[name]
    if not name.endswith(".toml") and name not in preset_names():
        raise InputError(
            f"a system must be one of {', '.join((*known, *preset_names()))}, or a preset's .toml file, got {name}"
        )
    return Preset(name, mirror=None if name_of(name) in MIRRORED else "")


def settings_of(name: str, budget: Budget, steps: int) -> str:
    """Return a hash of all that decides a system's weights and predictions, those whose weights it uses included."""
    system = system_of(name)
    own, others = system.digest(budget, steps), system.bundles_of if isinstance(system, Preset) else ()
    return digest_of([own, *(settings_of(other, budget, steps) for other in others)]) if others else own


def work_in(run: Run, phase: Phase) -> None:
    """Do one phase in this process, and say on stdout what came of it."""
    warnings.simplefilter("ignore")  # what peers say of their own
    torch.set_num_threads(threads())
    task, system = run.task(), system_of(run.system)
    if phase == "train":
        found: dict[str, Any] = asdict(system.train(task))
    else:
        began = time.monotonic()
        subset: Subset = phase
        system.predict(task, Places(run.root).images(subset), run.folder / PREDICTIONS / subset)
        found = {"seconds": time.monotonic() - began}
    if task.device != "cpu":
        found["gpu_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    sys.stdout.write(f"\n{json.dumps(found)}\n")


def spawn(run: Run, phase: Phase) -> None:
    """Do one phase in a process of its own, and keep what it says and what it took in all attempts."""
    if phase in run.record():
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.accuracy.run", str(run.root), "--budget", run.budget]
    command += ["--equal", run.equal, "--systems", run.system, "--device", run.device, "--phase", phase]
    command += ["--trial", str(run.trial)] if run.trial is not None else []
    so_far = run.folder / f".{phase}.spent.json"  # what killed attempts took
    spent = json.loads(so_far.read_text()) if so_far.is_file() else {"wall_seconds": 0.0, "memory_mib": 0.0}
    looked = kept = time.monotonic()
    said = run.folder / f".{phase}.stdout"
    with said.open("w") as out, (run.folder / LOG).open("a") as log:
        process = subprocess.Popen(command, stdout=out, stderr=log)
        while process.poll() is None:
            spent["memory_mib"] = max(spent["memory_mib"], held(process.pid) / 2**20)
            time.sleep(MEMORY_SECONDS)
            looked, before = time.monotonic(), looked
            spent["wall_seconds"] += looked - before
            if looked - kept > KEEP_SECONDS:
                keep(so_far, spent)
                kept = looked
    keep(so_far, spent)
    lines = said.read_text().splitlines()
    with (run.folder / LOG).open("a") as log:
        log.writelines(f"{line}\n" for line in lines)
    said.unlink()
    if process.returncode:
        raise InputError(
            f"{run.system} failed in phase {phase} (exit {process.returncode}): {run.folder / LOG} says why, and the "
            "same command continues"
        )
    if phase == "train":  # memory is that of the trainings whose weights are used, too
        trained = [its.record()["train"]["memory_mib"] for its in run.members()]
        spent["memory_mib"] = max([spent["memory_mib"], *trained])
    run.note(**{phase: {**json.loads(lines[-1]), **spent}})
    so_far.unlink()


def run_system(run: Run, frozen: FrozenSet, phases: Sequence[Phase] = PHASES) -> None:
    """Train a system and let it predict, in as many processes; what is done is left as it is."""
    if run.equal == "time" and "steps_for_time" not in run.record():
        refuse_missing_members(run)
        run.note(steps_for_time=run.steps(Budget.read(run.budget)))
    refuse_other_settings(run)
    device = torch.device(run.device)
    run.note(
        system=run.system,
        budget=run.budget,
        equal=run.equal,
        machine=describe_machine(device, ()),
        threads=threads(),
        versions=versions(PACKAGES),
        shared=Budget.read(run.budget).shared,
        set={subset: frozen.subset_digest(subset) for subset in frozen.cases},
    )
    for phase in phases:
        spawn(run, phase)
        what = run.record()[phase]
        sys.stdout.write(f"{run.budget}, equal {run.equal}, {run.system}, {phase}: {what}\n")
        sys.stdout.flush()


def refuse_missing_members(run: Run) -> None:
    """Raise InputError where weights that a system uses are not trained, or with other settings than today's."""
    budget = Budget.read(run.budget)
    for its in run.members():
        record = its.record()
        if "train" not in record:
            raise InputError(
                f"{run.system} uses the weights of {its.system}, which {its.folder} does not hold yet: "
                f"run --systems {its.system}"
            )
        if record.get("settings") != settings_of(its.system, budget, its.steps(budget)):
            raise InputError(
                f"{run.system} uses the weights of {its.system}, and those in {its.folder} are of other settings: "
                "move that folder away, and run it anew"
            )


def refuse_other_settings(run: Run) -> None:
    """Keep in the record what a system is trained with.

    Raises:
        InputError: the run was begun with something else, or the weights that it uses are not all trained.

    """
    budget = Budget.read(run.budget)
    refuse_missing_members(run)
    settings = settings_of(run.system, budget, run.steps(budget))
    begun = run.record()
    if "system" in begun and begun.get("settings") != settings:
        raise InputError(
            f"{run.folder} was begun with other settings of {run.system}: move that folder away, and run it anew"
        )
    run.note(settings=settings)


def smoke() -> None:
    """Let every kind of system take a few steps on few coarse phantoms, and score them."""
    from benchmarks.accuracy import patches
    from benchmarks.accuracy.score import score

    frozen = FrozenSet.read().first(SMOKE_CASES)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make(frozen, root)
        for system in SMOKE_SYSTEMS:
            run_system(Run(root, "smoke", "steps", system, "cpu"), frozen, ("train", "test"))
        run_system(Run(root, "smoke", "time", "paper", "cpu"), frozen, ("train", "test"))
        sys.stdout.write(score(root, "smoke", frozen, "test", ours="paper", final=True) + "\n")
        if patches.main([str(root), "--budget", "smoke", "--systems", "paper"]):
            raise InputError("the pooled Dice of patches failed, and has said above why")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, nargs="?", default=Path("build/accuracy"), metavar="ROOT")
    parser.add_argument("--budget", default="cpu", help="a file of benchmarks/accuracy/budgets (cpu)")
    parser.add_argument(
        "--equal", choices=get_args(Equal), default="steps", help="column of the table (steps)"
    )
    parser.add_argument(
        "--systems",
        nargs="+",
        metavar="NAME",
        help=f"{', '.join((*PEERS, *OURS))}, a preset, a preset's .toml file, or, with --budget ablation, some of "
        f"{', '.join(VARIANTS)} ({' '.join(DEFAULT_SYSTEMS)})",
    )
    parser.add_argument("--device", help="cpu or cuda (default: the GPU, else the CPU)")
    parser.add_argument(
        "--trial", type=int, metavar="STEPS", help="only train so many steps, to measure speed; not scored"
    )
    parser.add_argument(
        "--subsets",
        nargs="+",
        choices=PHASES[1:],
        metavar="SUBSET",
        help="cases that are predicted: validation, test (both; no test cases in an ablation)",
    )
    parser.add_argument("--smoke", action="store_true", help="a few steps on four phantoms; nothing is kept")
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args(argv)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if args.smoke:
            smoke()
            return 0
        ablation = args.budget == ABLATION
        if not ablation and (variants := sorted(VARIANTS.keys() & set(args.systems or ()))):
            raise InputError(f"{variants[0]} is part of the ablation: give --budget {ABLATION}")
        if ablation and "test" in (args.subsets or ()):
            raise InputError(
                "test cases are for what was chosen, and an ablation is for choosing: leave out test"
            )
        systems = args.systems or (tuple(VARIANTS) if ablation else DEFAULT_SYSTEMS)
        budget = Budget.read(args.budget)
        for system in systems:  # before hours go into those that come first
            settings_of(system, budget, budget.steps)
        runs = [Run(args.root, args.budget, args.equal, system, device, args.trial) for system in systems]
        if args.phase:
            work_in(runs[0], args.phase)
            return 0
        frozen = FrozenSet.read()
        make(frozen, args.root)
        for run in runs:
            refuse_leaks(frozen, Places(args.root))
            subsets = args.subsets or (PHASES[1:2] if ablation else PHASES[1:])
            run_system(run, frozen, PHASES[:1] if args.trial else ("train", *subsets))
    except InputError as error:
        sys.stderr.write(f"accuracy: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
