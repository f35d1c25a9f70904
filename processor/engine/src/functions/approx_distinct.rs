//! `approx_distinct(x)`: how many values `x` takes, nulls left out. Exact up to 512 values; above, within 1.6 % (one
//! standard deviation) by a HyperLogLog of 2^12 registers.
//!
//! ```text
//!   value ──XXH64──▶ 64 bits ──the upper 48──▶ [ 12 bits: register | 36 bits: leading zeros + 1 ]
//! ```
//!
//! Up to 512 different hashes are kept as they are, 6 bytes each; then the registers take their place, 6 bits each. The
//! state is determined by the set of values alone, whatever way it came together. State, format 1: a byte 0 and the hashes
//! in ascending order, big-endian; or a byte 1 and the 4,096 registers, four in three bytes.
//!
//! The estimator is Ertl's improved one ("New cardinality estimation algorithms for HyperLogLog sketches", 2017): it needs
//! no table of biases and only operations that are exact by IEEE 754.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::codec::Reader;
use super::hash;
use super::table::{Logic, State, Table, each_row, grouped_only, state_fields};

const REGISTERS: usize = 1 << 12;
/// The bits behind those that choose the register.
const BITS: u32 = 36;
/// How many hashes are kept as they are: as many as take the registers' place.
const EXACT: usize = 512;
const HASH_BYTES: usize = 6;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ApproxDistinct {
    signature: Signature,
}

impl ApproxDistinct {
    const NAME: &'static str = "approx_distinct";

    pub(super) fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl AggregateUDFImpl for ApproxDistinct {
    grouped_only!();

    fn name(&self) -> &str {
        Self::NAME
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [data_type] if hash::can(data_type) => Ok(DataType::Int64),
            _ => plan_err!(
                "approx_distinct takes integers, floating-point numbers, texts, booleans, dates and timestamps"
            ),
        }
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(state_fields(&args))
    }

    fn create_groups_accumulator(
        &self,
        _: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Table::boxed(Distinct))
    }
}

struct Distinct;

impl Logic for Distinct {
    type State = Sketch;

    fn name(&self) -> &'static str {
        ApproxDistinct::NAME
    }

    fn update(
        &self,
        states: &mut [Sketch],
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
    ) -> Result<()> {
        let hashes = hash::column(&values[0])?;
        each_row(&values[0], groups, filter, |row, group| {
            states[group].insert(hashes[row] >> 16);
        });
        Ok(())
    }

    fn finish(&self, states: Vec<Sketch>) -> Result<ArrayRef> {
        let counts = states.iter().map(Sketch::count);
        Ok(Arc::new(Int64Array::from_iter_values(counts)))
    }
}

enum Sketch {
    /// Ascending.
    Exact(Vec<u64>),
    Registers(Box<[u8; REGISTERS]>),
}

impl Default for Sketch {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl Sketch {
    /// Takes in a hash of 48 bits.
    fn insert(&mut self, hash: u64) {
        match self {
            Self::Registers(registers) => raise(registers, hash),
            Self::Exact(hashes) => {
                if let Err(at) = hashes.binary_search(&hash) {
                    hashes.insert(at, hash);
                    if hashes.len() > EXACT {
                        *self = Self::Registers(self.take_registers());
                    }
                }
            }
        }
    }

    /// Takes the sketch as registers.
    fn take_registers(&mut self) -> Box<[u8; REGISTERS]> {
        match std::mem::take(self) {
            Self::Registers(registers) => registers,
            Self::Exact(hashes) => {
                let mut registers = Box::new([0; REGISTERS]);
                for hash in hashes {
                    raise(&mut registers, hash);
                }
                registers
            }
        }
    }

    fn count(&self) -> i64 {
        match self {
            Self::Exact(hashes) => hashes.len() as i64,
            Self::Registers(registers) => estimate(registers),
        }
    }
}

fn raise(registers: &mut [u8; REGISTERS], hash: u64) {
    let register = &mut registers[(hash >> BITS) as usize % REGISTERS];
    let rest = hash & ((1 << BITS) - 1);
    // At most 37.
    let rank = (rest.leading_zeros() - (u64::BITS - BITS) + 1) as u8;
    *register = (*register).max(rank);
}

impl State for Sketch {
    const VERSION: u8 = 1;

    fn write(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Exact(hashes) => {
                out.push(0);
                for hash in hashes {
                    out.extend_from_slice(&hash.to_be_bytes()[8 - HASH_BYTES..]);
                }
            }
            Self::Registers(registers) => {
                out.push(1);
                for four in registers.chunks_exact(4) {
                    let bits = four
                        .iter()
                        .fold(0, |bits, rank| bits << 6 | u32::from(*rank));
                    out.extend_from_slice(&bits.to_be_bytes()[1..]);
                }
            }
        }
    }

    fn merge(&mut self, mut bytes: Reader<'_>) -> Result<()> {
        match bytes.byte()? {
            0 => {
                let count = bytes.remaining() / HASH_BYTES;
                if !bytes.remaining().is_multiple_of(HASH_BYTES) || count > EXACT {
                    return Err(bytes.malformed("it has no whole number of hashes"));
                }
                let mut hashes = Vec::with_capacity(count);
                for _ in 0..count {
                    let mut hash = [0; 8];
                    hash[8 - HASH_BYTES..].copy_from_slice(bytes.bytes(HASH_BYTES)?);
                    let hash = u64::from_be_bytes(hash);
                    if hashes.last().is_some_and(|last| *last >= hash) {
                        return Err(bytes.malformed("its hashes do not ascend"));
                    }
                    hashes.push(hash);
                }
                match self {
                    Self::Exact(mine) if mine.is_empty() => *mine = hashes,
                    _ => hashes.into_iter().for_each(|hash| self.insert(hash)),
                }
            }
            1 => {
                let packed = bytes.bytes(REGISTERS / 4 * 3)?;
                if !bytes.is_empty() {
                    return Err(bytes.malformed("it has more than 4,096 registers"));
                }
                let mut theirs = [0; REGISTERS];
                for (four, packed) in theirs.chunks_exact_mut(4).zip(packed.chunks_exact(3)) {
                    let bits = u32::from_be_bytes([0, packed[0], packed[1], packed[2]]);
                    for (at, rank) in four.iter_mut().enumerate() {
                        *rank = (bits >> (18 - 6 * at)) as u8 & 0x3f;
                    }
                }
                if theirs.iter().any(|rank| u32::from(*rank) > BITS + 1) {
                    return Err(bytes.malformed("a register is above 37"));
                }
                let mut registers = self.take_registers();
                for (mine, theirs) in registers.iter_mut().zip(theirs) {
                    *mine = (*mine).max(theirs);
                }
                *self = Self::Registers(registers);
            }
            _ => return Err(bytes.malformed("it has neither hashes nor registers")),
        }
        Ok(())
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Exact(hashes) => 8 * hashes.capacity(),
            Self::Registers(_) => REGISTERS,
        }
    }
}

fn estimate(registers: &[u8; REGISTERS]) -> i64 {
    const M: f64 = REGISTERS as f64;
    let mut counts = [0_u32; BITS as usize + 2];
    for rank in registers {
        counts[usize::from(*rank)] += 1;
    }
    let full = f64::from(counts[BITS as usize + 1]);
    let mut z = M * tau(1.0 - full / M);
    for count in counts[1..=BITS as usize].iter().rev() {
        z = 0.5 * (z + f64::from(*count));
    }
    z += M * sigma(f64::from(counts[0]) / M);
    // 1 / (2 ln 2)
    (0.721_347_520_444_481_7 * M * M / z).round() as i64
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}
