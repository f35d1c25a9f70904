//! When a session is over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use runtime::lifecycle::Phase;
use runtime::log::{Committed, Offset, TopicPartition};

use super::attempt;
use super::partition::{Part, State};
use super::session::Session;
use crate::error::{SinkError, Step};
use crate::plan::Note;

/// How often a drained worker looks whether the others are drained too.
const ASK_EVERY: Duration = Duration::from_millis(30);

impl Session<'_> {
    pub(super) fn is_over(&mut self) -> Step<bool> {
        match self.options().lifecycle.phase() {
            Phase::Running => Ok(false),
            Phase::Draining => self.is_drained(),
            Phase::Stopping => self.is_stopped(),
        }
    }

    /// Whether what was gathered is written. Flushes that were decided before and are being read again are left as they
    /// are: their plan stands.
    fn is_stopped(&mut self) -> Step<bool> {
        let since = *self.stopping_since.get_or_insert_with(Instant::now);
        let waiting: Vec<String> = self
            .parts
            .values()
            .filter(|part| part.in_flight())
            .map(|part| part.partition.to_string())
            .collect();
        if waiting.is_empty() {
            return Ok(true);
        }
        if since.elapsed() > self.options().stop_deadline {
            return Err(SinkError::Unfinished {
                partitions: waiting.join(", "),
            }
            .into());
        }
        Ok(false)
    }

    /// Whether a partition was read to where it ended when the input was said to be over.
    pub(super) fn at_target(&self, part: &Part) -> bool {
        let target = self
            .targets
            .as_ref()
            .and_then(|targets| targets.get(&part.partition));
        part.in_line()
            && target.is_some_and(|target| part.end_seen.is_some_and(|seen| seen >= *target))
    }

    fn is_drained(&mut self) -> Step<bool> {
        if self.targets.is_none() {
            self.targets = Some(self.ends()?);
        }
        let drained = |part: &Part| {
            matches!(part.state, State::Idle) && part.plan.is_none() && self.at_target(part)
        };
        if !self.parts.values().all(drained) {
            return Ok(false);
        }
        self.step_over_holes()?;
        if self.asked.is_some_and(|last| last.elapsed() < ASK_EVERY) {
            return Ok(false);
        }
        self.asked = Some(Instant::now());
        self.is_group_drained()
    }

    /// Where all partitions of all topics end now.
    fn ends(&self) -> Step<BTreeMap<TopicPartition, Offset>> {
        let options = &self.worker.options;
        let mut ends = BTreeMap::new();
        for (name, topic) in &self.worker.topics {
            for number in 0..topic.description.partitions {
                let partition = TopicPartition::new(name.clone(), number);
                let bounds = attempt(options, "find the partition's bounds", || {
                    options.log.bounds(&partition)
                })?;
                ends.insert(partition, bounds.end);
            }
        }
        Ok(ends)
    }

    /// Commits the positions behind the control records at the ends, so that whoever looks sees that nothing is left.
    fn step_over_holes(&mut self) -> Step<()> {
        let partitions: Vec<TopicPartition> = self.parts.keys().cloned().collect();
        for partition in partitions {
            let Some(mut part) = self.parts.remove(&partition) else {
                continue;
            };
            let mut committed = Ok(());
            if let Some(end) = part.end_seen.filter(|end| *end > part.at) {
                let note = self.settled(&part, part.totals);
                committed = self.commit(&part, end, &note);
                part.at = end;
                part.delivered = part.delivered.max(end);
            }
            self.parts.insert(partition, part);
            committed?;
        }
        Ok(())
    }

    /// Whether every partition of the group, whoever has it, is written to its end.
    fn is_group_drained(&mut self) -> Step<bool> {
        let targets = self.targets.clone().unwrap_or_default();
        let partitions: Vec<TopicPartition> = targets.keys().cloned().collect();
        let options = &self.worker.options;
        let committed = attempt(options, "read committed offsets", || {
            options.log.committed(&options.consumer.group, &partitions)
        })?;
        for ((partition, target), committed) in targets.iter().zip(&committed) {
            let done = match committed {
                Some(Committed { offset, metadata }) => {
                    offset >= target && Note::parse(metadata).is_ok_and(|note| note.plan.is_none())
                }
                None => {
                    attempt(options, "find the partition's bounds", || {
                        options.log.bounds(partition)
                    })?
                    .start
                        >= *target
                }
            };
            if !done {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
