//! How far a partition is when it brings nothing: its end, idleness, and time by the clock or by another query's word.

use runtime::log::Offset;

use super::ScanTask;

/// How long an idle partition waits before it says again where its event time would be by the clock.
const ADVANCE_INTERVAL_MS: i64 = 1000;

/// What is known of a partition that brings nothing.
#[derive(Default)]
pub(super) struct Quiet {
    /// Since when its end is reached, by the clock.
    pub(super) since_ms: Option<i64>,
    /// Where that end is.
    pub(super) end: Offset,
    pub(super) idle: bool,
    last_mark_ms: i64,
    pub(super) advance_to: Option<i64>,
}

impl ScanTask {
    /// Notes that no row earlier than `event_ms` will come any more, as the query that writes the topic says.
    pub fn hear(&mut self, event_ms: i64) {
        if self.is_fed && self.state.max_event_ms < Some(event_ms) {
            self.state.max_event_ms = Some(event_ms);
            self.range.mark_due = true;
        }
    }

    /// Says of the partition that it is there, and how many there are, with the next commit.
    pub fn announce(&mut self) {
        self.range.mark_due = true;
    }

    /// Whether nothing was ever said of the partition.
    pub fn is_unannounced(&self) -> bool {
        self.range.mark_due && self.state == self.committed && self.start == self.next
    }

    /// How far the partition is read, what comes to nobody included.
    pub fn position(&self) -> Offset {
        match self.quiet.since_ms {
            Some(_) => self.next.max(self.quiet.end),
            None => self.next,
        }
    }

    /// Notes that the partition's end was reached at `position`, at this time by the clock.
    pub fn reached_end(&mut self, position: Offset, now_ms: i64) {
        // Behind the last record there may be control records: they are no reason to write an empty range.
        self.quiet.end = position;
        self.quiet.since_ms.get_or_insert(now_ms);
    }

    /// Takes the partition's silence up to this time by the clock for none, because those who write it wait themselves.
    pub fn hold(&mut self, now_ms: i64) {
        if let Some(since) = &mut self.quiet.since_ms {
            *since = now_ms;
        }
    }

    /// Looks at the clock: whether the partition is idle, and how far its time would be.
    pub fn tick(&mut self, now_ms: i64) {
        let (Some(timeout), Some(since), false) = (
            self.idle_timeout_ms,
            self.quiet.since_ms,
            self.state.ended || self.is_fed,
        ) else {
            return;
        };
        let elapsed = now_ms.saturating_sub(since);
        if elapsed < timeout {
            return;
        }
        if !self.quiet.idle {
            self.quiet.idle = true;
            self.range.mark_due = true;
        }
        if !self.idle_advance {
            return;
        }
        // By the clock, time goes on from where it was, until every window that this partition could still hold is over.
        if let (Some(watermark), Some(latest)) = (self.watermark(), self.state.max_event_ms) {
            let over = latest.saturating_add(self.longest_wait_ms);
            let advanced = watermark.saturating_add(elapsed).min(over);
            if self.quiet.advance_to < Some(advanced)
                && (now_ms.saturating_sub(self.quiet.last_mark_ms) >= ADVANCE_INTERVAL_MS
                    || advanced == over)
            {
                self.quiet.advance_to = Some(advanced);
                self.quiet.last_mark_ms = now_ms;
                self.range.mark_due = true;
            }
        }
    }

    /// Notes that no more input will come, once the task has come to the end at `stable`.
    pub fn end_at(&mut self, stable: Offset) {
        if !self.state.ended && self.quiet.since_ms.is_some() && self.quiet.end >= stable {
            self.state.ended = true;
            self.range.mark_due = true;
        }
    }

    /// Whether all below `end` has been read and is committed.
    pub fn is_through(&self, end: Offset) -> bool {
        let read = self.next >= end || self.quiet.since_ms.is_some() && self.quiet.end >= end;
        read && self.next == self.start
    }

    /// Whether all that there was has been read, so that nobody need wait for it.
    pub fn at_end(&self) -> bool {
        self.state.ended || self.quiet.since_ms.is_some()
    }

    /// Whether it has brought nothing for the idle timeout.
    pub fn idle(&self) -> bool {
        self.quiet.idle
    }
}
