//! The ledger for people.

use std::io::{self, Write};

use super::ledger::{Check, Ledger, QueryLedger, ResultsOf};

/// Prints the ledger, in colour if asked.
pub fn print(ledger: &Ledger, colour: bool, out: &mut impl Write) -> io::Result<()> {
    let producer = &ledger.producer;
    writeln!(out, "Ledger")?;
    line(
        out,
        "producer",
        &[
            ("read", producer.read),
            ("rejected", producer.rejected),
            ("delivered", producer.delivered),
        ],
    )?;
    for query in &ledger.queries {
        print_query(query, out)?;
    }
    if let Some(lake) = &ledger.lake {
        line(
            out,
            "lake",
            &[
                ("rows", lake.rows_in_files),
                ("files", lake.files_found),
                ("dead", lake.dead),
                ("waiting", lake.waiting),
            ],
        )?;
    }
    for check in &ledger.checks {
        print_check(check, colour, out)?;
    }
    for what in &ledger.unchecked {
        writeln!(out, "  {} {what}", painted("not checked", "33", colour))?;
    }
    let (verdict, code) = match (ledger.balanced, ledger.unchecked.is_empty()) {
        (true, true) => ("balanced: no row is missing, none is counted twice", "32"),
        (true, false) => (
            "balanced, as far as it is checked: no row is missing, none is counted twice",
            "32",
        ),
        (false, _) => ("NOT BALANCED: rows are missing or counted twice", "31"),
    };
    writeln!(out, "{}", painted(verdict, code, colour))
}

fn print_query(query: &QueryLedger, out: &mut impl Write) -> io::Result<()> {
    let counts = &query.counts;
    line(
        out,
        &counts.query,
        &[
            ("taken", counts.rows_in),
            ("kept", counts.kept),
            ("filtered", counts.filtered),
            ("dead", counts.dead + counts.undecodable),
            ("waiting", query.waiting),
        ],
    )?;
    // Rows, where each makes one pair; else the pairs are more than the rows.
    let mut figures = vec![
        ("merged", counts.merged),
        ("late", counts.late),
        ("in flight", query.in_flight),
    ];
    if counts.assigned != counts.kept {
        figures.insert(0, ("pairs with windows", counts.assigned));
    }
    if query.results_of != ResultsOf::Rows {
        line(out, "", &figures)?;
    }
    let mut figures = match query.results_of {
        ResultsOf::Windows => vec![
            ("windows closed", counts.closed),
            ("results", counts.emitted),
        ],
        ResultsOf::Groups => vec![("groups", counts.groups)],
        ResultsOf::Rows => vec![("results", counts.emitted)],
    };
    if query.emits_changes {
        figures.push(("changes", counts.changes));
    }
    line(out, "", &figures)?;
    if let Some(before) = &counts.predecessor {
        let mut figures = match query.results_of {
            ResultsOf::Windows => vec![
                ("windows", counts.windows_before),
                ("with pairs", counts.given_before),
            ],
            ResultsOf::Groups => vec![],
            ResultsOf::Rows => vec![("rows", counts.given_before)],
        };
        figures.extend(before.results.map(|results| ("results", results)));
        if query.emits_changes {
            figures.extend(before.changes.map(|changes| ("changes", changes)));
        }
        line(
            out,
            &format!("  given by {}:", before.application_id),
            &figures,
        )?;
    }
    if let Some(documents) = &query.documents {
        let mut figures = vec![
            ("documents", documents.documents),
            ("dead", documents.dead),
            ("waiting", documents.waiting),
        ];
        if let (true, Some(found)) = (
            query.results_of == ResultsOf::Windows,
            documents.final_documents,
        ) {
            figures.insert(1, ("of them final", found));
        }
        line(out, "", &figures)?;
    }
    Ok(())
}

fn line(out: &mut impl Write, part: &str, figures: &[(&str, u64)]) -> io::Result<()> {
    write!(out, "  {part:<18}")?;
    for (name, value) in figures {
        write!(out, " {name} {}", thousands(*value))?;
    }
    writeln!(out)
}

fn print_check(check: &Check, colour: bool, out: &mut impl Write) -> io::Result<()> {
    let mark = if check.holds {
        painted("ok", "32", colour)
    } else {
        painted("WRONG", "31", colour)
    };
    let (left, right) = (thousands(check.left), thousands(check.right));
    let sign = check.relation.sign();
    writeln!(out, "  {mark} {}: {left} {sign} {right}", check.says)
}

fn painted(text: &str, code: &str, colour: bool) -> String {
    if colour {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// A number with commas between its thousands.
pub fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1000), "1,000");
        assert_eq!(thousands(1234567), "1,234,567");
    }
}
