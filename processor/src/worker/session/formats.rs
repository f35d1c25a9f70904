//! In which version the application is written: that may be raised while it runs, once all members can read the newer one.

use runtime::log::{Class, TopicPartition};

use super::Session;
use crate::record;
use crate::topics;
use crate::worker::WorkerError;
use crate::worker::error::Doing;

impl Session<'_> {
    /// Looks whether the record of the job has changed, and writes in the version that it names from the next range on.
    pub(super) fn look_for_format(&mut self) -> Result<(), WorkerError> {
        let (worker, format) = (self.worker, &self.worker.job.format);
        let application_id = &worker.job.options.application_id;
        let record = TopicPartition::new(topics::job(application_id), 0);
        let end = match worker.log.bounds(&record) {
            Err(error) if error.class() == Class::Retry => return Ok(()),
            other => {
                other
                    .doing("the record of the job can't be looked at")?
                    .stable
            }
        };
        if end == self.record_end {
            return Ok(());
        }
        let known = match record::read_to(worker.log.as_ref(), application_id, format.newest()) {
            Err(error) if error.class() == Class::Retry => return Ok(()),
            other => other?,
        };
        self.record_end = end;
        let version = known.map_or(format.written(), |known| known.version());
        if format.raise(version) {
            tracing::info!(
                slot = worker.slot,
                version,
                "the application is written in a newer format from now on"
            );
        }
        Ok(())
    }
}
