//! What ends a run.

use std::error::Error;

use runtime::dead_letter::DeadLetterError;
use runtime::log::LogError;
use runtime::topics::Unfit;
use schemas::RegistryError;

use crate::input::{InputError, InputFault};
use crate::mapping::{BindError, MappingError};

/// Why a run ended before its input did. What was committed stays; the next start goes on behind it.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// Input files can't be used. Nothing was sent.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The mapping can't be used. Nothing was sent.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// No mapping was named, and none reads the first file's columns. Nothing was sent.
    #[error(
        "no mapping reads the columns of {file}, whose first line is `{first_line}`: pass --mapping with one of {shipped}, or with the path of a mapping file"
    )]
    NoMapping {
        /// The file.
        file: String,
        /// Its first line.
        first_line: String,
        /// The shipped mappings.
        shipped: String,
    },
    /// A file's header does not fit the mapping.
    #[error("{file}: {source}")]
    Header {
        /// The file.
        file: String,
        /// What does not fit.
        source: BindError,
    },
    /// The schema registry refused, or could not be reached.
    #[error("the schemas can't be registered")]
    Registry(#[from] RegistryError),
    /// A dead letter can't be encoded: a fault in this program.
    #[error("a dead letter can't be written")]
    DeadLetter(#[source] DeadLetterError),
    /// A topic can't be used.
    #[error("{detail}")]
    Topic {
        /// What is wrong, and what to do.
        detail: String,
    },
    /// A topic's settings would lose data.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The rate is no positive number.
    #[error("a rate of {0} rows a second can't be kept: pass a number above 0, or none")]
    Rate(f64),
    /// The file that the last run stopped in is not the one that it read.
    #[error(
        "{file} is not the file that was sent up to byte {byte} (line {line}): {what}. Put that file back to go on; or give the new one another name to send it as a new input set, all of it"
    )]
    Changed {
        /// The file.
        file: String,
        /// How far it was sent.
        byte: u64,
        /// The same in lines.
        line: u64,
        /// What is different.
        what: &'static str,
    },
    /// The files of the set come in another order than before.
    #[error(
        "the run stopped in {expected}, file {number} of the set, but that is {found} now: name the files in the order of the first run"
    )]
    Order {
        /// From 1.
        number: usize,
        /// The file that it was.
        expected: String,
        /// The file that it is.
        found: String,
    },
    /// A file was sent with another set.
    #[error(
        "{file} was already sent to {topic}, or a part of it, as a file of input set {input_set}: its rows would be sent twice. Leave it out, or pass --input-set {input_set} with all files of that set in their order, new ones behind them"
    )]
    SentBefore {
        /// The file.
        file: String,
        /// The topic.
        topic: String,
        /// The other set.
        input_set: String,
    },
    /// The recorded position can't be read, or does not fit.
    #[error("the position of input set {input_set} can't be used: {detail}")]
    Position {
        /// The set.
        input_set: String,
        /// What is wrong.
        detail: String,
    },
    /// Positions can't be read to the end, because a transaction of another producer stands open.
    #[error(
        "transactions that were open on {topic} did not end within {seconds} s: is another producer stuck?"
    )]
    OpenTransactions {
        /// The positions topic.
        topic: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A file that was fine at first can't be read any more. What was read of it is committed.
    #[error("{file} can't be read on behind line {line}")]
    Read {
        /// The file.
        file: String,
        /// How far it was read.
        line: u64,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file of a source that gives them one by one can't be used.
    #[error("{file} can't be used: {source}")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        source: InputFault,
    },
    /// The source of files failed.
    #[error("the next input file can't be had")]
    Source(#[source] Box<dyn Error + Send + Sync>),
    /// Another instance reads the same input.
    #[error(
        "another producer has started on the same input set {input_set}: this one stops, and leaves the rest to it"
    )]
    Fenced {
        /// The set.
        input_set: String,
        /// What the log says.
        source: LogError,
    },
    /// A failure that may pass did not, for too long.
    #[error("gave up after {attempts} attempts in {seconds} s")]
    GaveUp {
        /// How many.
        attempts: u32,
        /// For how long.
        seconds: u64,
        /// The last failure.
        source: LogError,
    },
    /// The log can't be used.
    #[error("the log can't be used")]
    Log(#[source] LogError),
}
