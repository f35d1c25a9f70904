//! Whole batches of borrowed records, from a partition's own queue.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;

use super::super::{Batch, LogError, Offset, Record, Records, TopicPartition};
use super::context::lock;
use super::native;

/// Wakes a consumer's thread when something arrives for it.
#[derive(Debug, Default)]
pub(super) struct Waker {
    arrivals: Mutex<u64>,
    arrived: Condvar,
}

impl Waker {
    /// How much has arrived up to now: to be read before the queues are looked at.
    pub(super) fn arrivals(&self) -> u64 {
        *lock(&self.arrivals)
    }

    /// Says that something arrived.
    pub(super) fn wake(&self) {
        *lock(&self.arrivals) += 1;
        self.arrived.notify_all();
    }

    /// Waits until more has arrived than was `seen`, or until the time is over.
    pub(super) fn wait(&self, seen: u64, time: Duration) {
        let arrivals = lock(&self.arrivals);
        drop(
            self.arrived
                .wait_timeout_while(arrivals, time, |arrivals| *arrivals == seen)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// Called by librdkafka, under the queue's lock, when its queue is no longer empty.
///
/// # Safety
/// `waker` must be the pointer of a [`Waker`] that outlives the registration.
unsafe extern "C" fn on_arrival(_: *mut sys::rd_kafka_t, waker: *mut c_void) {
    // SAFETY: `PartitionQueue` keeps the waker alive until it has taken this callback back under the queue's lock.
    unsafe { &*waker.cast::<Waker>() }.wake();
}

/// The queue of one partition, apart from the consumer's main queue. `keep` is what keeps the client alive.
pub(super) struct PartitionQueue<K> {
    queue: *mut sys::rd_kafka_queue_t,
    partition: TopicPartition,
    keep: Arc<K>,
    _waker: Arc<Waker>,
}

// SAFETY: librdkafka's queues may be used from any thread; `K` and `Waker` are shared through `Arc`.
unsafe impl<K: Send + Sync> Send for PartitionQueue<K> {}

/// A consumer's main queue, only to be asked whether something is in it.
pub(super) struct MainQueue<K> {
    queue: *mut sys::rd_kafka_queue_t,
    _keep: Arc<K>,
}

// SAFETY: as for `PartitionQueue`.
unsafe impl<K: Send + Sync> Send for MainQueue<K> {}

impl<K> MainQueue<K> {
    /// The main queue of a consumer. `client` must be the client that `keep` keeps alive.
    pub(super) fn of(client: *mut sys::rd_kafka_t, keep: Arc<K>) -> Self {
        // SAFETY: the client lives as long as `keep`; for a client that is no consumer the queue is null.
        Self {
            queue: unsafe { sys::rd_kafka_queue_get_consumer(client) },
            _keep: keep,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        // SAFETY: the queue is valid until `drop` unless it is null.
        self.queue.is_null() || unsafe { sys::rd_kafka_queue_length(self.queue) } == 0
    }
}

impl<K> Drop for MainQueue<K> {
    fn drop(&mut self) {
        if !self.queue.is_null() {
            // SAFETY: the queue is valid, and destroyed once.
            unsafe { sys::rd_kafka_queue_destroy(self.queue) };
        }
    }
}

/// What a partition's queue brought.
pub(super) enum Fetched {
    Records(Batch),
    End(Offset),
    /// An error, with the offset it is about.
    Failed(RDKafkaErrorCode, String, Offset),
}

impl<K: Send + Sync + 'static> PartitionQueue<K> {
    /// Takes the queue of a partition, which must happen before the partition is assigned: then no record goes to the
    /// main queue.
    ///
    /// `client` must be the client that `keep` keeps alive, and a consumer.
    pub(super) fn take(
        client: *mut sys::rd_kafka_t,
        keep: Arc<K>,
        partition: &TopicPartition,
        waker: Arc<Waker>,
    ) -> Result<Self, LogError> {
        let topic = native::c_name(&partition.topic)?;
        // SAFETY: the client lives as long as `keep`; librdkafka copies the name.
        let queue = unsafe {
            sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition.partition)
        };
        if queue.is_null() {
            return Err(LogError::UnknownTopic {
                name: partition.to_string(),
            });
        }
        // SAFETY: the queue is valid until `drop`, which takes the callback back before the waker can go.
        unsafe {
            sys::rd_kafka_queue_forward(queue, ptr::null_mut());
            sys::rd_kafka_queue_cb_event_enable(
                queue,
                Some(on_arrival),
                Arc::as_ptr(&waker).cast_mut().cast(),
            );
        }
        Ok(Self {
            queue,
            partition: partition.clone(),
            keep,
            _waker: waker,
        })
    }

    /// What there is now, at most `most` records, without waiting; in order.
    pub(super) fn fetch(&self, most: usize) -> Vec<Fetched> {
        let mut messages: Vec<*mut sys::rd_kafka_message_t> = Vec::with_capacity(most);
        // SAFETY: the array has room for `most` pointers, and librdkafka says how many it wrote.
        unsafe {
            let count =
                sys::rd_kafka_consume_batch_queue(self.queue, 0, messages.as_mut_ptr(), most);
            messages.set_len(usize::try_from(count).unwrap_or(0));
        }
        let mut fetched = Vec::new();
        // SAFETY: librdkafka hands out valid messages.
        let is_record = |message: &*mut sys::rd_kafka_message_t| unsafe {
            (**message).err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        };
        if messages.iter().all(is_record) {
            self.end_run(&mut messages, &mut fetched);
            return fetched;
        }
        let mut run = Vec::new();
        for message in messages {
            // SAFETY: librdkafka hands out valid messages, which are ours until they are destroyed.
            let (code, offset) = unsafe { ((*message).err, (*message).offset) };
            if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                run.push(message);
                continue;
            }
            self.end_run(&mut run, &mut fetched);
            // SAFETY: as above; the message is destroyed once, here.
            let said = unsafe {
                let said = sys::rd_kafka_message_errstr(message);
                let said = if said.is_null() {
                    String::new()
                } else {
                    CStr::from_ptr(said).to_string_lossy().into_owned()
                };
                sys::rd_kafka_message_destroy(message);
                said
            };
            fetched.push(match RDKafkaErrorCode::from(code) {
                RDKafkaErrorCode::PartitionEOF => Fetched::End(offset),
                code => Fetched::Failed(code, said, offset),
            });
        }
        self.end_run(&mut run, &mut fetched);
        fetched
    }

    fn end_run(&self, run: &mut Vec<*mut sys::rd_kafka_message_t>, fetched: &mut Vec<Fetched>) {
        if !run.is_empty() {
            let records = Borrowed {
                messages: std::mem::take(run),
                _keep: Arc::clone(&self.keep),
            };
            fetched.push(Fetched::Records(Batch::new(
                self.partition.clone(),
                Box::new(records),
            )));
        }
    }
}

impl<K> Drop for PartitionQueue<K> {
    fn drop(&mut self) {
        // SAFETY: the queue is valid; once the callback is taken back, under the queue's lock, it can't run any more.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// Records in librdkafka's own buffers. The client lives at least as long as they do.
struct Borrowed<K> {
    messages: Vec<*mut sys::rd_kafka_message_t>,
    _keep: Arc<K>,
}

// SAFETY: the messages belong to this value alone, and librdkafka lets them be read and destroyed on any thread.
unsafe impl<K: Send + Sync> Send for Borrowed<K> {}

impl<K> Drop for Borrowed<K> {
    fn drop(&mut self) {
        for message in &self.messages {
            // SAFETY: each message is ours, and destroyed once.
            unsafe { sys::rd_kafka_message_destroy(*message) };
        }
    }
}

/// Bytes of a message: none for a null pointer, which is how librdkafka says that there is no key or value.
///
/// # Safety
/// The pointer must be null or valid for `len` bytes for as long as `'a`.
unsafe fn bytes<'a>(pointer: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: by this function's own condition.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast(), len) })
}

