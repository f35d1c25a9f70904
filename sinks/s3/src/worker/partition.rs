//! What a worker holds of one source partition.

use std::time::{Duration, Instant};

use runtime::log::{Offset, TopicPartition};
use tokio::task::JoinHandle;

use crate::backoff::Backoff;
use crate::dead::DeadLetter;
use crate::gather::Gather;
use crate::plan::{FlushPlan, Totals};

/// Why a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Bytes,
    Rows,
    Interval,
    Memory,
    /// The reader's schema has changed.
    Schema,
    /// The end of the input.
    Drain,
    Stop,
    /// It was decided by a run before this one.
    Plan,
}

impl Cause {
    pub fn word(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Rows => "rows",
            Self::Interval => "interval",
            Self::Memory => "memory",
            Self::Schema => "schema",
            Self::Drain => "drain",
            Self::Stop => "stop",
            Self::Plan => "plan",
        }
    }
}

/// A source partition that this worker owns.
pub(super) struct Part {
    pub partition: TopicPartition,
    /// Which assignment this is: what an earlier one left behind is not taken for this one's.
    pub epoch: u64,
    /// The committed offset: everything below is in the lake.
    pub at: Offset,
    /// What was done below it.
    pub totals: Totals,
    /// The plan that was found at the committed offset and is not finished yet.
    pub plan: Option<FlushPlan>,
    pub state: State,
    /// The position behind the last record that the consumer delivered.
    pub delivered: Offset,
    /// Where the end of the partition was reached last.
    pub end_seen: Option<Offset>,
    pub paused: bool,
    blocked: Option<Instant>,
    failures: u32,
}

pub(super) enum State {
    /// Nothing is gathered.
    Idle,
    /// A flush is open.
    Gathering(Box<Gather>),
    /// A plan stands, and its files are on their way.
    InFlight(Box<InFlight>),
}

/// A flush whose plan stands.
pub(super) struct InFlight {
    pub plan: FlushPlan,
    pub dead: Vec<DeadLetter>,
    pub left_out_rows: u64,
    pub cause: Cause,
    pub began: Instant,
    pub memory_bytes: usize,
    pub upload: JoinHandle<()>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // What was not put will be put by whoever finds the plan.
        self.upload.abort();
    }
}

impl Part {
    pub fn new(
        partition: TopicPartition,
        epoch: u64,
        at: Offset,
        totals: Totals,
        plan: Option<FlushPlan>,
    ) -> Self {
        Self {
            partition,
            epoch,
            at,
            totals,
            plan,
            state: State::Idle,
            delivered: at,
            end_seen: None,
            paused: false,
            blocked: None,
            failures: 0,
        }
    }

    /// The offset from which the next record is taken.
    pub fn next(&self) -> Offset {
        match &self.state {
            State::Idle => self.at,
            State::Gathering(gather) => gather.next,
            State::InFlight(flight) => flight.plan.end,
        }
    }

    /// Whether every record that was delivered was taken; if not, a seek must bring the rest again.
    pub fn in_line(&self) -> bool {
        self.delivered <= self.next()
    }

    pub fn in_flight(&self) -> bool {
        matches!(self.state, State::InFlight(_))
    }

    /// The open flush, if it has records and was not decided before.
    pub fn open_flush(&self) -> Option<&Gather> {
        match &self.state {
            State::Gathering(gather) if gather.plan.is_none() && gather.records > 0 => Some(gather),
            _ => None,
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match &self.state {
            State::Idle => 0,
            State::Gathering(gather) => gather.memory_bytes(),
            State::InFlight(flight) => flight.memory_bytes,
        }
    }

    /// Takes no records for a while, because something that they need does not answer.
    pub fn block(&mut self, backoff: &Backoff) -> Duration {
        self.failures += 1;
        let pause = backoff.pause(self.failures);
        self.blocked = Some(Instant::now() + pause);
        pause
    }

    pub fn unblock(&mut self) {
        self.blocked = None;
        self.failures = 0;
    }

    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some_and(|until| Instant::now() < until)
    }
}
