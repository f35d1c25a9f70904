//! The version that an application is written in: that of its record.

use runtime::log::{GroupMember, Log};

use super::{RecordError, patiently, read, write};
use crate::format::{self, NEWEST, OLDEST};

/// In which version an application is written, and what its members read.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// The application.
    pub application_id: String,
    /// The version that it is written in.
    pub written: u32,
    /// Its members.
    pub members: Vec<Reading>,
}

/// A member, and the newest version that it reads.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The member, as the brokers know it.
    pub member: GroupMember,
    /// The version.
    pub newest: u32,
}

impl Upgrade {
    /// Looks at an application.
    ///
    /// # Errors
    /// No job has run under this id, or the log failed.
    pub fn of(log: &dyn Log, application_id: &str) -> Result<Self, RecordError> {
        let written = match read(log, application_id)? {
            Some(known) => known.version(),
            None => {
                return Err(RecordError::None {
                    application_id: application_id.into(),
                });
            }
        };
        let members = log
            .members(application_id)
            .map_err(|source| RecordError::Members {
                application_id: application_id.into(),
                source,
            })?;
        Ok(Self {
            application_id: application_id.into(),
            written,
            members: members
                .into_iter()
                .map(|member| Reading {
                    newest: format::read_by(&member.client_id),
                    member,
                })
                .collect(),
        })
    }

    /// Whether it is written in the newest version that this program knows.
    pub fn is_done(&self) -> bool {
        self.written >= NEWEST
    }

    /// Members that could not go on if it were.
    pub fn behind(&self) -> impl Iterator<Item = &Reading> {
        self.members.iter().filter(|member| member.newest < NEWEST)
    }

    /// Writes down that the application is written in the newest version from now on. Members take it up within seconds;
    /// those that can't read it stop.
    ///
    /// # Errors
    /// Its record is gone, or the log failed.
    pub fn finalize(&self, log: &dyn Log) -> Result<(), RecordError> {
        patiently(&mut || {
            write(log, &self.application_id, None, &mut |known| match known {
                Some(known) if known.v < NEWEST => {
                    let mut known = known;
                    known.v = NEWEST;
                    Ok(Some(known))
                }
                Some(_) => Ok(None),
                None => Err(RecordError::None {
                    application_id: self.application_id.clone(),
                }),
            })
        })
    }
}

/// In which version an application is written: for what is committed for it from outside.
///
/// # Errors
/// The log failed, or the record is in a version that is not read.
pub(crate) fn written(log: &dyn Log, application_id: &str) -> Result<u32, RecordError> {
    Ok(read(log, application_id)?.map_or(OLDEST, |known| known.version()))
}
