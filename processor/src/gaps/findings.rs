//! Whether a partition can go on where it stands, and if not, where else.

use std::collections::BTreeMap;

use runtime::log::{Committed, Log, Offset, TopicPartition};

use super::ranges::{LastRange, each_header};
use super::{Finding, GapError, Way};
use crate::offsets::{self, Gap, MAX_GAPS, MAX_RANGE_GAPS, RangeGap, ShardState, SourceState};

pub(super) fn source_finding(
    partition: &TopicPartition,
    committed: &Committed,
    (start, end): (Offset, Offset),
    last: Option<LastRange>,
    (out_of_orderness_ms, format): (i64, u32),
) -> Result<Option<Finding>, GapError> {
    let finding = |what: String, way: Way| {
        Ok(Some(Finding {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            what,
            way,
        }))
    };
    let anew = "run the job under a new application id, or begin anew (`processor reset`)";
    match offsets::decode::<SourceState>(&committed.metadata) {
        Ok(_) if committed.offset > end => finding(
            format!(
                "it ends at {end}, before the committed offset {}: it lost records, or was deleted and created again",
                committed.offset
            ),
            Way::Not {
                instead: format!(
                    "what it has from now on would be taken for what was read already: {anew}"
                ),
            },
        ),
        Ok(mut state) if committed.offset < start => {
            let gap = Gap {
                from: committed.offset,
                to: start,
            };
            state.range_from = state.range_from.or(Some(committed.offset));
            let loses = format!("the rows from offset {} to {start}", committed.offset);
            let way = at(partition, start, (state, format), gap, loses)?;
            finding(
                format!(
                    "records from the committed offset {} to {start} are gone, and were not read",
                    committed.offset
                ),
                way,
            )
        }
        Ok(_) => Ok(None),
        Err(error) => {
            let what = format!("its committed offset {}: {error}", committed.offset);
            let Some(last) = last else {
                return finding(
                    what,
                    Way::Not {
                        instead: format!("how far it was read stands nowhere else: {anew}"),
                    },
                );
            };
            // Backwards, ranges would overlap: what was read is not read again.
            let offset = committed.offset.max(last.end).max(start);
            let state = SourceState {
                max_event_ms: last
                    .watermark
                    .map(|at| at.saturating_add(out_of_orderness_ms)),
                range_from: (offset > last.end).then_some(last.end),
                ..SourceState::default()
            };
            let loses = match offset > last.end {
                true => format!(
                    "the rows from offset {} to {offset}; and what was counted below",
                    last.end
                ),
                false => "what was counted below; no row".to_owned(),
            };
            let gap = Gap {
                from: 0,
                to: offset,
            };
            let way = at(partition, offset, (state, format), gap, loses)?;
            finding(what, way)
        }
    }
}

fn at(
    partition: &TopicPartition,
    offset: Offset,
    (mut state, format): (SourceState, u32),
    gap: Gap,
    loses: String,
) -> Result<Way, GapError> {
    if state.gaps.len() >= MAX_GAPS {
        return Err(GapError::Many {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            most: MAX_GAPS,
        });
    }
    state.gaps.push(gap);
    Ok(Way::At {
        offset,
        loses,
        metadata: offsets::encode(&state, format)?,
    })
}

pub(super) fn shard_finding(
    log: &dyn Log,
    application_id: &str,
    partition: &TopicPartition,
    committed: Option<Committed>,
    format: u32,
) -> Result<Option<Finding>, GapError> {
    let finding = |what: String, way: Way| {
        Some(Finding {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            what,
            way,
        })
    };
    let (offset, mut state) = match &committed {
        None => (0, ShardState::default()),
        Some(committed) => match offsets::decode::<ShardState>(&committed.metadata) {
            Ok(state) => (committed.offset, state),
            Err(error) => {
                let instead = "which results are out stands nowhere else: run the job under a new application id, or begin anew (`processor reset`)";
                let what = format!("its committed offset {}: {error}", committed.offset);
                return Ok(finding(
                    what,
                    Way::Not {
                        instead: instead.into(),
                    },
                ));
            }
        },
    };
    let mut gaps = Vec::new();
    let mut ends: BTreeMap<i32, Offset> = BTreeMap::new();
    each_header(log, application_id, partition, &mut |header| {
        let expected = ends.get(&header.partition).copied();
        if let Some(from) = expected.filter(|from| header.start > *from) {
            gaps.push(RangeGap {
                partition: header.partition,
                from,
                to: header.start,
            });
        }
        // What was taken before does not go back.
        let end = ends.entry(header.partition).or_insert(header.end);
        *end = header.end.max(*end);
    })?;
    gaps.retain(|gap| !state.gaps.contains(gap));
    if gaps.is_empty() {
        return Ok(None);
    }
    let ranges: Vec<String> = gaps
        .iter()
        .map(|gap| {
            format!(
                "{} to {} of source partition {}",
                gap.from, gap.to, gap.partition
            )
        })
        .collect();
    let ranges = ranges.join(", ");
    if state.gaps.len() + gaps.len() > MAX_RANGE_GAPS {
        return Err(GapError::Many {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            most: MAX_RANGE_GAPS,
        });
    }
    state.gaps.extend(gaps);
    Ok(finding(
        format!("its partials lack the ranges {ranges}"),
        Way::At {
            offset,
            loses: format!("this shard's rows from the ranges {ranges}"),
            metadata: offsets::encode(&state, format)?,
        },
    ))
}
