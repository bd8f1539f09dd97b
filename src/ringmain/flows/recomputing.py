"""A flow's outputs computed anew, because a command says so: what differs is written as revisions, once.

The fold from the beginning runs beside the flow (`rebuilding.py`); when it has come far enough the flow's own thread
takes it the rest of the way, writes what differs (`replay.py`) and goes on from its state. That it was done is noted with
the position, so a flow that dies on the way does it again, and finds written what it wrote.
"""

from __future__ import annotations

import logging

from ringmain.flows.chain import StepFailureError
from ringmain.flows.continuing import beginning_gone
from ringmain.flows.control import Action, Command, Replayed, Standing
from ringmain.flows.flow import FlowPlan, definition_hash
from ringmain.flows.flow_site import FlowSite
from ringmain.flows.flow_status import FlowState
from ringmain.flows.output import Committer
from ringmain.flows.poison import PassedOver, beside, can_be_left_out, letters, part_of
from ringmain.flows.rebuilding import Rebuilding
from ringmain.flows.replay import Replay
from ringmain.flows.succession import takeover_after_replay
from ringmain.flows.takeovers import Takeovers
from ringmain.log.interface import Position
from ringmain.model.rfc3339 import rfc3339

_logger = logging.getLogger("ringmain.flow")


class Recomputing:
    """The computing anew that a flow is at, if any. Used by the flow's thread."""

    def __init__(self, site: FlowSite) -> None:
        self._site = site
        self._rebuilding: Rebuilding | None = None
        self._told: Standing | None = None

    def takes_up(self, committer: Committer, command: Command) -> None:
        """Tell whoever waits for a replay that it is on its way."""
        told = Standing(command.id, FlowState.RUNNING)
        if told != self._told:
            committer.commit()
            committer.note([], {"/standing": bytes(told)})
            self._told = told

    def refusal(self, plan: FlowPlan, command: Command, state: FlowState) -> Standing | None:
        """Why the outputs cannot be computed anew, if they cannot, and what works instead: for whoever waits for it."""
        gone = beginning_gone(self._site.log, [plan.settings.from_, *plan.reads])
        if gone is None or (command.from_ns is not None and command.from_ns > gone.until_ns):
            return None
        reason = (
            f"the first {gone.rows} rows of {gone.stream!r} have been removed from the log, and what followed from them "
            f"would be taken back. `ringmain replay {self._site.name} --from TIME` works with a time behind "
            f"{rfc3339(gone.until_ns)}; choose it later by as long as its steps remember, as they begin with what the log "
            "holds"
        )
        _logger.error("flow %s: its replay is refused: %s", self._site.name, reason)
        return Standing(command.id, state, reason, refused=True)

    def stands_still(self, command: Command | None, state: FlowState, reason: str) -> None:
        """Tell whoever waits for the replay that was asked for, if one was, that it has to wait. Raises LogError."""
        if command is None or command.action is not Action.REPLAY:
            return
        told = Standing(command.id, state, reason)
        if told != self._told:
            claim = self._site.log.claim(f"flow/{self._site.name}")
            positions = {f"{claim.name}/standing": bytes(told)}
            self._site.log.append([], claim=claim, sequence=1, positions=positions)
            self._told = told

    def far_enough(
        self, plan: FlowPlan, command: Command, taken: Takeovers, committed: Position | None
    ) -> bool:
        """Whether what is computed beside for a command is far enough to `finish`; begins it when it is new."""
        if self._rebuilding is None or self._rebuilding.command != command:
            self.close()
            self._rebuilding = self._made(plan, PassedOver(), command, taken)
            self._rebuilding.begin(committed)
        return self._rebuilding.done

    def finish(
        self,
        plan: FlowPlan,
        committer: Committer,
        passed_over: PassedOver,
        command: Command,
        taken: Takeovers,
    ) -> tuple[PassedOver, Takeovers, dict[str, bytes | None]]:
        """Write what a fold from the beginning finds other than what the output holds, and save its state.

        Batches that were left out are tried again: steps may have been mended. Returns those on which one still fails, and
        takeovers, as they are from now on; and what is to be noted with that the command was carried out.
        """
        replay, left_out = self._computed(plan, committer, passed_over, command, taken)
        site = self._site
        try:
            for block in replay.differences(command.from_ns):
                committer.write([block], replay.folding.chain.now)
            if replay.folding.position is not None:
                site.snapshots.save(definition_hash(plan), replay.folding.saved())
            taken = takeover_after_replay(site.log, replay.folding, committer.committed, taken)
        finally:
            replay.close()
            self._rebuilding = None
        found = Replayed(command.id, command.from_ns, replay.differing)
        _logger.info("flow %s: outputs computed anew: %s", site.name, found)
        return left_out, taken, {**left_out.texts(), "/taken": taken.text(), "/replayed": bytes(found)}

    def _computed(
        self,
        plan: FlowPlan,
        committer: Committer,
        passed_over: PassedOver,
        command: Command,
        taken: Takeovers,
    ) -> tuple[Replay, PassedOver]:
        """The replay, as far as the flow is, and what it had to leave out."""
        site = self._site
        left_out = PassedOver()
        tries = 0
        while True:
            rebuilding = self._rebuilding
            if rebuilding is None or rebuilding.command != command or rebuilding.skipped != left_out.skipped:
                self.close()
                rebuilding = self._rebuilding = self._made(plan, left_out, command, taken)
            try:
                replay = rebuilding.finish()
                replay.fold_up_to(committer.committed)
                return replay, left_out
            except StepFailureError as error:
                self.close()
                if not can_be_left_out(error):
                    raise
                part = part_of(error)
                if part is not None:
                    tries += 1
                    if tries >= site.tries:
                        tries = 0
                        left_out = left_out.and_part(part)
                        if part not in passed_over.given_up:
                            committer.note(letters(site.name, error), {})
                            site.counting.failed(1)
                    continue
                more = tuple(position for position in error.frames if position not in left_out.skipped)
                if not more:
                    raise
                at_fault_before = tuple(position for position in more if position in passed_over.skipped)
                if not at_fault_before:
                    committer.note(letters(site.name, error), {})
                    site.counting.failed(len(more))
                left_out = left_out.and_frames(at_fault_before or more)

    def _made(self, plan: FlowPlan, left_out: PassedOver, command: Command, taken: Takeovers) -> Rebuilding:
        site = self._site
        return Rebuilding(
            beside(plan, left_out.given_up),
            site.log,
            site.snapshots.directory,
            left_out.skipped,
            command,
            site.stopping,
            taken.only_told(),
        )

    def close(self) -> None:
        """Give up what is computed beside."""
        if self._rebuilding is not None:
            self._rebuilding.close()
            self._rebuilding = None
