"""Workers: tasks that run outside the scheduler's container, where TARMAC_WORKERS is not 0 (decision 0034)."""
