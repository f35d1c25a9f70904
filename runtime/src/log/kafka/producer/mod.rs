//! A writer, with or without transactions.

mod phase;
mod send;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _, PurgeConfig};

use super::super::{
    Delivered, GroupMetadata, LogError, NewRecord, OffsetCommit, Producer, ProducerOptions,
};

use super::context::{WriterContext, lock};
use super::errors::{self, Doing, Kind};
use super::guard::Guard;
use super::native::{self, Ending};
use super::offsets::{Membership, check_sizes, list_of_commits};
use super::options::KafkaOptions;
use phase::{Meaning, Phase};

/// How long one wait for delivery reports lasts. It is slept through: a poll of rust-rdkafka with a timeout of a millisecond
/// or less asks librdkafka with one of 0, over and over until the time is up.
const TICK: Duration = Duration::from_micros(250);

/// How long one wait for deliveries lasts where only failures are told: it ends with the last delivery.
const FLUSH_TICK: Duration = Duration::from_millis(2);

/// What is done with records that were handed over.
const DELIVER: &str = "deliver records";

/// The client itself, which ends on a thread of its own when the last call has let go of it.
type Client = Ending<BaseProducer<WriterContext>>;

/// How long an abort lets records through after a call in its transaction has failed.
const LET_THROUGH_DOOMED: Duration = Duration::from_millis(100);

pub(super) struct KafkaProducer {
    client: Arc<Client>,
    guard: Option<Guard>,
    phase: Phase,
    transactional_id: String,
    delivery_timeout: Duration,
    request_timeout: Duration,
    hang_timeout: Duration,
    since_reports: u32,
    /// Whether each delivery is told, not only failures.
    counts: bool,
    /// How many transactions were given up: the mark of the records of the one that is open.
    transaction: usize,
}

impl KafkaProducer {
    pub(super) fn new(kafka: &KafkaOptions, options: &ProducerOptions) -> Result<Self, LogError> {
        let base: BaseProducer<WriterContext> = kafka
            .producer(options)
            .create_with_context(WriterContext::default())
            .map_err(|error| errors::of_creation(&error))?;
        let transactional = options.transactional_id.is_some();
        Ok(Self {
            client: Arc::new(Ending::with(base, native::destroy)),
            guard: if transactional {
                Some(Guard::new("kafka-transactions")?)
            } else {
                None
            },
            phase: if transactional {
                Phase::New
            } else {
                Phase::Plain
            },
            transactional_id: options.transactional_id.clone().unwrap_or_default(),
            delivery_timeout: options.delivery_timeout,
            request_timeout: kafka.request_timeout,
            hang_timeout: kafka.hang_timeout,
            since_reports: 0,
            counts: options.counts,
            transaction: 0,
        })
    }

    fn base(&self) -> &BaseProducer<WriterContext> {
        &self.client
    }

