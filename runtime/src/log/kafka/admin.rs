//! Topics, bounds and deletion.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset as ListOffset, TopicPartitionList};

use super::super::error::fewer;
use super::super::{Bounds, LogError, Offset, TopicDescription, TopicPartition, TopicSpec};
use super::context::ReaderContext;
use super::errors::{self, Doing};
use super::native::{self, Described};
use super::options::KafkaOptions;

/// How long a change of topics waits before it looks again whether it is done.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Admin {
    pub(super) client: AdminClient<DefaultClientContext>,
    /// Sees a partition's last stable offset as its end.
    pub(super) stable: BaseConsumer<ReaderContext>,
    /// Sees a partition's high watermark as its end.
    all: BaseConsumer<ReaderContext>,
    pub(super) timeout: Duration,
}

impl Admin {
    pub(super) fn new(
        options: &KafkaOptions,
        stable: BaseConsumer<ReaderContext>,
    ) -> Result<Self, LogError> {
        let client = options
            .administrator()
            .create()
            .map_err(|error| errors::of_creation(&error))?;
        let all = options
            .reader(false)
            .create_with_context(ReaderContext::new(Arc::default()))
            .map_err(|error| errors::of_creation(&error))?;
        Ok(Self {
            client,
            stable,
            all,
            timeout: options.request_timeout,
        })
    }

    pub(super) fn request(&self) -> AdminOptions {
        AdminOptions::new()
            .request_timeout(Some(self.timeout))
            .operation_timeout(Some(self.timeout))
    }

