//! A log that fails where it is told to: for tests of what a crash, an unknown outcome or a broker's refusal leave
//! behind.
//!
//! [`FaultLog`] wraps any log and counts the calls that consumers and producers make through it, one *step* each. A
//! clean run tells how many steps there are, and which ([`FaultLog::trace`]); then a run for each step crashes there.
//! The same calls give the same steps: polls that bring nothing are not counted, since how many there are depends on
//! time alone.
//!
//! A crash reaches everything that was made through the same wrapper: all later calls fail with [`LogError::Closed`],
//! and consumers and producers are abandoned, neither closed nor dropped, as those of a killed process are. The log
//! underneath goes on, and so do others that use it.

mod clients;
mod steps;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::{
    Bounds, Committed, Consumer, ConsumerOptions, GroupMember, Log, LogError, Offset, Producer,
    ProducerOptions, TopicDescription, TopicPartition, TopicSpec,
};
use clients::{Abandoning, FaultConsumer, FaultProducer};
use steps::{Pause, State, Steps};

/// Where a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// The step of this number, from 0.
    Step(u64),
    /// The nth call of this name, from 0, such as `producer.commit`.
    Call(&'static str, u64),
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies before the call takes effect.
    CrashBefore,
    /// The process dies when the call has taken effect, and before it returns.
    CrashAfter,
    /// The call takes effect, and fails with [`LogError::UnknownOutcome`].
    UnknownButDone,
    /// The call takes no effect, and fails with [`LogError::UnknownOutcome`]. After a producer's commit the transaction
    /// stays open until a new producer takes the transactional id.
    UnknownAndNotDone,
    /// The call takes no effect, and fails with [`LogError::Unreachable`], once.
    Unreachable,
    /// The call takes no effect, and fails with [`LogError::MustAbort`]; so do the producer's later calls, until it
    /// aborts.
    MustAbort,
    /// The call takes no effect, and fails with [`LogError::NotAllowed`].
    NotAllowed,
    /// The process stands still before the call takes effect, until [`FaultLog::wake`].
    Pause,
    /// The call takes effect, and the process stands still before it returns, until [`FaultLog::wake`].
    PauseAfter,
    /// The log has timed the producer's transaction out, as when its process or the broker stood still for too long: the
    /// transaction is aborted, and this call and all later ones fail with [`LogError::Fenced`]. Of producers' calls only.
    TimedOut,
}

/// A log that fails where it is told to.
pub struct FaultLog {
    inner: Arc<dyn Log>,
    steps: Arc<Steps>,
}

impl FaultLog {
    /// A log that only counts.
    pub fn new(inner: Arc<dyn Log>) -> Arc<Self> {
        Self::with_plan(inner, Vec::new())
    }

    /// A log with one fault.
    pub fn with_fault(inner: Arc<dyn Log>, at: At, fault: Fault) -> Arc<Self> {
        Self::with_plan(inner, vec![(at, fault)])
    }

    /// A log with several faults. Where two strike at the same step, the first of the plan counts.
    pub fn with_plan(inner: Arc<dyn Log>, plan: Vec<(At, Fault)>) -> Arc<Self> {
        let state = Mutex::new(State {
            plan,
            trace: Vec::new(),
            pause: Pause::NotYet,
        });
        Arc::new(Self {
            inner,
            steps: Arc::new(Steps {
                crashed: AtomicBool::new(false),
                state,
                woken: Condvar::new(),
            }),
        })
    }

    /// How many steps there were.
    pub fn steps(&self) -> u64 {
        self.steps.state().trace.len() as u64
    }

    /// The names of the steps, in order: `consumer.poll`, `producer.commit`, and so on, after the traits' methods.
    pub fn trace(&self) -> Vec<&'static str> {
        self.steps.state().trace.clone()
    }

    /// Whether a crash has struck.
    pub fn crashed(&self) -> bool {
        self.steps.crashed.load(Ordering::SeqCst)
    }

    /// Crashes now, between two steps.
    pub fn crash(&self) {
        self.steps.crashed.store(true, Ordering::SeqCst);
    }
}

impl FaultLog {
    /// Whether a process stands still ([`Fault::Pause`], [`Fault::PauseAfter`]).
    pub fn paused(&self) -> bool {
        self.steps.state().pause == Pause::Paused
    }

    /// Lets it go on, and those that would have paused later.
    pub fn wake(&self) {
        self.steps.state().pause = Pause::Over;
        self.steps.woken.notify_all();
    }
}

impl Log for FaultLog {
    fn consumer(&self, options: &ConsumerOptions) -> Result<Box<dyn Consumer>, LogError> {
        self.steps.alive()?;
        let inner = self.inner.consumer(options)?;
        Ok(Box::new(FaultConsumer {
            client: Abandoning::new(inner, &self.steps),
            kept: None,
        }))
    }

    fn producer(&self, options: &ProducerOptions) -> Result<Box<dyn Producer>, LogError> {
        self.steps.alive()?;
        let inner = self.inner.producer(options)?;
        Ok(Box::new(FaultProducer {
            inner: Abandoning::new(inner, &self.steps),
            must_abort: false,
            fenced: false,
        }))
    }

    fn create_topic(&self, spec: &TopicSpec) -> Result<bool, LogError> {
        self.steps.alive()?;
        self.inner.create_topic(spec)
    }

    fn add_partitions(&self, name: &str, total: i32) -> Result<(), LogError> {
        self.steps.alive()?;
        self.inner.add_partitions(name, total)
    }

    fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        self.steps.alive()?;
        self.inner.delete_topic(name)
    }

    fn topic(&self, name: &str) -> Result<Option<TopicDescription>, LogError> {
        self.steps.alive()?;
        self.inner.topic(name)
    }

    fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        self.steps.alive()?;
        self.inner.bounds(partition)
    }

    fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        self.steps.alive()?;
        self.inner.committed(group, partitions)
    }

    fn members(&self, group: &str) -> Result<Vec<GroupMember>, LogError> {
        self.steps.alive()?;
        self.inner.members(group)
    }

    fn delete_group(&self, group: &str) -> Result<(), LogError> {
        self.steps.alive()?;
        self.inner.delete_group(group)
    }

    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError> {
        self.steps.alive()?;
        self.inner.delete_records(partition, before)
    }
}

#[cfg(test)]
mod tests;
