"""Whole workflows: look at them, cancel them, run them again from a task on. Ours, not Celery's.

``app.workflow(id)`` gives one; see docs/workflows.md.
"""

from __future__ import annotations

from pgcelery.compat.workflow.listing import Summary, newest
from pgcelery.compat.workflow.node import WAITING, Node
from pgcelery.compat.workflow.replaying import NotReplayable
from pgcelery.compat.workflow.workflow import Workflow, WorkflowNotFound

__all__ = (
    "WAITING",
    "Node",
    "NotReplayable",
    "Summary",
    "Workflow",
    "WorkflowNotFound",
    "newest",
)
