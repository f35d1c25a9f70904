//! Who shall have which partition: as even as can be, topic by topic, and with as few moves as can be.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::TopicPartition;

/// Spreads the partitions of each topic over the members that want it. Numbers of partitions of a topic differ by one
/// at most; the larger shares of a topic go to those who keep more of it, then to those who have least in all.
pub(super) fn assign(
    topics: &BTreeMap<Arc<str>, i32>,
    members: &BTreeMap<u64, &[Arc<str>]>,
    present: &BTreeMap<TopicPartition, u64>,
) -> BTreeMap<TopicPartition, u64> {
    let mut target = BTreeMap::new();
    let mut totals: BTreeMap<u64, usize> = members.keys().map(|member| (*member, 0)).collect();
    for (topic, partitions) in topics {
        let mut shares: BTreeMap<u64, Vec<i32>> = members
            .iter()
            .filter(|(_, wanted)| wanted.contains(topic))
            .map(|(member, _)| (*member, Vec::new()))
            .collect();
        if shares.is_empty() {
            continue;
        }
        let mut free = Vec::new();
        for partition in 0..*partitions {
            let holder = present.get(&TopicPartition::new(Arc::clone(topic), partition));
            match holder.and_then(|member| shares.get_mut(member)) {
                Some(share) => share.push(partition),
                None => free.push(partition),
            }
        }
        let least = *partitions as usize / shares.len();
        let mut larger = *partitions as usize % shares.len();
        let mut order: Vec<u64> = shares.keys().copied().collect();
        order.sort_by_key(|member| {
            (
                std::cmp::Reverse(shares[member].len()),
                totals[member],
                *member,
            )
        });
        let mut quotas = BTreeMap::new();
        for member in order {
            let extra = usize::from(larger > 0);
            larger -= extra;
            quotas.insert(member, least + extra);
        }
        for (member, share) in &mut shares {
            free.extend(share.drain(quotas[member].min(share.len())..));
        }
        free.sort_unstable();
        let mut free = free.into_iter();
        for (member, share) in &mut shares {
            share.extend(free.by_ref().take(quotas[member] - share.len()));
            *totals.entry(*member).or_default() += share.len();
            target.extend(
                share
                    .iter()
                    .map(|partition| (TopicPartition::new(Arc::clone(topic), *partition), *member)),
            );
        }
    }
    target
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topics(sizes: &[i32]) -> BTreeMap<Arc<str>, i32> {
        sizes
            .iter()
            .enumerate()
            .map(|(number, size)| (Arc::from(format!("t{number}")), *size))
            .collect()
    }

    proptest! {
        #[test]
        fn shares_are_even_complete_and_move_no_more_than_they_must(
            sizes in prop::collection::vec(1..12_i32, 1..3), before in 1..6_u64, after in 1..6_u64,
        ) {
            let topics = topics(&sizes);
            let names: Vec<Arc<str>> = topics.keys().cloned().collect();
            let members = |count: u64| (0..count).map(|member| (member, names.as_slice())).collect::<BTreeMap<_, _>>();
            let first = assign(&topics, &members(before), &BTreeMap::new());
            let second = assign(&topics, &members(after), &first);
            prop_assert_eq!(&assign(&topics, &members(after), &second), &second, "a second time nothing moves");
            for (topic, size) in &topics {
                let of = |target: &BTreeMap<TopicPartition, u64>, member: u64| {
                    target.iter().filter(|(partition, holder)| partition.topic == *topic && **holder == member).count()
                };
                let shares: Vec<usize> = (0..after).map(|member| of(&second, member)).collect();
                prop_assert_eq!(shares.iter().sum::<usize>(), *size as usize);
                prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
                // A member that gained gave nothing away.
                for member in 0..after.min(before) {
                    let kept = first.iter().filter(|(partition, holder)| {
                        partition.topic == *topic && **holder == member && second[*partition] == member
                    }).count();
                    prop_assert_eq!(kept, of(&first, member).min(of(&second, member)));
                }
            }
        }
    }
}
