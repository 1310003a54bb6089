from .federated_trainer import FederatedTrainer as FederatedTrainer
