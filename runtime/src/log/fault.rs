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

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    Bounds, Committed, Consumer, ConsumerOptions, Delivered, Event, GroupMember, GroupMetadata,
    Log, LogError, NewRecord, Offset, OffsetCommit, Producer, ProducerOptions, TopicDescription,
    TopicPartition, TopicSpec,
};

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
    /// The log has timed the producer's transaction out, as when its process or the broker stood still for too long: the
    /// transaction is aborted, and this call and all later ones fail with [`LogError::Fenced`]. Of producers' calls only.
    TimedOut,
}

/// A log that fails where it is told to.
pub struct FaultLog {
    inner: Arc<dyn Log>,
    steps: Arc<Steps>,
}

#[derive(Debug)]
struct Steps {
    crashed: AtomicBool,
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Debug)]
struct State {
    plan: Vec<(At, Fault)>,
    trace: Vec<&'static str>,
    pause: Pause,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pause {
    #[default]
    NotYet,
    Paused,
    Over,
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
    /// Whether a process stands still ([`Fault::Pause`]).
    pub fn paused(&self) -> bool {
        self.steps.state().pause == Pause::Paused
    }

    /// Lets it go on, and those that would have paused later.
    pub fn wake(&self) {
        self.steps.state().pause = Pause::Over;
        self.steps.woken.notify_all();
    }
}

impl Steps {
    fn pause(&self) {
        let mut state = self.state();
        if state.pause == Pause::NotYet {
            state.pause = Pause::Paused;
        }
        while state.pause == Pause::Paused {
            state = self
                .woken
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> Result<(), LogError> {
        if self.crashed.load(Ordering::SeqCst) {
            Err(LogError::Closed)
        } else {
            Ok(())
        }
    }

    /// Counts a step, and says what strikes there.
    fn count(&self, name: &'static str) -> Option<Fault> {
        let mut state = self.state();
        let step = state.trace.len() as u64;
        let nth = state
            .trace
            .iter()
            .filter(|earlier| **earlier == name)
            .count() as u64;
        state.trace.push(name);
        let strikes = |at: &At| match at {
            At::Step(number) => *number == step,
            At::Call(call, number) => *call == name && *number == nth,
        };
        state
            .plan
            .iter()
            .find(|(at, _)| strikes(at))
            .map(|(_, fault)| *fault)
    }

    /// Makes a call, or lets it fail.
    fn step<T>(
        &self,
        name: &'static str,
        call: impl FnOnce() -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        self.alive()?;
        match self.count(name) {
            None => call(),
            Some(Fault::CrashBefore) => Err(self.crash()),
            Some(Fault::CrashAfter) => {
                // Whether the call itself failed is lost with the process.
                let _ = call();
                Err(self.crash())
            }
            Some(Fault::UnknownButDone) => {
                call().and(Err(LogError::UnknownOutcome { action: name }))
            }
            Some(Fault::UnknownAndNotDone) => Err(LogError::UnknownOutcome { action: name }),
            Some(Fault::Unreachable) => Err(unreachable(name)),
            Some(Fault::MustAbort) => Err(must_abort()),
            Some(Fault::NotAllowed) => Err(LogError::NotAllowed {
                action: name,
                detail: "a fault was asked for".into(),
            }),
            Some(Fault::TimedOut) => Err(fenced()),
            Some(Fault::Pause) => {
                self.pause();
                call()
            }
        }
    }

    fn crash(&self) -> LogError {
        self.crashed.store(true, Ordering::SeqCst);
        LogError::Closed
    }
}

fn unreachable(action: &'static str) -> LogError {
    LogError::Unreachable {
        action,
        detail: "a fault was asked for".into(),
    }
}

fn fenced() -> LogError {
    LogError::Fenced {
        transactional_id: "that a fault was asked for".into(),
    }
}

fn must_abort() -> LogError {
    LogError::MustAbort {
        detail: "a fault was asked for".into(),
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

/// A client that is abandoned, not dropped, once a crash has struck.
struct Abandoning<T: ?Sized> {
    client: Option<Box<T>>,
    steps: Arc<Steps>,
}

impl<T: ?Sized> Abandoning<T> {
    fn new(client: Box<T>, steps: &Arc<Steps>) -> Self {
        Self {
            client: Some(client),
            steps: Arc::clone(steps),
        }
    }

    fn step<R>(
        &mut self,
        name: &'static str,
        call: impl FnOnce(&mut T) -> Result<R, LogError>,
    ) -> Result<R, LogError> {
        // It is there until it is closed, and nothing is called then.
        let client = self.client.as_deref_mut().ok_or(LogError::Closed)?;
        self.steps.step(name, || call(client))
    }
}

impl<T: ?Sized> Drop for Abandoning<T> {
    fn drop(&mut self) {
        let client = self.client.take();
        if self.steps.alive().is_err() {
            mem::forget(client);
        }
    }
}

struct FaultConsumer {
    client: Abandoning<dyn Consumer>,
    /// What a poll that failed had brought.
    kept: Option<Event>,
}

impl FaultConsumer {
    /// Drops what was kept of partitions that go on elsewhere, or not at all.
    fn forget(&mut self, partitions: &[TopicPartition]) {
        self.kept.take_if(|event| match event {
            Event::Records(batch) => partitions.contains(&batch.partition),
            Event::End { partition, .. } => partitions.contains(partition),
            Event::Assigned(_) | Event::Revoked(_) | Event::Lost(_) => false,
        });
    }
}

impl Consumer for FaultConsumer {
    fn subscribe(&mut self, topics: &[&str]) -> Result<(), LogError> {
        self.client
            .step("consumer.subscribe", |inner| inner.subscribe(topics))
    }

    fn assign(&mut self, starts: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        self.client
            .step("consumer.assign", |inner| inner.assign(starts))
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.forget(partitions);
        self.client
            .step("consumer.unassign", |inner| inner.unassign(partitions))
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), LogError> {
        self.forget(std::slice::from_ref(partition));
        self.client
            .step("consumer.seek", |inner| inner.seek(partition, offset))
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.client
            .step("consumer.pause", |inner| inner.pause(partitions))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.client
            .step("consumer.resume", |inner| inner.resume(partitions))
    }

    fn poll(&mut self, wait: Duration, max_records: usize) -> Result<Option<Event>, LogError> {
        self.client.steps.alive()?;
        // A poll changes nothing that was committed, so that it can be made before it is known to be a step. What it
        // brought is kept when it fails: a poll that failed takes nothing from the next one.
        let polled = match self.kept.take() {
            Some(event) => Ok(Some(event)),
            None => self
                .client
                .client
                .as_deref_mut()
                .ok_or(LogError::Closed)?
                .poll(wait, max_records),
        };
        if let Ok(None) = polled {
            return self.client.steps.alive().map(|()| None);
        }
        let mut polled = Some(polled);
        let outcome = self
            .client
            .step("consumer.poll", |_| polled.take().unwrap_or(Ok(None)));
        if let Some(Ok(kept)) = polled {
            self.kept = kept;
        }
        outcome
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        self.client
            .step("consumer.committed", |inner| inner.committed(partitions))
    }

    fn commit(&mut self, offsets: &[OffsetCommit]) -> Result<(), LogError> {
        self.client
            .step("consumer.commit", |inner| inner.commit(offsets))
    }

    fn in_group(&self) -> bool {
        let client = self.client.client.as_deref();
        client.is_some_and(|inner| inner.in_group())
    }

    fn group_metadata(&self) -> Result<GroupMetadata, LogError> {
        self.client.steps.alive()?;
        self.client
            .client
            .as_deref()
            .ok_or(LogError::Closed)?
            .group_metadata()
    }

    fn close(mut self: Box<Self>, deadline: Duration) -> Result<(), LogError> {
        let mut client = self.client.client.take();
        let outcome = self
            .client
            .steps
            .step("consumer.close", || match client.take() {
                Some(client) => client.close(deadline),
                None => Err(LogError::Closed),
            });
        // If a fault kept it from being closed, it is abandoned.
        self.client.client = client;
        outcome
    }
}

struct FaultProducer {
    inner: Abandoning<dyn Producer>,
    must_abort: bool,
    fenced: bool,
}

impl FaultProducer {
    fn step<R>(
        &mut self,
        name: &'static str,
        call: impl FnOnce(&mut dyn Producer) -> Result<R, LogError>,
    ) -> Result<R, LogError> {
        self.inner.steps.alive()?;
        if self.fenced {
            return Err(fenced());
        }
        if self.must_abort {
            return Err(must_abort());
        }
        let outcome = self.inner.step(name, |inner| call(inner));
        if matches!(outcome, Err(LogError::Fenced { .. })) {
            self.fenced = true;
            // Where no transaction is open there is nothing to time out.
            let _ = self.inner.client.as_deref_mut().map(|inner| inner.abort());
        }
        self.must_abort = matches!(outcome, Err(LogError::MustAbort { .. }));
        outcome
    }
}

impl Producer for FaultProducer {
    fn init_transactions(&mut self) -> Result<(), LogError> {
        self.step("producer.init_transactions", |inner| {
            inner.init_transactions()
        })
    }

    fn begin(&mut self) -> Result<(), LogError> {
        self.step("producer.begin", |inner| inner.begin())
    }

    fn send(&mut self, record: NewRecord<'_>) -> Result<(), LogError> {
        self.step("producer.send", |inner| inner.send(record))
    }

    fn flush(&mut self) -> Result<Delivered, LogError> {
        self.step("producer.flush", |inner| inner.flush())
    }

    fn send_offsets(
        &mut self,
        offsets: &[OffsetCommit],
        group: &GroupMetadata,
    ) -> Result<(), LogError> {
        self.step("producer.send_offsets", |inner| {
            inner.send_offsets(offsets, group)
        })
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.step("producer.commit", |inner| inner.commit())
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.must_abort = false;
        self.step("producer.abort", |inner| inner.abort())
    }
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
