"""Runs whose process died: the open-source Prefect server leaves them `Running` for ever, so automations end them.

Every run beats (`prefect.flow-run.heartbeat`, twice a minute: `infra.settings`). A run that has beaten and falls silent
without having said how it ended is marked Crashed, which frees its place for the next one. A run that was handed to a
process which never began is marked Crashed too, and one whose cancel nobody carries out (its worker died with it)
Cancelled. None of this harms a run that has ended: the server refuses to mark it Crashed.
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
"""Which event starts the watch over a run in each state that has a process."""
SILENCE = timedelta(seconds=75)
"""One beat may get lost (SQLite is busy, the server is started again) and the next be late: no run ends by that."""
BEGINNING = timedelta(seconds=300)
"""From the process to the flow's first line: imports, on a slow machine with cold files a minute and a half."""
ENDS = ("Completed", "GateRejected", "Failed", "TimedOut", "Crashed", "Cancelled")
"""Names of the states a run ends with; ours are among them. `Cancelling` is none: whoever ends it may die as well."""
WAITS = ("Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot", "Paused")
"""Names of the states in which a run has no process and need not beat."""


def automations() -> list[AutomationCore]:
    """The automations this installation needs."""
    settled = {f"prefect.flow-run.{name}" for name in (*ENDS, *WAITS)}
    return [
        _end(
            "headwater: dead runs",
            after={HEARTBEAT},
            expect={HEARTBEAT} | settled,
            within=SILENCE,
            reason=f"the process died, there was no heartbeat for {SILENCE.seconds} s",
        ),
        _end(
            "headwater: runs that never begin",
            after={PENDING},
            expect={HEARTBEAT, "prefect.flow-run.Running"} | settled,
            within=BEGINNING,
            reason=f"no process began within {BEGINNING.seconds} s",
        ),
        _end(
            "headwater: cancelled runs with nobody to end them",
            after={CANCELLING},
            expect=settled,
            within=SILENCE,
            reason=f"nobody ended it within {SILENCE.seconds} s of its cancel",
            state=StateType.CANCELLED,  # the server takes no other from a run that is being cancelled
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
                message=f"{reason[0].upper()}{reason[1:]}. Start it again: what was finished is skipped.",
            )
        ],
    )


def watch_for_dead_runs(client: SyncPrefectClient) -> None:
    """Makes the server's automations what `automations` says, and has runs from before its start watched too.

    Harmless to repeat. An automation that somebody paused stays paused.
    """
    for wanted in automations():
        first, *doubles = client.read_automations_by_name(wanted.name) or [None]
        for double in doubles:
            client.delete_automation(double.id)
        if first is None:
            client.create_automation(wanted)
        elif _content(first) != _content(wanted):
            client.update_automation(first.id, wanted.model_copy(update={"enabled": first.enabled}))
    _watch_runs_from_before(client)


def _content(automation: AutomationCore) -> dict[str, Any]:
    """What of an automation is compared; the sets in it have no order."""
    trigger = automation.trigger.model_dump(include={"after", "expect", "for_each", "match", "match_related", "within"})
    actions = [action.model_dump(mode="json") for action in automation.actions]
    return {"description": automation.description, "trigger": trigger, "actions": actions}


def _watch_runs_from_before(client: SyncPrefectClient) -> None:
    """Starts the watch over every unfinished run: who is alive beats again, who is not is ended.

    A server that was away for some minutes (the machine was switched off) has forgotten whom it was watching.
    """
    runs = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=StateTypes(any_=list(WATCHED)))),
    )
    if runs:
        client.request("POST", "/events", json=[_sign_of_life(run) for run in runs])


def _sign_of_life(run: FlowRun) -> dict[str, Any]:
    flow = {"prefect.resource.id": f"prefect.flow.{run.flow_id}", "prefect.resource.name": FLOW}
    return {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": WATCHED[run.state_type],
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name},
        "related": [{**flow, "prefect.resource.role": "flow"}],
    }
