//! A run: from files to committed records.
//!
//! ```text
//!   connect ── new producer, init_transactions (fences an older instance), leftovers aborted, newest position
//!      │
//!      ▼
//!   resume ─── open the file, verify the hash of all bytes before the position
//!      │
//!      ▼
//!   transaction ── begin, rows + dead letters, flush, position, commit ──▶ again, until the input ends
//!      │ abort                      ▲                      │ unknown outcome
//!      └── back to the last committed position             └── connect again
//! ```
//!
//! Invariants: a position is committed in the transaction of exactly the rows before it; `rows_read = rows_delivered +
//! rows_rejected` in every position; nothing is read again after its position is committed.

mod commit;
mod options;
mod pace;
mod recovery;
mod resume;
mod setup;
mod transaction;

use std::thread::sleep;
use std::time::{Duration, Instant};

use runtime::dead_letter::dlq_topic;
use runtime::log::{LogError, Producer, ProducerOptions, abort_leftovers};

pub use options::{Options, Summary};
pub use setup::{setup_topics, topics};

use crate::error::ProducerError;
use crate::position::POSITIONS_TOPIC;
use recovery::{Patience, Recovery};
use resume::Checkpoint;
use setup::Job;

/// The longest sleep between two looks at the lifecycle.
const NAP: Duration = Duration::from_millis(20);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Every file was read to its end.
    Finished,
    /// It was told to stop.
    Stopped,
}

/// What broke a connection or a transaction.
enum Failure {
    Log(LogError),
    Other(ProducerError),
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<ProducerError> for Failure {
    fn from(error: ProducerError) -> Self {
        Self::Other(error)
    }
}

/// Sends the input's rows until it ends, or the lifecycle says to stop. Blocks the calling thread.
///
/// While the lifecycle says [`runtime::lifecycle::Phase::Draining`], a source that has no file yet counts as ended.
///
/// # Errors
/// What ended the run early. What was committed stays, and the next run of the same input set goes on behind it.
pub fn run(options: Options) -> Result<Summary, ProducerError> {
    let mut job = Job::prepare(options)?;
    let mut patience = Patience::new(job.options.give_up_after, job.options.lifecycle.clone());
    let mut restart = false;
    loop {
        let failure = match job.connect() {
            Ok((mut producer, checkpoint)) => {
                if std::mem::take(&mut restart) {
                    job.options.metrics.restarts.inc();
                }
                match job.drive(producer.as_mut(), checkpoint, &mut patience) {
                    Ok(summary) => return Ok(summary),
                    Err(failure) => failure,
                }
            }
            Err(failure) => failure,
        };
        let error = match failure {
            Failure::Other(error) => return Err(error),
            Failure::Log(error) => error,
        };
        match Recovery::of(&error) {
            Recovery::TryAgain | Recovery::Rollback | Recovery::Reconnect => {
                restart = true;
                sleep(patience.pause(error)?);
            }
            Recovery::Yield => {
                let committed = job.counted.map(|counted| counted.read);
                let again = job.fenced_at.replace(committed) == Some(committed);
                if again || job.another_goes_on(committed, &mut patience)? {
                    return Err(ProducerError::Fenced {
                        input_set: job.set.id.clone(),
                        source: error,
                    });
                }
                if job.options.lifecycle.stopping() {
                    return Err(ProducerError::Log(error));
                }
                tracing::warn!(error = %error, "nobody has taken this input set over: the log must have timed the open transaction out; starting anew");
                restart = true;
            }
            Recovery::Stop => return Err(ProducerError::Log(error)),
        }
    }
}

impl Job {
    /// A producer that holds the set's transactional id, and where to go on.
    fn connect(&mut self) -> Result<(Box<dyn Producer>, Checkpoint), Failure> {
        let mut producer = self.producer()?;
        let mut positions = self.newest_positions()?;
        if !positions.contains_key(&self.set.id)
            && let Some(id) = self.earlier_id(&positions)?
        {
            // The same files under an earlier id: take that one over, and ask again once its holder is fenced.
            self.set.id = id;
            drop(producer);
            producer = self.producer()?;
            positions = self.newest_positions()?;
        }
        let checkpoint = self.checkpoint(positions.remove(&self.set.id))?;
        Ok((producer, checkpoint))
    }

    fn producer(&self) -> Result<Box<dyn Producer>, LogError> {
        let id = format!("producer-{}", self.set.id);
        let options = ProducerOptions {
            transaction_timeout: self.options.transaction_timeout,
            delivery_timeout: self.options.delivery_timeout,
            linger: self.options.linger,
            ..ProducerOptions::transactional(id)
        };
        let mut producer = self.options.log.producer(&options)?;
        producer.init_transactions()?;
        let dead_letters = dlq_topic(&self.options.topic);
        let topics = [&self.options.topic, &dead_letters, POSITIONS_TOPIC];
        abort_leftovers(self.options.log.as_ref(), producer.as_mut(), topics)?;
        Ok(producer)
    }

    /// One transaction after the other, until the input ends.
    fn drive(
        &mut self,
        producer: &mut dyn Producer,
        mut committed: Checkpoint,
        patience: &mut Patience,
    ) -> Result<Summary, Failure> {
        self.reading = None;
        self.in_transaction = false;
        loop {
            let error = match self.transaction(producer, &mut committed, patience) {
                Ok(None) => continue,
                Ok(Some(end)) => return Ok(self.summary(&committed, end)),
                Err(Failure::Log(error)) => error,
                Err(Failure::Other(error)) => {
                    if self.in_transaction
                        && let Err(error) = producer.abort()
                    {
                        tracing::warn!(error = %error, "the open transaction could not be aborted; the log will do so in time");
                    }
                    return Err(error.into());
                }
            };
            match Recovery::of(&error) {
                Recovery::TryAgain | Recovery::Rollback if self.in_transaction => {
                    self.options.metrics.aborts.inc();
                    let pause = patience.pause(error)?;
                    again(patience, || producer.abort())?;
                    self.in_transaction = false;
                    self.reading = None;
                    sleep(pause);
                }
                // Without a transaction there is nothing to abort: a new producer is the way back.
                Recovery::TryAgain
                | Recovery::Rollback
                | Recovery::Reconnect
                | Recovery::Yield
                | Recovery::Stop => return Err(error.into()),
            }
        }
    }

    fn summary(&self, committed: &Checkpoint, end: End) -> Summary {
        let position = &committed.position;
        Summary {
            input_set: self.set.id.clone(),
            read: position.rows_read.cast_unsigned(),
            rejected: position.rows_rejected.cast_unsigned(),
            delivered: position.rows_delivered.cast_unsigned(),
            delivered_by_partition: position
                .delivered_by_partition
                .iter()
                .map(|rows| rows.cast_unsigned())
                .collect(),
            read_now: (position.rows_read - self.read_before).cast_unsigned(),
            finished: end == End::Finished,
        }
    }
}

/// Makes a call until it succeeds, as long as its failures ask for that and patience lasts.
fn again<T, E: Into<Failure>>(
    patience: &mut Patience,
    mut call: impl FnMut() -> Result<T, E>,
) -> Result<T, Failure> {
    loop {
        match call().map_err(Into::into) {
            Ok(value) => return Ok(value),
            Err(Failure::Log(error)) if Recovery::of(&error) == Recovery::TryAgain => {
                sleep(patience.pause(error)?)
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Sleeps, but not for long, and says whether `deadline` is over.
fn nap(wait: Duration, deadline: Option<Instant>) -> bool {
    sleep(wait.min(NAP));
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}
