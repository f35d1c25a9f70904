//! `anomaly_score(x)`: how many standard deviations a group's window is away from the group's windows before it.

use arrow::datatypes::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// The function as jobs name it, over a window's values: `anomaly_score(count(*))`. It is worked out when a window is
/// finished, from [`crate::history::History`].
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct AnomalyScore {
    signature: Signature,
}

impl AnomalyScore {
    pub(crate) const NAME: &'static str = "anomaly_score";

    pub(super) fn new() -> Self {
        Self {
            signature: Signature::numeric(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for AnomalyScore {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("anomaly_score is planned as a column and is not called")
    }
}
