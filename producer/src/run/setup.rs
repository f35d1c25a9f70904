//! What must be there and fit before anything is sent.

use std::sync::Arc;
use std::time::Duration;

use runtime::dead_letter::{DeadLetterWriter, dlq_topic, dlq_wanted};
use runtime::log::{Log, LogError};
use runtime::topics::{Durability, Use, Wanted, check};
use schemas::record::{Codec, DeadLetter, Position};
use schemas::{Registry, RegistryError, SchemaId, shipped, value_subject};

use super::commit::Counted;
use super::options::Options;
use super::pace::Pace;
use super::recovery::Patience;
use super::transaction::Reading;
use super::{Failure, again};
use crate::error::ProducerError;
use crate::input::{InputSet, Next, Source, display_name, header};
use crate::mapping::{Mapping, RowEncoder};
use crate::position::POSITIONS_TOPIC;

/// How long a run waits at its start for a log or a registry that can't be reached.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The topics that a run needs, as they are created: the rows', the dead letters', and the compacted one of the positions.
pub fn topics(topic: &str, partitions: i32) -> [Wanted; 3] {
    [
        Wanted::new(topic, partitions, Use::Records),
        dlq_wanted(topic),
        Wanted::new(POSITIONS_TOPIC, 1, Use::Latest),
    ]
}

/// Creates those of [`topics`] that are not there.
///
/// # Errors
/// The log's.
pub fn setup_topics(
    log: &dyn Log,
    topic: &str,
    partitions: i32,
    durability: Durability,
) -> Result<(), LogError> {
    for wanted in topics(topic, partitions) {
        log.create_topic(&wanted.durable(durability).spec)?;
    }
    Ok(())
}

/// A run, prepared.
pub(super) struct Job {
    pub options: Options,
    pub set: InputSet,
    pub encoder: RowEncoder,
    /// The number of the rows' schema.
    pub row_schema: SchemaId,
    pub positions: Codec<Position>,
    pub partitions: usize,
    pub dead_letters: DeadLetterWriter,
    pub pace: Pace,
    /// The file at hand.
    pub reading: Option<Reading>,
    /// Rows that were committed before this run.
    pub read_before: i64,
    pub resumed: bool,
    pub row: Vec<u8>,
    pub in_transaction: bool,
    pub counted: Option<Counted>,
    /// How many rows had been committed when the log last said that another instance has taken over.
    pub fenced_at: Option<Option<u64>>,
}

impl Job {
    /// Checks everything that can be checked before the first row.
    pub fn prepare(mut options: Options) -> Result<Self, ProducerError> {
        if let Some(rate) = options.rate
            && !(rate.is_finite() && rate > 0.0)
        {
            return Err(ProducerError::Rate(rate));
        }
        let inputs = std::mem::replace(&mut options.inputs, Source::Files(Vec::new()));
        let mut set = InputSet::new(inputs, options.input_set.take(), &options.topic)?;
        let mapping = match options.mapping.take() {
            Some(mapping) => mapping,
            None => choose(&mut set, &options)?,
        };
        let subject = value_subject(&options.topic);
        let schema = match options.schema.take() {
            Some(schema) => schema,
            None => patiently(&options, |registry| registry.latest(&subject))?.map_or_else(
                || shipped::TAXI_TRIP.to_owned(),
                |(_, text)| text.to_string(),
            ),
        };
        let mut encoder = RowEncoder::compile(&mapping, &schema)?;
        check_headers(&mut set, &mut encoder)?;
        let dead_letters = dlq_topic(&options.topic);
        let partitions = check_topics(&options)?;
        let row_schema = patiently(&options, |registry| registry.register(&subject, &schema))?;
        let positions = patiently(&options, |registry| {
            Codec::new(registry, &value_subject(POSITIONS_TOPIC))
        })?;
        // The writer of dead letters asks for this at the first one: a registry that can't be reached shows now.
        patiently(&options, |registry| {
            Codec::<DeadLetter>::new(registry, &value_subject(&dead_letters))
        })?;
        let dead_letters = DeadLetterWriter::new(
            "producer",
            Arc::clone(&options.registry),
            options.edge_metrics.clone(),
        );
        options
            .progress
            .set_total_bytes(set.inputs.total_bytes().unwrap_or(0));
        let pace = Pace::new(options.rate);
        Ok(Self {
            options,
            set,
            encoder,
            row_schema,
            positions,
            partitions,
            dead_letters,
            pace,
            reading: None,
            read_before: 0,
            resumed: false,
            row: Vec::new(),
            in_transaction: false,
            counted: None,
            fenced_at: None,
        })
    }
}