    fn doing(&self, action: &'static str) -> Doing<'_> {
        Doing::new(action).transactional_id(&self.transactional_id)
    }

    /// Runs a transactional call on the guard's thread. The caller's phase is `Unknown` when it does not come back.
    fn guarded(
        &mut self,
        action: &'static str,
        call: impl FnOnce(&BaseProducer<WriterContext>) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<Result<(), KafkaError>, LogError> {
        let client = Arc::clone(&self.client);
        let deadline = self.request_timeout + self.hang_timeout;
        let Some(guard) = &mut self.guard else {
            return Err(LogError::State {
                detail: format!("can't {action}: this producer has no transactional id"),
            });
        };
        let answer = guard.call(action, deadline, move || call(&client));
        if answer.is_err() {
            self.phase = Phase::Unknown;
        }
        answer
    }

    /// Waits until every record is delivered or has failed.
    fn drain(&mut self, deadline: Instant) -> bool {
        while self.base().in_flight_count() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            self.serve();
        }
        true
    }

    /// Takes what delivery reports there are; waits a little when there are none.
    fn serve(&self) {
        let before = self.base().in_flight_count();
        self.base().poll(Duration::ZERO);
        if !self.counts {
            native::flush(self.base().client().native_ptr(), FLUSH_TICK);
        } else if self.base().in_flight_count() == before {
            std::thread::sleep(TICK);
        }
    }

    fn delivered(&self) -> Result<Delivered, LogError> {
        let context = self.base().client().context();
        let taken = lock(&context.tally).take();
        taken.map_err(|(failure, count)| {
            let name = failure.partition.to_string();
            tracing::warn!(count, first = %failure.code, partition = %failure.partition, "records were not delivered");
            self.not_allowed().unwrap_or_else(|| {
                let said = context.notes.last().unwrap_or_default();
                let doing = self.doing(DELIVER).name(&name).bytes(failure.bytes);
                doing.topic(&failure.partition.topic).error(failure.code, &said)
            })
        })
    }

    /// What it means that the transaction has failed without a call of ours, if brokers have refused it a topic.
    fn not_allowed(&self) -> Option<LogError> {
        let topics = self.base().client().context().notes.refused_topics();
        (!topics.is_empty()).then(|| {
            let topics = topics.join(", ");
            let doing = self.doing(DELIVER).topic(&topics);
            doing.error(RDKafkaErrorCode::TopicAuthorizationFailed, "")
        })
    }
}

impl Producer for KafkaProducer {
    fn init_transactions(&mut self) -> Result<(), LogError> {
        const ACTION: &str = "take the transactional id";
        self.expect(ACTION, &[Phase::New])?;
        let timeout = self.request_timeout;
        let Err(error) = self.guarded(ACTION, move |client| client.init_transactions(timeout))?
        else {
            self.phase = Phase::Ready;
            return Ok(());
        };
        Err(match self.meaning(ACTION, &error) {
            Meaning::Fatal => {
                let error = self
                    .fatal(ACTION)
                    .unwrap_or_else(|| self.doing(ACTION).of(&error));
                self.fail(error)
            }
            Meaning::Retry(code, said)
            | Meaning::Abort(code, said)
            | Meaning::Other(code, said) => {
                let said = match self.base().client().context().notes.last() {
                    Some(note) if said.is_empty() => note,
                    _ => said,
                };
                self.doing(ACTION).error(code, &said)
            }
        })
    }

    fn begin(&mut self) -> Result<(), LogError> {
        const ACTION: &str = "begin a transaction";
        self.expect(ACTION, &[Phase::Ready])?;
        match self.base().begin_transaction() {
            Ok(()) => {
                self.phase = Phase::Open;
                Ok(())
            }
            Err(error) => Err(match self.fatal(ACTION) {
                Some(fatal) => self.fail(fatal),
                None => self.doing(ACTION).of(&error),
            }),
        }
    }

    fn send(&mut self, record: NewRecord<'_>) -> Result<(), LogError> {
        self.hand_over(record)
    }

    fn send_all<'a>(
        &mut self,
        topic: &str,
        records: &mut dyn Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), LogError> {
        self.hand_over_all(topic, records)
    }

    fn flush(&mut self) -> Result<Delivered, LogError> {
        const ACTION: &str = DELIVER;
        // Each record has its own deadline, after which its delivery has failed.
        let deadline = Instant::now() + self.delivery_timeout + self.hang_timeout;
        if !self.drain(deadline) {
            return Err(LogError::TimedOut { action: ACTION });
        }
        self.delivered().map_err(|error| match self.fatal(ACTION) {
            Some(fatal) if self.phase == Phase::Plain => fatal,
            Some(fatal) => self.fail(fatal),
            None if self.phase == Phase::Open => self.fail(error),
            None => error,
        })
    }

    fn send_offsets(
        &mut self,
        offsets: &[OffsetCommit],
        group: &GroupMetadata,
    ) -> Result<(), LogError> {
        const ACTION: &str = "add offsets to the transaction";
        self.expect(ACTION, &[Phase::Open])?;
        let Some(membership) = group.0.downcast_ref::<Membership>() else {
            return Err(LogError::State {
                detail: "this membership is of another log".into(),
            });
        };
        check_sizes(offsets)?;
        if offsets.is_empty() {
            return Ok(());
        }
        if let Err(error) = membership.check(offsets) {
            return Err(self.fail(error));
        }
        let list = list_of_commits(offsets)?;
        let (timeout, metadata) = (self.request_timeout, Arc::clone(&membership.metadata));
        let answer = self.guarded(ACTION, move |client| {
            client.send_offsets_to_transaction(&list, &metadata, timeout)
        })?;
        let Err(error) = answer else { return Ok(()) };
        let doing = Doing::new(ACTION)
            .transactional_id(&self.transactional_id)
            .group(&membership.group)
            .instance_id(&membership.instance_id);
        let error = match self.meaning(ACTION, &error) {
            Meaning::Fatal => self.fatal(ACTION).unwrap_or_else(|| doing.of(&error)),
            Meaning::Abort(code, said)
            | Meaning::Retry(code, said)
            | Meaning::Other(code, said) => {
                match errors::kind(code) {
                    // Nothing is committed yet, so that giving the transaction up is always safe.
                    Some(Kind::Unreachable | Kind::TimedOut | Kind::State | Kind::MustAbort)
                    | None => LogError::MustAbort {
                        detail: format!("{code}: {said}"),
                    },
                    Some(_) => doing.error(code, &said),
                }
            }
        };
        Err(self.fail(error))
    }

