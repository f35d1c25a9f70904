//! How far an input set has been sent, as a record of the positions topic.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use runtime::log::{ConsumerOptions, Event, Log, LogError, Offset, TopicPartition};
use schemas::{Registry, SchemaId};

use crate::avro;
use crate::error::ProducerError;

/// The compacted topic of positions, one key for each input set.
pub const POSITIONS_TOPIC: &str = "headway.positions";

/// How far a set of input files has been sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The input set's id.
    pub input_set: String,
    /// The topic that the rows went to.
    pub topic: String,
    /// Which file is being read, from 0; the number of files when all are done.
    pub file_index: u32,
    /// The file's name; when all are done, the last one's.
    pub file: String,
    /// How many bytes of it have been taken.
    pub byte: u64,
    /// How many lines of it have been taken.
    pub line: u64,
    /// The hash of those bytes, in hexadecimal.
    pub sha256: String,
    /// Rows taken from all files so far.
    pub rows_read: u64,
    /// How many of them became dead letters.
    pub rows_rejected: u64,
    /// How many of them were sent to the topic.
    pub rows_delivered: u64,
    /// The same by partition.
    pub delivered_by_partition: Vec<u64>,
    /// Whether every file was read to its end.
    pub finished: bool,
}

impl Position {
    /// Which file to go on in.
    pub fn current_index(&self) -> usize {
        let index = self.file_index as usize;
        if self.finished {
            index.saturating_sub(1)
        } else {
            index
        }
    }

    /// Appends the Avro encoding (schemas/position.avsc) to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let long = |number: u64, out: &mut Vec<u8>| avro::long(number as i64, out);
        avro::bytes(self.input_set.as_bytes(), out);
        avro::bytes(self.topic.as_bytes(), out);
        avro::long(self.file_index.into(), out);
        avro::bytes(self.file.as_bytes(), out);
        long(self.byte, out);
        long(self.line, out);
        avro::bytes(self.sha256.as_bytes(), out);
        long(self.rows_read, out);
        long(self.rows_rejected, out);
        long(self.rows_delivered, out);
        if !self.delivered_by_partition.is_empty() {
            avro::long(self.delivered_by_partition.len() as i64, out);
            self.delivered_by_partition
                .iter()
                .for_each(|rows| long(*rows, out));
        }
        avro::long(0, out);
        out.push(self.finished.into());
    }

    fn from_value(value: Value) -> Option<Self> {
        let Value::Record(fields) = value else {
            return None;
        };
        let mut fields: HashMap<String, Value> = fields.into_iter().collect();
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let number = |value: Option<Value>| match value {
            Some(Value::Long(number)) => u64::try_from(number).ok(),
            Some(Value::Int(number)) => u64::try_from(number).ok(),
            _ => None,
        };
        let by_partition = match fields.remove("delivered_by_partition") {
            Some(Value::Array(rows)) => rows
                .into_iter()
                .map(|rows| number(Some(rows)))
                .collect::<Option<Vec<_>>>()?,
            _ => return None,
        };
        let finished = matches!(fields.remove("finished")?, Value::Boolean(true));
        Some(Self {
            input_set: text(fields.remove("input_set"))?,
            topic: text(fields.remove("topic"))?,
            file_index: u32::try_from(number(fields.remove("file_index"))?).ok()?,
            file: text(fields.remove("file"))?,
            byte: number(fields.remove("byte"))?,
            line: number(fields.remove("line"))?,
            sha256: text(fields.remove("sha256"))?,
            rows_read: number(fields.remove("rows_read"))?,
            rows_rejected: number(fields.remove("rows_rejected"))?,
            rows_delivered: number(fields.remove("rows_delivered"))?,
            delivered_by_partition: by_partition,
            finished,
        })
    }
}

/// Reads positions from the log.
pub struct PositionReader<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// Where their schemas are.
    pub registry: &'a dyn Registry,
    /// How long to wait for transactions that stand open on the topic.
    pub wait: Duration,
}

impl PositionReader<'_> {
    /// The newest position of every input set, as of now: it waits until transactions that are open now have ended,
    /// since one of them may hide a committed position behind it.
    ///
    /// # Errors
    /// [`ReadError`], whose log errors have their own class.
    pub fn newest(&self) -> Result<BTreeMap<String, Position>, ReadError> {
        let Some(topic) = self.log.topic(POSITIONS_TOPIC)? else {
            return Err(LogError::UnknownTopic {
                name: POSITIONS_TOPIC.into(),
            }
            .into());
        };
        let mut remaining: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        let mut starts = Vec::new();
        for number in 0..topic.partitions {
            let partition = TopicPartition::new(POSITIONS_TOPIC, number);
            let bounds = self.log.bounds(&partition)?;
            if bounds.start < bounds.end {
                starts.push((partition.clone(), bounds.start));
                remaining.insert(partition, bounds.end);
            }
        }
        let mut found = BTreeMap::new();
        if remaining.is_empty() {
            return Ok(found);
        }
        let mut schemas = HashMap::new();
        let mut consumer = self
            .log
            .consumer(&ConsumerOptions::new("headway-producer-positions"))?;
        consumer.assign(&starts)?;
        let deadline = Instant::now() + self.wait;
        while !remaining.is_empty() {
            match consumer.poll(Duration::from_millis(100), 1000)? {
                Some(Event::Records(batch)) => {
                    for record in batch.iter() {
                        self.take(record.key, record.value, &mut schemas, &mut found)?;
                    }
                    if remaining
                        .get(&batch.partition)
                        .is_some_and(|end| batch.next_position() >= *end)
                    {
                        remaining.remove(&batch.partition);
                    }
                }
                Some(Event::End {
                    partition,
                    position,
                }) => {
                    if remaining
                        .get(&partition)
                        .is_some_and(|end| position >= *end)
                    {
                        remaining.remove(&partition);
                    }
                }
                Some(Event::Assigned(_) | Event::Revoked(_) | Event::Lost(_)) | None => {}
            }
            if Instant::now() > deadline {
                return Err(ProducerError::OpenTransactions {
                    topic: POSITIONS_TOPIC.into(),
                    seconds: self.wait.as_secs(),
                }
                .into());
            }
        }
        consumer.close(Duration::from_secs(5))?;
        Ok(found)
    }

    fn take(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        known: &mut HashMap<SchemaId, Schema>,
        found: &mut BTreeMap<String, Position>,
    ) -> Result<(), ReadError> {
        let set = String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
        let Some(value) = value else {
            found.remove(&set);
            return Ok(());
        };
        let wrong = |detail: String| ProducerError::Position {
            input_set: set.clone(),
            detail,
        };
        let (id, mut body) =
            schemas::wire::unframe(value).map_err(|error| wrong(error.to_string()))?;
        if let std::collections::hash_map::Entry::Vacant(vacant) = known.entry(id) {
            let text = self.registry.by_id(id).map_err(ProducerError::Registry)?;
            vacant.insert(Schema::parse_str(&text).map_err(|error| wrong(error.to_string()))?);
        }
        let decoded = GenericDatumReader::builder(&known[&id])
            .build()
            .and_then(|reader| reader.read_value(&mut body))
            .map_err(|error| wrong(error.to_string()))?;
        let position =
            Position::from_value(decoded).ok_or_else(|| wrong("a field is missing".into()))?;
        found.insert(set, position);
        Ok(())
    }
}

/// Why positions could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Something else is wrong, for good.
    #[error(transparent)]
    Other(#[from] ProducerError),
}