    pub(super) fn create_topic(&self, spec: &TopicSpec) -> Result<bool, LogError> {
        let doing = Doing::new("create a topic").name(&spec.name);
        let mut topic = NewTopic::new(
            &spec.name,
            spec.partitions,
            TopicReplication::Fixed(spec.replication),
        );
        for (key, value) in &spec.config {
            topic = topic.set(key, value);
        }
        let deadline = Instant::now() + self.timeout;
        loop {
            let answers = block_on(self.client.create_topics([&topic], &self.request()));
            let created = match answers
                .map_err(|error| doing.of(&error))?
                .into_iter()
                .next()
            {
                Some(Ok(_)) => true,
                Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                    // One that is being deleted is there and not there; it is waited for.
                    match self.describe(&spec.name, &doing)? {
                        Some(_) => false,
                        None if Instant::now() < deadline => {
                            std::thread::sleep(PAUSE);
                            continue;
                        }
                        None => {
                            return Err(LogError::TimedOut {
                                action: doing.action(),
                            });
                        }
                    }
                }
                Some(Err((_, RDKafkaErrorCode::InvalidTopic))) => {
                    return Err(LogError::Config {
                        detail: format!("{:?} is no name for a topic", spec.name),
                    });
                }
                Some(Err((_, code))) => return Err(doing.error(code, "")),
                None => {
                    return Err(LogError::State {
                        detail: "the brokers did not say whether a topic was created".into(),
                    });
                }
            };
            // Usable once its partitions have leaders.
            while !self
                .describe(&spec.name, &doing)?
                .is_some_and(|described| described.ready)
            {
                if Instant::now() >= deadline {
                    return Err(LogError::TimedOut {
                        action: doing.action(),
                    });
                }
                std::thread::sleep(PAUSE);
            }
            return Ok(created);
        }
    }

    pub(super) fn add_partitions(&self, name: &str, total: i32) -> Result<(), LogError> {
        let doing = Doing::new("add partitions to a topic").name(name);
        let found = self.describe(name, &doing)?;
        let before = found.ok_or_else(|| LogError::UnknownTopic { name: name.into() })?;
        let before = before.partitions as i32;
        if before == total {
            return Ok(());
        }
        if before > total {
            return Err(fewer(name, before, total));
        }
        let count = usize::try_from(total).unwrap_or(usize::MAX);
        let more = NewPartitions::new(name, count);
        let answers = block_on(self.client.create_partitions([&more], &self.request()));
        match answers
            .map_err(|error| doing.of(&error))?
            .into_iter()
            .next()
        {
            None | Some(Ok(_)) => {}
            Some(Err((_, code))) => return Err(doing.error(code, "")),
        }
        let deadline = Instant::now() + self.timeout;
        while !self
            .describe(name, &doing)?
            .is_some_and(|described| described.ready && described.partitions as i32 == total)
        {
            if Instant::now() >= deadline {
                return Err(LogError::TimedOut {
                    action: doing.action(),
                });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    pub(super) fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        let doing = Doing::new("delete a topic").name(name);
        let answers = block_on(self.client.delete_topics(&[name], &self.request()));
        match answers
            .map_err(|error| doing.of(&error))?
            .into_iter()
            .next()
        {
            None | Some(Ok(_)) => {}
            Some(Err((
                _,
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
            ))) => return Ok(()),
            Some(Err((_, code))) => return Err(doing.error(code, "")),
        }
        let deadline = Instant::now() + self.timeout;
        while self.describe(name, &doing)?.is_some() {
            if Instant::now() >= deadline {
                return Err(LogError::TimedOut {
                    action: doing.action(),
                });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn describe(&self, name: &str, doing: &Doing<'_>) -> Result<Option<Described>, LogError> {
        match native::describe_topic(self.client.inner().native_ptr(), name, self.timeout) {
            Ok(described) => Ok(Some(described)),
            Err((code, said)) => match doing.error(code, &said) {
                LogError::UnknownTopic { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    pub(super) fn topic(&self, name: &str) -> Result<Option<TopicDescription>, LogError> {
        let doing = Doing::new("describe a topic").name(name);
        let Some(described) = self.describe(name, &doing)? else {
            return Ok(None);
        };
        let answers = block_on(
            self.client
                .describe_configs([&ResourceSpecifier::Topic(name)], &self.request()),
        );
        let config = match answers
            .map_err(|error| doing.of(&error))?
            .into_iter()
            .next()
        {
            Some(Ok(resource)) => resource,
            // Deleted between the two questions.
            Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition)) | None => return Ok(None),
            Some(Err(code)) => return Err(doing.error(code, "")),
        };
        Ok(Some(TopicDescription {
            name: name.into(),
            id: described.id,
            partitions: i32::try_from(described.partitions).unwrap_or(i32::MAX),
            replication: i32::try_from(described.replicas).unwrap_or(i32::MAX),
            config: config
                .entries
                .into_iter()
                .filter_map(|entry| Some((entry.name, entry.value?)))
                .collect(),
        }))
    }

    pub(super) fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        // The stable offset first: then it can't be beyond the end.
        let (start, stable) = self.watermarks(&self.stable, partition)?;
        let (_, end) = self.watermarks(&self.all, partition)?;
        Ok(Bounds { start, stable, end })
    }

    fn watermarks(
        &self,
        client: &BaseConsumer<ReaderContext>,
        partition: &TopicPartition,
    ) -> Result<(Offset, Offset), LogError> {
        let name = partition.to_string();
        let doing = Doing::new("read a partition's bounds")
            .name(&name)
            .topic(&partition.topic);
        // Serves the client's log and error events, which nobody else polls.
        while client.poll(Duration::ZERO).is_some() {}
        // Asked for what is not there, librdkafka asks again until its time is over: so that is asked first.
        let described = self.describe(&partition.topic, &doing)?;
        let exists = described.is_some_and(|topic| {
            (0..topic.partitions).any(|p| i32::try_from(p) == Ok(partition.partition))
        });
        if !exists {
            return Err(LogError::UnknownTopic { name });
        }
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline
                .saturating_duration_since(Instant::now())
                .max(PAUSE);
            let asked = client.fetch_watermarks(&partition.topic, partition.partition, left);
            match asked.map_err(|error| doing.of(&error)) {
                // A leader that has moved, or a topic created again, of which the client hears only now.
                Err(LogError::Unreachable { .. }) if Instant::now() + PAUSE < deadline => {
                    std::thread::sleep(PAUSE);
                }
                answer => return answer,
            }
        }
    }

    pub(super) fn delete_records(
        &self,
        partition: &TopicPartition,
        before: Offset,
    ) -> Result<(), LogError> {
        let name = partition.to_string();
        let doing = Doing::new("delete records")
            .name(&name)
            .topic(&partition.topic);
        // Kafka takes an offset below the start for one out of range; here it is done already.
        if self.bounds(partition)?.start >= before {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            &partition.topic,
            partition.partition,
            ListOffset::Offset(before),
        )
        .map_err(|error| doing.of(&error))?;
        let answer = block_on(self.client.delete_records(&list, &self.request()))
            .map_err(|error| doing.of(&error))?;
        for element in answer.elements() {
            if let Err(error) = element.error() {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OffsetOutOfRange) {
                    let bounds = self.bounds(partition)?;
                    return Err(errors::out_of_range(
                        partition,
                        before,
                        bounds.start,
                        bounds.end,
                    ));
                }
                return Err(doing.of(&error));
            }
        }
        Ok(())
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an answer on this thread. Each request of the admin client has its own timeout, so that it ends.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park(),
        }
    }
}
