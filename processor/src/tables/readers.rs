//! The threads that follow the topics of reference tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::follow::{Follow, FollowError};
use crate::job::Job;
use crate::run::{Options, ProcessorError};

/// A thread for each reference table that is a topic. They end when this goes.
pub(crate) struct Readers {
    stop: Arc<AtomicBool>,
    threads: Vec<(String, JoinHandle<Result<(), FollowError>>)>,
}

impl Readers {
    /// Begins to read. A reader that is refused its topic, or that panics, which is a fault of the program, sets `abandon`,
    /// so that the workers do not go on with a table that stands still.
    pub(crate) fn start(
        options: &Options,
        job: &Job,
        abandon: &Arc<AtomicBool>,
    ) -> Result<Self, ProcessorError> {
        let mut readers = Self {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for (name, layout, topic) in job.tables.topics() {
            let follow = Follow {
                name: name.to_owned(),
                layout: Arc::clone(layout),
                topic: topic.clone(),
                application_id: job.options.application_id.clone(),
                tables: Arc::clone(&job.tables),
                log: Arc::clone(&options.log),
                registry: Arc::clone(&options.registry),
                clock: Arc::clone(&options.clock),
                metrics: Arc::clone(&options.metrics),
                stop: Arc::clone(&readers.stop),
            };
            let slot = format!("reader of table {name}");
            let guard = Guard(Arc::clone(abandon));
            let spawned = std::thread::Builder::new()
                .name(format!("table-{name}"))
                .spawn(move || {
                    let result = follow.run();
                    if result.is_err() {
                        guard.0.store(true, Ordering::SeqCst);
                    }
                    result
                });
            match spawned {
                Ok(thread) => readers.threads.push((name.to_owned(), thread)),
                Err(error) => {
                    return Err(ProcessorError::Thread {
                        slot,
                        detail: error.to_string(),
                    });
                }
            }
        }
        Ok(readers)
    }

    /// Ends the readers, and waits for them.
    ///
    /// # Errors
    /// One of them was refused its topic, or panicked.
    pub(crate) fn end(mut self) -> Result<(), ProcessorError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), ProcessorError> {
        self.stop.store(true, Ordering::SeqCst);
        let mut result = Ok(());
        for (table, thread) in self.threads.drain(..) {
            let ended = match thread.join() {
                Ok(ended) => ended.map_err(|source| ProcessorError::Table {
                    table,
                    source: source.into(),
                }),
                Err(_) => Err(ProcessorError::Thread {
                    slot: format!("reader of table {table}"),
                    detail: "it panicked".into(),
                }),
            };
            result = result.and(ended);
        }
        result
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        // After `end` there is nothing left to join; without it another error is under way already.
        let _ = self.join();
    }
}

/// Sets a flag if its thread panics.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}
