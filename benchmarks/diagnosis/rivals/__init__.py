"""Earlier rule sets, restated as monitors of the benchmark's trainings, and how what they say is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from benchmarks.diagnosis.monitor import Monitor, Verdict
from benchmarks.diagnosis.rivals.autotrainer import AutoTrainer
from benchmarks.diagnosis.rivals.deepchecker import DeepChecker
from benchmarks.diagnosis.rivals.deepdiagnosis import DeepDiagnosis
from benchmarks.diagnosis.rivals.postmortem import Torchmortem
from benchmarks.diagnosis.rivals.sagemaker import SageMakerDebugger
from benchmarks.diagnosis.rivals.watch import Watch

__all__ = ["READINGS", "monitors", "read"]

Keep = Callable[[Verdict], bool]

NOISY = ("LossNotDecreasing", "Overfit", "PoorWeightInitialization gradients")  # fire on nearly every healthy training

READINGS: Mapping[str, tuple[str, Keep]] = {  # name of a row: whose verdicts, and which of them
    "AutoTrainer": (AutoTrainer.name, lambda verdict: True),
    "DeepDiagnosis": (DeepDiagnosis.name, lambda verdict: True),
    "SageMaker Debugger, all rules": (SageMakerDebugger.name, lambda verdict: True),
    "SageMaker Debugger": (SageMakerDebugger.name, lambda verdict: verdict.native not in NOISY),
    "TheDeepChecker, all rules": (DeepChecker.name, lambda verdict: True),
    "TheDeepChecker without loss fluctuation": (
        DeepChecker.name,
        lambda verdict: verdict.native != DeepChecker.FLUCTUATION,
    ),
    "TheDeepChecker without fluctuation and activation std": (
        DeepChecker.name,
        lambda verdict: verdict.native not in (DeepChecker.FLUCTUATION, DeepChecker.STD),
    ),
    "torchmortem, warning or worse": (Torchmortem.name, lambda verdict: True),
    "torchmortem, critical only": (Torchmortem.name, lambda verdict: verdict.severe),
}


def monitors() -> list[Monitor]:
    """Return new monitors for one training; torchmortem is among them where it is installed."""
    watch = Watch()
    found: list[Monitor] = [AutoTrainer(watch), DeepDiagnosis(watch), SageMakerDebugger(watch), DeepChecker(watch)]
    if Torchmortem.is_there():
        found.append(Torchmortem())
    return found


def read(said: Mapping[str, Sequence[Verdict]]) -> dict[str, list[Verdict] | None]:
    """Turn verdicts by monitor into defects by row; None for a monitor that has not watched."""
    return {
        row: [replace(verdict, severe=True) for verdict in said[name] if keep(verdict)] if name in said else None
        for row, (name, keep) in READINGS.items()
    }
