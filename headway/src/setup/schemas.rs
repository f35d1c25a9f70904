//! One schema: registered, or compared.

use schemas::{Admin, RegistryError};
use schemas_tool::{Verdict, check, in_words, register};

use super::State;
use super::plan::Needed;

/// Registers a schema unless another stands there in its place, or `only_check` says that nothing may change.
pub(super) fn settle(
    registry: &dyn Admin,
    needed: &Needed,
    only_check: bool,
) -> Result<State, RegistryError> {
    let contract = std::slice::from_ref(&needed.contract);
    let verdict = check(registry, contract)?.pop();
    match verdict {
        Some(Verdict::First) if only_check => return Ok(State::Missing),
        Some(Verdict::Fits(id) | Verdict::Refused(id, _)) if needed.replaceable => {
            return Ok(State::Exists(format!("schema {id}")));
        }
        Some(Verdict::Refused(id, why)) => {
            return Ok(State::Differs(format!(
                "schema {id} is registered, which this one can't follow: {why}"
            )));
        }
        Some(Verdict::Fits(id)) if only_check => {
            return Ok(State::Exists(format!("schema {id}")));
        }
        Some(Verdict::First | Verdict::Fits(_)) | None => {}
    }
    let Some(evolved) = register(registry, contract)?.pop() else {
        return Ok(State::Missing);
    };
    let words = in_words(&evolved);
    Ok(if evolved.known() {
        State::Exists(words)
    } else {
        State::Created(words)
    })
}
