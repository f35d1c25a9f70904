//! `haversine_km(lat1, lon1, lat2, lon2)`: the great-circle distance in kilometres, on a sphere with the Earth's mean
//! radius. Degrees; null if an argument is.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// The Earth's mean radius, (2a + b) / 3 of WGS 84.
const RADIUS_KM: f64 = 6371.0088;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct HaversineKm {
    signature: Signature,
}

impl HaversineKm {
    pub(super) fn new() -> Self {
        Self {
            signature: Signature::exact(vec![DataType::Float64; 4], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for HaversineKm {
    fn name(&self) -> &str {
        "haversine_km"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(
            self.name(),
            DataType::Float64,
            nullable,
        )))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let arrays = args
            .args
            .iter()
            .map(|arg| arg.to_array(rows))
            .collect::<Result<Vec<_>>>()?;
        let columns: Vec<&Float64Array> = arrays
            .iter()
            .map(|array| array.as_primitive::<Float64Type>())
            .collect();
        let result: Float64Array = (0..rows)
            .map(|row| {
                let at = |column: usize| {
                    columns[column]
                        .is_valid(row)
                        .then(|| columns[column].value(row))
                };
                Some(distance_km(at(0)?, at(1)?, at(2)?, at(3)?))
            })
            .collect();
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &result, 0,
            )?));
        }
        Ok(ColumnarValue::Array(Arc::new(result)))
    }
}

fn distance_km(lat1: f64, lon1: f64, lat2: f64, lon2: f64) -> f64 {
    let half_lat = libm::sin((lat2 - lat1).to_radians() / 2.0);
    let half_lon = libm::sin((lon2 - lon1).to_radians() / 2.0);
    let chord = half_lat * half_lat
        + libm::cos(lat1.to_radians()) * libm::cos(lat2.to_radians()) * (half_lon * half_lon);
    // Rounding may carry the chord of antipodes a little above 1, where the arcsine has no value.
    2.0 * RADIUS_KM * libm::asin(chord.sqrt().min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_distances_come_out() {
        assert_eq!(distance_km(40.0, -74.0, 40.0, -74.0), 0.0);
        let quarter = std::f64::consts::FRAC_PI_2 * RADIUS_KM;
        assert!((distance_km(0.0, 0.0, 90.0, 0.0) - quarter).abs() < 1e-9);
        assert!((distance_km(0.0, 0.0, 0.0, 180.0) - 2.0 * quarter).abs() < 1e-6);
        // JFK to LaGuardia, about 17 km.
        assert!((distance_km(40.6413, -73.7781, 40.7769, -73.8740) - 17.11).abs() < 0.1);
    }
}
