//! The versions of what the processor leaves on the log: partials, snapshots, metadata of offsets, the record of the job.
//!
//! All of them go by one number, so that an application as a whole is written in one version. A release reads two versions,
//! and writes the one that stands in the record of the job ([`crate::record`]): the older one until every member is
//! upgraded, and the newer one from when somebody says so (`processor upgrade --finalize`). Until then any member may go
//! back to the release before.
//!
//! | version | what is new |
//! |---|---|
//! | 1 | |
//! | 2 | a checksum on every partials record and manifest: what a disk or a broker has damaged is refused, not folded |

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};

use engine::partial::{FORMAT_VERSION, OLDEST_FORMAT};

/// The oldest version that this program reads and writes.
pub const OLDEST: u32 = OLDEST_FORMAT;
/// The newest one.
pub const NEWEST: u32 = FORMAT_VERSION;

/// The record header that holds a CRC-32 (IEEE, big-endian) of the record's own header and its value, from version 2 on.
pub const CHECKSUM: &str = "headway-crc32";

/// The first version whose records have a checksum.
const WITH_CHECKSUM: u32 = 2;

/// Something on the log is in a version that is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is in format {found}, and this program reads {}: {}",
    readable(*.newest),
    match found > newest {
        true => "a newer release writes this application; start that one here too",
        false => "start the release before this one, and finalize its upgrade first (`processor upgrade --finalize`)",
    }
)]
pub struct FormatError {
    /// Its version.
    pub found: u32,
    /// The newest that is read.
    pub newest: u32,
}

fn readable(newest: u32) -> String {
    match newest {
        OLDEST => format!("format {OLDEST}"),
        newest => format!("formats {OLDEST} to {newest}"),
    }
}

/// Fails if this version is not between [`OLDEST`] and `newest`.
///
/// # Errors
/// It is not.
pub fn check(found: u32, newest: u32) -> Result<(), FormatError> {
    let read: RangeInclusive<u32> = OLDEST..=newest;
    match read.contains(&found) {
        true => Ok(()),
        false => Err(FormatError { found, newest }),
    }
}

/// Which versions a process reads, and which one it writes.
#[derive(Debug)]
pub struct Format {
    newest: u32,
    written: AtomicU32,
}

impl Format {
    /// Of a process that reads up to `newest` and writes `written`.
    pub fn new(newest: u32, written: u32) -> Self {
        Self {
            newest,
            written: AtomicU32::new(written),
        }
    }

    /// The newest version that is read.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// The version that is written.
    pub fn written(&self) -> u32 {
        self.written.load(Ordering::SeqCst)
    }

    /// Writes this version from now on, unless a newer one is written already. Whether that is news.
    pub fn raise(&self, version: u32) -> bool {
        self.written.fetch_max(version, Ordering::SeqCst) < version
    }
}

/// What the header [`CHECKSUM`] of a record says, in this version; `None`: it has no such header.
pub fn checksum(version: u32, header: &[u8], value: Option<&[u8]>) -> Option<[u8; 4]> {
    (version >= WITH_CHECKSUM).then(|| crc(header, value))
}

/// Whether a record is as it was written: its checksum, which may be missing in version 1 only.
pub fn is_whole(version: u32, found: Option<&[u8]>, header: &[u8], value: Option<&[u8]>) -> bool {
    match found {
        Some(found) => found == crc(header, value),
        None => version < WITH_CHECKSUM,
    }
}

fn crc(header: &[u8], value: Option<&[u8]>) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(value.unwrap_or_default());
    hasher.finalize().to_be_bytes()
}

/// What is behind a member's name for itself, so that others see what it reads.
const MARK: &str = ".f";

/// The client id of a member that reads up to `newest`. A slot's name ends in `-` and a number, so that the ids of
/// releases without a mark can be told from these.
pub(crate) fn client_id(application_id: &str, slot: &str, newest: u32) -> String {
    format!("{application_id}-{slot}{MARK}{newest}")
}

/// The newest version that a member of this client id reads.
pub(crate) fn read_by(client_id: &str) -> u32 {
    let marked = client_id.rsplit_once(MARK);
    marked.map_or(OLDEST, |(_, newest)| newest.parse().unwrap_or(OLDEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_without_a_mark_is_of_the_release_before_there_were_marks() {
        assert_eq!(read_by(&client_id("taxi", "a-0", 2)), 2);
        assert_eq!(read_by("taxi-a-0"), 1);
        assert_eq!(read_by("taxi.f7-a.f9-0"), 1);
        assert_eq!(read_by(&client_id("taxi.f7", "a.f9-0", 3)), 3);
    }

    #[test]
    fn a_version_that_is_not_read_is_refused_with_what_to_start() {
        assert_eq!(check(1, 2), Ok(()));
        assert_eq!(check(2, 2), Ok(()));
        let text = |found, newest| match check(found, newest) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        assert!(text(3, 2).contains("in format 3, and this program reads formats 1 to 2: a newer"));
        assert!(text(2, 1).contains("reads format 1: a newer release"));
        assert!(text(0, 2).contains("the release before this one"));
    }

    #[test]
    fn what_is_written_never_goes_back() {
        let format = Format::new(2, 1);
        assert!(format.raise(2));
        assert!(!format.raise(1) && !format.raise(2));
        assert_eq!(format.written(), 2);
    }
}
