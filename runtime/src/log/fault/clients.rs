//! Consumers and producers that fail where they are told to.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::steps::{Steps, fenced, must_abort};
use crate::log::{
    Committed, Consumer, Delivered, Event, GroupMetadata, LogError, NewRecord, Offset,
    OffsetCommit, Producer, TopicPartition,
};

/// A client that is abandoned, not dropped, once a crash has struck.
pub(super) struct Abandoning<T: ?Sized> {
    pub(super) client: Option<Box<T>>,
    pub(super) steps: Arc<Steps>,
}

impl<T: ?Sized> Abandoning<T> {
    pub(super) fn new(client: Box<T>, steps: &Arc<Steps>) -> Self {
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

pub(super) struct FaultConsumer {
    pub(super) client: Abandoning<dyn Consumer>,
    /// What a poll that failed had brought.
    pub(super) kept: Option<Event>,
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

impl FaultConsumer {
    fn end(
        mut self,
        close: impl FnOnce(Box<dyn Consumer>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let mut client = self.client.client.take();
        let outcome = self
            .client
            .steps
            .step("consumer.close", || match client.take() {
                Some(client) => close(client),
                None => Err(LogError::Closed),
            });
        // If a fault kept it from being closed, it is abandoned.
        self.client.client = client;
        outcome
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

    fn close(self: Box<Self>, deadline: Duration) -> Result<(), LogError> {
        self.end(|client| client.close(deadline))
    }

    fn close_for_a_moment(self: Box<Self>, deadline: Duration) -> Result<(), LogError> {
        self.end(|client| client.close_for_a_moment(deadline))
    }
}

pub(super) struct FaultProducer {
    pub(super) inner: Abandoning<dyn Producer>,
    pub(super) must_abort: bool,
    pub(super) fenced: bool,
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
