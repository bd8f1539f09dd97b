"""A batch on which a step fails: how often it was tried, and what is done when it was tried often enough.

It is then left out: its dead letters and that the flow passes over it are one append, so it is left out once, whenever
the flow dies. Of the batches of an instant only those at fault are (`blame.py`).

Left to others: waiting between tries, and for somebody who mends the step (`runner.py`).
"""

from __future__ import annotations

import logging

from ringmain.flows.blame import at_fault
from ringmain.flows.chain import StepFailureError
from ringmain.flows.flow import FlowPlan
from ringmain.flows.flow_site import FlowSite
from ringmain.flows.folding import Folding
from ringmain.flows.output import Committer
from ringmain.flows.poison import SKIPPED_MAX, PassedOver, can_be_left_out, letters, part_of
from ringmain.flows.step import StepBrokenError
from ringmain.flows.takeovers import Takeovers
from ringmain.log.interface import Position

_logger = logging.getLogger("ringmain.flow")


class Failing:
    """What a flow fails on at present, if anything. Used by the flow's thread."""

    def __init__(self, site: FlowSite) -> None:
        self._site = site
        self.failure: StepFailureError | None = None
        self._behind: Position | None = None
        """The last frame that was folded before that."""
        self.tries = 0
        self.poison: StepFailureError | None = None
        """What is to be left out before anything else is done."""

    def failed(self, error: StepFailureError, behind: Position | None) -> None:
        """A step failed, behind a frame: one more try of what it failed on, or the first."""
        again = self.failure
        if again is not None and (again.step, again.frames) == (error.step, error.frames):
            self.tries += 1
        else:
            self.tries = 1
        self.failure, self._behind = error, behind

    def got_over(self, position: Position | None) -> None:
        """Forget a failure once the fold is behind what it failed on."""
        behind = self._behind
        if self.failure is None or position is None or position == behind:
            return
        if behind is None or position.incarnation != behind.incarnation or position.offset > behind.offset:
            self.failure, self.tries = None, 0

    def told(self, *, skip: bool) -> None:
        """Somebody gave a command: tries are counted anew; `skip`: what it fails on is left out now."""
        self.tries = 0
        if skip and self.failure is not None and can_be_left_out(self.failure):
            self.poison = self.failure

    def leave_out(
        self, plan: FlowPlan, committer: Committer, passed_over: PassedOver, taken: Takeovers
    ) -> PassedOver:
        """Make dead letters of what a step failed on, if anything, its frames or a part of what it holds; remember that.

        Raises StepBrokenError where the flow cannot go on without.
        """
        poison = self.poison
        if poison is None:
            return passed_over
        part = part_of(poison)
        if part is not None:
            passed_over = passed_over.and_part(part)
        else:
            poison = self._at_fault(poison, plan, committer, passed_over, taken)
            passed_over = passed_over.and_frames(poison.frames)
        told = letters(self._site.name, poison)
        committer.note(told, {**passed_over.texts(), "/partial": None})
        count = sum(letter.rows.num_rows for letter in told)
        _logger.error("flow %s: %d batch(es) became dead letters: %s", self._site.name, count, poison)
        self._site.counting.failed(count)
        self.poison = self.failure = None
        self.tries = 0
        return passed_over

    def _at_fault(
        self,
        poison: StepFailureError,
        plan: FlowPlan,
        committer: Committer,
        passed_over: PassedOver,
        taken: Takeovers,
    ) -> StepFailureError:
        """The failure with those of its frames alone that are at fault."""
        site = self._site

        def fold(left_out: tuple[Position, ...]) -> Folding:
            skipped = (*passed_over.skipped, *left_out)
            return site.folding(plan, PassedOver(skipped, passed_over.given_up), taken)

        found = at_fault(poison, fold, site.log, committer.committed, self._behind)
        if not found:
            self.poison = None
            raise StepBrokenError(
                f"{poison}, whichever batches of its instant are left out: mend the step, then "
                f"`ringmain flow retry {site.name}`"
            )
        if len(passed_over.skipped) + len(found) > SKIPPED_MAX:
            self.poison = None
            raise StepBrokenError(
                f"{poison}, as on {len(passed_over.skipped)} batches before, which were left out: mend the step, then "
                f"`ringmain replay {site.name}`"
            )
        return StepFailureError(poison.step, found, poison.cause, poison.held)
