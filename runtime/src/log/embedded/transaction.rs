//! Transactions: who holds a transactional id, what stands in the open transaction, and how it ends.
//!
//! Records are written to their partitions at once; the decision to commit is one entry of the journal, the offsets
//! with it; the control records in the partitions follow. A transaction without a decision is aborted.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::{Committed, LogError, OffsetCommit, TopicPartition};
use super::Shared;
use super::catalog::GroupOffsets;
use super::frame::Builder;
use super::group::Membership;
use super::partition::{Partition, Written};
use super::signal::lock;

/// All transactional ids in use.
#[derive(Debug)]
pub(super) struct Transactions {
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    /// No open transaction's time is over before.
    first_deadline_ms: AtomicI64,
}

/// A transactional id.
#[derive(Debug)]
pub(super) struct Slot {
    id: String,
    epoch: AtomicU64,
    open: Mutex<Option<Open>>,
}

/// The open transaction.
#[derive(Debug)]
struct Open {
    txn: u64,
    deadline_ms: i64,
    partitions: BTreeMap<TopicPartition, Arc<Partition>>,
    offsets: GroupOffsets,
}

/// A transactional id, held by one producer until the next one takes it.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    slot: Arc<Slot>,
    epoch: u64,
    timeout: Duration,
}

impl Transactions {
    /// None yet.
    pub fn new() -> Self {
        Self {
            slots: Mutex::default(),
            first_deadline_ms: AtomicI64::new(i64::MAX),
        }
    }

    /// Takes a transactional id from whoever holds it, and aborts what that one left open.
    pub fn take(shared: &Shared, id: &str, timeout: Duration) -> Result<Hold, LogError> {
        let slot = Arc::clone(
            lock(&shared.transactions.slots)
                .entry(id.into())
                .or_insert_with(|| {
                    Arc::new(Slot {
                        id: id.into(),
                        epoch: AtomicU64::new(0),
                        open: Mutex::default(),
                    })
                }),
        );
        let mut open = lock(&slot.open);
        let epoch = slot.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        abort(shared, &mut open)?;
        drop(open);
        Ok(Hold {
            slot,
            epoch,
            timeout,
        })
    }

    /// Aborts transactions whose time is over, and fences their producers. To be called without any lock.
    pub fn expire(shared: &Shared) -> Result<(), LogError> {
        let now = shared.now_ms();
        let this = &shared.transactions;
        if now < this.first_deadline_ms.load(Ordering::SeqCst) {
            return Ok(());
        }
        this.first_deadline_ms.store(i64::MAX, Ordering::SeqCst);
        let slots: Vec<_> = lock(&this.slots).values().cloned().collect();
        for slot in slots {
            let mut open = lock(&slot.open);
            let Some(deadline_ms) = open.as_ref().map(|open| open.deadline_ms) else {
                continue;
            };
            if now < deadline_ms {
                this.first_deadline_ms
                    .fetch_min(deadline_ms, Ordering::SeqCst);
                continue;
            }
            tracing::warn!(
                transactional_id = slot.id,
                "aborted a transaction that stood open for too long"
            );
            slot.epoch.fetch_add(1, Ordering::SeqCst);
            abort(shared, &mut open)?;
        }
        Ok(())
    }
}

impl Hold {
    /// An error if another producer has taken the id.
    pub fn check(&self) -> Result<(), LogError> {
        if self.slot.epoch.load(Ordering::SeqCst) == self.epoch {
            return Ok(());
        }
        Err(LogError::Fenced {
            transactional_id: self.slot.id.clone(),
        })
    }

    fn open<'a>(&self, shared: &Shared, open: &'a mut Option<Open>) -> &'a mut Open {
        let hold = self;
        open.get_or_insert_with(|| {
            let timeout = i64::try_from(hold.timeout.as_millis()).unwrap_or(i64::MAX);
            let deadline_ms = shared.now_ms().saturating_add(timeout);
            shared
                .transactions
                .first_deadline_ms
                .fetch_min(deadline_ms, Ordering::SeqCst);
            Open {
                txn: shared.numbers.next(),
                deadline_ms,
                partitions: BTreeMap::new(),
                offsets: BTreeMap::new(),
            }
        })
    }

    /// Writes records in the open transaction.
    pub fn append(
        &self,
        shared: &Shared,
        partition: &Arc<Partition>,
        records: &mut Builder,
    ) -> Result<Written, LogError> {
        let mut slot = lock(&self.slot.open);
        self.check()?;
        let open = self.open(shared, &mut slot);
        let written = partition.append(records, open.txn, shared.now_ms())?;
        if !open.partitions.contains_key(&partition.name) {
            open.partitions
                .insert(partition.name.clone(), Arc::clone(partition));
        }
        Ok(written)
    }

    /// Adds offsets to the open transaction, if the member still has its place.
    pub fn add_offsets(
        &self,
        shared: &Shared,
        offsets: &[OffsetCommit],
        member: &Membership,
    ) -> Result<(), LogError> {
        let mut slot = lock(&self.slot.open);
        self.check()?;
        let group = shared.group(&member.group);
        let mut group = lock(&group);
        group.validate(member, shared)?;
        let mut catalog = lock(&shared.catalog);
        for commit in offsets {
            catalog
                .topic(&commit.partition.topic)?
                .partition(commit.partition.partition)?;
        }
        let open = self.open(shared, &mut slot);
        catalog.hold(open.txn, &member.group, offsets);
        let held = open.offsets.entry(member.group.clone()).or_default();
        for commit in offsets {
            let committed = Committed {
                offset: commit.offset,
                metadata: commit.metadata.clone(),
            };
            held.insert(commit.partition.clone(), committed);
        }
        Ok(())
    }

    /// Commits the open transaction.
    pub fn commit(&self, shared: &Shared) -> Result<(), LogError> {
        let mut slot = lock(&self.slot.open);
        self.check()?;
        let Some(open) = slot.as_ref() else {
            return Ok(());
        };
        lock(&shared.catalog).decide(open.txn, open.offsets.clone())?;
        let Some(open) = slot.take() else {
            return Ok(());
        };
        for partition in open.partitions.values() {
            partition.end_transaction(open.txn, true)?;
        }
        lock(&shared.catalog).carried_out(open.txn)?;
        drop(slot);
        shared.signal.raise();
        Ok(())
    }

    /// Aborts the open transaction.
    pub fn abort(&self, shared: &Shared) -> Result<(), LogError> {
        let mut slot = lock(&self.slot.open);
        self.check()?;
        abort(shared, &mut slot)
    }
}

fn abort(shared: &Shared, slot: &mut Option<Open>) -> Result<(), LogError> {
    let Some(open) = slot.as_ref() else {
        return Ok(());
    };
    for partition in open.partitions.values() {
        partition.end_transaction(open.txn, false)?;
    }
    lock(&shared.catalog).release(open.txn);
    *slot = None;
    shared.signal.raise();
    Ok(())
}

/// The number of the next transaction.
#[derive(Debug)]
pub(super) struct Numbers(AtomicU64);

impl Numbers {
    /// Counts on from the highest one that was used.
    pub fn after(highest: u64) -> Self {
        Self(AtomicU64::new(highest + 1))
    }

    /// A number that no other transaction has.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}
