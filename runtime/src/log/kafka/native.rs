//! What librdkafka offers and rust-rdkafka does not: a topic's id, a commit
//! with a deadline and an answer for each partition, many records in one call, a flush that reads no reports, and the end of a
//! client on a thread of its own.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::util::IntoOpaque;
use rdkafka_sys as sys;

use super::super::LogError;

/// A client that is handed to a function at its end instead of being dropped in place.
pub(super) struct Ending<T> {
    client: ManuallyDrop<T>,
    end: fn(T),
}

impl<T> Ending<T> {
    pub(super) fn with(client: T, end: fn(T)) -> Self {
        Self {
            client: ManuallyDrop::new(client),
            end,
        }
    }
}

impl<T> Deref for Ending<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.client
    }
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        // SAFETY: taken once, here; nothing uses the client afterwards.
        (self.end)(unsafe { ManuallyDrop::take(&mut self.client) });
    }
}

/// Runs what may block on a thread of its own.
pub(super) fn on_thread(run: impl FnOnce() + Send + 'static) {
    // Without a thread what `run` holds is dropped here.
    if let Err(error) = std::thread::Builder::new()
        .name("kafka-end".into())
        .spawn(run)
    {
        tracing::warn!(%error, "no thread could be started to end a Kafka client");
    }
}

/// Destroys a client on a thread of its own, since librdkafka may block there.
pub(super) fn destroy<T: Send + 'static>(client: T) {
    on_thread(move || drop(client));
}

/// Commits offsets of a consumer and waits for the answer, which speaks for each partition; `None` when none came in time.
pub(super) fn commit<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    offsets: &TopicPartitionList,
    timeout: Duration,
) -> Option<Result<(), RDKafkaErrorCode>> {
    let native = client.client().native_ptr();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let ok = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    // SAFETY: the client outlives the call; the queue and the event are made here and destroyed once; an answer that comes
    // later finds the queue closed and is dropped by librdkafka, which holds a reference of its own.
    unsafe {
        let queue = sys::rd_kafka_queue_new(native);
        let sent =
            sys::rd_kafka_commit_queue(native, offsets.ptr(), queue, None, std::ptr::null_mut());
        let answer = if sent == ok {
            let event = sys::rd_kafka_queue_poll(queue, timeout_ms);
            (!event.is_null()).then(|| {
                let mut code = sys::rd_kafka_event_error(event);
                let list = sys::rd_kafka_event_topic_partition_list(event);
                if code == ok && !list.is_null() {
                    let count = usize::try_from((*list).cnt).unwrap_or(0);
                    let failed = (0..count).map(|index| (*(*list).elems.add(index)).err);
                    code = failed.into_iter().find(|code| *code != ok).unwrap_or(ok);
                }
                sys::rd_kafka_event_destroy(event);
                if code == ok { Ok(()) } else { Err(code.into()) }
            })
        } else {
            Some(Err(sent.into()))
        };
        sys::rd_kafka_queue_destroy(queue);
        answer
    }
}

/// The id by which a group's broker knows this client; `None` outside the group.
pub(super) fn member_id<C: ConsumerContext>(client: &BaseConsumer<C>) -> Option<String> {
    let native = client.client().native_ptr();
    // SAFETY: the client outlives the call; the text is this call's own, ends with a zero byte, and is given back once.
    unsafe {
        let text = sys::rd_kafka_memberid(native);
        if text.is_null() {
            return None;
        }
        let id = CStr::from_ptr(text).to_string_lossy().into_owned();
        sys::rd_kafka_mem_free(native, text.cast());
        Some(id).filter(|id| !id.is_empty())
    }
}

/// Stands for the partition that the partitioner finds (`RD_KAFKA_PARTITION_UA`).
const BY_KEY: i32 = -1;

/// A record for [`produce_batch`]: key and value.
pub(super) type Keyed<'a> = (&'a [u8], &'a [u8]);

