"""MLflow behind the registry: runs, versions, where they are, and who may write."""
