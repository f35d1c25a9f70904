//! Records as they are read, batch by batch, and as they are written.

use std::fmt;

use super::{Offset, TopicPartition};

/// Records of one partition, in offset order, never empty. They are borrowed from the client's own buffers.
pub struct Batch {
    /// The partition they come from.
    pub partition: TopicPartition,
    records: Box<dyn Records>,
}

impl Batch {
    /// A batch over an implementation's buffers, which must hold at least one record.
    pub fn new(partition: TopicPartition, records: Box<dyn Records>) -> Self {
        debug_assert!(records.len() > 0, "a batch is never empty");
        Self { partition, records }
    }

    /// How many records there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The first `len` of its records; `None` if that is none.
    pub fn first(self, len: usize) -> Option<Self> {
        match len {
            0 => None,
            _ if len >= self.records.len() => Some(self),
            _ => Some(Self {
                partition: self.partition,
                records: Box::new(First {
                    records: self.records,
                    len,
                }),
            }),
        }
    }

    /// One record.
    pub fn get(&self, index: usize) -> Record<'_> {
        self.records.get(index)
    }

    /// One record's value; `None` is a tombstone. For those who look at nothing else of most records.
    pub fn value(&self, index: usize) -> Option<&[u8]> {
        self.records.value(index)
    }

    /// The value of one header of one record, the last of that name.
    pub fn header(&self, index: usize, name: &str) -> Option<&[u8]> {
        self.records.header(index, name)
    }

    /// All records in order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.records.len()).map(|index| self.records.get(index))
    }

    /// The position behind the last record: its offset plus one.
    pub fn next_position(&self) -> Offset {
        self.records.get(self.records.len() - 1).offset + 1
    }
}

/// The first of some records.
struct First {
    records: Box<dyn Records>,
    len: usize,
}

impl Records for First {
    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Record<'_> {
        self.records.get(index)
    }

    fn value(&self, index: usize) -> Option<&[u8]> {
        self.records.value(index)
    }

    fn header(&self, index: usize, name: &str) -> Option<&[u8]> {
        self.records.header(index, name)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({}, {} records)", self.partition, self.len())
    }
}

/// Where a batch's records live.
#[allow(clippy::len_without_is_empty)]
pub trait Records: Send {
    /// How many there are: at least one.
    fn len(&self) -> usize;
    /// One of them.
    fn get(&self, index: usize) -> Record<'_>;
    /// The value of one of them; `None` is a tombstone.
    fn value(&self, index: usize) -> Option<&[u8]> {
        self.get(index).value
    }
    /// The value of one header of one of them, the last of that name; `None` if it has none, or one without a value.
    fn header(&self, index: usize, name: &str) -> Option<&[u8]>;
}

/// A record as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp in milliseconds since 1970 (UTC), or −1.
    pub timestamp_ms: i64,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// To which topic.
    pub topic: &'a str,
    /// To which partition; `None`: by the hash of the key, as [`partition_for_key`](super::partition_for_key) says, or spread if there is no key.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Its timestamp in milliseconds since 1970 (UTC); `None`: the clock's.
    pub timestamp_ms: Option<i64>,
}