/// The shipped mapping for the first file.
fn choose(set: &mut InputSet, options: &Options) -> Result<Mapping, ProducerError> {
    let path = loop {
        match set.inputs.file(0).map_err(ProducerError::Source)? {
            Next::File(path) => break path,
            Next::NotYet if options.lifecycle.phase() == runtime::lifecycle::Phase::Running => {
                std::thread::sleep(super::NAP);
            }
            // nothing will be read: any mapping does
            Next::NotYet | Next::NoMore => {
                return Ok(Mapping::read(
                    include_str!("../../mappings/headway.toml"),
                    "headway",
                ));
            }
        }
    };
    let file = display_name(&path);
    let header = header(&path).map_err(|source| ProducerError::File {
        file: file.clone(),
        source,
    })?;
    Mapping::for_header(&header).ok_or_else(|| ProducerError::NoMapping {
        file,
        first_line: header.join(",").chars().take(200).collect(),
        shipped: Mapping::shipped_names().collect::<Vec<_>>().join(", "),
    })
}

/// Checks the headers of all files that are known from the start.
fn check_headers(set: &mut InputSet, encoder: &mut RowEncoder) -> Result<(), ProducerError> {
    if !encoder.has_header() {
        return Ok(());
    }
    for (index, file) in set.names.iter().enumerate() {
        if let Next::File(path) = set.inputs.file(index).map_err(ProducerError::Source)? {
            let header = header(&path).map_err(|source| ProducerError::File {
                file: file.clone(),
                source,
            })?;
            encoder
                .bind(&header)
                .map_err(|source| ProducerError::Header {
                    file: file.clone(),
                    source,
                })?;
        }
    }
    Ok(())
}

/// The partitions of the rows' topic, once all three are known to be there and to fit.
fn check_topics(options: &Options) -> Result<usize, ProducerError> {
    let (log, topic) = (options.log.as_ref(), options.topic.as_str());
    let mut partitions = 0;
    for wanted in topics(topic, 1) {
        let name = wanted.spec.name.as_str();
        let found = again(
            &mut Patience::new(START_PATIENCE, options.lifecycle.clone()),
            || log.topic(name),
        )
        .map_err(|failure| match failure {
            Failure::Log(error) => ProducerError::Log(error),
            Failure::Other(error) => error,
        })?;
        let Some(found) = found else {
            return Err(ProducerError::Topic {
                detail: format!(
                    "there is no topic {name}: create the pipeline's topics with `headway setup`, or those of the producer with `producer --create-topics PARTITIONS`"
                ),
            });
        };
        check(&found, wanted.role, options.durability)?;
        if name == topic {
            partitions = usize::try_from(found.partitions).unwrap_or(0);
        }
    }
    Ok(partitions)
}

/// Asks the registry, again after a pause while it can't be reached.
fn patiently<T>(
    options: &Options,
    ask: impl Fn(Arc<dyn Registry>) -> Result<T, RegistryError>,
) -> Result<T, ProducerError> {
    let start = std::time::Instant::now();
    let mut pause = Duration::from_millis(100);
    let mut told = false;
    loop {
        match ask(Arc::clone(&options.registry)) {
            Err(error @ RegistryError::Unavailable { .. })
                if start.elapsed() < options.give_up_after.min(START_PATIENCE)
                    && !options.lifecycle.stopping() =>
            {
                if !told {
                    tracing::warn!(reason = %error, "waiting for the schema registry");
                    told = true;
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            answer => return answer.map_err(ProducerError::Registry),
        }
    }
}
