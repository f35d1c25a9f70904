//! The rows of reference tables, by key: immutable snapshots that scan looks rows up in.
//!
//! ```text
//!   rows, keys ──with──▶ Snapshot: parts, newest last ──with──▶ Snapshot … │ ──scan──▶ find ──▶ take, interleave
//!                        each a batch and an index of its keys             │  the same parts, shared
//! ```
//!
//! A change is a part on top, however large the table is: a part is merged with the one below it when that one has less
//! than four times its keys. So there are few parts to look into, and a key is moved a logarithmic number of times.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{interleave, interleave_record_batch, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

/// How many times as many keys as the part above it a part has at least.
const RATIO: usize = 4;

/// A key's bytes: equal where all of its columns are equal.
pub type Key = Arc<[u8]>;

/// The snapshots that one scan looks rows up in, by the tables' names.
pub type Tables = BTreeMap<String, Snapshot>;

/// The columns of a reference table and which of them are its key.
#[derive(Debug)]
pub struct Layout {
    columns: SchemaRef,
    key: Vec<usize>,
    converter: RowConverter,
}

impl Layout {
    /// A table with these columns, `key` among them.
    ///
    /// # Errors
    /// A key that is not among the columns, or is of a type without an order.
    pub fn new(columns: SchemaRef, key: &[String]) -> Result<Self, ArrowError> {
        let key = key
            .iter()
            .map(|name| columns.index_of(name))
            .collect::<Result<Vec<_>, _>>()?;
        let fields = key
            .iter()
            .map(|column| SortField::new(columns.field(*column).data_type().clone()))
            .collect();
        Ok(Self {
            converter: RowConverter::new(fields)?,
            columns,
            key,
        })
    }

    /// The columns.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// Each row's key; `None` where one of its columns is null, so that nothing can find the row.
    ///
    /// # Errors
    /// The batch has other columns.
    pub fn keys(&self, rows: &RecordBatch) -> Result<Vec<Option<Key>>, ArrowError> {
        let columns: Vec<ArrayRef> = self
            .key
            .iter()
            .map(|column| Arc::clone(rows.column(*column)))
            .collect();
        let keys = self.converter.convert_columns(&columns)?;
        Ok((0..rows.num_rows())
            .map(|row| {
                let whole = columns.iter().all(|column| column.is_valid(row));
                whole.then(|| Key::from(keys.row(row).data()))
            })
            .collect())
    }
}

/// A reference table as it is at one moment. Copies share everything.
#[derive(Clone, Debug)]
pub struct Snapshot {
    layout: Arc<Layout>,
    /// The newest last: what it says of a key hides what the others say.
    parts: Vec<Arc<Part>>,
}

#[derive(Debug)]
struct Part {
    rows: RecordBatch,
    /// Where each key's row is; `None`: the key is gone.
    index: Index,
}

type Index = HashMap<Key, Option<u32>, BuildHasherDefault<Fnv>>;

/// Where a row is: the part, and the row in it.
type Place = (usize, u32);

impl Snapshot {
    /// A table without rows.
    pub fn empty(layout: Arc<Layout>) -> Self {
        Self {
            layout,
            parts: Vec::new(),
        }
    }

    /// The table's columns and key.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The table with some keys changed, in their order: to a row of `rows`, or to none.
    ///
    /// # Errors
    /// `rows` has other columns than the table, or Arrow can't put so many rows together.
    pub fn with(
        &self,
        rows: &RecordBatch,
        changes: impl IntoIterator<Item = (Key, Option<u32>)>,
    ) -> Result<Self, ArrowError> {
        if rows.schema() != self.layout.columns {
            return Err(ArrowError::SchemaError(format!(
                "the rows of a reference table have the columns {}, not {}",
                rows.schema(),
                self.layout.columns
            )));
        }
        let mut index = Index::default();
        for (key, place) in changes {
            index.insert(key, place);
        }
        let mut parts = self.parts.clone();
        if parts.is_empty() {
            index.retain(|_, place| place.is_some());
        }
        if !index.is_empty() {
            parts.push(Arc::new(Part {
                rows: rows.clone(),
                index,
            }));
        }
        while let [.., below, above] = parts.as_slice() {
            if below.index.len() >= RATIO * above.index.len() {
                break;
            }
            let merged = below.merged(above, parts.len() == 2)?;
            parts.truncate(parts.len() - 2);
            parts.push(Arc::new(merged));
        }
        Ok(Self {
            layout: Arc::clone(&self.layout),
            parts,
        })
    }

