//! `h3_cell(lat, lon, res)`: the H3 cell of a place, as 15 hexadecimal digits.
//!
//! Degrees; the resolution is a literal from 0 (about 4,400,000 km² a cell) to 15 (about 1 m²). Null if a coordinate is
//! null or not one: latitudes go from −90 to 90, longitudes from −180 to 180.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion_common::{Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use h3o::{LatLng, Resolution};

const DIGITS: usize = 15;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct H3Cell {
    signature: Signature,
}

impl H3Cell {
    const NAME: &'static str = "h3_cell";

    pub(super) fn new() -> Self {
        let args = vec![DataType::Float64, DataType::Float64, DataType::Int64];
        Self {
            signature: Signature::exact(args, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for H3Cell {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.scalar_arguments.get(2) {
            Some(Some(value)) if resolution(value).is_some() => {}
            _ => return plan_err!("h3_cell wants a resolution from 0 to 15, as a number"),
        }
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [lat, lon, ColumnarValue::Scalar(level)] = args.args.as_slice() else {
            return internal_err!("h3_cell takes two coordinates and a literal");
        };
        let Some(level) = resolution(level) else {
            return exec_err!("h3_cell wants a resolution from 0 to 15");
        };
        let scalar = [lat, lon]
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let (lat, lon) = (lat.to_array(rows)?, lon.to_array(rows)?);
        let (lat, lon): (&Float64Array, &Float64Array) = (
            lat.as_primitive::<Float64Type>(),
            lon.as_primitive::<Float64Type>(),
        );
        let mut cells = StringBuilder::with_capacity(rows, DIGITS * rows);
        let mut digits = String::with_capacity(DIGITS);
        for row in 0..rows {
            let known = lat.is_valid(row) && lon.is_valid(row);
            match known.then(|| cell(lat.value(row), lon.value(row), level)) {
                Some(Some(cell)) => {
                    hexadecimal(cell, &mut digits);
                    cells.append_value(&digits);
                }
                _ => cells.append_null(),
            }
        }
        let cells = cells.finish();
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &cells, 0,
            )?));
        }
        Ok(ColumnarValue::Array(Arc::new(cells)))
    }
}

fn resolution(literal: &ScalarValue) -> Option<Resolution> {
    match literal.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(Some(level))) => u8::try_from(level)
            .ok()
            .and_then(|level| Resolution::try_from(level).ok()),
        _ => None,
    }
}

fn cell(lat: f64, lon: f64, level: Resolution) -> Option<u64> {
    let on_earth = (-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon);
    let place = on_earth.then(|| LatLng::new(lat, lon).ok()).flatten()?;
    Some(u64::from(place.to_cell(level)))
}

/// A cell's first hexadecimal digit is always 0 and left out.
fn hexadecimal(cell: u64, digits: &mut String) {
    digits.clear();
    for at in (0..DIGITS).rev() {
        // Below 16: a digit.
        digits.extend(char::from_digit((cell >> (4 * at)) as u32 & 0xf, 16));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(lat: f64, lon: f64, level: u8) -> Option<String> {
        let mut digits = String::new();
        hexadecimal(cell(lat, lon, level.try_into().unwrap())?, &mut digits);
        Some(digits)
    }

    #[test]
    fn known_cells_come_out() {
        // As the documentation of H3's other bindings gives them.
        for (lat, lon, level, known) in [
            (
                37.775_938_728_915_946,
                -122.417_950_630_187_99,
                9,
                "8928308280fffff",
            ),
            (37.361_559_3, -122.055_323_8, 7, "87283472bffffff"),
            (37.769_377, -122.388_903, 9, "89283082e73ffff"),
        ] {
            assert_eq!(text(lat, lon, level).unwrap(), known);
        }
        for level in 0..=15 {
            let whole = text(40.7484, -73.9857, level).unwrap();
            assert_eq!(whole.len(), DIGITS);
            assert_eq!(whole.parse::<h3o::CellIndex>().unwrap().to_string(), whole);
        }
        assert_eq!(text(90.01, 0.0, 5), None);
        assert_eq!(text(0.0, -180.01, 5), None);
        assert_eq!(text(f64::NAN, 0.0, 5), None);
    }
}
