//! The open transaction of a worker: begins when something is to be written, ends in a commit or an abort.
//!
//! ```text
//!            send                        commit ─▶ Ok
//!   idle ───────────▶ open ──send*──▶ {
//!     ▲                 │                abort  ─▶ Ok
//!     └─────────────────┴──────────────────┘
//! ```

use runtime::log::{
    GroupMetadata, Log, LogError, NewRecord, OffsetCommit, Producer, abort_leftovers,
};

/// A transactional producer, and whether a transaction is open.
pub(super) struct Transaction {
    producer: Box<dyn Producer>,
    open: bool,
}

impl Transaction {
    /// Takes the transactional id over from whoever held it, and aborts what was left open in these topics.
    pub(super) fn take_over<'a>(
        mut producer: Box<dyn Producer>,
        log: &dyn Log,
        topics: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, LogError> {
        producer.init_transactions()?;
        abort_leftovers(log, producer.as_mut(), topics)?;
        Ok(Self {
            producer,
            open: false,
        })
    }

    /// Sends a record in the open transaction, beginning one if none is.
    pub(super) fn send(&mut self, record: NewRecord<'_>) -> Result<(), LogError> {
        self.begin()?;
        self.producer.send(record)
    }

    /// Sends records, each with its key and value, to one topic in the open transaction, beginning one if none is.
    pub(super) fn send_all<'a>(
        &mut self,
        topic: &str,
        records: &mut dyn Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), LogError> {
        self.begin()?;
        self.producer.send_all(topic, records)
    }

    /// The producer, in an open transaction.
    pub(super) fn producer(&mut self) -> Result<&mut dyn Producer, LogError> {
        self.begin()?;
        Ok(self.producer.as_mut())
    }

    /// Commits what was sent together with these offsets.
    pub(super) fn commit(
        &mut self,
        offsets: &[OffsetCommit],
        group: &GroupMetadata,
    ) -> Result<(), LogError> {
        self.begin()?;
        self.producer.flush()?;
        self.producer.send_offsets(offsets, group)?;
        self.producer.commit()?;
        self.open = false;
        Ok(())
    }

    /// Aborts the open transaction, if there is one.
    pub(super) fn abort(&mut self) -> Result<(), LogError> {
        if self.open {
            self.producer.abort()?;
            self.open = false;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), LogError> {
        if !self.open {
            self.producer.begin()?;
            self.open = true;
        }
        Ok(())
    }
}
