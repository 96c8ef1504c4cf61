"""Runs whose process died: the open-source Prefect server leaves them `Running` for ever, so automations end them.

Every run sends heartbeats (`prefect.flow-run.heartbeat`, twice a minute: `infra.settings`). A run whose heartbeats stop
before it has reached an end state is marked Crashed, which frees its slot for the next one. A run whose process never
began is marked Crashed too, and one whose cancel is not carried out (its worker died as well) Cancelled. Runs that have
ended are not affected: the server refuses to mark them Crashed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.filters import FlowRunFilterStateType as StateTypes
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

FLOW = "pretrain"
HEARTBEAT = "prefect.flow-run.heartbeat"
PENDING = "prefect.flow-run.Pending"
CANCELLING = "prefect.flow-run.Cancelling"
WATCHED = {StateType.PENDING: PENDING, StateType.RUNNING: HEARTBEAT, StateType.CANCELLING: CANCELLING}
"""The event that arms the automation for a run, by each state that has a process."""
HEARTBEAT_TIMEOUT = timedelta(seconds=75)
"""Long enough for one lost heartbeat (SQLite is busy, the server restarts) and a late next one."""
START_TIMEOUT = timedelta(seconds=300)
"""From the process's start to the flow's first line: imports take 90 s on a slow machine with a cold file cache."""
END_STATES = ("Completed", "GateRejected", "Failed", "TimedOut", "Crashed", "Cancelled")
"""Names of end states, our own included. `Cancelling` is not one: the process that ends the run may die as well."""
WAITING_STATES = ("Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot", "Paused")
"""Names of the states in which a run has no process and sends no heartbeats."""


def automations() -> list[AutomationCore]:
    """The automations this installation needs."""
    settled = {f"prefect.flow-run.{name}" for name in (*END_STATES, *WAITING_STATES)}
    return [
        _end(
            "headwater: dead runs",
            after={HEARTBEAT},
            expect={HEARTBEAT} | settled,
            within=HEARTBEAT_TIMEOUT,
            reason=f"the process died, there was no heartbeat for {HEARTBEAT_TIMEOUT.seconds} s",
        ),
        _end(
            "headwater: runs that never begin",
            after={PENDING},
            expect={HEARTBEAT, "prefect.flow-run.Running"} | settled,
            within=START_TIMEOUT,
            reason=f"no process began within {START_TIMEOUT.seconds} s",
        ),
        _end(
            "headwater: cancels that are not carried out",
            after={CANCELLING},
            expect=settled,
            within=HEARTBEAT_TIMEOUT,
            reason=f"it was not ended within {HEARTBEAT_TIMEOUT.seconds} s of its cancel",
            state=StateType.CANCELLED,  # the server accepts no other state after Cancelling
        ),
    ]


def _end(
    name: str,
    after: set[str],
    expect: set[str],
    within: timedelta,
    reason: str,
    state: StateType = StateType.CRASHED,
) -> AutomationCore:
    return AutomationCore(
        name=name,
        description=f"Marks a run of {FLOW} {state.value.capitalize()} when {reason}, so that the next one can start.",
        trigger=EventTrigger(
            after=after,
            expect=expect,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": FLOW},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[
            ChangeFlowRunState(
                state=state,
                message=f"{reason[0].upper()}{reason[1:]}. Run it again: finished stages are skipped.",
            )
        ],
    )


def install_automations(client: SyncPrefectClient) -> None:
    """Creates or updates the server's automations, and arms them for runs that started before it.

    Idempotent. An automation that a user paused stays paused.
    """
    for wanted in automations():
        first, *duplicates = client.read_automations_by_name(wanted.name) or [None]
        for duplicate in duplicates:
            client.delete_automation(duplicate.id)
        if first is None:
            client.create_automation(wanted)
        elif _content(first) != _content(wanted):
            client.update_automation(first.id, wanted.model_copy(update={"enabled": first.enabled}))
    _arm_for_earlier_runs(client)


def _content(automation: AutomationCore) -> dict[str, Any]:
    """The compared parts of an automation, as values that do not depend on the order of sets."""
    trigger = automation.trigger.model_dump(include={"after", "expect", "for_each", "match", "match_related", "within"})
    actions = [action.model_dump(mode="json") for action in automation.actions]
    return {"description": automation.description, "trigger": trigger, "actions": actions}


def _arm_for_earlier_runs(client: SyncPrefectClient) -> None:
    """Arms the automations for every unfinished run: a live one sends heartbeats again, a dead one is ended.

    A server that was down for some minutes (the machine was switched off) has lost this state.
    """
    runs = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=StateTypes(any_=list(WATCHED)))),
    )
    if runs:
        client.request("POST", "/events", json=[_arming_event(run) for run in runs])


def _arming_event(run: FlowRun) -> dict[str, Any]:
    flow = {"prefect.resource.id": f"prefect.flow.{run.flow_id}", "prefect.resource.name": FLOW}
    return {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": WATCHED[run.state_type],
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name},
        "related": [{**flow, "prefect.resource.role": "flow"}],
    }
