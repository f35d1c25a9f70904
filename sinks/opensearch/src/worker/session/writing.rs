//! Writing what is in hand to the target, and committing the offsets behind it.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use runtime::dead_letter::DeadLetterError;
use runtime::lifecycle::Phase;
use runtime::log::OffsetCommit;

use super::{Ended, Session};
use crate::target::{Outcome, Remedy as TargetRemedy, TargetError};
use crate::worker::SinkError;
use crate::worker::recovery::{self, Remedy};
use crate::worker::round::Item;

/// How long documents may be written without a poll: well within every session timeout.
const WRITE_BUDGET: Duration = Duration::from_secs(2);
/// How long what is in hand may take when partitions are wanted back, or the run is to stop.
const FINISH_BUDGET: Duration = Duration::from_secs(10);

impl Session<'_> {
    /// Does what is due.
    pub(super) fn work(&mut self, phase: Phase) -> Result<(), Ended> {
        if self.waiting() {
            return Ok(());
        }
        self.wait_until = None;
        if let Some(batch) = self.stalled.take() {
            self.take(batch)?;
            if self.waiting() {
                return Ok(());
            }
        }
        let since = self.round.opened().into_iter().chain(self.moved).min();
        let old = since.is_some_and(|since| since.elapsed() >= self.options.flush_interval);
        let ending = since.is_some() && phase == Phase::Draining && self.quiet;
        if self.flushing || old || ending || self.round.bytes() >= self.options.flush_bytes {
            self.flush(WRITE_BUDGET)?;
        }
        Ok(())
    }

    /// Writes what is in hand and commits, as far as that can be done now.
    pub(super) fn flush(&mut self, budget: Duration) -> Result<(), Ended> {
        self.flushing = true;
        let started = Instant::now();
        while self.round.waiting() > 0 {
            if started.elapsed() >= budget {
                return Ok(());
            }
            self.write_bulk()?;
            if self.waiting() {
                return Ok(());
            }
        }
        self.commit()
    }

    /// Before partitions are given back, or the run stops. What can't be finished now will be read again.
    pub(super) fn finish_in_hand(&mut self) -> Result<(), Ended> {
        if self.waiting() || (self.round.is_empty() && self.moved.is_none()) {
            return Ok(());
        }
        self.flush(FINISH_BUDGET)
    }

    pub(super) fn write_bulk(&mut self) -> Result<(), Ended> {
        let options = self.options;
        let metrics = &options.metrics;
        let items = self
            .round
            .next_bulk(self.pacing.bulk_bytes(), self.pacing.bulk_documents());
        let documents: Vec<_> = items.iter().map(|item| &item.document).collect();
        let bytes: usize = documents.iter().map(|document| document.bytes()).sum();
        metrics.bulk_bytes.observe(bytes as f64);
        let started = Instant::now();
        let outcomes = self.options.target.write(&documents).and_then(|outcomes| {
            if outcomes.len() == items.len() {
                return Ok(outcomes);
            }
            let detail = format!(
                "it answered for {} of {} documents",
                outcomes.len(),
                items.len()
            );
            Err(TargetError::Unreachable {
                target: self.options.target.name().to_owned(),
                detail,
            })
        });
        let result = if outcomes.is_ok() {
            "answered"
        } else {
            "failed"
        };
        metrics
            .call_seconds
            .with_label_values(&[result])
            .observe(started.elapsed().as_secs_f64());
        match outcomes {
            Ok(outcomes) => {
                self.out_of_trouble();
                self.settle(items, outcomes);
            }
            Err(error) => self.call_failed(items, bytes, error)?,
        }
        metrics
            .bulk_limit_bytes
            .set(i64::try_from(self.pacing.bulk_bytes()).unwrap_or(i64::MAX));
        Ok(())
    }

    pub(super) fn settle(&mut self, items: Vec<Item>, outcomes: Vec<Outcome>) {
        let options = self.options;
        let (metrics, progress) = (&options.metrics, &options.progress);
        let (mut settled, mut again, mut overload, mut example) = (0_usize, 0_usize, false, None);
        for (item, outcome) in items.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Stored | Outcome::Conflict => {
                    settled += 1;
                    self.round.settle(&item);
                    let (label, count) = match outcome {
                        Outcome::Stored => ("stored", &progress.stored),
                        _ => ("conflict", &progress.conflicts),
                    };
                    count.fetch_add(1, Relaxed);
                    metrics.documents.with_label_values(&[label]).inc();
                }
                Outcome::Rejected { reason } => {
                    settled += 1;
                    tracing::warn!(index = %item.document.index, id = item.document.id, reason, "a document is rejected");
                    metrics.documents.with_label_values(&["rejected"]).inc();
                    self.round.reject(&item, &reason);
                }
                Outcome::Retry { reason, overloaded } => {
                    again += 1;
                    overload |= overloaded;
                    progress.retried.fetch_add(1, Relaxed);
                    let cause = if overloaded { "overloaded" } else { "failed" };
                    metrics.retried.with_label_values(&[cause]).inc();
                    example.get_or_insert(reason);
                    self.round.again(item);
                }
            }
        }
        let Some(reason) = example else {
            self.pacing.settled();
            return;
        };
        let pause = if settled > 0 {
            self.pacing.progressed(overload)
        } else {
            self.pacing.failed(overload, None)
        };
        tracing::warn!(
            settled,
            again,
            reason,
            pause_seconds = pause.as_secs_f64(),
            bulk_bytes = self.pacing.bulk_bytes(),
            "some documents must be sent again"
        );
        self.wait(pause);
    }

    pub(super) fn call_failed(
        &mut self,
        mut items: Vec<Item>,
        bytes: usize,
        error: TargetError,
    ) -> Result<(), Ended> {
        self.options.metrics.failed_calls.inc();
        let (overloaded, after) = match &error {
            TargetError::Overloaded { after, .. } => (true, *after),
            _ => (false, None),
        };
        let too_large = matches!(error, TargetError::TooLarge { .. });
        match error.remedy() {
            TargetRemedy::Wait | TargetRemedy::Ease => {
                let pause = self.pacing.failed(overloaded, after);
                self.in_trouble(&error);
                // An outage may last for hours: it is told ever more rarely.
                if self.pacing.failures().is_power_of_two() {
                    tracing::warn!(
                        %error,
                        documents = items.len(),
                        failures = self.pacing.failures(),
                        pause_seconds = pause.as_secs_f64(),
                        "the target did not take a bulk, trying again"
                    );
                }
                self.wait(pause);
                self.round.put_back(items);
            }
            TargetRemedy::Split if items.len() > 1 => {
                self.pacing.split(items.len(), bytes, too_large);
                tracing::warn!(%error, documents = items.len(), "a bulk is refused: its documents are sent in smaller ones");
                self.round.put_back(items);
            }
            TargetRemedy::Split => {
                for item in items.drain(..) {
                    tracing::warn!(index = %item.document.index, id = item.document.id, %error, "a document is rejected");
                    self.options
                        .metrics
                        .documents
                        .with_label_values(&["rejected"])
                        .inc();
                    self.round.reject(&item, &error.to_string());
                }
                self.pacing.settled();
            }
            TargetRemedy::Stop => {
                self.round.put_back(items);
                return Err(SinkError::Target(error).into());
            }
        }
        Ok(())
    }

    /// Flushes dead letters, then commits the offsets behind everything that is settled.
    pub(super) fn commit(&mut self) -> Result<(), Ended> {
        let dead = self.round.letters().len() as u64;
        if dead > 0 {
            match self.letters.write(self.round.letters()) {
                Ok(()) => {}
                Err(DeadLetterError::Log(error)) => return self.log_failure(error),
                Err(error) => {
                    return match recovery::remedy(error.class(), self.failures) {
                        Remedy::Again => {
                            self.pause_for(&error);
                            Ok(())
                        }
                        Remedy::Rejoin | Remedy::Leave | Remedy::Fail => {
                            Err(SinkError::DeadLetter(error).into())
                        }
                    };
                }
            }
            self.round.letters_sent();
            self.options.progress.dead.fetch_add(dead, Relaxed);
        }

        let counts = self.round.counts();
        let mut commits = Vec::new();
        let mut next = Vec::new();
        for (partition, held) in &self.held {
            let count = counts.get(partition).copied().unwrap_or_default();
            if held.position <= held.committed {
                continue;
            }
            let ledger = held.ledger.plus(count.docs, count.dead);
            let metadata = ledger.to_metadata();
            commits.push(OffsetCommit {
                partition: partition.clone(),
                offset: held.position,
                metadata,
            });
            next.push((partition.clone(), held.position, ledger));
        }
        if !commits.is_empty() {
            if let Err(error) = self.consumer.commit(&commits) {
                return self.log_failure(error);
            }
            self.options.metrics.commits.inc();
            self.worked = true;
        }
        for (partition, position, ledger) in next {
            if let Some(held) = self.held.get_mut(&partition) {
                held.committed = position;
                held.ledger = ledger;
            }
        }
        self.no_failure();
        self.flushing = false;
        self.moved = None;
        self.round.clear();
        self.options.metrics.in_hand_bytes.set(0);
        Ok(())
    }

    /// Pauses what is read while what is in hand can't be written, and lets it go on afterwards.
    pub(super) fn hold_or_release(&mut self) -> Result<(), Ended> {
        let hold = self.flushing || self.stalled.is_some();
        if hold == self.paused {
            return Ok(());
        }
        let partitions: Vec<_> = self.held.keys().cloned().collect();
        let done = if hold {
            self.consumer.pause(&partitions)
        } else {
            self.consumer.resume(&partitions)
        };
        if let Err(error) = done {
            return self.log_failure(error);
        }
        self.paused = hold;
        self.options.progress.paused.store(hold, Relaxed);
        self.options.metrics.paused.set(i64::from(hold));
        if hold {
            tracing::warn!(
                documents = self.round.waiting(),
                "reading is paused until what is in hand is stored"
            );
        } else {
            tracing::info!("reading goes on");
        }
        Ok(())
    }
}