/// Hands records of one topic over in one call, spread by their keys, with the same mark for their delivery reports. Each one
/// that was not taken is passed to `refused` with the reason, in order.
///
/// # Errors
/// There can't be a topic of this name.
pub(super) fn produce_batch<'a>(
    client: *mut sys::rd_kafka_t,
    topic: &CStr,
    records: &[Keyed<'a>],
    mark: usize,
    mut refused: impl FnMut(Keyed<'a>, RDKafkaErrorCode),
) -> Result<(), RDKafkaErrorCode> {
    let ok = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let mut messages: Vec<_> = records
        .iter()
        .map(|(key, value)| sys::rd_kafka_message_t {
            err: ok,
            rkt: std::ptr::null_mut(),
            partition: BY_KEY,
            // librdkafka copies what these point to, and writes to none of it.
            payload: value.as_ptr().cast_mut().cast(),
            len: value.len(),
            key: key.as_ptr().cast_mut().cast(),
            key_len: key.len(),
            offset: 0,
            _private: mark.into_ptr(),
        })
        .collect();
    let count = i32::try_from(messages.len()).map_err(|_| RDKafkaErrorCode::InvalidArgument)?;
    // SAFETY: the client outlives the call; the topic's handle is made here and destroyed once; keys and values live as long
    // as `records`, and are copied before the call returns.
    unsafe {
        let handle = sys::rd_kafka_topic_new(client, topic.as_ptr(), std::ptr::null_mut());
        if handle.is_null() {
            return Err(sys::rd_kafka_last_error().into());
        }
        sys::rd_kafka_produce_batch(
            handle,
            BY_KEY,
            sys::RD_KAFKA_MSG_F_COPY,
            messages.as_mut_ptr(),
            count,
        );
        sys::rd_kafka_topic_destroy(handle);
    }
    for (record, message) in records.iter().zip(&messages) {
        if message.err != ok {
            refused(*record, message.err.into());
        }
    }
    Ok(())
}

/// Lets no record wait for others to share its batch, and waits until all are delivered or have failed, or the time is up. Of
/// a client that is told of failures only: it would wait for reports that nobody takes meanwhile.
pub(super) fn flush(client: *mut sys::rd_kafka_t, timeout: Duration) {
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives the call. Whether records are left is asked by the caller.
    unsafe { sys::rd_kafka_flush(client, timeout_ms) };
}

/// A topic as the brokers describe it.
pub(super) struct Described {
    /// 22 characters of base64.
    pub(super) id: String,
    pub(super) partitions: usize,
    /// Of the partition that has the fewest.
    pub(super) replicas: usize,
    /// Whether each partition has a leader.
    pub(super) ready: bool,
}

/// Asks for a topic (DescribeTopics). The error is the broker's code.
pub(super) fn describe_topic(
    client: *mut sys::rd_kafka_t,
    name: &str,
    timeout: Duration,
) -> Result<Described, (RDKafkaErrorCode, String)> {
    let invalid = |detail: &str| (RDKafkaErrorCode::InvalidTopic, detail.to_string());
    let c_name = CString::new(name).map_err(|_| invalid("a topic's name has no zero byte"))?;
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: every object is made here, used while it lives, and destroyed once below; librdkafka copies the names.
    unsafe {
        let mut names = [c_name.as_ptr()];
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
        let options = sys::rd_kafka_AdminOptions_new(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        let mut reason = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options,
            timeout_ms.max(1),
            reason.as_mut_ptr(),
            reason.len(),
        );
        let queue = sys::rd_kafka_queue_new(client);
        sys::rd_kafka_DescribeTopics(client, topics, options, queue);
        // The request has a timeout of its own, after which it answers; a little longer is waited for that answer.
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms.saturating_add(1000));
        let answer = if event.is_null() {
            Err((RDKafkaErrorCode::OperationTimedOut, String::new()))
        } else {
            read(event)
        };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(topics);
        answer
    }
}

/// Reads the answer out of an event.
///
/// # Safety
/// The event must be a valid one; what is returned does not borrow from it.
unsafe fn read(event: *mut sys::rd_kafka_event_t) -> Result<Described, (RDKafkaErrorCode, String)> {
    // SAFETY: the accessors return null or pointers that live as long as the event, each checked before it is followed.
    unsafe {
        let code = sys::rd_kafka_event_error(event);
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err((code.into(), text(sys::rd_kafka_event_error_string(event))));
        }
        let missing = || (RDKafkaErrorCode::UnknownTopicOrPartition, String::new());
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(missing());
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count == 0 {
            return Err(missing());
        }
        let topic = *topics;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code = sys::rd_kafka_error_code(error);
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err((code.into(), text(sys::rd_kafka_error_string(error))));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let id = if id.is_null() {
            String::new()
        } else {
            // librdkafka writes the alphabet that is not safe in URLs; Kafka's own tools write the other one.
            text(sys::rd_kafka_Uuid_base64str(id))
                .replace('+', "-")
                .replace('/', "_")
        };
        let mut partitions = 0;
        let of = sys::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let ready = partitions > 0
            && (0..partitions)
                .all(|index| !sys::rd_kafka_TopicPartitionInfo_leader(*of.add(index)).is_null());
        let replicas = (0..partitions)
            .map(|index| {
                let mut count = 0;
                sys::rd_kafka_TopicPartitionInfo_replicas(*of.add(index), &mut count);
                count
            })
            .min()
            .unwrap_or_default();
        Ok(Described {
            id,
            partitions,
            replicas,
            ready,
        })
    }
}

/// Copies a C string; empty for null.
///
/// # Safety
/// The pointer must be null or a valid C string.
unsafe fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and valid by this function's own condition.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

/// Every error code that librdkafka knows, by its own list.
#[cfg(test)]
pub(super) fn all_codes() -> Vec<RDKafkaErrorCode> {
    let (mut first, mut count) = (std::ptr::null(), 0);
    // SAFETY: librdkafka hands out a static array of `count` descriptions.
    unsafe {
        sys::rd_kafka_get_err_descs(&mut first, &mut count);
        (0..count)
            .map(|index| &*first.add(index))
            .filter(|description| !description.name.is_null())
            .map(|description| description.code.into())
            .collect()
    }
}

/// A topic's name as a C string.
pub(super) fn c_name(name: &str) -> Result<CString, LogError> {
    CString::new(name).map_err(|_| LogError::Config {
        detail: format!("the topic name {name:?} has a zero byte"),
    })
}