    /// Where the row of each key is; nowhere for a key with a null. `keys` has the key's columns, in its types.
    pub(crate) fn find(&self, keys: &[ArrayRef]) -> Result<Vec<Option<Place>>, ArrowError> {
        let rows = self.layout.converter.convert_columns(keys)?;
        Ok(rows
            .iter()
            .enumerate()
            .map(|(row, key)| {
                if keys.iter().any(|column| column.is_null(row)) {
                    return None;
                }
                let key = key.data();
                let newest = self.parts.iter().enumerate().rev();
                let mut said = newest.filter_map(|(part, of)| Some((part, *of.index.get(key)?)));
                said.next().and_then(|(part, row)| Some((part, row?)))
            })
            .collect())
    }

    /// The values of a column in the rows that were found, null for the others.
    pub(crate) fn values(
        &self,
        column: usize,
        places: &[Option<Place>],
    ) -> Result<ArrayRef, ArrowError> {
        if let [part] = self.parts.as_slice() {
            let rows: UInt32Array = places.iter().map(|place| Some(place.as_ref()?.1)).collect();
            return take(part.rows.column(column), &rows, None);
        }
        let nothing = new_null_array(self.layout.columns.field(column).data_type(), 1);
        let mut arrays: Vec<&dyn Array> = Vec::with_capacity(self.parts.len() + 1);
        arrays.extend(
            self.parts
                .iter()
                .map(|part| part.rows.column(column).as_ref()),
        );
        arrays.push(&nothing);
        let places: Vec<(usize, usize)> = places
            .iter()
            .map(|place| match place {
                Some((part, row)) => (*part, *row as usize),
                None => (self.parts.len(), 0),
            })
            .collect();
        interleave(&arrays, &places)
    }

    /// How many rows the table has.
    pub fn rows(&self) -> usize {
        let mut seen = std::collections::HashSet::<&Key, BuildHasherDefault<Fnv>>::default();
        self.parts
            .iter()
            .rev()
            .flat_map(|part| &part.index)
            .filter(|(key, place)| seen.insert(key) && place.is_some())
            .count()
    }
}

impl Part {
    /// This part with the one above it; at the bottom, keys that are gone need not be remembered.
    fn merged(&self, above: &Self, bottom: bool) -> Result<Self, ArrowError> {
        let mut index = Index::default();
        let mut rows = Vec::with_capacity(self.index.len() + above.index.len());
        let kept = self
            .index
            .iter()
            .filter(|(key, _)| !above.index.contains_key(*key))
            .map(|said| (0, said));
        for (part, (key, place)) in kept.chain(above.index.iter().map(|said| (1, said))) {
            let place = match place {
                Some(row) => {
                    let place = u32::try_from(rows.len()).map_err(|_| {
                        ArrowError::ComputeError("a reference table has more than 2^32 rows".into())
                    })?;
                    rows.push((part, *row as usize));
                    Some(place)
                }
                None if bottom => continue,
                None => None,
            };
            index.insert(Arc::clone(key), place);
        }
        Ok(Self {
            rows: interleave_record_batch(&[&self.rows, &above.rows], &rows)?,
            index,
        })
    }
}

/// FNV-1a, 64 bits, mixed by the finaliser of SplitMix64. Without a random seed: no result depends on the hash.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn write_usize(&mut self, length: usize) {
        // A length in front of a key's bytes: one step is enough.
        self.0 = (self.0 ^ length as u64).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn finish(&self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }
}
