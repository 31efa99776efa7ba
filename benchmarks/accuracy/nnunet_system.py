"""nnU-Net v2 as it comes from PyPI: its fingerprint, planner, preprocessing, trainer and inference.

Only the number of steps, the target spacing and the memory target of the planner are ours, all of them its own options,
and few of its batches validate: they choose nothing, since the last weights are used, as nnU-Net does.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from algorithm.files import replacing
from benchmarks.accuracy.task import (
    LABELS,
    Budget,
    Task,
    Trained,
    digest_of,
    keep_prediction,
    missing,
    parameters_of,
)
from trainer.dataset import Dataset
from trainer.split import read_split

log = logging.getLogger(__name__)
NAME, NUMBER = "Dataset007_Phantom", 7
CONFIGURATION, FOLD = "3d_fullres", 0
VAL_STEPS = 1  # batches that it validates on after an epoch
READY = "preprocessed.json"
AUGMENTERS = "nnUNet_n_proc_DA"


class NNUNet:
    """The plain network of the planner, or a residual encoder's with another planner's name."""

    def __init__(self, planner: str = "ExperimentPlanner", plans: str = "nnUNetPlans") -> None:
        self.planner, self.plans = planner, plans

    def digest(self, budget: Budget, steps: int) -> str:
        return digest_of(
            [
                *(self.planner, self.plans, CONFIGURATION),
                *(budget.spacing_zyx_mm, budget.nnunet_memory_gb, min(budget.epoch_steps, steps), steps),
            ]
        )

    def train(self, task: Task) -> Trained:
        self._set_places(task)
        began = time.monotonic()
        self._preprocess(task)
        prepare_seconds = time.monotonic() - began
        trainer = self._trainer(task)
        folder = Path(trainer.output_folder)
        newest = [
            path for name in ("final", "latest") if (path := folder / f"checkpoint_{name}.pth").is_file()
        ]
        if newest:
            trainer.load_checkpoint(str(newest[0]))
        if trainer.current_epoch < trainer.num_epochs:
            trainer.run_training()
        starts, ends = (
            trainer.logger.get_value(f"epoch_{edge}_timestamps", step=None) for edge in ("start", "end")
        )
        configuration = trainer.configuration_manager
        return Trained(
            steps=len(ends) * trainer.num_iterations_per_epoch,
            batch_size=configuration.batch_size,
            seconds=float(sum(end - start for start, end in zip(starts, ends, strict=False))),
            prepare_seconds=prepare_seconds,
            parameters=parameters_of(trainer.network),
            about=(
                f"{type(trainer.network).__name__}, patches {list(configuration.patch_size)}, batches of "
                f"{configuration.batch_size}, spacing {list(configuration.spacing)}, "
                f"features {configuration.network_arch_init_kwargs['features_per_stage']}"
            ),
        )

    def predict(self, task: Task, images: Path, out: Path) -> None:
        self._set_places(task)
        from nnunetv2.inference.export_prediction import (
            convert_predicted_logits_to_segmentation_with_correct_shape,
        )
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        todo = missing(images, out)
        if not todo:
            return
        predictor = nnUNetPredictor(
            device=torch.device(task.device),
            perform_everything_on_device=task.device != "cpu",
            allow_tqdm=False,
        )
        model = place(task, "results") / NAME / f"nnUNetTrainer__{self.plans}__{CONFIGURATION}"
        predictor.initialize_from_trained_model_folder(str(model), (FOLD,), "checkpoint_final.pth")
        plans, configuration = predictor.plans_manager, predictor.configuration_manager
        preprocessor = configuration.preprocessor_class(verbose=False)
        for image in todo:
            data, _, properties = preprocessor.run_case(
                [str(image)], None, plans, configuration, predictor.dataset_json
            )
            logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
            _, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits,
                plans,
                configuration,
                predictor.label_manager,
                properties,
                return_probabilities=True,
                num_threads_torch=torch.get_num_threads(),
            )
            found: NDArray[np.float32] = np.asarray(probabilities, np.float32)
            keep_prediction(image, out, found)

    def _set_places(self, task: Task) -> None:
        # nnU-Net reads these when it is imported.
        for name in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{name}"] = str(place(task, name))
        if task.device == "cpu":
            os.environ[AUGMENTERS] = "1"  # the planner asks for as many threads

    def _preprocess(self, task: Task) -> None:
        """Lay the cases out as nnU-Net wants them, then fingerprint, plan and preprocess; once."""
        budget, raw = task.budget, place(task, "raw") / NAME
        preprocessed = place(task, "preprocessed") / NAME
        done = preprocessed / READY
        wanted = {
            "spacing": list(budget.spacing_zyx_mm),
            "memory_gb": budget.nnunet_memory_gb,
            "plans": self.plans,
        }
        if done.is_file() and json.loads(done.read_text()) == wanted:
            return
        from nnunetv2.experiment_planning.plan_and_preprocess_api import (
            extract_fingerprints,
            plan_experiments,
            preprocess,
        )

        shutil.rmtree(raw, ignore_errors=True)
        shutil.rmtree(preprocessed, ignore_errors=True)
        cases = Dataset.read(task.data).training
        split = read_split(task.split, [case.name for case in cases])
        for folder in ("imagesTr", "labelsTr"):
            (raw / folder).mkdir(parents=True)
        for case in cases:
            (raw / "imagesTr" / f"{case.name}_0000.nii.gz").symlink_to(case.image.resolve())
            (raw / "labelsTr" / f"{case.name}.nii.gz").symlink_to(case.label.resolve())
        described = {
            "channel_names": {"0": "CT"},
            "labels": {name: value for value, name in enumerate(LABELS)},
            "numTraining": len(cases),
            "file_ending": ".nii.gz",
        }
        (raw / "dataset.json").write_text(json.dumps(described))
        workers = 1 if task.device == "cpu" else 8
        extract_fingerprints([NUMBER], num_processes=workers)
        plan_experiments(
            [NUMBER],
            experiment_planner_class_name=self.planner,
            gpu_memory_target_in_gb=budget.nnunet_memory_gb,
            overwrite_target_spacing=budget.spacing_zyx_mm,
            overwrite_plans_name=self.plans,
        )
        preprocess([NUMBER], self.plans, configurations=[CONFIGURATION], num_processes=[workers])
        splits = [{"train": list(split.training), "val": list(split.validation)}]
        (preprocessed / "splits_final.json").write_text(json.dumps(splits))
        with replacing(done) as temporary:
            temporary.write_text(json.dumps(wanted))

    def _trainer(self, task: Task) -> Any:
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        preprocessed = place(task, "preprocessed") / NAME
        plans = json.loads((preprocessed / f"{self.plans}.json").read_text())
        described = json.loads((preprocessed / "dataset.json").read_text())
        if task.device == "cpu":
            os.environ[AUGMENTERS] = "0"  # augmentation in the one process: there are no cores to spare
        torch.manual_seed(task.seed)
        np.random.seed(task.seed)  # noqa: NPY002  what its data loader draws from
        # It takes the key out of the plans by itself.
        trainer = nnUNetTrainer(
            {**plans, "continue_training": True}, CONFIGURATION, FOLD, described, torch.device(task.device)
        )
        trainer.num_iterations_per_epoch = min(task.budget.epoch_steps, task.steps)
        trainer.num_epochs = -(-task.steps // trainer.num_iterations_per_epoch)
        trainer.num_val_iterations_per_epoch = VAL_STEPS
        trainer.save_every = 1
        save = trainer.save_checkpoint

        def save_whole(file: str) -> None:
            """Leave the checkpoint before it where a kill comes amid the writing of the next."""
            with replacing(Path(file)) as temporary:
                save(str(temporary))

        trainer.save_checkpoint = save_whole
        return trainer


def place(task: Task, name: str) -> Path:
    """Return nnU-Net's folder for raw data, preprocessed data or results."""
    return task.work / f"nnUNet_{name}"