impl<K: Send + Sync> Records for Borrowed<K> {
    fn len(&self) -> usize {
        self.messages.len()
    }

    fn get(&self, index: usize) -> Record<'_> {
        let message = self.messages[index];
        // SAFETY: the message is valid as long as `self`, and so are key and value, which the record borrows from it.
        unsafe {
            let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let timestamp_ms = sys::rd_kafka_message_timestamp(message, &mut kind);
            Record {
                offset: (*message).offset,
                timestamp_ms,
                key: bytes((*message).key, (*message).key_len),
                value: bytes((*message).payload, (*message).len),
            }
        }
    }

    fn value(&self, index: usize) -> Option<&[u8]> {
        let message = self.messages[index];
        // SAFETY: the message is valid as long as `self`, and so is its value.
        unsafe { bytes((*message).payload, (*message).len) }
    }

    fn header(&self, index: usize, name: &str) -> Option<&[u8]> {
        let name = CString::new(name).ok()?;
        let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        let (mut headers, mut value, mut size) = (ptr::null_mut(), ptr::null(), 0);
        // SAFETY: the message is valid as long as `self`; its headers belong to it, and so do their values. librdkafka
        // parses them into the message on the first call, which is why this value is not shared between threads.
        unsafe {
            if sys::rd_kafka_message_headers(self.messages[index], &mut headers) != none
                || sys::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut size)
                    != none
            {
                return None;
            }
            bytes(value, size)
        }
    }
}
