//! Consumer groups, seen from outside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;

use super::super::{GroupMember, LogError, TopicPartition};
use super::admin::{Admin, block_on};
use super::errors::Doing;

/// How long a question waits before it is asked again.
const PAUSE: Duration = Duration::from_millis(50);

impl Admin {
    pub(super) fn members(&self, group: &str) -> Result<Vec<GroupMember>, LogError> {
        let doing = Doing::new("list a group's members").group(group);
        let list = self.patiently(&mut || {
            match self.stable.fetch_group_list(Some(group), self.timeout) {
                Ok(list) => Ok(Some(list)),
                // Some brokers say so of a group that never was.
                Err(error)
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupIdNotFound) =>
                {
                    Ok(None)
                }
                Err(error) => Err(doing.of(&error)),
            }
        })?;
        let groups = list.iter().flat_map(|list| list.groups());
        let members = groups
            .filter(|found| found.name() == group)
            .flat_map(|found| found.members());
        Ok(members
            .map(|member| GroupMember {
                client_id: member.client_id().into(),
                host: member.client_host().into(),
                partitions: member.assignment().map(assigned).unwrap_or_default(),
            })
            .collect())
    }

    pub(super) fn delete_group(&self, group: &str) -> Result<(), LogError> {
        let doing = Doing::new("delete a group").group(group);
        self.patiently(&mut || {
            let answers = block_on(self.client.delete_groups(&[group], &self.request()));
            match answers
                .map_err(|error| doing.of(&error))?
                .into_iter()
                .next()
            {
                None | Some(Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound))) => Ok(()),
                Some(Err((_, RDKafkaErrorCode::NonEmptyGroup))) => Err(LogError::State {
                    detail: format!("group {group} has members: stop them first"),
                }),
                Some(Err((_, code))) => Err(doing.error(code, "")),
            }
        })
    }

    /// Asks again while the group's coordinator is loading or moving.
    fn patiently<T>(&self, ask: &mut dyn FnMut() -> Result<T, LogError>) -> Result<T, LogError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match ask() {
                Err(LogError::Unreachable { .. }) if Instant::now() + PAUSE < deadline => {
                    std::thread::sleep(PAUSE);
                }
                answer => return answer,
            }
        }
    }
}

/// The partitions in a member's assignment: Kafka's consumer protocol, ConsumerProtocolAssignment (KIP-38); what can't be
/// read is left out.
pub(super) fn assigned(bytes: &[u8]) -> Vec<TopicPartition> {
    let mut rest = bytes;
    let mut partitions = Vec::new();
    let mut read = || -> Option<()> {
        take::<2>(&mut rest)?;
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
            let (name, behind) = rest.split_at_checked(length)?;
            rest = behind;
            let topic: Arc<str> = std::str::from_utf8(name).ok()?.into();
            for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
                let partition = i32::from_be_bytes(take(&mut rest)?);
                partitions.push(TopicPartition::new(Arc::clone(&topic), partition));
            }
        }
        Some(())
    };
    // An assignment that is cut short has what came before.
    let _ = read();
    partitions.sort();
    partitions
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_as_the_protocol_has_it() {
        let mut bytes = vec![0, 1, 0, 0, 0, 2];
        bytes.extend(b"\0\x05trips\0\0\0\x02\0\0\0\x07\0\0\0\x01");
        bytes.extend(b"\0\x01a\0\0\0\x01\0\0\0\0");
        bytes.extend([0, 0, 0, 0]);
        let expected = [
            TopicPartition::new("a", 0),
            TopicPartition::new("trips", 1),
            TopicPartition::new("trips", 7),
        ];
        assert_eq!(assigned(&bytes), expected);
        assert_eq!(assigned(&bytes[..22]), [TopicPartition::new("trips", 7)]);
        assert!(assigned(&[]).is_empty());
    }
}