    fn commit(&mut self) -> Result<(), LogError> {
        const ACTION: &str = "commit the transaction";
        self.expect(ACTION, &[Phase::Open])?;
        // Drained here: librdkafka's own flush, inside its commit, waits in steps of 100 ms.
        let deadline = Instant::now() + self.delivery_timeout + self.hang_timeout;
        if !self.drain(deadline) {
            return Err(self.fail(LogError::MustAbort {
                detail: "not all records were delivered in time".into(),
            }));
        }
        if lock(&self.base().client().context().tally).failed > 0 {
            let error = match (self.fatal(ACTION), self.delivered()) {
                (Some(fatal), _) => fatal,
                (None, Err(error @ LogError::NotAllowed { .. })) => error,
                (None, Err(error)) => LogError::MustAbort {
                    detail: error.to_string(),
                },
                (None, Ok(_)) => LogError::MustAbort {
                    detail: "a record was not delivered".into(),
                },
            };
            return Err(self.fail(error));
        }
        let timeout = self.request_timeout;
        let Err(error) = self.guarded(ACTION, move |client| client.commit_transaction(timeout))?
        else {
            self.phase = Phase::Ready;
            return Ok(());
        };
        let error = match self.meaning(ACTION, &error) {
            Meaning::Fatal => self
                .fatal(ACTION)
                .unwrap_or(LogError::UnknownOutcome { action: ACTION }),
            Meaning::Abort(code, said) => match errors::kind(code) {
                Some(Kind::StaleGeneration | Kind::Fenced | Kind::InstanceFenced) => {
                    self.doing(ACTION).error(code, &said)
                }
                _ => LogError::MustAbort {
                    detail: format!("{code}: {said}"),
                },
            },
            // The brokers may have taken it.
            Meaning::Retry(..) | Meaning::Other(..) => LogError::UnknownOutcome { action: ACTION },
        };
        Err(self.fail(error))
    }

    fn abort(&mut self) -> Result<(), LogError> {
        const ACTION: &str = "abort the transaction";
        self.expect(ACTION, &[Phase::Open, Phase::Doomed])?;
        // Records under way are let through: to drop them would cost the producer its epoch. In a transaction that has
        // failed librdkafka sends no more, so that there is less to wait for.
        let patience = match self.phase {
            Phase::Doomed => LET_THROUGH_DOOMED,
            _ => self.hang_timeout,
        };
        self.drain(Instant::now() + patience);
        let timeout = self.request_timeout;
        let answer = self.guarded(ACTION, move |client| {
            let queued = || PurgeConfig::default().queue();
            client.purge(queued());
            client.flush(timeout)?;
            let answer = client.abort_transaction(timeout);
            // librdkafka's abort asks its threads to drop what is queued and does not wait until they have: without this
            // wait they could drop records of the next transaction.
            client.purge(queued());
            answer
        })?;
        self.drain(Instant::now() + self.hang_timeout);
        // Records given up with their transaction are no failures to be reported later.
        lock(&self.base().client().context().tally).next();
        self.base().client().context().notes.refused_topics();
        self.transaction += 1;
        let Err(error) = answer else {
            self.phase = Phase::Ready;
            return Ok(());
        };
        let error = match self.meaning(ACTION, &error) {
            Meaning::Fatal => self
                .fatal(ACTION)
                .unwrap_or(LogError::UnknownOutcome { action: ACTION }),
            Meaning::Abort(..) | Meaning::Retry(..) | Meaning::Other(..) => {
                LogError::UnknownOutcome { action: ACTION }
            }
        };
        Err(self.fail(error))
    }
}
