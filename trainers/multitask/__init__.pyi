from .multitask_trainer import MultiTaskTrainer as MultiTaskTrainer
