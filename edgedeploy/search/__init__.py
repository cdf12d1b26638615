"""The only importer of Optuna: the space, the study, its resumption."""
